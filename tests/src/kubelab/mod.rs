//! Nodes and pods of the lab, whose objects are in a real API server: agents follow it, each over a way that can be broken.
//!
//! ```text
//!   ApiServer 127.0.0.1 ── Relay 127.0.0.1 in the node's namespace ── agent
//! ```

mod agree;
mod relay;
mod wire;

pub use agree::{Expected, disagreements, packets};
pub use relay::Relay;
pub use wire::{Latencies, Wire};

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::apiserver::{ApiServer, ApiSpec, Objects};
use crate::lab::{Agent, AgentSpec, Cluster, ClusterSpec, PodManifest, Port};

/// Within this time an agent is ready, or something is wrong.
const SOON: Duration = Duration::from_secs(60);

/// A cluster with an API server. Dropped, it takes everything with it; fields go in order, agents first.
pub struct KubeLab {
    pub agents: Vec<Agent>,
    /// Of each node its way to the API server.
    pub relays: Vec<Relay>,
    pub cluster: Cluster,
    pub objects: Objects,
    pub server: ApiServer,
}

impl KubeLab {
    /// Nodes without agents and without pods.
    pub fn start(nodes: u8, serve: &[Port], spec: &ApiSpec) -> Result<Self> {
        let server = ApiServer::start_with(spec)?;
        let objects = Objects::connect(server.kubeconfig())?;
        let cluster = Cluster::start(&ClusterSpec {
            nodes,
            serve: serve.to_vec(),
            ..ClusterSpec::default()
        })?;
        let mut relays = Vec::new();
        for node in &cluster.nodes {
            relays.push(Relay::start(node.ns(), server.port())?);
            let manifest = node.manifest();
            objects.put(&manifest)?;
            objects.put_status(&manifest)?;
        }
        Ok(Self {
            agents: Vec::new(),
            relays,
            cluster,
            objects,
            server,
        })
    }

    /// Starts every node's agent as the user of a kubeconfig, and waits until it is ready and knows its pods.
    pub fn start_agents(&mut self, kubeconfig: &Path, args: &[&str]) -> Result<()> {
        self.spawn_agents(kubeconfig, args)?;
        self.wait_agents()
    }

    /// The same, without waiting.
    pub fn spawn_agents(&mut self, kubeconfig: &Path, args: &[&str]) -> Result<()> {
        for node in &self.cluster.nodes {
            let spec = AgentSpec {
                kubeconfig: Some(kubeconfig.to_owned()),
                ..AgentSpec::new()?
            };
            self.agents
                .push(Agent::start(&self.cluster.dir, node, spec.args(args))?);
        }
        Ok(())
    }

    /// Waits until every agent is ready and knows the pods of its node.
    pub fn wait_agents(&mut self) -> Result<()> {
        for agent in &mut self.agents {
            agent.wait_ready(SOON)?;
            for pod in self.cluster.pods.values() {
                if pod.manifest.node == agent.node() {
                    agent.wait_endpoint(&pod.manifest.key(), SOON)?;
                }
            }
        }
        Ok(())
    }

    /// Makes a namespace.
    pub fn add_namespace(&self, name: &str) -> Result<()> {
        self.objects.put(&namespace(name))?;
        Ok(())
    }

    /// Runs a pod: its object, its network by the real plugin, its status.
    pub fn add_pod(&mut self, manifest: PodManifest) -> Result<()> {
        self.objects.put(&manifest.bound())?;
        let pod = self.cluster.add_pod(manifest)?;
        let running = pod.manifest.running(pod.net.ips());
        self.objects.put_status(&running)?;
        Ok(())
    }

    /// The address of a pod's server.
    pub fn address(&self, pod: &str, v6: bool, port: u16) -> Result<SocketAddr> {
        let ip: Option<IpAddr> = self.cluster.pod(pod)?.ip(v6);
        Ok((
            ip.with_context(|| format!("{pod} lacks an address of a family"))?,
            port,
        )
            .into())
    }
}

/// A Namespace.
#[must_use]
pub fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}
