//! Looks at the node: `/proc`, `/sys`, rtnetlink, and the programs on its interfaces. Changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::Seen;
use super::files::{self, Paths};
use crate::agent::networking::is_flannel;
use crate::agent::{LinkNames, MarkMask, NetworkingChoice};
use crate::dataplane::{cgroup, others};
use crate::model::Node;
use crate::sources::links::{LinkKind, LinksError, snapshot};
use crate::sources::{attachments, filters, nftables};

/// What the agent is told, as far as it matters here.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--interface-prefix`, `--fabric-interface`, `--pod-bridges`.
    pub names: LinkNames,
    pub networking: NetworkingChoice,
    pub mark_mask: MarkMask,
    /// The node's object, where it is known.
    pub node: Option<Node>,
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// Where pins are to be.
    pub bpffs: &'a Path,
    pub paths: &'a Paths,
}

/// Everything that can be seen from here, and what could not.
///
/// # Errors
/// If the kernel does not even tell of its interfaces.
pub fn gather(place: &Place<'_>, options: &Options) -> Result<Seen, LinksError> {
    let links = snapshot()?;
    let mut unread = Vec::new();
    let rules = filters::marks().unwrap_or_else(|error| {
        unread.push(format!("routing rules: {error}"));
        Vec::new()
    });
    let mut programs = Vec::new();
    for (ifindex, interface, _) in options.names.roles(&links) {
        let xdp = links.links.get(&ifindex).and_then(|link| link.xdp);
        let mut found = others::programs(&interface, xdp);
        match filters::filters(ifindex) {
            Ok(more) => found.extend(more),
            Err(error) => unread.push(format!("filters on {interface}: {error}")),
        }
        found.retain(|(_, name)| !others::is_ours(name));
        programs.extend(
            found
                .into_iter()
                .map(|(hook, name)| (interface.clone(), hook.to_owned(), name)),
        );
    }
    let mark_rules = nftables::marks().unwrap_or_else(|error| {
        unread.push(format!("rules of nftables: {error}"));
        Vec::new()
    });
    unread.extend(legacy_tables());
    let bridges = links.links.values().any(|link| link.kind == LinkKind::Bridge);
    let subnet_env = if links.links.values().any(is_flannel) {
        let read = files::subnet_env(&place.paths.flannel_env);
        read.map_err(|error| unread.push(error)).ok()
    } else {
        None
    };
    let answers = attachments::held(&place.paths.cni_results);
    // A bridge's ports have no routes that tell whose they are.
    let sees_pods = options.names.bridges(&links).is_empty() || answers.is_some();
    if !sees_pods {
        unread.push(format!(
            "{}: cannot be read, so nothing can be said of which pods there are on bridges",
            place.paths.cni_results.display()
        ));
    }
    let calls = |name: &str| number(&format!("/proc/sys/net/bridge/{name}")).filter(|_| bridges);
    Ok(Seen {
        kernel: text("/proc/sys/kernel/osrelease").unwrap_or_default(),
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        bpffs: is_bpffs(place.bpffs),
        bpffs_path: place.bpffs.display().to_string(),
        cgroup2: cgroup::root().is_some(),
        jit: number("/proc/sys/net/core/bpf_jit_enable"),
        forwarding: [
            number("/proc/sys/net/ipv4/ip_forward"),
            number("/proc/sys/net/ipv6/conf/all/forwarding"),
        ],
        rp_filter: reverse_path(),
        bridge_calls: [
            calls("bridge-nf-call-iptables"),
            calls("bridge-nf-call-ip6tables"),
        ],
        subnet_env,
        pools: files::pools(&place.paths.cni_networks, &mut unread),
        ranges: files::ranges(&place.paths.cni_conf, &mut unread),
        attachments: answers.unwrap_or_default(),
        sees_pods,
        mark_rules,
        links,
        rules,
        programs,
        unread,
    })
}

/// iptables' own tables, which nftables does not tell of.
fn legacy_tables() -> Option<String> {
    let names = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]
        .map(|path| text(path).unwrap_or_default());
    let mut names: Vec<&str> = names.iter().flat_map(|names| names.split_whitespace()).collect();
    names.sort_unstable();
    names.dedup();
    (!names.is_empty()).then(|| {
        format!(
            "iptables' own tables ({}): only rules of nftables, iptables-nft's among them, are looked at for marks; iptables-legacy-save shows them",
            names.join(", ")
        )
    })
}

fn text(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn number(path: &str) -> Option<u32> {
    text(path)?.parse().ok()
}

fn reverse_path() -> Vec<(String, u32)> {
    let entries = fs::read_dir("/proc/sys/net/ipv4/conf")
        .into_iter()
        .flatten()
        .flatten();
    let values = entries.filter_map(|entry| {
        let value = fs::read_to_string(entry.path().join("rp_filter")).ok()?;
        Some((entry.file_name().into_string().ok()?, value.trim().parse().ok()?))
    });
    values.collect::<BTreeMap<_, _>>().into_iter().collect()
}

/// Whether the directory is one, or in one.
fn is_bpffs(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        let (at, kind) = (fields.next(), fields.next());
        kind == Some("bpf") && at.is_some_and(|at| path.starts_with(at))
    })
}
