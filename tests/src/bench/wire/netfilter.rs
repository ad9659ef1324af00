//! What the two netfilter engines have in common, and how they are installed in a node's namespace.

use anyhow::{Context as _, Result, ensure};

use super::topology::Node;
use super::{iptables, nftables};
use crate::bench::rules::Rule;

/// Rules in one policy, as in the product's tables.
pub(super) const POLICY: usize = 1000;

/// An endpoint of a node.
pub(super) struct Sides {
    pub(super) ifname: &'static str,
    /// Whether the policies are about it.
    pub(super) governed: bool,
}

/// The policies that the rules are in.
pub(super) fn policies(rules: &[Rule]) -> Vec<&[Rule]> {
    rules.chunks(POLICY).collect()
}

/// The set of a rule's selector.
pub(super) fn set_name(rule: usize) -> String {
    format!("cali40s-{rule}")
}

fn sides(node: &Node) -> Vec<Sides> {
    let side = |ifname| Sides {
        ifname,
        governed: ifname != "va",
    };
    node.pods.iter().map(|pod| side(pod.ifname)).collect()
}

/// Rules and sets of the node, instead of those that there were.
pub(super) fn iptables(node: &Node, rules: &[Rule]) -> Result<()> {
    // Restoring replaces both tables; only then are the old sets free.
    feed(
        node,
        "iptables-restore",
        &[],
        &iptables::script(&[], &sides(node)),
    )?;
    feed(node, "ipset", &["destroy"], "")?;
    feed(node, "ipset", &["restore"], &iptables::sets(rules))?;
    feed(
        node,
        "iptables-restore",
        &[],
        &iptables::script(rules, &sides(node)),
    )
}

/// Rules and sets of the node, instead of those that there were.
pub(super) fn nftables(node: &Node, rules: &[Rule]) -> Result<()> {
    feed(node, "nft", &["-f", "-"], &nftables::script(rules, &sides(node)))
}

/// Forgets every flow of the node.
pub(super) fn forget(node: &Node) -> Result<()> {
    feed(node, "conntrack", &["-F"], "")
}

fn feed(node: &Node, program: &str, args: &[&str], script: &str) -> Result<()> {
    use std::io::{Seek as _, Write as _};
    let mut file = tempfile::tempfile()?;
    file.write_all(script.as_bytes())?;
    file.rewind()?;
    let mut command = node.ns.command(program);
    let output = command
        .args(args)
        .stdin(file)
        .output()
        .with_context(|| format!("cannot run {program}: `cargo xtask setup` installs it"))?;
    ensure!(
        output.status.success(),
        "{program} in {}: {}",
        node.ns.name(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
