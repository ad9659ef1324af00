//! `calico-azure routes`: what the kernel's tables know of addresses, beside what the node's own routing table says; and, where they are
//! asked, what nodes' objects and Azure say.

mod compare;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;

use calico_azure_ebpf::abi::route;
use clap::Args;
use ipnet::IpNet;
use serde::Serialize;
use serde_json::Value;

use self::compare::Others;
use super::show::names;
use super::{FINDING, Format, NodeArgs, OK, Outcome};
use crate::agent::status_path;
use crate::azure::arm::{Gathered, Session, Timing};
use crate::azure::config::CloudConfig;
use crate::azure::nodes::{self, NodeState};
use crate::azure::snapshot::{Settings, Snapshot as AzureSnapshot};
use crate::dataplane::Image;
use crate::dataplane::live::Live;
use crate::dataplane::pins::Pins;
use crate::policy::wire;
use crate::sources::kube::{self, KubeConfig};
use crate::sources::links::{Link, Snapshot, snapshot};

/// What the kernel's tables know of addresses, and whether the node's own routes agree; nodes' objects and Azure, too, if they are asked.
#[derive(Debug, Args)]
pub(super) struct RoutesArgs {
    #[command(flatten)]
    node: NodeArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Ask nodes' objects, too: from a file that `kubectl get nodes -o json` (or yaml) has written.
    #[arg(long, value_name = "FILE")]
    nodes: Option<PathBuf>,
    /// The same from the API server, by a kubeconfig file, or several with colons between.
    #[arg(long, value_name = "FILE", conflicts_with = "nodes")]
    kubeconfig: Option<PathBuf>,
    /// The same as the pod's service account.
    #[arg(long, conflicts_with_all = ["nodes", "kubeconfig"])]
    in_cluster: bool,
    /// Ask Azure's route table and virtual network, too, as this azure.json says. Nodes' objects must be asked then.
    #[arg(long, value_name = "FILE")]
    cloud_config: Option<PathBuf>,
    /// Ask the fabric what it does at this node's interface. Takes seconds.
    #[arg(long, requires = "cloud_config")]
    effective_routes: bool,
}

/// One prefix.
#[derive(Debug, Default, Serialize)]
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
    /// Whose it is by nodes' objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// Where Azure's route table sends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    azure: Option<String>,
    /// Where the fabric does.
    #[serde(skip_serializing_if = "Option::is_none")]
    fabric: Option<String>,
    /// What the node's own routes or addresses, or others that were asked, say otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    drift: Option<String>,
}

impl Row {
    fn of(net: IpNet, kind: &'static str, origin: &'static str) -> Self {
        Self {
            prefix: net.to_string(),
            kinds: vec![kind],
            origins: vec![origin],
            ..Self::default()
        }
    }

    fn drifts(&mut self, what: String) {
        match &mut self.drift {
            Some(drift) => {
                drift.push_str("; ");
                drift.push_str(&what);
            }
            drift => *drift = Some(what),
        }
    }
}

/// No bit of a route's kind either: addresses of other nodes' pods, where policy tells them from the rest of their prefix.
const REMOTE_WORKLOAD: u32 = 1 << 30;

/// No bit of a route's kind: addresses of services, which have a table of their own.
const SERVICE: u32 = 1 << 31;

/// Bits of a route, what they are called, and who says so.
const KINDS: [(u32, &str, &str); 8] = [
    (SERVICE, "service", "service"),
    (route::LOCAL_WORKLOAD, "local-workload", "pod"),
    (REMOTE_WORKLOAD, "remote-workload", "pod"),
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
        let remote = remote_workloads(&image, &known);
        known.extend(remote);
        add_services(&image, &links, &mut known);
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
                ..Row::default()
            }
        };
        let mut rows: Vec<Row> = known.into_iter().map(row).collect();
        self.ask_others(&mut rows)?;
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

impl RoutesArgs {
    /// Nodes' objects, if they are to be asked.
    fn read_nodes(&self) -> Result<Option<Vec<NodeState>>, Box<dyn std::error::Error>> {
        if let Some(path) = &self.nodes {
            let at = |error: String| format!("{}: {error}", path.display());
            let text = std::fs::read_to_string(path).map_err(|error| at(error.to_string()))?;
            let value: Value = if text.trim_start().starts_with('{') {
                serde_json::from_str(&text).map_err(|error| at(error.to_string()))?
            } else {
                serde_saphyr::from_str(&text).map_err(|error| at(error.to_string()))?
            };
            return Ok(Some(nodes::read(&value).map_err(|error| at(error.to_string()))?));
        }
        if self.kubeconfig.is_none() && !self.in_cluster {
            return Ok(None);
        }
        let objects = kube::nodes(&KubeConfig {
            kubeconfig: self.kubeconfig.clone(),
            ..KubeConfig::default()
        })?;
        Ok(Some(objects.iter().map(nodes::node).collect::<Result<_, _>>()?))
    }

