//! The product on a topology: its programs on every pod and on the fabric interface of both nodes, in this process.

use anyhow::Result;
use calico_azure_ebpf::abi::{CONFIG_LINKS, Hook, Reason, map};
use calico_azure_userspace::dataplane::attach::{Attachments, Mode, Role};
use calico_azure_userspace::dataplane::kernel::{Kernel, Sizes};
use calico_azure_userspace::dataplane::plan::{DEFAULT_RECORDS, Settings, per_window};
use calico_azure_userspace::dataplane::{Dataplane, links};
use calico_azure_userspace::model::HostRole;
use calico_azure_userspace::policy::{Compiler, Event, Interface, Interfaces, NodeFacts, Store};

use super::topology::{Node, Pod, Topology};
use crate::harness::hosts::{cluster, deny_all, host, of_host};
use crate::harness::object;
use crate::harness::scenario::{self, FABRIC};

/// As an agent sets them without further flags.
fn settings() -> Settings {
    Settings {
        flags: CONFIG_LINKS,
        records: per_window(DEFAULT_RECORDS),
        ..scenario::quiet()
    }
}

/// One node's programs and tables.
pub(in crate::bench) struct Ours {
    dataplane: Dataplane<Kernel>,
    compiler: Compiler,
}

impl Ours {
    /// Loads programs and tables for both nodes and attaches the programs.
    pub(in crate::bench) fn install(topology: &Topology, store: &Store) -> Result<Vec<Self>> {
        let mut nodes = Vec::new();
        for node in &topology.nodes {
            let mut ours = Self {
                dataplane: Dataplane::open(Kernel::load(&object()?, None, Sizes::default())?)?,
                compiler: Compiler::default(),
            };
            ours.apply(node, store)?;
            node.ns.run(|| ours.attach(node))??;
            nodes.push(ours);
        }
        Ok(nodes)
    }

    /// The XDP program on the interface of a pod of the first node, as if it were the node's own: untracked policy denies everything.
    pub(in crate::bench) fn install_early(topology: &Topology, pod: &Pod) -> Result<Self> {
        let [node, _] = &topology.nodes;
        let denies = of_host("untracked", HostRole::Untracked, deny_all(), None);
        let mut store = cluster([host(pod.ifname), denies]);
        let interface = Interface {
            name: pod.ifname.to_owned(),
            ..Interface::default()
        };
        store.apply(Event::Interfaces(Interfaces {
            by_ifindex: [(pod.ifindex, interface)].into(),
        }));
        let mut ours = Self {
            dataplane: Dataplane::open(Kernel::load(&object()?, None, Sizes::default())?)?,
            compiler: Compiler::default(),
        };
        let desired = ours.compiler.compile(&store)?.desired;
        ours.dataplane.apply(&desired, settings())?;
        node.ns.run(|| {
            let kernel = ours.dataplane.io();
            Attachments::default().attach_untracked(kernel, pod.ifname, pod.ifindex)
        })??;
        Ok(ours)
    }

    fn attach(&mut self, node: &Node) -> Result<()> {
        let how = Mode::Auto.resolve();
        let mut attachments = Attachments::default();
        let kernel = self.dataplane.io();
        for pod in &node.pods {
            attachments.attach(kernel, pod.ifname, pod.ifindex, Role::Workload, how)?;
            links::list(kernel.maps(), pod.ifindex)?;
        }
        attachments.attach(kernel, "eth0", FABRIC, Role::Fabric, how)?;
        Ok(links::list(kernel.maps(), FABRIC)?)
    }

    /// Puts a cluster's policies in force on a node.
    pub(in crate::bench) fn apply(&mut self, node: &Node, store: &Store) -> Result<()> {
        let mut store = store.clone();
        let links = node.pods.iter().map(|pod| {
            let interface = Interface {
                name: pod.ifname.to_owned(),
                behind: vec![pod.ip],
                ..Interface::default()
            };
            (pod.ifindex, interface)
        });
        store.apply(Event::Interfaces(Interfaces {
            by_ifindex: links.collect(),
        }));
        store.apply(Event::Node(NodeFacts {
            node: node.name.into(),
            ..NodeFacts::default()
        }));
        let desired = self.compiler.compile(&store)?.desired;
        self.dataplane.apply(&desired, settings())?;
        self.compiler.applied();
        Ok(())
    }

    /// Forgets every flow.
    pub(in crate::bench) fn forget(&self) -> Result<()> {
        Ok(self.dataplane.io_ref().maps().forget_flows()?)
    }

    /// Packets that pods sent and that were dropped for this reason.
    pub(in crate::bench) fn dropped(&self, reason: Reason) -> Result<u64> {
        let totals = self.dataplane.io_ref().maps().counters()?.totals()?;
        let counts = [Hook::FromWorkload, Hook::Untracked].map(|hook| totals.get(&(hook, reason)));
        Ok(counts.into_iter().flatten().map(|count| count.packets).sum())
    }

    /// Established and half-open IPv4 flows.
    pub(in crate::bench) fn flows(&self) -> Result<[usize; 2]> {
        let count = |name| -> Result<usize> { Ok(self.dataplane.io_ref().maps().dump_map(name)?.len()) };
        Ok([count(map::CT_EST4)?, count(map::CT_HALF4)?])
    }
}
