//! Whether a node can do what the agent needs of it, and what of it breaks clusters. Pure: what was seen in, findings out; [`gather`] looks.

mod addresses;
mod files;
mod gather;
mod subnet_env;
#[cfg(test)]
mod tests;
pub(in crate::agent) mod watch;

pub use files::Paths;
pub use gather::{Options, Place, gather};
pub use watch::Look;

use std::net::IpAddr;

use serde::Serialize;

use self::files::{Pool, Range, SubnetEnv};
use super::networking::{self, Choice, Found, Networking};
use super::{FabricChoice, LinkNames, MarkMask};
use crate::azure::finding::Severity;
use crate::sources::attachments::Attachment;
use crate::sources::links::{Link, LinkKind, Snapshot};
use crate::sources::nftables::MarkRule;

/// What was seen of a node. `None`: it could not be read.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// `uname -r`.
    pub kernel: String,
    /// Type information of the kernel's, `/sys/kernel/btf/vmlinux`.
    pub btf: bool,
    /// A BPF file system is where pins are to be.
    pub bpffs: bool,
    pub bpffs_path: String,
    /// A unified hierarchy of control groups is mounted.
    pub cgroup2: bool,
    /// `net.core.bpf_jit_enable`.
    pub jit: Option<u32>,
    /// `net.ipv4.ip_forward`, `net.ipv6.conf.all.forwarding`.
    pub forwarding: [Option<u32>; 2],
    /// `net.ipv4.conf.*.rp_filter` by interface, `all` among them.
    pub rp_filter: Vec<(String, u32)>,
    /// `net.bridge.bridge-nf-call-iptables`, `…-ip6tables`; `None` without the module, or without bridges.
    pub bridge_calls: [Option<u32>; 2],
    /// What flannel's daemon tells its plug-in; `None` without flannel.
    pub subnet_env: Option<SubnetEnv>,
    /// What host-local gave out, and from what.
    pub pools: Vec<Pool>,
    pub ranges: Vec<Range>,
    /// What CNI plug-ins answered.
    pub attachments: Vec<Attachment>,
    /// Every pod that is there can be seen.
    pub sees_pods: bool,
    /// Rules of nftables about packets' marks.
    pub mark_rules: Vec<MarkRule>,
    pub links: Snapshot,
    /// Mark, mask and priority of routing rules.
    pub rules: Vec<(u32, u32, u32)>,
    /// Programs that are not ours on interfaces that are: interface, hook, name.
    pub programs: Vec<(String, String, String)>,
    /// What could not be looked at, and why.
    pub unread: Vec<String>,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    Kernel,
    Btf,
    Bpffs,
    Jit,
    Cgroup,
    Forwarding,
    ReversePath,
    BridgeCalls,
    FabricInterface,
    PodInterfaces,
    VirtualFunction,
    Network,
    SubnetEnv,
    PodAddresses,
    AddressLeaks,
    Marks,
    OtherPrograms,
    OtherDataplane,
}

/// One thing that is not as it should be, or is worth knowing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    pub check: Check,
    /// What was seen.
    pub evidence: String,
    /// What it means for packets.
    pub consequence: &'static str,
    /// Commands that mend it, if commands can.
    pub fix: Vec<String>,
}

/// Every finding, worst first.
#[must_use]
pub fn preflight(seen: &Seen, options: &Options) -> Vec<Finding> {
    let mut findings = Vec::new();
    kernel(seen, &mut findings);
    forwarding(seen, options, &mut findings);
    interfaces(seen, options, &mut findings);
    let found = networking::find(
        &options.networking,
        &options.names,
        &seen.links,
        options.node.as_ref(),
    );
    network(seen, &found, &mut findings);
    match found.networking {
        Networking::Flannel => {
            subnet_env::check(seen, options, &mut findings);
            addresses::check(seen, options, &mut findings);
        }
        Networking::Udr | Networking::HostLocal => addresses::check(seen, options, &mut findings),
        // Azure gives addresses.
        Networking::AzureCni => {}
    }
    others(seen, options, &mut findings);
    findings.sort_by(|a, b| b.severity.cmp(&a.severity).then(a.check.cmp(&b.check)));
    findings
}

