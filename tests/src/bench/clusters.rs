//! Clusters with many rules on one endpoint.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, ensure};
use calico_azure_userspace::model::{Action, Pod, Policy, Resource, Rule};
use calico_azure_userspace::policy::{Event, Store};
use calico_azure_userspace::selector::Selector;

use crate::harness::packet::Frame;
use crate::harness::scenario::{address, policy, rule, store};
use crate::harness::{At, Harness, Returned};

/// In what the rules differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Each rule allows another port.
    Ports,
    /// Each rule allows another CIDR, on another port.
    Cidrs,
    /// Each rule allows another pod by its label, on another port.
    Selectors,
}

impl Shape {
    pub(super) const ALL: [Self; 3] = [Self::Ports, Self::Cidrs, Self::Selectors];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ports => "ports",
            Self::Cidrs => "CIDRs",
            Self::Selectors => "selectors",
        }
    }
}

/// A cluster and two packets for its endpoint `b`.
pub(super) struct Cluster {
    pub(super) store: Store,
    /// Allowed by the last rule only.
    pub(super) allowed: Frame,
    /// Denied after all of them.
    pub(super) denied: Frame,
}

impl Cluster {
    /// That the packets get the verdicts that they are measured for.
    pub(super) fn check(&self, harness: &mut Harness, at: At) -> Result<()> {
        ensure!(
            harness.run(at, &self.allowed.bytes())? == Returned::Next,
            "the last rule does not allow"
        );
        ensure!(
            harness.run(at, &self.denied.bytes())? == Returned::Drop,
            "the rules allow too much"
        );
        Ok(())
    }
}

fn port(i: usize) -> u16 {
    u16::try_from(1024 + i * 5 % 60_000).unwrap_or(u16::MAX)
}

fn peer(shape: Shape, i: usize) -> IpAddr {
    let i = u32::try_from(i).unwrap_or(0);
    match shape {
        Shape::Ports => address("remote", false),
        // The third address of the rule's /28.
        Shape::Cidrs => IpAddr::V4(Ipv4Addr::from_bits(0x6440_0000 + i * 16 + 3)),
        Shape::Selectors => IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + i * 7)),
    }
}

fn rule_of(shape: Shape, i: usize) -> Rule {
    let mut rule = rule(Action::Allow, Some(6), &[(port(i), port(i))]);
    // A policy has at most 1,024 rules.
    rule.index = u32::try_from(i % 1000).unwrap_or(0);
    match (shape, peer(shape, i)) {
        (Shape::Cidrs, IpAddr::V4(address)) => {
            let net = ipnet::Ipv4Net::new_assert(address, 28).trunc();
            rule.source.nets = vec![net.into()];
        }
        (Shape::Selectors, _) => rule.source.selector = Some(Selector::eq("client", &i.to_string())),
        _ => {}
    }
    rule
}

/// `rules` rules on pod `b`, in policies of at most 1,000.
pub(super) fn cluster(shape: Shape, rules: usize) -> Cluster {
    let all: Vec<Rule> = (0..rules).map(|i| rule_of(shape, i)).collect();
    let policies = all.chunks(1000).zip(0..).map(|(chunk, i): (_, u32)| {
        match policy(&format!("p{i}"), "b", Some(chunk.to_vec()), None) {
            Resource::Policy(policy) => Resource::Policy(Policy {
                order: Some(f64::from(i)),
                ..policy
            }),
            other => other,
        }
    });
    let mut store = store(policies);
    if shape == Shape::Selectors {
        for i in 0..rules {
            store.apply(Event::Upsert(Resource::Pod(Pod {
                namespace: "ns".into(),
                name: format!("client-{i}"),
                labels: [("client".to_owned(), i.to_string())].into(),
                node: "n2".into(),
                ips: vec![peer(shape, i)],
                ..Pod::default()
            })));
        }
    }
    let last = rules.saturating_sub(1);
    let allowed = Frame::new(peer(shape, last), address("b", false), 6, 1000, port(last));
    let denied = Frame {
        dport: 1,
        ..allowed.clone()
    };
    Cluster {
        store,
        allowed,
        denied,
    }
}
