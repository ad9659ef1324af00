//! A cluster on one of the networks, with two servers, a client and a stranger, and what is asked of it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use calico_azure_tests::lab::probe::{self, Crafted, Payload};
use calico_azure_tests::lab::{
    AgentSpec, Cluster, ClusterSpec, Flow, NetNs, Networking, Plugin, PodManifest, Port, binary, plan,
};
use serde_json::Value;

pub(crate) const SOON: Duration = Duration::from_secs(3);
pub(crate) const NEVER: Duration = Duration::from_millis(300);
pub(crate) const WEB: u16 = 8080;
pub(crate) const OTHER: u16 = 8081;
pub(crate) const FORGED: u16 = 40_001;

/// `server` takes port 8080 from `client`, and nothing else; `client` may send anywhere but to the threat.
const POLICIES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: a}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}]
    ports: [{port: 8080}]
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: client, namespace: a}
spec:
  selector: app == 'client'
  types: [Egress]
  egress:
  - {action: Deny, destination: {nets: [203.0.113.66/32]}}
  - {action: Deny, destination: {nets: ['2001:db8:ffff:bad::66/128']}}
  - {action: Allow}
";

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) networking: Networking,
    pub(crate) plugin: Plugin,
    /// What the agents are told.
    named: Option<&'static str>,
}

impl World {
    pub(crate) fn start(networking: Networking) -> Self {
        Self::start_with(networking, Plugin::default())
    }

    pub(crate) fn start_with(networking: Networking, plugin: Plugin) -> Self {
        Self::start_as(networking, plugin, None, AgentSpec::new().unwrap())
    }

    /// With agents that are told more; `named`: what they should then say of the network, if it is not what they find.
    pub(crate) fn start_as(
        networking: Networking,
        plugin: Plugin,
        named: Option<&'static str>,
        agents: AgentSpec,
    ) -> Self {
        let mut cluster = Cluster::start(&ClusterSpec {
            networking,
            plugin,
            agents: Some(agents),
            ..ClusterSpec::default()
        })
        .unwrap();
        cluster.source.write("policies.yaml", POLICIES).unwrap();
        for (name, node, app) in [
            ("client", "node-1", "client"),
            ("near", "node-1", "server"),
            ("far", "node-2", "server"),
            ("stranger", "node-2", "stranger"),
        ] {
            let ports = [Port::Tcp(WEB), Port::Tcp(OTHER)];
            cluster
                .add_pod(PodManifest::new("a", name, node, &[("app", app)], &ports))
                .unwrap();
        }
        cluster.wait_endpoints(SOON).unwrap();
        let world = Self {
            cluster,
            networking,
            plugin,
            named,
        };
        world.found();
        // Until the policies are in force on both nodes.
        let end = Instant::now() + SOON;
        for name in ["near", "far"] {
            while world.tcp("stranger", world.ip(name, false), WEB, NEVER) {
                assert!(Instant::now() < end, "no policy on {name}");
            }
        }
        world
    }

    /// The agents have found out where they are.
    pub(crate) fn found(&self) {
        let expected = self.named.unwrap_or(self.networking.name());
        for agent in &self.cluster.agents {
            let found = agent.status().unwrap().unwrap().networking;
            assert_eq!(
                (found.networking.as_str(), found.named),
                (expected, self.named.is_some()),
                "{found:?}"
            );
            assert!(!found.evidence.is_empty());
        }
    }

    pub(crate) fn ns(&self, pod: &str) -> NetNs {
        self.cluster.pod(&format!("a/{pod}")).unwrap().net.ns().clone()
    }

    pub(crate) fn ip(&self, pod: &str, v6: bool) -> IpAddr {
        self.cluster.pod(&format!("a/{pod}")).unwrap().ip(v6).unwrap()
    }

    pub(crate) fn tcp(&self, from: &str, to: IpAddr, port: u16, patience: Duration) -> bool {
        probe::tcp(&self.ns(from), to, port, patience).unwrap().reached()
    }