fn finding(
    check: Check,
    severity: Severity,
    evidence: impl Into<String>,
    consequence: &'static str,
    fix: &[&str],
) -> Finding {
    Finding {
        severity,
        check,
        evidence: evidence.into(),
        consequence,
        fix: fix.iter().map(|command| (*command).to_owned()).collect(),
    }
}

/// The oldest kernel that the programs are tried on, and the first with tcx.
const OLDEST: (u32, u32) = (5, 10);
const TCX: (u32, u32) = (6, 6);

/// Major and minor of `6.8.0-1015-azure`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn kernel(seen: &Seen, findings: &mut Vec<Finding>) {
    let release = &seen.kernel;
    match version(release) {
        Some(version) if version < OLDEST => findings.push(finding(
            Check::Kernel,
            Severity::Error,
            format!("kernel {release}; expected {}.{} or newer", OLDEST.0, OLDEST.1),
            "the programs do not load, and nothing is enforced",
            &[],
        )),
        Some(version) if version < TCX => findings.push(finding(
            Check::Kernel,
            Severity::Info,
            format!("kernel {release} has no tcx"),
            "programs are attached to clsact queues, which others may remove",
            &[],
        )),
        _ => {}
    }
    if !seen.btf {
        findings.push(finding(
            Check::Btf,
            Severity::Error,
            "/sys/kernel/btf/vmlinux is missing",
            "the programs do not load, and nothing is enforced",
            &[],
        ));
    }
    if !seen.bpffs {
        let path = &seen.bpffs_path;
        findings.push(finding(
            Check::Bpffs,
            Severity::Error,
            format!("{path} is no BPF file system"),
            "the agent cannot keep its tables, and does not start",
            &[&format!("mount -t bpf bpf {path}")],
        ));
    }
    if seen.jit == Some(0) {
        findings.push(finding(
            Check::Jit,
            Severity::Warning,
            "net.core.bpf_jit_enable is 0",
            "every packet costs several times as much, because the kernel interprets the programs",
            &["sysctl -w net.core.bpf_jit_enable=1"],
        ));
    }
    if !seen.cgroup2 {
        findings.push(finding(
            Check::Cgroup,
            Severity::Error,
            "no unified hierarchy of control groups is mounted",
            "the agent does not start, unless --host-cgroup none leaves unjudged what pods send to services of their own node",
            &["mount -t cgroup2 none /sys/fs/cgroup/unified"],
        ));
    }
}

/// Whether pods have IPv6 addresses: behind routes to them, or behind a bridge, which has one of their network.
fn dual(seen: &Seen, options: &Options) -> bool {
    let v6 = |ips: &[IpAddr]| ips.iter().any(IpAddr::is_ipv6);
    let bridge = |link: &Link| options.names.is_pods_bridge(link) && v6(&link.addresses);
    let mut links = seen.links.links.values();
    links.any(|link| v6(&link.host_routes) || bridge(link))
        || seen.attachments.iter().any(|said| v6(&said.addresses))
}

