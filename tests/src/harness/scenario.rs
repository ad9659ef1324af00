//! A small cluster for tests of single packets: two pods on this node, one elsewhere, policies as the test likes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Result;
use calico_azure_ebpf::abi::{CounterKey, CounterValue, DEFAULT_MARK_MASK, Hook, Reason};
use calico_azure_userspace::dataplane::plan::Settings;
use calico_azure_userspace::model::{
    Action, HostRole, Key, Kind, Labels, Namespace, Node, Peer, Pod, Policy, PortRange, Resource, Rule,
};
use calico_azure_userspace::policy::{Compiler, Event, Interface, Interfaces, NodeFacts, Output, Store};
use calico_azure_userspace::selector::Selector;

use super::{At, Harness, Returned, settings};

/// Allowed flows are not recorded: what an agent sets without further flags.
#[must_use]
pub fn quiet() -> Settings {
    Settings {
        flags: 0,
        tunnel_port: TUNNEL,
        mark_mask: DEFAULT_MARK_MASK,
        ..Settings::default()
    }
}

/// UDP port of the VXLAN between nodes.
pub const TUNNEL: u16 = 8472;
/// Interface of pod `a`.
pub const A: u32 = 10;
/// Interface of pod `b`.
pub const B: u32 = 11;
/// The fabric interface.
pub const FABRIC: u32 = 12;

/// Addresses by name, IPv4 or IPv6.
#[must_use]
pub fn address(name: &str, v6: bool) -> IpAddr {
    let (v4, six) = match name {
        "a" => ("10.244.1.2", "fd00:10:244:1::2"),
        "b" => ("10.244.1.3", "fd00:10:244:1::3"),
        "remote" => ("10.244.2.2", "fd00:10:244:2::2"),
        "unassigned" => ("10.244.1.99", "fd00:10:244:1::99"),
        "node" => ("10.0.0.4", "fd00:10::4"),
        "other-node" => ("10.0.0.5", "fd00:10::5"),
        "outside" => ("203.0.113.9", "2001:db8:ffff::9"),
        "wireserver" => ("168.63.129.16", "64:ff9b::a83f:8110"),
        "imds" => ("169.254.169.254", "64:ff9b::a9fe:a9fe"),
        "multicast" => ("224.0.0.5", "ff0e::5"),
        other => panic!("no address is called {other}"),
    };
    let text = if v6 { six } else { v4 };
    text.parse()
        .unwrap_or_else(|_| unreachable!("the addresses above are addresses"))
}

/// A rule that allows or denies everything in its peer list and ports.
#[must_use]
pub fn rule(action: Action, protocol: Option<u8>, ports: &[(u16, u16)]) -> Rule {
    let ports = ports
        .iter()
        .map(|&(first, last)| PortRange { first, last })
        .collect();
    Rule {
        index: 0,
        action,
        ip_version: None,
        protocol,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: Peer::default(),
        destination: Peer {
            ports,
            ..Peer::default()
        },
    }
}

/// A policy of tier default for pods with label `app` = `app`.
#[must_use]
pub fn policy(name: &str, app: &str, ingress: Option<Vec<Rule>>, egress: Option<Vec<Rule>>) -> Resource {
    Resource::Policy(Policy {
        key: Key {
            kind: Kind::GlobalNetworkPolicy,
            namespace: None,
            name: name.into(),
        },
        tier: "default".into(),
        order: None,
        selector: Selector::eq("app", app),
        ingress,
        egress,
        staged: None,
        host: HostRole::Normal,
    })
}

/// The cluster with these policies.
#[must_use]
pub fn store(policies: impl IntoIterator<Item = Resource>) -> Store {
    let pod = |name: &str, node: &str| {
        Resource::Pod(Pod {
            namespace: "ns".into(),
            name: name.into(),
            labels: Labels::from([("app".to_owned(), name.to_owned())]).into(),
            service_account: "default".into(),
            node: node.into(),
            ips: vec![address(name, false), address(name, true)],
            ..Pod::default()
        })
    };
    let node = |name: &str, third: u8| {
        let address = if third == 1 { "node" } else { "other-node" };
        let cidrs = [
            format!("10.244.{third}.0/24"),
            format!("fd00:10:244:{third}::/64"),
        ];
        Resource::Node(Node {
            name: name.into(),
            pod_cidrs: cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect(),
            internal_ips: [false, true].map(|v6| self::address(address, v6)).into(),
            ..Node::default()
        })
    };
    let namespace = Resource::Namespace(Namespace {
        name: "ns".into(),
        ..Namespace::default()
    });
    let resources = [
        namespace,
        node("n1", 1),
        node("n2", 2),
        pod("a", "n1"),
        pod("b", "n1"),
        pod("remote", "n2"),
    ];
    let mut store: Store = resources.into_iter().chain(policies).collect();
    let interface = |name: &str| Interface {
        name: format!("veth-{name}"),
        behind: [false, true].map(|v6| address(name, v6)).into(),
        ..Interface::default()
    };
    let by_ifindex = [(A, interface("a")), (B, interface("b"))].into();
    store.apply(Event::Interfaces(Interfaces { by_ifindex }));
    store.apply(Event::Node(NodeFacts {
        node: "n1".into(),
        ..NodeFacts::default()
    }));
    store
}

