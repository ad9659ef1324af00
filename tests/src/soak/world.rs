//! What is soaked: two nodes with a server, a client and a stranger each, and what must be left of it at the end.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context as _, Result};
use calico_azure_ebpf::abi::{Hook, Reason};
use calico_azure_userspace::dataplane::counters::Counters;
use calico_azure_userspace::dataplane::pins::Pins;

use crate::lab::{Agent, AgentSpec, Cluster, ClusterSpec, NetNs, PodManifest, Port};

/// Policy allows it to clients.
pub(super) const SERVED: u16 = 8080;
/// Policy allows it to clients now and then.
pub(super) const TOGGLED: u16 = 9000;
const BPFFS: &str = "/sys/fs/bpf";

/// The cluster.
pub(super) struct World {
    pub(super) cluster: Cluster,
}

/// Packets by hook and reason, of all nodes.
pub(super) type Totals = BTreeMap<(Hook, Reason), u64>;

impl World {
    pub(super) fn start(conntrack: u32) -> Result<Self> {
        let agents = AgentSpec::new()?
            .args(["--established-flows", "reevaluate", "--conntrack-entries"])
            .args([conntrack.to_string()]);
        let spec = ClusterSpec {
            agents: Some(agents),
            ..ClusterSpec::default()
        };
        let cluster = Cluster::start(&spec)?;
        let namespaces = "apiVersion: v1\nkind: Namespace\nmetadata: {name: soak}\n";
        cluster.source.write("namespaces.yaml", namespaces)?;
        cluster
            .source
            .write("served.yaml", &policy("served", SERVED, "Allow", 100))?;
        let mut world = Self { cluster };
        world.toggle(false)?;
        for (node, number) in [("node-1", 1), ("node-2", 2)] {
            for app in ["server", "client", "stranger"] {
                world.add(&format!("{app}-{number}"), app, node)?;
            }
        }
        world.cluster.wait_endpoints(std::time::Duration::from_secs(20))?;
        Ok(world)
    }

    /// Runs a pod.
    pub(super) fn add(&mut self, name: &str, app: &str, node: &str) -> Result<()> {
        let ports = match app {
            "server" => vec![Port::Udp(SERVED), Port::Tcp(SERVED), Port::Udp(TOGGLED)],
            _ => Vec::new(),
        };
        self.cluster
            .add_pod(PodManifest::new("soak", name, node, &[("app", app)], &ports))?;
        Ok(())
    }

    /// Allows the toggled port to clients, or denies it.
    pub(super) fn toggle(&self, allow: bool) -> Result<()> {
        let action = if allow { "Allow" } else { "Deny" };
        Ok(self
            .cluster
            .source
            .write("toggled.yaml", &policy("toggled", TOGGLED, action, 50))?)
    }

    pub(super) fn ns(&self, pod: &str) -> Result<NetNs> {
        Ok(self.cluster.pod(&format!("soak/{pod}"))?.net.ns().clone())
    }

    pub(super) fn address(&self, pod: &str, v6: bool, port: u16) -> Result<SocketAddr> {
        let ip: Option<IpAddr> = self.cluster.pod(&format!("soak/{pod}"))?.ip(v6);
        Ok((
            ip.with_context(|| format!("{pod} lacks an address of a family"))?,
            port,
        )
            .into())
    }

    /// What the programs of both nodes have counted.
    pub(super) fn counters(&self) -> Result<Totals> {
        let mut all = Totals::new();
        for agent in &self.cluster.agents {
            for (key, value) in Counters::open(&pins(agent)?)?.totals()? {
                *all.entry(key).or_default() += value.packets;
            }
        }
        Ok(all)
    }

    /// Compares the programs' counters with what was sent: each packet that policy is against was dropped once, by policy,
    /// and nothing else was. How many were sent is a range because of pods that have just come.
    pub(super) fn account(
        &self,
        before: &Totals,
        denied: RangeInclusive<u64>,
        say: &mut dyn FnMut(&str),
    ) -> Result<Vec<String>> {
        let mut findings = Vec::new();
        let mut dropped = 0;
        for ((hook, reason), count) in self.counters()? {
            let count = count - before.get(&(hook, reason)).copied().unwrap_or_default();
            if count == 0 || reason.passes() {
                continue;
            }
            say(&format!(
                "dropped {count}: {} at {}",
                reason.as_str(),
                hook.as_str()
            ));
            match reason {
                Reason::PolicyDeny => dropped += count,
                // A pod that comes or goes: nothing is known of it yet, or any more.
                Reason::NoEndpoint | Reason::NotReady | Reason::NoSuchWorkload | Reason::UnknownSource => {}
                _ => findings.push(format!("{count} packets were dropped: {}", reason.as_str())),
            }
        }
        if !denied.contains(&dropped) {
            findings.push(format!(
                "policy dropped {dropped} packets, but {} to {} were to be dropped",
                denied.start(),
                denied.end()
            ));
        }
        Ok(findings)
    }

    /// Takes everything down. What of it is left?
    pub(super) fn end(self) -> Result<Vec<String>> {
        let mut findings = Vec::new();
        let id = self.cluster.dir.id().to_owned();
        let pins: Vec<_> = self.cluster.agents.iter().map(pins).collect::<Result<_>>()?;
        drop(self.cluster);
        for pins in pins {
            if pins.maps().exists() || pins.links().exists() {
                findings.push(format!("pins are left in {}", pins.maps().display()));
            }
        }
        let left = NetNs::all()
            .into_iter()
            .filter(|name| name.starts_with(&id))
            .count();
        if left > 0 {
            findings.push(format!("{left} network namespaces are left"));
        }
        Ok(findings)
    }
}

/// Where an agent pins.
pub(super) fn pins(agent: &Agent) -> Result<Pins> {
    Ok(Pins::new(Path::new(BPFFS), &agent.pin_name())?)
}

fn policy(name: &str, port: u16, action: &str, order: u32) -> String {
    let rule = |protocol: &str| {
        format!(
            "  - {{action: {action}, protocol: {protocol}, source: {{selector: app == 'client'}}, destination: {{ports: [{port}]}}}}\n"
        )
    };
    format!(
        "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: soak}}\nspec:\n  \
         order: {order}\n  selector: app == 'server'\n  types: [Ingress]\n  ingress:\n{}{}",
        rule("UDP"),
        rule("TCP")
    )
}