    pub(crate) fn fabric_drops(&self) -> u64 {
        let counters = self.cluster.fabric.counters().unwrap();
        counters.values().map(|counter| counter.packets).sum()
    }

    pub(crate) fn allowed_and_denied(&self) {
        for v6 in [false, true] {
            let [outside, threat]: [IpAddr; 2] = if v6 {
                [plan::OUTSIDE_V6.into(), plan::THREAT_V6.into()]
            } else {
                [plan::OUTSIDE_V4.into(), plan::THREAT_V4.into()]
            };
            for server in ["near", "far"] {
                let to = self.ip(server, v6);
                assert!(self.tcp("client", to, WEB, SOON), "client to {server}, {to}");
                assert!(
                    !self.tcp("client", to, OTHER, NEVER),
                    "client to another port of {server}, {to}"
                );
                assert!(
                    !self.tcp("stranger", to, WEB, NEVER),
                    "stranger to {server}, {to}"
                );
            }
            assert!(self.tcp("client", outside, 443, SOON), "client to {outside}");
            assert!(!self.tcp("client", threat, 443, NEVER), "client to {threat}");
            // The kubelet, whatever policy says.
            for (node, server) in [("node-1", "near"), ("node-2", "far")] {
                let host = self.cluster.node(node).unwrap().ns();
                let reached = probe::tcp(host, self.ip(server, v6), OTHER, SOON)
                    .unwrap()
                    .reached();
                assert!(reached, "{node} to its pod {server}");
            }
            let host = self.cluster.node("node-1").unwrap().ns();
            let reached = probe::tcp(host, self.ip("far", v6), WEB, NEVER)
                .unwrap()
                .reached();
            assert!(!reached, "another node is nobody in particular");
        }
    }

    /// Sends a packet of a forged source; our reason must be told, by this hook, and the fabric must have nothing to drop.
    pub(crate) fn forge(
        &self,
        from: &NetNs,
        node: &str,
        src: IpAddr,
        dst: IpAddr,
        (hook, reason): (&str, &str),
    ) {
        let mine = |flow: &Flow| flow.src == Some(src) && flow.dst == Some(dst) && flow.reason == reason;
        self.forge_as(from, node, src, dst, hook, &mine);
    }

    /// The same, by a record of another shape.
    pub(crate) fn forge_as(
        &self,
        from: &NetNs,
        node: &str,
        src: IpAddr,
        dst: IpAddr,
        hook: &str,
        mine: &dyn Fn(&Flow) -> bool,
    ) {
        let agent = self
            .cluster
            .agents
            .iter()
            .find(|agent| agent.node() == node)
            .unwrap();
        let (flows, before) = (agent.flows(), self.fabric_drops());
        let mark = flows.mark();
        let payload = Payload::Udp {
            sport: FORGED,
            dport: FORGED,
        };
        Crafted { src, dst, payload }.send(from).unwrap();
        let what = format!(
            "{:?}: a record of {src} to {dst} at {hook} of {node}",
            self.networking
        );
        let flow = flows.wait_for(mark, &what, SOON, mine).unwrap();
        assert_eq!(flow.hook, hook, "{what}");
        assert_eq!(self.fabric_drops(), before, "{what}: the fabric saw it");
    }

    /// What `calico-azure routes`, or another command, prints on node-1.
    pub(crate) fn printed(&self, what: &str, format: &str) -> String {
        let mut agents = self.cluster.agents.iter();
        let agent = agents.find(|agent| agent.node() == "node-1").unwrap();
        let node = self.cluster.node("node-1").unwrap().ns();
        let mut command = node.command(binary().unwrap());
        command.args([what, "--node", "node-1", "--bpffs", "/sys/fs/bpf"]);
        command.args(["--pin-name", &agent.pin_name(), "-o", format]);
        let output = command.arg("--run-dir").arg(agent.run_dir()).output().unwrap();
        let (out, err) = (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        );
        assert!(output.status.success(), "{out}{err}");
        out
    }

