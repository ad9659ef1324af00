//! Traffic between pods: what it costs without any policy, with the product, and with what it replaces.

mod iptables;
mod netfilter;
mod nftables;
pub(super) mod ours;
pub(super) mod sender;
mod starts;
mod steady;
pub(super) mod tcp;
pub(super) mod topology;

use std::time::Duration;

use anyhow::Result;

use self::ours::Ours;
use self::tcp::Servers;
use self::topology::{Pod, Topology};
use super::Scope;
use super::report::Report;
use super::rules::{self, Rule, Shape, Source};

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    Nobody,
    Ours,
    Iptables,
    Nftables,
}

impl Engine {
    pub(super) const ALL: [Self; 4] = [Self::Nobody, Self::Ours, Self::Iptables, Self::Nftables];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nobody => "no program",
            Self::Ours => "ours",
            Self::Iptables => "iptables + ipset",
            Self::Nftables => "nftables",
        }
    }
}

/// A topology of its own for each engine, so that they can take turns without being installed each time.
pub(super) struct Contender {
    pub(super) engine: Engine,
    // Before the topology, whose namespaces they hold open.
    servers: [Servers; 2],
    pub(super) ours: Vec<Ours>,
    pub(super) topology: Topology,
}

/// Where the traffic goes, always from pod `a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    OneNode,
    TwoNodes,
}

impl Path {
    pub(super) const ALL: [Self; 2] = [Self::OneNode, Self::TwoNodes];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OneNode => "one node",
            Self::TwoNodes => "two nodes",
        }
    }
}

/// So many rules, of which only the last two allow pod `a`: TCP and UDP, ports 5000 to 5999.
pub(super) fn rules_for_a(count: usize) -> Vec<Rule> {
    let mut rules = rules::by_shape(Shape::Selectors, count.saturating_sub(2));
    rules.extend([6, 17].map(|protocol| Rule {
        source: Source::App("a"),
        protocol,
        ports: (5000, 5999),
    }));
    rules
}

impl Contender {
    pub(super) fn new(engine: Engine, iperf: bool) -> Result<Self> {
        let topology = Topology::new()?;
        let servers = [
            Servers::start(topology.pod("vb")?, iperf)?,
            Servers::start(topology.pod("vr")?, iperf)?,
        ];
        Ok(Self {
            engine,
            servers,
            ours: Vec::new(),
            topology,
        })
    }

    /// Puts so many rules in force, on pods `b` and `remote`.
    pub(super) fn install(&mut self, count: usize) -> Result<()> {
        let rules = rules_for_a(count);
        let nodes = &self.topology.nodes;
        match self.engine {
            Engine::Nobody => {}
            Engine::Iptables => nodes
                .iter()
                .try_for_each(|node| netfilter::iptables(node, &rules))?,
            Engine::Nftables => nodes
                .iter()
                .try_for_each(|node| netfilter::nftables(node, &rules))?,
            Engine::Ours => {
                let store = rules::cluster(&rules, &["b", "remote"]);
                if self.ours.is_empty() {
                    self.ours = Ours::install(&self.topology, &store)?;
                } else {
                    for (ours, node) in self.ours.iter_mut().zip(nodes) {
                        ours.apply(node, &store)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Forgets every flow.
    pub(super) fn forget(&self) -> Result<()> {
        match self.engine {
            Engine::Nobody => Ok(()),
            Engine::Ours => self.ours.iter().try_for_each(Ours::forget),
            Engine::Iptables | Engine::Nftables => self.topology.nodes.iter().try_for_each(netfilter::forget),
        }
    }

    pub(super) fn client(&self) -> Result<&Pod> {
        self.topology.pod("va")
    }

    pub(super) fn server(&self, path: Path) -> Result<&Pod> {
        self.topology.pod(match path {
            Path::OneNode => "vb",
            Path::TwoNodes => "vr",
        })
    }

    pub(super) fn servers(&self, path: Path) -> &Servers {
        let [near, far] = &self.servers;
        match path {
            Path::OneNode => near,
            Path::TwoNodes => far,
        }
    }
}

pub(super) fn run(scope: &Scope) -> Result<Report> {
    let mut contenders = Vec::new();
    for engine in Engine::ALL {
        contenders.push(Contender::new(engine, true)?);
    }
    let mut report = Report::default();
    steady::measure(scope, &mut contenders, &mut report)?;
    starts::measure(scope, &mut contenders, &mut report)?;
    report.notes.push(
        "BPF_PROG_TEST_RUN knows no netfilter, so a new flow is compared on the wire: what a datagram from a new port costs \
         more than with no program at all. Only the product and the two netfilter engines run here; the linear walk is \
         compared in the part `verdict`."
            .into(),
    );
    report.notes.push(
        "The nodes have no kube-proxy: without policy they track no connections, so the netfilter engines pay for \
         tracking here what they share with kube-proxy on a real node."
            .into(),
    );
    Ok(report)
}

/// How long one measurement takes.
fn tick(scope: &Scope) -> Duration {
    Duration::from_millis(if scope.quick { 15 } else { 150 })
}
