//! `calico-azure routes`: what the kernel's tables know of addresses, beside what the node's own routing table says.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::IpAddr;

use calico_azure_ebpf::abi::{PrefixKey4, PrefixKey6, route};
use clap::Args;
use serde::Serialize;

use super::show::names;
use super::{FINDING, Format, NodeArgs, OK, Outcome};
use crate::dataplane::Image;
use crate::dataplane::live::Live;
use crate::dataplane::pins::Pins;
use crate::policy::wire;
use crate::sources::links::{Link, Snapshot, snapshot};

/// What the kernel's tables know of addresses, and whether the node's own routes agree.
#[derive(Debug, Args)]
pub(super) struct RoutesArgs {
    #[command(flatten)]
    node: NodeArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// One prefix.
#[derive(Serialize)]
struct Row {
    prefix: String,
    kinds: Vec<&'static str>,
    /// Where they come from.
    origins: Vec<&'static str>,
    /// Where the node's own host route leads, of a pod; which have the address, of the node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    interfaces: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    /// What the node's own routes or addresses say otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    drift: Option<String>,
}

/// No bit of a route's kind: addresses of services, which have a table of their own.
const SERVICE: u32 = 1 << 31;

/// Bits of a route, what they are called, and who says so.
const KINDS: [(u32, &str, &str); 7] = [
    (SERVICE, "service", "service"),
    (route::LOCAL_WORKLOAD, "local-workload", "pod"),
    (route::LOCAL_POD_CIDR, "local-pod-cidr", "node"),
    (route::LOCAL_HOST, "local-host", "node or interface"),
    (route::REMOTE_POD_CIDR, "remote-pod-cidr", "node"),
    (route::REMOTE_HOST, "remote-host", "node"),
    (route::ALLOWED_SOURCE, "allowed-source", "flag"),
];

impl RoutesArgs {
    pub(super) fn run(self, out: &mut dyn Write) -> Outcome {
        let pins = Pins::new(&self.node.bpffs, &self.node.pin_name())?;
        let image = Live::open(&pins)?.read()?;
        let (links, names) = (snapshot()?, names(&self.node));
        let endpoint = |ifindex: u32| {
            let (_, endpoint) = names.get(&ifindex)?;
            (!endpoint.is_empty()).then(|| endpoint.clone())
        };
        let v4 = image.routes4.iter();
        let v4 = v4.map(|(key, bits)| (IpAddr::from(wire::ipv4(key.addr)), key.len, *bits & route::KINDS));
        let v6 = image.routes6.iter();
        let v6 = v6.map(|(key, bits)| (IpAddr::from(wire::ipv6(key.addr)), key.len, *bits & route::KINDS));
        let mut known: Vec<(IpAddr, u32, u32)> = v4.chain(v6).collect();
        known.extend(services(&image));
        known.sort_unstable();
        let ports = ports(&links, &image);
        let row = |(address, length, bits): (IpAddr, u32, u32)| {
            let at = ways(&links, &ports, address, bits);
            let pod = at.first().filter(|_| bits & route::LOCAL_WORKLOAD != 0);
            Row {
                prefix: format!("{address}/{length}"),
                kinds: of(bits, |(_, kind, _)| kind),
                origins: of(bits, |(_, _, origin)| origin),
                endpoint: pod.and_then(|(ifindex, _)| endpoint(*ifindex)),
                drift: drift(bits, !at.is_empty()),
                interfaces: at.into_iter().map(|(_, name)| name.to_owned()).collect(),
            }
        };
        let rows: Vec<Row> = known.into_iter().map(row).collect();
        if self.output == Format::Json {
            serde_json::to_writer_pretty(&mut *out, &rows)?;
            writeln!(out)?;
        } else {
            table(&rows, out)?;
        }
        let agree = rows.iter().all(|row| row.drift.is_none());
        Ok(if agree { OK } else { FINDING })
    }
}

/// Of each service's addresses; what is a node's own, for its node ports, is known as that.
fn services(image: &Image) -> BTreeSet<(IpAddr, u32, u32)> {
    let v4 = image
        .services4
        .keys()
        .map(|key| (key.addr, IpAddr::from(wire::ipv4(key.addr))));
    let v4 = v4.filter(|(addr, _)| !image.routes4.contains_key(&PrefixKey4 { len: 32, addr: *addr }));
    let v6 = image
        .services6
        .keys()
        .map(|key| (key.addr, IpAddr::from(wire::ipv6(key.addr))));
    let v6 = v6.filter(|(addr, _)| {
        !image.routes6.contains_key(&PrefixKey6 {
            len: 128,
            addr: *addr,
        })
    });
    let v4 = v4.map(|(_, address)| (address, 32, SERVICE));
    v4.chain(v6.map(|(_, address)| (address, 128, SERVICE))).collect()
}

fn of(bits: u32, part: impl Fn((u32, &'static str, &'static str)) -> &'static str) -> Vec<&'static str> {
    let mut parts: Vec<_> = KINDS
        .into_iter()
        .filter(|(bit, ..)| bits & bit != 0)
        .map(part)
        .collect();
    parts.dedup();
    parts
}

/// Pods' addresses behind ports of a bridge: the node has a route to the bridge only, and the bridge learns the rest from packets.
fn ports(links: &Snapshot, image: &Image) -> BTreeSet<(u32, IpAddr)> {
    let v4 = image.owners4.keys();
    let v4 = v4.map(|key| (key.ifindex, IpAddr::from(wire::ipv4(key.addr))));
    let v6 = image.owners6.keys();
    let v6 = v6.map(|key| (key.ifindex, IpAddr::from(wire::ipv6(key.addr))));
    let port = |(ifindex, _): &(u32, IpAddr)| links.links.get(ifindex).is_some_and(|link| link.master != 0);
    v4.chain(v6).filter(port).collect()
}

/// Where the node itself has the address, or sends what is for it. A plug-in may give one gateway's address to every pod's interface.
fn ways<'a>(
    links: &'a Snapshot,
    ports: &BTreeSet<(u32, IpAddr)>,
    address: IpAddr,
    bits: u32,
) -> Vec<(u32, &'a str)> {
    let here = |ifindex: u32, link: &Link| {
        if bits & route::LOCAL_WORKLOAD != 0 {
            link.host_routes.contains(&address) || ports.contains(&(ifindex, address))
        } else {
            bits & route::LOCAL_HOST != 0 && link.addresses.contains(&address)
        }
    };
    let found = links.links.iter().filter(|(ifindex, link)| here(**ifindex, link));
    found
        .map(|(ifindex, link)| (*ifindex, link.name.as_str()))
        .collect()
}

fn drift(bits: u32, found: bool) -> Option<String> {
    let what = if bits & route::LOCAL_WORKLOAD != 0 {
        "the node has no host route to it"
    } else if bits & route::LOCAL_HOST != 0 {
        "no interface of the node has it"
    } else {
        return None;
    };
    (!found).then(|| what.to_owned())
}

fn table(rows: &[Row], out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{:<28} {:<32} {:<18} {:<16} ENDPOINT",
        "PREFIX", "KINDS", "FROM", "INTERFACE"
    )?;
    for row in rows {
        let (kinds, origins) = (row.kinds.join(","), row.origins.join(","));
        let interface = match row.interfaces.as_slice() {
            [] => "-".to_owned(),
            [one] => one.clone(),
            [one, others @ ..] => format!("{one} +{}", others.len()),
        };
        let endpoint = row.endpoint.as_deref().unwrap_or("-");
        writeln!(
            out,
            "{:<28} {kinds:<32} {origins:<18} {interface:<16} {endpoint}",
            row.prefix
        )?;
        if let Some(drift) = &row.drift {
            writeln!(out, "  drift: {drift}")?;
        }
    }
    Ok(())
}
