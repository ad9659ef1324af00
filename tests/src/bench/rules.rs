//! Many rules on one endpoint, once in a form that every engine under comparison is given.

use std::net::{IpAddr, Ipv4Addr};

use calico_azure_ebpf::yardstick;
use calico_azure_userspace::model::{
    Action, Labels, NetworkSet, Peer, Pod, Policy, PortRange, Resource, Rule as ModelRule,
};
use calico_azure_userspace::policy::{Event, Store};
use calico_azure_userspace::selector::Selector;
use ipnet::Ipv4Net;

use crate::harness::packet::Frame;
use crate::harness::scenario::{address, policy, rule, store};

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

/// Whom a rule allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Anybody,
    Net(Ipv4Net),
    /// Whoever has label `client` of this value: one pod elsewhere, with this address.
    Client(usize, Ipv4Addr),
    /// A pod of the scenario, by its label `app`.
    App(&'static str),
    /// Network sets with label `listed`, of so many CIDRs.
    Listed(usize),
}

/// An allow rule. What no rule allows is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) source: Source,
    /// IP protocol number.
    pub(super) protocol: u8,
    /// First and last destination port.
    pub(super) ports: (u16, u16),
}

const TCP: u8 = 6;

fn port(i: usize) -> u16 {
    u16::try_from(1024 + i * 5 % 60_000).unwrap_or(u16::MAX)
}

fn small(i: usize) -> u32 {
    u32::try_from(i).unwrap_or(u32::MAX)
}

fn client(i: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0b00_0000 + small(i) * 7)
}

/// So many rules; only the last allows [`allowed`].
pub(super) fn by_shape(shape: Shape, count: usize) -> Vec<Rule> {
    let rule = |i| Rule {
        source: match shape {
            Shape::Ports => Source::Anybody,
            Shape::Cidrs => {
                let network = Ipv4Addr::from_bits(0x6440_0000 + small(i) * 16);
                Source::Net(Ipv4Net::new_assert(network, 28))
            }
            Shape::Selectors => Source::Client(i, client(i)),
        },
        protocol: TCP,
        ports: (port(i), port(i)),
    };
    (0..count).map(rule).collect()
}

/// CIDR number `i` of a list: scattered over the address space, but not where the scenario's addresses are.
pub(super) fn listed(i: usize) -> Ipv4Net {
    // An odd factor visits every number below 2^27 once.
    let scattered = small(i).wrapping_mul(0x5bd1_e995) & 0x07ff_ffff;
    // From 16.0.0.0 on, in steps of 16 addresses: up to 143.255.255.255.
    Ipv4Net::new_assert(Ipv4Addr::from_bits(0x1000_0000 + scattered * 16), 28)
}

/// The address of a packet that a rule allows.
pub(super) fn sender(source: &Source) -> IpAddr {
    let third = |net: &Ipv4Net| IpAddr::V4(Ipv4Addr::from_bits(net.network().to_bits() + 3));
    match source {
        Source::Anybody => address("remote", false),
        Source::Net(net) => third(net),
        Source::Client(_, address) => IpAddr::V4(*address),
        Source::App(name) => address(name, false),
        Source::Listed(count) => third(&listed(count.saturating_sub(1))),
    }
}

/// A packet for pod `b` that only the last rule allows.
pub(super) fn allowed(rules: &[Rule]) -> Frame {
    let (from, port) = rules.last().map_or((address("remote", false), 0), |rule| {
        (sender(&rule.source), rule.ports.0)
    });
    Frame::new(from, address("b", false), TCP, 1000, port)
}

/// A packet that no rule allows; every one of them must be looked at to know.
pub(super) fn denied(rules: &[Rule]) -> Frame {
    let frame = allowed(rules);
    match rules.last().map(|rule| &rule.source) {
        Some(Source::Listed(_)) => Frame {
            src: address("outside", false),
            ..frame
        },
        _ => Frame { dport: 1, ..frame },
    }
}

