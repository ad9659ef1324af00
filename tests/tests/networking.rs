//! Policy and source validation on each of the networks, in both families: who reaches whom, what is denied, and where four kinds
//! of forged sources end.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use calico_azure_tests::lab::probe::{self, Crafted, Payload};
use calico_azure_tests::lab::{
    AgentSpec, Cluster, ClusterSpec, FabricDrop, Flow, NetNs, Networking, Plugin, PodManifest, Port, binary,
    plan,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(3);
const NEVER: Duration = Duration::from_millis(300);
const WEB: u16 = 8080;
const OTHER: u16 = 8081;
const FORGED: u16 = 40_001;

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

struct World {
    cluster: Cluster,
    networking: Networking,
    plugin: Plugin,
}

impl World {
    fn start(networking: Networking) -> Self {
        Self::start_with(networking, Plugin::default())
    }

    fn start_with(networking: Networking, plugin: Plugin) -> Self {
        let mut cluster = Cluster::start(&ClusterSpec {
            networking,
            plugin,
            agents: Some(AgentSpec::new().unwrap()),
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
    fn found(&self) {
        let expected = match self.networking {
            Networking::Udr => "udr",
            Networking::HostLocal => "host-local",
            Networking::Flannel => "flannel",
            Networking::AzureCni => "azure-cni",
        };
        for agent in &self.cluster.agents {
            let found = agent.status().unwrap().unwrap().networking;
            assert_eq!(
                (found.networking.as_str(), found.named),
                (expected, false),
                "{found:?}"
            );
            assert!(!found.evidence.is_empty());
        }
    }

    fn ns(&self, pod: &str) -> NetNs {
        self.cluster.pod(&format!("a/{pod}")).unwrap().net.ns().clone()
    }

    fn ip(&self, pod: &str, v6: bool) -> IpAddr {
        self.cluster.pod(&format!("a/{pod}")).unwrap().ip(v6).unwrap()
    }

    fn tcp(&self, from: &str, to: IpAddr, port: u16, patience: Duration) -> bool {
        probe::tcp(&self.ns(from), to, port, patience).unwrap().reached()
    }

    fn fabric_drops(&self) -> u64 {
        let counters = self.cluster.fabric.counters().unwrap();
        counters.values().map(|counter| counter.packets).sum()
    }

    fn allowed_and_denied(&self) {
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
    fn forge(&self, from: &NetNs, node: &str, src: IpAddr, dst: IpAddr, (hook, reason): (&str, &str)) {
        let mine = |flow: &Flow| flow.src == Some(src) && flow.dst == Some(dst) && flow.reason == reason;
        self.forge_as(from, node, src, dst, hook, &mine);
    }

    /// The same, by a record of another shape.
    fn forge_as(
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
    fn printed(&self, what: &str, format: &str) -> String {
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
    fn routes(&self) -> Vec<(String, String, String)> {
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
    fn as_documented(&self) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/azure.md");
        let page = std::fs::read_to_string(path).unwrap();
        let printed = self.printed("routes", "table");
        let (lines, page) = (unnamed(&printed), unnamed(&page));
        assert!(page.contains(&lines), "not in docs/azure.md:\n{printed}");
    }

    /// The kernel knows the pods of this node, where they are, and the other node.
    fn known(&self) {
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
            if self.networking != Networking::AzureCni {
                has(own.pod_cidrs()[usize::from(v6)].to_string(), "local-pod-cidr", "");
                has(
                    other.pod_cidrs()[usize::from(v6)].to_string(),
                    "remote-pod-cidr",
                    "",
                );
            }
        }
    }

    fn forged_sources(&self) {
        let spoofed = ("from-workload", "spoofed-source");
        let client = self.ns("client");
        for v6 in [false, true] {
            let node = self.cluster.node("node-1").unwrap().ips()[usize::from(v6)];
            let pods = match self.networking {
                Networking::AzureCni => plan::azure_pods(1),
                Networking::Udr | Networking::HostLocal | Networking::Flannel => plan::pod_cidrs(1),
            };
            let unassigned = pods[usize::from(v6)].hosts().nth(200).unwrap();
            let foreign: IpAddr = if v6 { "2001:db8::9" } else { "198.51.100.9" }.parse().unwrap();
            for src in [self.ip("near", v6), node, unassigned, foreign] {
                self.forge(&client, "node-1", src, self.ip("far", v6), spoofed);
            }
        }
    }
}

impl World {
    /// Who says on the bridge that another's address is his gets nothing of it, and keeps nobody from it.
    fn lies_about_addresses(&self) {
        assert_eq!(self.plugin, Plugin::Bridge);
        let (client, near) = (self.ns("client"), self.ns("near"));
        let mac = |ns: &NetNs| mac(&ns.ip(&["-o", "link", "show", "eth0"]).unwrap(), "link/ether");
        let (liar, victim) = (mac(&client), mac(&near));
        for (v6, gateway) in [(false, "10.244.1.1"), (true, "fd00:10:244:1::1")] {
            let gateway: IpAddr = gateway.parse().unwrap();
            let outside: IpAddr = if v6 {
                plan::OUTSIDE_V6.into()
            } else {
                plan::OUTSIDE_V4.into()
            };
            assert!(self.tcp("near", outside, 443, SOON));
            let neighbour = || {
                let text = gateway.to_string();
                mac_of(&near.ip(&["neigh", "show", &text]).unwrap())
            };
            let honest = neighbour();
            assert_ne!(honest, liar);
            let before = self.counted("spoofed-source");
            let lie = match (gateway, self.ip("near", v6)) {
                (IpAddr::V4(says), IpAddr::V4(to)) => arp_reply(liar, victim, says, to),
                (IpAddr::V6(says), IpAddr::V6(to)) => {
                    advertisement(liar, victim, self.ip("client", v6), says, to)
                }
                _ => unreachable!("both are of one family"),
            };
            for _ in 0..3 {
                probe::frame(&client, "eth0", &lie).unwrap();
            }
            let end = Instant::now() + SOON;
            while self.counted("spoofed-source") < before + 3 {
                assert!(Instant::now() < end, "not counted");
                std::thread::sleep(Duration::from_millis(20));
            }
            assert_eq!(neighbour(), honest);
            assert!(self.tcp("near", outside, 443, SOON));
            // The same words about himself pass.
            let truth = match (self.ip("client", v6), self.ip("near", v6)) {
                (IpAddr::V4(says), IpAddr::V4(to)) => arp_reply(liar, victim, says, to),
                (IpAddr::V6(says), IpAddr::V6(to)) => advertisement(liar, victim, says.into(), says, to),
                _ => unreachable!("both are of one family"),
            };
            let before = self.counted("spoofed-source");
            probe::frame(&client, "eth0", &truth).unwrap();
            assert!(self.tcp("client", self.ip("near", v6), WEB, SOON));
            assert_eq!(self.counted("spoofed-source"), before);
            // A frame for nobody goes to all ports, and nobody but the one with the address is asked whether he takes it.
            let before = self.counted("foreign-destination");
            let payload = Payload::Udp {
                sport: FORGED,
                dport: FORGED,
            };
            let crafted = Crafted {
                src: self.ip("client", v6),
                dst: self.ip("far", v6),
                payload,
            };
            let kind = if v6 { [0x86, 0xdd] } else { [8, 0] };
            let stray = [
                &[2, 0, 0, 0xde, 0xad, 1][..],
                &liar,
                &kind,
                &crafted.bytes().unwrap(),
            ]
            .concat();
            probe::frame(&client, "eth0", &stray).unwrap();
            let end = Instant::now() + SOON;
            while self.counted("foreign-destination") == before {
                assert!(Instant::now() < end, "not counted");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Packets on node-1 with this reason.
    fn counted(&self, reason: &str) -> u64 {
        let counters: Value = serde_json::from_str(&self.printed("counters", "json")).unwrap();
        let totals = counters["totals"].as_array().unwrap().iter();
        let of = totals.filter(|total| total["reason"] == reason);
        of.map(|row| row["packets"].as_u64().unwrap()).sum()
    }
}

fn mac(text: &str, after: &str) -> [u8; 6] {
    let mut words = text.split_whitespace().skip_while(|word| *word != after);
    let text = words.nth(1).unwrap();
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    bytes.try_into().unwrap()
}

fn mac_of(neighbour: &str) -> [u8; 6] {
    mac(neighbour, "lladdr")
}

/// RFC 826: `says` is at `liar`.
fn arp_reply(liar: [u8; 6], victim: [u8; 6], says: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 2];
    let body = [&head[..], &liar, &says.octets(), &victim, &to.octets()].concat();
    [&victim[..], &liar, &[8, 6], &body].concat()
}

/// RFC 4861, 4.4: the same in IPv6, overriding what was known.
fn advertisement(liar: [u8; 6], victim: [u8; 6], src: IpAddr, says: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let mut bytes = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    bytes.extend(says.octets());
    bytes.extend([2, 1]);
    bytes.extend(liar);
    let payload = Payload::Other { protocol: 58, bytes };
    let mut packet = Crafted {
        src,
        dst: to.into(),
        payload,
    }
    .bytes()
    .unwrap();
    packet[7] = 255;
    [&victim[..], &liar, &[0x86, 0xdd], &packet].concat()
}

/// Without what the plug-in drew at random: the rest of interfaces' names.
fn unnamed(text: &str) -> String {
    let mut parts = text.split("veth");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + "veth" + part.trim_start_matches(|c: char| c.is_ascii_hexdigit())
    })
}

#[test]
fn user_defined_routes() {
    let world = World::start(Networking::Udr);
    world.allowed_and_denied();
    world.known();
    world.as_documented();
    world.forged_sources();
    // From the fabric: what claims to be this node's own.
    let other = world.cluster.node("node-2").unwrap();
    for v6 in [false, true] {
        let own = world.ip("client", v6);
        let agent = world
            .cluster
            .agents
            .iter()
            .find(|agent| agent.node() == "node-2")
            .unwrap();
        let (flows, dropped) = (
            agent.flows(),
            world
                .cluster
                .fabric
                .dropped(other, FabricDrop::UnknownSource)
                .unwrap(),
        );
        // A host's own packets are its business; here it is the fabric that knows better.
        let payload = Payload::Udp {
            sport: FORGED,
            dport: FORGED,
        };
        let mark = flows.mark();
        Crafted {
            src: own,
            dst: world.ip("near", v6),
            payload,
        }
        .send(other.ns())
        .unwrap();
        let end = Instant::now() + SOON;
        while world
            .cluster
            .fabric
            .dropped(other, FabricDrop::UnknownSource)
            .unwrap()
            == dropped
        {
            assert!(Instant::now() < end, "{own} from node-2");
        }
        assert!(
            flows
                .since(mark)
                .unwrap()
                .iter()
                .all(|flow| flow.verdict != "deny")
        );
    }
}

#[test]
fn flannel() {
    let world = World::start(Networking::Flannel);
    world.allowed_and_denied();
    world.known();
    world.forged_sources();
    // Azure knows the nodes only: what leaves bare, dies there. All that pods of two nodes say to each other goes in the tunnel.
    for v6 in [false, true] {
        let node = world.cluster.node("node-1").unwrap();
        let cidr = world.cluster.node("node-2").unwrap().pod_cidrs()[usize::from(v6)].to_string();
        let device = if v6 { "flannel-v6.1" } else { "flannel.1" };
        let route = node
            .ns()
            .ip(&[if v6 { "-6" } else { "-4" }, "route", "show", &cidr])
            .unwrap();
        assert!(route.contains(device), "{route}");
        let before = world.fabric_drops();
        assert!(world.tcp("client", world.ip("far", v6), WEB, SOON));
        assert_eq!(world.fabric_drops(), before);
    }
    // In the tunnel: what another node sends as its own, and is not. The record names the sender.
    let source = &world.cluster.source;
    source
        .write(
            "node-3.yaml",
            "{apiVersion: v1, kind: Node, metadata: {name: node-3}, spec: {podCIDRs: [10.244.3.0/24, 'fd00:10:244:3::/64']}}",
        )
        .unwrap();
    let other = world.cluster.node("node-2").unwrap();
    for v6 in [false, true] {
        let strangers = if v6 {
            ["fd00:10:244:3::5", "2001:db8::9"]
        } else {
            ["10.244.3.5", "198.51.100.9"]
        };
        let strangers = strangers.map(|ip| ip.parse().unwrap());
        for src in [world.ip("near", v6), strangers[0], strangers[1]] {
            let sender = other.ips()[usize::from(v6)];
            let mine = |flow: &Flow| flow.src == Some(sender) && flow.reason == "tunnel-source";
            world.forge_as(
                other.ns(),
                "node-1",
                src,
                world.ip("client", v6),
                "from-fabric",
                &mine,
            );
        }
    }
    for agent in &world.cluster.agents {
        let status = agent.status().unwrap().unwrap();
        assert_eq!(status.problems, Vec::<String>::new());
    }
}

#[test]
fn azures_own_plug_in() {
    let world = World::start(Networking::AzureCni);
    for pod in world.cluster.pods.values() {
        assert!(pod.net.ifname().starts_with("azv"), "{}", pod.net.ifname());
    }
    world.allowed_and_denied();
    world.known();
    world.forged_sources();
}

#[test]
fn host_local_where_the_network_knows_pods() {
    let world = World::start(Networking::HostLocal);
    world.allowed_and_denied();
    world.known();
    world.forged_sources();
}

#[test]
fn pods_on_a_bridge() {
    for networking in [Networking::HostLocal, Networking::Flannel] {
        let world = World::start_with(networking, Plugin::Bridge);
        for pod in world.cluster.pods.values() {
            let node = world.cluster.node(&pod.manifest.node).unwrap();
            let link = node.ns().ip(&["-o", "link", "show", pod.net.ifname()]).unwrap();
            assert!(link.contains("master cni0"), "{link}");
        }
        world.allowed_and_denied();
        world.known();
        world.forged_sources();
        world.lies_about_addresses();
        for agent in &world.cluster.agents {
            let status = agent.status().unwrap().unwrap();
            assert_eq!(status.problems, Vec::<String>::new());
        }
    }
}
