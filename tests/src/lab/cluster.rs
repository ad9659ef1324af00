//! A whole cluster: fabric, nodes, agents, and the pods of a directory of manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::probe::Server;
use super::{
    Agent, AgentSpec, Fabric, Hold, Internet, LabDir, LabError, Networking, Node, Plugin, PodManifest,
    PodNet, Port, Result, Source, flannel, plan,
};

/// What Azure's wireserver answers on: HTTP, the guest agent's plug-in, DNS.
const WIRESERVER: [Port; 4] = [Port::Tcp(80), Port::Tcp(32526), Port::Tcp(53), Port::Udp(53)];

/// What to build.
#[derive(Clone, Debug)]
pub struct ClusterSpec {
    /// `node-1` to `node-<nodes>`.
    pub nodes: u8,
    pub networking: Networking,
    /// But for Azure's own, which is its own plug-in.
    pub plugin: Plugin,
    /// Pods' starts are held by the chained plug-in until their policy is in the kernel.
    pub hold: bool,
    /// A directory of manifests to start with; its pods must name their nodes.
    pub manifests: Option<PathBuf>,
    /// `None`: a cluster without policy, to test the lab or to compare with.
    pub agents: Option<AgentSpec>,
    /// Served by every pod besides all ports that any pod declares.
    pub serve: Vec<Port>,
    /// How long an agent may take to be ready.
    pub ready_timeout: Duration,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            nodes: 2,
            networking: Networking::default(),
            plugin: Plugin::default(),
            hold: false,
            manifests: None,
            agents: None,
            serve: Vec::new(),
            ready_timeout: Duration::from_secs(60),
        }
    }
}

/// A running pod.
#[derive(Debug)]
pub struct Pod {
    pub manifest: PodManifest,
    pub net: PodNet,
    /// Echo servers on every port of the cluster.
    server: Server,
}

impl Pod {
    /// Ports that the pod answers on.
    #[must_use]
    pub fn serves(&self) -> &[Port] {
        self.server.ports()
    }

    /// The pod's address of one family.
    #[must_use]
    pub fn ip(&self, v6: bool) -> Option<IpAddr> {
        self.net.ips().iter().copied().find(|ip| ip.is_ipv6() == v6)
    }
}

/// A cluster. Dropped, it takes everything with it; fields go in order, agents first.
#[derive(Debug)]
pub struct Cluster {
    pub agents: Vec<Agent>,
    pub pods: BTreeMap<String, Pod>,
    outside: Server,
    /// The wireserver and the instance metadata service.
    azure: [Server; 2],
    pub nodes: Vec<Node>,
    pub fabric: Fabric,
    pub internet: Internet,
    pub source: Source,
    serve: Vec<Port>,
    pub dir: LabDir,
}

impl Cluster {
    /// Builds the cluster and waits until every agent is ready and knows its pods.
    pub fn start(spec: &ClusterSpec) -> Result<Self> {
        Self::start_with(spec, |_| {})
    }

    /// As [`Self::start`], telling `progress` about each step that is done.
    pub fn start_with(spec: &ClusterSpec, mut progress: impl FnMut(&str)) -> Result<Self> {
        let dir = LabDir::create()?;
        let source = Source::new(&dir);
        let manifests = match &spec.manifests {
            Some(from) => source.import(from)?,
            None => Vec::new(),
        };
        let serve: BTreeSet<_> = manifests
            .iter()
            .flat_map(|pod| &pod.ports)
            .chain(&spec.serve)
            .copied()
            .collect();
        let serve: Vec<_> = serve.into_iter().collect();
        let (fabric, internet) = Fabric::create(dir.id())?;
        let outside: [IpAddr; 4] = [
            plan::OUTSIDE_V4.into(),
            plan::THREAT_V4.into(),
            plan::OUTSIDE_V6.into(),
            plan::THREAT_V6.into(),
        ];
        let ports: BTreeSet<_> = serve.iter().copied().chain([Port::Tcp(443)]).collect();
        let outside = Server::start(&internet.ns, &outside, &ports.into_iter().collect::<Vec<_>>())?;
        let azure = [
            Server::start(fabric.ns(), &[plan::WIRESERVER.into()], &WIRESERVER)?,
            Server::start(fabric.ns(), &[plan::IMDS.into()], &[Port::Tcp(80)])?,
        ];
        let mut cluster = Self {
            agents: Vec::new(),
            pods: BTreeMap::new(),
            outside,
            azure,
            nodes: Vec::new(),
            fabric,
            internet,
            source,
            serve,
            dir,
        };
        progress("fabric");
        for number in 1..=spec.nodes {
            cluster.nodes.push(Node::create(
                &cluster.dir,
                &cluster.fabric,
                number,
                spec.networking,
                spec.plugin,
            )?);
        }
        if spec.networking == Networking::Flannel {
            flannel::devices(&cluster.nodes)?;
        }
        let nodes: Vec<_> = cluster.nodes.iter().map(Node::manifest).collect();
        cluster.write_objects(&nodes)?;
        progress("nodes");
        if let Some(agent) = &spec.agents {
            let mut agent = agent.clone();
            agent.fabric = spec.networking.fabric_interfaces().to_owned();
            for node in &cluster.nodes {
                cluster
                    .agents
                    .push(Agent::start(&cluster.dir, node, agent.clone())?);
            }
        }
        if spec.hold {
            cluster.hold()?;
        }
        for pod in manifests {
            cluster.add_pod(pod)?;
        }
        progress("pods");
        for agent in &mut cluster.agents {
            agent.wait_ready(spec.ready_timeout)?;
        }
        cluster.wait_endpoints(spec.ready_timeout)?;
        progress("agents");
        Ok(cluster)
    }