/// The scenario's cluster with the rules in policies for the pods with label `app` = one of `apps`, at most 1,000 in each.
pub(super) fn cluster(rules: &[Rule], apps: &[&str]) -> Store {
    let chunks = rules.chunks(1000).zip(0_u32..);
    let policies = chunks.flat_map(|(chunk, number)| {
        let all: Vec<ModelRule> = chunk.iter().zip(0..).map(|(rule, i)| model(rule, i)).collect();
        let named = apps
            .iter()
            .map(move |app| policy(&format!("p{number}-{app}"), app, Some(all.clone()), None));
        named.map(move |made| match made {
            Resource::Policy(policy) => Resource::Policy(Policy {
                order: Some(f64::from(number)),
                ..policy
            }),
            other => other,
        })
    });
    let mut store = store(policies);
    for rule in rules {
        match rule.source {
            Source::Client(i, address) => store.apply(Event::Upsert(Resource::Pod(Pod {
                namespace: "ns".into(),
                name: format!("client-{i}"),
                labels: Labels::from([("client".to_owned(), i.to_string())]).into(),
                node: "n2".into(),
                ips: vec![address.into()],
                ..Pod::default()
            }))),
            Source::Listed(count) => store.apply(Event::Upsert(Resource::NetworkSet(NetworkSet {
                namespace: None,
                name: "listed".into(),
                labels: [("listed".to_owned(), "yes".to_owned())].into(),
                nets: (0..count).map(|i| listed(i).into()).collect(),
            }))),
            _ => false,
        };
    }
    store
}

fn model(of: &Rule, index: u32) -> ModelRule {
    let (first, last) = of.ports;
    let mut rule = rule(Action::Allow, Some(of.protocol), &[]);
    rule.index = index;
    rule.destination.ports = vec![PortRange { first, last }];
    rule.source = match &of.source {
        Source::Anybody => Peer::default(),
        Source::Net(net) => Peer {
            nets: vec![(*net).into()],
            ..Peer::default()
        },
        Source::Client(i, _) => selected(Selector::eq("client", &i.to_string())),
        Source::App(app) => selected(Selector::eq("app", app)),
        Source::Listed(_) => selected(Selector::eq("listed", "yes")),
    };
    rule
}

fn selected(selector: Selector) -> Peer {
    Peer {
        selector: Some(selector),
        ..Peer::default()
    }
}

/// The same for the linear walk: its rules, and the members of their sets by number. As in Felix, each selector is a
/// set; a CIDR in a rule is compared directly.
pub(super) fn walk(rules: &[Rule]) -> (Vec<yardstick::Rule>, Vec<(u32, Ipv4Net)>) {
    let mut members = Vec::new();
    let mut walk = Vec::new();
    for (rule, number) in rules.iter().zip(1_u32..) {
        let mut one = yardstick::Rule {
            first_port: rule.ports.0,
            last_port: rule.ports.1,
            protocol: u16::from(rule.protocol),
            allow: 1,
            ..yardstick::Rule::default()
        };
        match &rule.source {
            Source::Anybody => {}
            Source::Net(net) => {
                one.net = u32::from_ne_bytes(net.network().octets());
                one.mask = u32::from_ne_bytes(net.netmask().octets());
            }
            source => {
                one.set = number;
                members.extend(nets(source).into_iter().map(|net| (number, net)));
            }
        }
        walk.push(one);
    }
    (walk, members)
}

/// The members of the set that a selector becomes.
pub(super) fn nets(source: &Source) -> Vec<Ipv4Net> {
    let host = |address: IpAddr| match address {
        IpAddr::V4(address) => vec![Ipv4Net::from(address)],
        IpAddr::V6(_) => Vec::new(),
    };
    match source {
        Source::Anybody | Source::Net(_) => Vec::new(),
        Source::Client(_, address) => host((*address).into()),
        Source::App(app) => host(address(app, false)),
        Source::Listed(count) => (0..*count).map(listed).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_no_cidr_twice_and_nothing_of_the_scenario() {
        let mut all: Vec<Ipv4Net> = (0..100_000).map(listed).collect();
        let taken = ["a", "b", "remote", "node", "outside"].map(|name| address(name, false));
        for net in &all {
            let clear = taken
                .iter()
                .all(|taken| matches!(taken, IpAddr::V4(taken) if !net.contains(taken)));
            assert!(clear, "{net}");
        }
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 100_000);
    }

    #[test]
    fn only_the_last_rule_allows() {
        for shape in Shape::ALL {
            let rules = by_shape(shape, 50);
            let (walk, members) = walk(&rules);
            let matching = |frame: &Frame| -> Vec<usize> {
                let IpAddr::V4(src) = frame.src else {
                    return Vec::new();
                };
                let flow = yardstick::Flow {
                    src: u32::from_ne_bytes(src.octets()),
                    dport: frame.dport,
                    protocol: frame.protocol,
                };
                let in_set =
                    |set: u32| set == 0 || members.iter().any(|(of, net)| *of == set && net.contains(&src));
                let found = walk.iter().enumerate();
                found
                    .filter(|(_, rule)| rule.matches(&flow) && in_set(rule.set))
                    .map(|(i, _)| i)
                    .collect()
            };
            assert_eq!(matching(&allowed(&rules)), [49], "{shape:?}");
            assert_eq!(matching(&denied(&rules)), [0_usize; 0], "{shape:?}");
        }
    }
}