    /// What nodes' objects and Azure say.
    fn ask_others(&self, rows: &mut Vec<Row>) -> Result<(), Box<dyn std::error::Error>> {
        let Some(nodes) = self.read_nodes()? else {
            return match &self.cloud_config {
                Some(_) => Err("--cloud-config: whose routes they are, only nodes' objects tell: say --nodes, --kubeconfig or --in-cluster".into()),
                None => Ok(()),
            };
        };
        let azure = self
            .cloud_config
            .as_ref()
            .map(|path| self.ask_azure(path, &nodes))
            .transpose()?;
        let status =
            std::fs::read_to_string(status_path(&self.node.run_dir, &self.node.node)).unwrap_or_default();
        let status: Value = serde_json::from_str(&status).unwrap_or_default();
        let has_cidrs = rows
            .iter()
            .any(|row| row.kinds.iter().any(|kind| kind.ends_with("pod-cidr")));
        let others = Others {
            node: &self.node.node,
            nodes: &nodes,
            ignores_pod_cidrs: status["networking"]["networking"] == "azure-cni" && !has_cidrs,
            azure: azure.as_ref(),
        };
        others.compare(rows);
        Ok(())
    }

    fn ask_azure(
        &self,
        path: &std::path::Path,
        nodes: &[NodeState],
    ) -> Result<AzureSnapshot, Box<dyn std::error::Error>> {
        let env = |name: &str| std::env::var(name).ok();
        let config = CloudConfig::read(path, env).map_err(|error| format!("{}: {error}", path.display()))?;
        let session = Session::new(config, Timing::default(), env)?;
        let asked: Vec<String> = self
            .effective_routes
            .then(|| self.node.node.clone())
            .into_iter()
            .collect();
        let Gathered { snapshot, unread } =
            session.gather(|| Ok(nodes.to_vec()), Settings::default(), &asked)?;
        for what in unread {
            tracing::warn!("not looked at: {what}");
        }
        Ok(snapshot)
    }
}

/// Addresses that policy tells from the rest of another node's podCIDR.
fn remote_workloads(image: &Image, known: &[(IpAddr, u32, u32)]) -> Vec<(IpAddr, u32, u32)> {
    let remote = |(_, _, bits): &&(IpAddr, u32, u32)| bits & route::REMOTE_POD_CIDR != 0;
    let nets = known.iter().filter(remote);
    let nets: Vec<IpNet> = nets
        .filter_map(|(address, length, _)| IpNet::new(*address, u8::try_from(*length).ok()?).ok())
        .collect();
    let v4 = image
        .class4
        .keys()
        .map(|addr| (IpAddr::from(wire::ipv4(*addr)), 32));
    let v6 = image
        .class6
        .keys()
        .map(|addr| (IpAddr::from(wire::ipv6(*addr)), 128));
    let told = |(address, length): &(IpAddr, u32)| {
        nets.iter().any(|net| net.contains(address))
            && !known
                .iter()
                .any(|(other, full, _)| (other, full) == (address, length))
    };
    let found = v4.chain(v6).filter(told);
    found
        .map(|(address, length)| (address, length, REMOTE_WORKLOAD))
        .collect()
}

/// kube-proxy's interface in its IPVS mode: the node has services' addresses there.
const IPVS: &str = "kube-ipvs0";

/// Marks services' addresses, and adds those that are nothing else. What is a node's own, for its node ports, is known as that.
fn add_services(image: &Image, links: &Snapshot, known: &mut Vec<(IpAddr, u32, u32)>) {
    let v4 = image.services4.keys();
    let v4 = v4.map(|key| (IpAddr::from(wire::ipv4(key.addr)), 32));
    let v6 = image.services6.keys();
    let v6 = v6.map(|key| (IpAddr::from(wire::ipv6(key.addr)), 128));
    let mut services: BTreeSet<(IpAddr, u32)> = v4.chain(v6).collect();
    let own = |address: &IpAddr| {
        let mut others = links.links.values().filter(|link| link.name != IPVS);
        others.any(|link| link.addresses.contains(address))
    };
    for (address, length, bits) in known.iter_mut() {
        if services.remove(&(*address, *length)) && *bits == route::LOCAL_HOST && !own(address) {
            *bits |= SERVICE;
        }
    }
    known.extend(
        services
            .into_iter()
            .map(|(address, length)| (address, length, SERVICE)),
    );
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
        for (who, said) in [
            ("node", &row.node),
            ("azure", &row.azure),
            ("fabric", &row.fabric),
        ] {
            if let Some(said) = said {
                writeln!(out, "  {who}: {said}")?;
            }
        }
        if let Some(drift) = &row.drift {
            writeln!(out, "  drift: {drift}")?;
        }
    }
    Ok(())
}