    /// From now on.
    fn hold(&mut self) -> Result<()> {
        let program = self.dir.run().join("calico-azure-cni");
        std::os::unix::fs::symlink(super::binary()?, &program).map_err(LabError::file(&program))?;
        for node in &mut self.nodes {
            node.hold = Some(Hold {
                program: program.clone(),
                run_dir: self.dir.run(),
                timeout: 10.0,
                on_timeout: "fail",
            });
        }
        Ok(())
    }

    /// Runs a pod as kubelet and its runtime would: bound, then its network, then its addresses in its status.
    /// Does not wait for the agent: see [`Self::wait_endpoints`].
    pub fn add_pod(&mut self, manifest: PodManifest) -> Result<&Pod> {
        let node = self.node(&manifest.node)?;
        self.source.write_objects(&manifest.file(), &[manifest.bound()])?;
        let net = node.add_pod(&manifest.namespace, &manifest.name)?;
        let ports: BTreeSet<_> = self.serve.iter().chain(&manifest.ports).copied().collect();
        let server = Server::start(net.ns(), net.ips(), &ports.into_iter().collect::<Vec<_>>())?;
        self.source
            .write_objects(&manifest.file(), &[manifest.running(net.ips())])?;
        let key = manifest.key();
        self.pods.insert(
            key.clone(),
            Pod {
                manifest,
                net,
                server,
            },
        );
        self.pod(&key)
    }

    /// Deletes a pod: its object, then its network.
    pub fn delete_pod(&mut self, key: &str) -> Result<()> {
        let pod = self.pod(key)?;
        self.source.remove(&pod.manifest.file())?;
        self.pods.remove(key);
        Ok(())
    }

    /// Publishes a change to a pod's labels.
    pub fn label_pod(&mut self, key: &str, label: &str, value: Option<&str>) -> Result<()> {
        let Some(pod) = self.pods.get_mut(key) else {
            return Err(self.unknown("pod", key));
        };
        pod.manifest.set_label(label, value);
        self.source
            .write_objects(&pod.manifest.file(), &[pod.manifest.running(pod.net.ips())])
    }

    /// Waits until every pod is known to its node's agent.
    pub fn wait_endpoints(&mut self, timeout: Duration) -> Result<()> {
        for agent in &mut self.agents {
            let node = agent.node().to_owned();
            for pod in self.pods.values().filter(|pod| pod.manifest.node == node) {
                agent.wait_endpoint(&pod.manifest.key(), timeout)?;
            }
        }
        Ok(())
    }

    /// A pod by `namespace/name`.
    pub fn pod(&self, key: &str) -> Result<&Pod> {
        self.pods.get(key).ok_or_else(|| self.unknown("pod", key))
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes
            .iter()
            .find(|node| node.name() == name)
            .ok_or_else(|| self.unknown("node", name))
    }

    /// The agent of a node.
    pub fn agent(&mut self, node: &str) -> Result<&mut Agent> {
        match self.agents.iter().position(|agent| agent.node() == node) {
            Some(index) => Ok(&mut self.agents[index]),
            None => Err(self.unknown("agent of node", node)),
        }
    }

    /// The pod that has `ip`.
    #[must_use]
    pub fn owner(&self, ip: IpAddr) -> Option<&Pod> {
        self.pods.values().find(|pod| pod.net.ips().contains(&ip))
    }

    /// Ports that every pod answers on.
    #[must_use]
    pub fn ports(&self) -> &[Port] {
        &self.serve
    }

    /// Ports that the outside answers on.
    #[must_use]
    pub fn outside_ports(&self) -> &[Port] {
        self.outside.ports()
    }

    /// Ends this process's echo servers, so that others can take their place.
    pub fn stop_servers(&mut self) {
        self.outside.stop();
        self.azure.iter_mut().for_each(Server::stop);
        for pod in self.pods.values_mut() {
            pod.server.stop();
        }
    }

    /// Leaves everything but this process's servers in place; undo with [`super::remove`].
    pub fn keep(mut self) -> String {
        let id = self.dir.id().to_owned();
        self.dir.keep();
        std::mem::forget(self);
        id
    }

    fn unknown(&self, kind: &'static str, name: &str) -> LabError {
        let known = match kind {
            "pod" => self.pods.keys().cloned().collect::<Vec<_>>(),
            _ => self.nodes.iter().map(|node| node.name().to_owned()).collect(),
        };
        LabError::Unknown {
            kind,
            name: name.to_owned(),
            known: known.join(", "),
        }
    }
}