/// Counters of the programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    totals: BTreeMap<(Hook, Reason), CounterValue>,
    drops: BTreeMap<CounterKey, CounterValue>,
}

impl Counts {
    /// Packets that were counted, whatever became of them.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.totals.values().map(|count| count.packets).sum()
    }
}

/// A harness with a scenario in its tables.
pub struct Bench {
    pub harness: Harness,
    pub compiler: Compiler,
    pub output: Output,
}

impl Bench {
    /// Loads the programs and applies the store.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(name: &str, store: &Store) -> Result<Self> {
        Self::on(Harness::new(name)?, store)
    }

    /// Applies the store to programs that are loaded.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn on(harness: Harness, store: &Store) -> Result<Self> {
        let mut bench = Self {
            harness,
            compiler: Compiler::default(),
            output: Output::default(),
        };
        bench.apply(store)?;
        Ok(bench)
    }

    /// Applies another store.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn apply(&mut self, store: &Store) -> Result<()> {
        self.output = self.compiler.compile(store)?;
        self.set(Settings {
            tunnel_port: TUNNEL,
            ..settings()
        })
    }

    /// Changes settings.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set(&mut self, settings: Settings) -> Result<()> {
        self.harness.dataplane.apply(&self.output.desired, settings)?;
        Ok(())
    }

    /// The counters now.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn counts(&self) -> Result<Counts> {
        let counters = self.harness.dataplane.io_ref().maps().counters()?;
        Ok(Counts {
            totals: counters.totals()?,
            drops: counters.drops()?,
        })
    }

    /// Runs one packet and asserts its reason, and that exactly the counters which that reason moves have moved,
    /// by one packet of that length.
    ///
    /// # Errors
    /// What the kernel says.
    #[track_caller]
    pub fn expect(&mut self, at: At, packet: &[u8], hook: Hook, reason: Reason) -> Result<()> {
        let mut expected = self.counts()?;
        let (returned, event) = self.harness.observe(at, packet)?;
        let after = self.counts()?;
        let bytes = u64::try_from(packet.len())?;
        let add = |value: &mut CounterValue| {
            value.packets += 1;
            value.bytes += bytes;
        };
        add(expected.totals.entry((hook, reason)).or_default());
        if !reason.passes() {
            add(expected
                .drops
                .entry(drop_key(at.ifindex, hook, reason))
                .or_default());
        }
        let seen = event.and_then(|event| Reason::try_from(event.reason).ok());
        assert_eq!(
            after, expected,
            "expected {reason:?} at {hook:?}; the event says {seen:?}"
        );
        assert_eq!(
            returned,
            if reason.passes() {
                Returned::Next
            } else {
                Returned::Drop
            }
        );
        if !reason.passes() {
            assert_eq!(seen, Some(reason), "a drop is recorded");
        }
        Ok(())
    }

    /// As [`Self::expect`], for a packet with a mark: what each program that sees it says, of which interface, and the mark that
    /// it has in the end.
    ///
    /// # Errors
    /// What the kernel says.
    #[track_caller]
    pub fn expect_marked(
        &mut self,
        at: At,
        packet: &[u8],
        marks: (u32, u32),
        seen: &[(Hook, Reason, u32)],
    ) -> Result<()> {
        let mut expected = self.counts()?;
        let (returned, mark, events) = self.harness.observe_marked(at, packet, marks.0)?;
        let after = self.counts()?;
        let value = CounterValue {
            packets: 1,
            bytes: u64::try_from(packet.len())?,
        };
        for &(hook, reason, ifindex) in seen {
            let total = expected.totals.entry((hook, reason)).or_default();
            let drop = (!reason.passes())
                .then(|| expected.drops.entry(drop_key(ifindex, hook, reason)).or_default());
            for counter in [Some(total), drop].into_iter().flatten() {
                counter.packets += value.packets;
                counter.bytes += value.bytes;
            }
        }
        assert_eq!(after, expected, "expected {seen:?}; events: {events:?}");
        let passes = seen.iter().all(|(_, reason, _)| reason.passes());
        assert_eq!(returned == Returned::Next, passes, "{seen:?}");
        assert_eq!(mark, marks.1, "{seen:?}");
        let drops = seen.iter().filter(|(_, reason, _)| !reason.passes());
        let recorded = events.iter().map(|event| (event.ifindex, event.reason));
        let recorded: Vec<_> = recorded.collect();
        for &(_, reason, ifindex) in drops {
            assert!(
                recorded.contains(&(ifindex, reason as u8)),
                "a drop is recorded: {events:?}"
            );
        }
        Ok(())
    }
}

fn drop_key(ifindex: u32, hook: Hook, reason: Reason) -> CounterKey {
    CounterKey {
        ifindex,
        hook: hook as u16,
        reason: u16::from(reason as u8),
    }
}
