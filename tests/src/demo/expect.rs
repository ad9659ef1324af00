//! What the policies say, by the reference evaluator over the very files that the agents read.

use std::net::IpAddr;
use std::path::Path;

use anyhow::bail;
use calico_azure_userspace::model::load::load_paths;
use calico_azure_userspace::policy::reference::{Flow, Oracle};
use calico_azure_userspace::policy::{Direction, Event, RuleRef, Store};

use crate::lab::probe::Kind;

/// What must be seen on the wire, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) allow: bool,
    /// The pod whose policy denies; of an allowed flow, whoever judges last.
    pub(super) by: Option<(Direction, String)>,
    pub(super) rule: String,
}

/// The policies as they are in the watched directory now.
pub(super) struct Policies {
    store: Store,
}

impl Policies {
    pub(super) fn load(dir: &Path) -> anyhow::Result<Self> {
        let loaded = load_paths(&[dir.to_owned()]);
        if let Some(problem) = loaded.problems.first() {
            bail!("{problem}");
        }
        let mut store = Store::default();
        for resource in loaded.resources {
            store.apply(Event::Upsert(resource));
        }
        Ok(Self { store })
    }

    pub(super) fn oracle(&self) -> Oracle<'_> {
        Oracle::new(&self.store)
    }
}

/// Judges the first packet of a probe.
pub(super) fn expected(oracle: &Oracle<'_>, src: IpAddr, dst: IpAddr, kind: Kind) -> Expected {
    let (protocol, dport) = match kind {
        Kind::Tcp(port) => (6, port),
        Kind::Udp(port) => (17, port),
        Kind::Icmp if dst.is_ipv6() => (58, 128 << 8),
        Kind::Icmp => (1, 8 << 8),
    };
    let path = oracle.path(&Flow { src, dst, protocol, dport });
    let egress = path.egress.map(|(pod, verdict)| (Direction::Egress, pod, verdict));
    let ingress = path.ingress.map(|(pod, verdict)| (Direction::Ingress, pod, verdict));
    let mut sides = egress.into_iter().chain(ingress);
    let decides = if path.allow { sides.last() } else { sides.find(|(_, _, verdict)| !verdict.allow) };
    match decides {
        Some((direction, pod, verdict)) => {
            Expected { allow: path.allow, by: Some((direction, pod)), rule: rule(&verdict.rule) }
        }
        None => Expected { allow: path.allow, by: None, rule: "no pod's policy has a say".to_owned() },
    }
}

/// A rule in the words of the flow log.
fn rule(rule: &RuleRef) -> String {
    match rule {
        RuleRef::Rule { tier, policy, ingress, index } => {
            let list = if *ingress { "ingress" } else { "egress" };
            format!("tier {tier} / {policy} / {list}[{index}]")
        }
        RuleRef::TierDefault { tier } => format!("tier {tier} / end of tier"),
        RuleRef::Profile { name } => format!("profile {name}"),
        RuleRef::Implicit => "nothing allows it".to_owned(),
    }
}