fn forwarding(seen: &Seen, options: &Options, findings: &mut Vec<Finding>) {
    let dual = dual(seen, options);
    let [v4, v6] = seen.forwarding;
    if v4 == Some(0) {
        findings.push(finding(
            Check::Forwarding,
            Severity::Error,
            "net.ipv4.ip_forward is 0",
            "the node drops everything between its pods and anybody else",
            &["sysctl -w net.ipv4.ip_forward=1"],
        ));
    }
    if dual && v6 == Some(0) {
        findings.push(finding(
            Check::Forwarding,
            Severity::Error,
            "net.ipv6.conf.all.forwarding is 0, and pods have IPv6 addresses",
            "the node drops everything between its pods' IPv6 addresses and anybody else",
            &["sysctl -w net.ipv6.conf.all.forwarding=1"],
        ));
    }
    for (value, name, concerns) in [
        (seen.bridge_calls[0], "bridge-nf-call-iptables", true),
        (seen.bridge_calls[1], "bridge-nf-call-ip6tables", dual),
    ] {
        if concerns && value == Some(0) {
            findings.push(finding(
                Check::BridgeCalls,
                Severity::Warning,
                format!("net.bridge.{name} is 0, and there are bridges"),
                "what pods on a bridge say to each other by way of a service is not translated back",
                &[&format!("sysctl -w net.bridge.{name}=1")],
            ));
        }
    }
}

fn interfaces(seen: &Seen, options: &Options, findings: &mut Vec<Finding>) {
    let Snapshot {
        links, default_links, ..
    } = &seen.links;
    let out = options.names.roles(&seen.links);
    let fabric: Vec<&str> = out
        .iter()
        .filter(|(_, _, role)| *role == crate::dataplane::attach::Role::Fabric)
        .map(|(_, name, _)| name.as_str())
        .collect();
    if fabric.is_empty() && options.names.fabric != FabricChoice::None {
        findings.push(finding(
            Check::FabricInterface,
            Severity::Error,
            "no interface leads to the fabric: there is no default route, or none of the named ones is here",
            "sources are not validated, and host endpoints of the node's own interfaces are not enforced",
            &["calico-azure agent --fabric-interface NAME"],
        ));
    }
    if fabric.len() == out.len() {
        findings.push(finding(
            Check::PodInterfaces,
            Severity::Info,
            format!("no interface begins with {}", options.names.prefixes.join(" or ")),
            "no pod is there, or pods' interfaces are called otherwise and get programs only once their routes are there",
            &["calico-azure agent --interface-prefix PREFIX"],
        ));
    }
    for link in links.values() {
        let twin = links
            .get(&link.master)
            .filter(|other| other.kind != LinkKind::Bridge && other.mac == link.mac && !link.mac.is_empty());
        if let Some(twin) = twin {
            findings.push(finding(
                Check::VirtualFunction,
                Severity::Info,
                format!("{} is the accelerated half of {}", link.name, twin.name),
                "it gets no programs: its packets pass those of the other one",
                &[],
            ));
        }
    }
    let strict = |name: &str| {
        let of = |name: &str| {
            seen.rp_filter
                .iter()
                .find(|(known, _)| known == name)
                .map_or(0, |(_, value)| *value)
        };
        let (all, own) = (of("all"), of(name));
        all.max(own) == 1
    };
    if default_links.len() > 1 {
        for name in fabric.iter().filter(|name| strict(name)) {
            findings.push(finding(
                Check::ReversePath,
                Severity::Warning,
                format!("rp_filter is strict on {name}, and {} interfaces have a default route", default_links.len()),
                "the kernel drops packets that come in by another interface than answers to them leave by, without a word",
                &[&format!("sysctl -w net.ipv4.conf.{name}.rp_filter=2")],
            ));
        }
    }
}

/// What contradicts it.
fn network(seen: &Seen, found: &Found, findings: &mut Vec<Finding>) {
    for networking::Problem { text, fix, anew } in &found.problems {
        let pods = seen
            .attachments
            .iter()
            .filter(|said| said.interfaces.iter().any(|(name, _)| anew.contains(name)));
        let pods = pods.map(|said| addresses::anew(&format!("{}/{}", said.pod.0, said.pod.1)));
        findings.push(Finding {
            fix: fix.iter().cloned().chain(pods).collect(),
            ..finding(
                Check::Network,
                Severity::Error,
                text.clone(),
                "packets between nodes are lost, or not validated",
                &[],
            )
        });
    }
}

