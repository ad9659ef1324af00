//! Looks at the node: `/proc`, `/sys`, rtnetlink, and the programs on its interfaces. Changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::Seen;
use crate::agent::{LinkNames, MarkMask, NetworkingChoice};
use crate::dataplane::{cgroup, others};
use crate::sources::filters;
use crate::sources::links::{LinkKind, LinksError, snapshot};

/// What the agent is told, as far as it matters here.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--interface-prefix`, `--fabric-interface`, `--pod-bridges`.
    pub names: LinkNames,
    pub networking: NetworkingChoice,
    pub mark_mask: MarkMask,
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// Where pins are to be.
    pub bpffs: &'a Path,
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
    let bridges = links.links.values().any(|link| link.kind == LinkKind::Bridge);
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
        bridge_calls: number("/proc/sys/net/bridge/bridge-nf-call-iptables").filter(|_| bridges),
        links,
        rules,
        programs,
        unread,
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