    /// The same: prefix, kinds, interface.
    pub(crate) fn routes(&self) -> Vec<(String, String, String)> {
        let rows: Vec<Value> = serde_json::from_str(&self.printed("routes", "json")).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let kinds = |row: &Value| {
            let kinds = row["kinds"].as_array().unwrap().iter();
            kinds.map(text).collect::<Vec<_>>().join(",")
        };
        rows.iter()
            .map(|row| (text(&row["prefix"]), kinds(row), text(&row["interfaces"][0])))
            .collect()
    }

    /// The example in docs/azure.md is what this cluster really prints.
    pub(crate) fn as_documented(&self) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/azure.md");
        let page = std::fs::read_to_string(path).unwrap();
        let printed = self.printed("routes", "table");
        let (lines, page) = (unnamed(&printed), unnamed(&page));
        assert!(page.contains(&lines), "not in docs/azure.md:\n{printed}");
    }

    /// The kernel knows the pods of this node, where they are, and the other node.
    pub(crate) fn known(&self) {
        let routes = self.routes();
        let has = |prefix: String, kind: &str, interface: &str| {
            let row = (prefix, kind.to_owned(), interface.to_owned());
            assert!(routes.contains(&row), "{row:?} in {routes:#?}");
        };
        for v6 in [false, true] {
            let length = if v6 { 128 } else { 32 };
            for pod in ["client", "near"] {
                let interface = self
                    .cluster
                    .pod(&format!("a/{pod}"))
                    .unwrap()
                    .net
                    .ifname()
                    .to_owned();
                has(
                    format!("{}/{length}", self.ip(pod, v6)),
                    "local-workload",
                    &interface,
                );
            }
            let [own, other] = ["node-1", "node-2"].map(|name| self.cluster.node(name).unwrap());
            has(
                format!("{}/{length}", own.ips()[usize::from(v6)]),
                "local-host",
                "eth0",
            );
            has(
                format!("{}/{length}", other.ips()[usize::from(v6)]),
                "remote-host",
                "",
            );
            if !self.networking.is_azures() {
                has(own.pod_cidrs()[usize::from(v6)].to_string(), "local-pod-cidr", "");
                has(
                    other.pod_cidrs()[usize::from(v6)].to_string(),
                    "remote-pod-cidr",
                    "",
                );
            }
        }
    }

    pub(crate) fn forged_sources(&self) {
        let spoofed = ("from-workload", "spoofed-source");
        let client = self.ns("client");
        for v6 in [false, true] {
            let node = self.cluster.node("node-1").unwrap().ips()[usize::from(v6)];
            let pods = self.networking.pods(1);
            let unassigned = pods[usize::from(v6)].hosts().nth(200).unwrap();
            let foreign: IpAddr = if v6 { "2001:db8::9" } else { "198.51.100.9" }.parse().unwrap();
            for src in [self.ip("near", v6), node, unassigned, foreign] {
                self.forge(&client, "node-1", src, self.ip("far", v6), spoofed);
            }
        }
    }

    /// Packets on node-1 with this reason.
    pub(crate) fn counted(&self, reason: &str) -> u64 {
        let counters: Value = serde_json::from_str(&self.printed("counters", "json")).unwrap();
        let totals = counters["totals"].as_array().unwrap().iter();
        let of = totals.filter(|total| total["reason"] == reason);
        of.map(|row| row["packets"].as_u64().unwrap()).sum()
    }
}

/// Without what the plug-in drew at random: the rest of interfaces' names.
fn unnamed(text: &str) -> String {
    let mut parts = text.split("veth");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + "veth" + part.trim_start_matches(|c: char| c.is_ascii_hexdigit())
    })
}