fn others(seen: &Seen, options: &Options, findings: &mut Vec<Finding>) {
    let MarkMask(ours) = options.mark_mask;
    for (mark, mask, priority) in seen.rules.iter().filter(|(_, mask, _)| mask & ours != 0) {
        findings.push(finding(
            Check::Marks,
            Severity::Warning,
            format!("rule {priority} chooses routes by mark {mark:#x}/{mask:#x}, and bits of {ours:#010x} are ours"),
            "what pods send to services takes another way, or is not judged",
            &["calico-azure agent --mark-mask MASK"],
        ));
    }
    let mut rules: Vec<&MarkRule> = seen
        .mark_rules
        .iter()
        .filter(|rule| (rule.matched | rule.written) & ours != 0)
        .collect();
    rules.sort_unstable();
    rules.dedup();
    for MarkRule {
        place,
        matched,
        written,
    } in rules
    {
        let what: Vec<String> = [("matches", matched), ("writes", written)]
            .into_iter()
            .filter(|(_, bits)| *bits & ours != 0)
            .map(|(verb, bits)| format!("{verb} bits {bits:#x}"))
            .collect();
        findings.push(finding(
            Check::Marks,
            Severity::Warning,
            format!(
                "{place}: a rule {} of packets' marks, and bits of {ours:#010x} are ours",
                what.join(" and ")
            ),
            "what pods send to services is taken for somebody else's, or is dropped as nobody's",
            &["calico-azure agent --mark-mask MASK"],
        ));
    }
    for (interface, hook, name) in &seen.programs {
        let cilium =
            name.starts_with("cil_") || name.starts_with("bpf_lxc") || name.starts_with("bpf_netdev");
        let calico = name.starts_with("cali_");
        let (severity, consequence) = if cilium || calico {
            (
                Severity::Error,
                "two dataplanes decide about the same packets, each without knowing of the other",
            )
        } else {
            (
                Severity::Info,
                "it runs beside ours, and may change or take packets before or after it",
            )
        };
        findings.push(finding(
            Check::OtherPrograms,
            severity,
            format!("{name} runs on {interface}, {hook}"),
            consequence,
            &[],
        ));
    }
    for (interface, who) in [
        ("cilium_host", "Cilium"),
        ("bpfin.cali", "Calico's eBPF dataplane"),
        ("bpfnatin", "Calico's eBPF dataplane"),
    ] {
        if seen.links.links.values().any(|link| link.name == interface) {
            findings.push(finding(
                Check::OtherDataplane,
                Severity::Error,
                format!("{interface} is an interface of {who}"),
                "two dataplanes decide about the same packets, each without knowing of the other",
                &[],
            ));
        }
    }
}

impl Check {
    /// Its name, as it is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Btf => "btf",
            Self::Bpffs => "bpffs",
            Self::Jit => "jit",
            Self::Cgroup => "cgroup",
            Self::Forwarding => "forwarding",
            Self::ReversePath => "reverse-path",
            Self::BridgeCalls => "bridge-calls",
            Self::FabricInterface => "fabric-interface",
            Self::PodInterfaces => "pod-interfaces",
            Self::VirtualFunction => "virtual-function",
            Self::Network => "network",
            Self::SubnetEnv => "subnet-env",
            Self::PodAddresses => "pod-addresses",
            Self::AddressLeaks => "address-leaks",
            Self::Marks => "marks",
            Self::OtherPrograms => "other-programs",
            Self::OtherDataplane => "other-dataplane",
        }
    }
}

/// What the agent would do with this choice.
impl Default for Options {
    fn default() -> Self {
        Self {
            names: LinkNames {
                prefixes: vec!["cali".to_owned(), "azv".to_owned()],
                fabric: FabricChoice::Auto,
                bridges: LinkNames::BRIDGES.map(str::to_owned).into(),
            },
            networking: Choice::default(),
            mark_mask: MarkMask(0xffff_0000),
            node: None,
        }
    }
}
