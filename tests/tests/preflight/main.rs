//! What `calico-azure preflight` finds on a node of the lab when something is broken there: the evidence, and that its commands bring the
//! traffic back.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod flannel;

use std::time::Duration;

use calico_azure_tests::lab::probe::{self};
use calico_azure_tests::lab::{
    AgentSpec, Cluster, ClusterSpec, KubeProxy, NetNs, Networking, Plugin, PodManifest, Port, ServiceSpec,
    binary,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);
const NEVER: Duration = Duration::from_millis(500);
const WEB: u16 = 8080;

fn cluster(networking: Networking) -> Cluster {
    let mut cluster = Cluster::start(&ClusterSpec {
        networking,
        agents: Some(AgentSpec::new().unwrap()),
        ..ClusterSpec::default()
    })
    .unwrap();
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: a}}";
    cluster.source.write("namespace.yaml", namespace).unwrap();
    for (name, node) in [("near", "node-1"), ("far", "node-2")] {
        let pod = PodManifest::new("a", name, node, &[("app", name)], &[Port::Tcp(WEB)]);
        cluster.add_pod(pod).unwrap();
    }
    cluster.wait_endpoints(SOON).unwrap();
    cluster
}

fn node(cluster: &Cluster) -> NetNs {
    cluster.node("node-1").unwrap().ns().clone()
}

fn reaches(cluster: &Cluster, v6: bool) -> bool {
    let to = cluster.pod("a/far").unwrap().ip(v6).unwrap();
    let ns = cluster.pod("a/near").unwrap().net.ns().clone();
    probe::tcp(&ns, to, WEB, NEVER).unwrap().reached()
}

/// Findings of node-1 that are more than worth knowing, and the exit code.
fn found(cluster: &Cluster, args: &[&str]) -> (Vec<Value>, i32) {
    let node = cluster.node("node-1").unwrap();
    let mut command = node.ns().command(binary().unwrap());
    let output = command
        .args([
            "preflight",
            "--interface-prefix",
            "veth",
            "-o",
            "json",
            "--node",
            "node-1",
            "--nodes",
        ])
        .arg(cluster.source.dir().join("nodes.yaml"))
        .args(node.paths())
        .args(args)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr));
    });
    assert_eq!(report["unread"], Value::Array(Vec::new()));
    assert_eq!(report["node"], "node-1");
    let findings = report["findings"].as_array().unwrap().iter();
    let grave = findings
        .filter(|finding| finding["severity"] != "info")
        .cloned()
        .collect();
    (grave, output.status.code().unwrap())
}

/// The example in docs/azure.md is what is printed now.
#[track_caller]
fn as_documented(cluster: &Cluster) {
    let node = cluster.node("node-1").unwrap();
    let mut command = node.ns().command(binary().unwrap());
    command.args([
        "preflight",
        "--interface-prefix",
        "veth",
        "--node",
        "node-1",
        "--nodes",
    ]);
    let command = command.arg(cluster.source.dir().join("nodes.yaml"));
    let output = command.args(node.paths()).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let printed = printed.replace(node.networks().to_str().unwrap(), "/var/lib/cni/networks");
    let page = include_str!("../../../docs/azure.md");
    assert!(
        page.contains(&format!("```\n{printed}```")),
        "not in docs/azure.md:\n{printed}"
    );
}

/// What each finding is about, and its evidence.
fn told(cluster: &Cluster) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (findings, _) = found(cluster, &[]);
    let told = findings.iter();
    told.map(|finding| (text(&finding["check"]), text(&finding["evidence"])))
        .collect()
}

/// Exactly these checks speak, with this evidence; their commands are run, and nothing is left to be said.
#[track_caller]
fn mend(cluster: &mut Cluster, expected: &[(&str, &str)]) {
    let (findings, code) = found(cluster, &[]);
    assert_eq!((findings.len(), code), (expected.len(), 1), "{findings:#?}");
    for (check, evidence) in expected {
        let here = |finding: &&Value| {
            finding["check"] == *check && finding["evidence"].as_str().unwrap().contains(evidence)
        };
        assert_eq!(
            findings.iter().filter(here).count(),
            1,
            "{check}: {evidence}: {findings:#?}"
        );
    }
    for finding in &findings {
        let commands = finding["fix"].as_array().unwrap();
        assert!(!commands.is_empty(), "{finding:#}");
        for command in commands {
            run(cluster, command.as_str().unwrap());
        }
    }
    assert_eq!(found(cluster, &[]), (Vec::new(), 0));
}

/// On the node, or by whoever may use kubectl.
fn run(cluster: &mut Cluster, command: &str) {
    if command.starts_with("kubectl ") {
        cluster.kubectl(command).unwrap();
    } else {
        node(cluster).exec("sh", &["-c", command]).unwrap();
    }
}

#[test]
fn what_is_broken_on_a_node_is_found_and_its_commands_mend_it() {
    let mut cluster = cluster(Networking::Udr);
    let node = node(&cluster);
    assert_eq!(found(&cluster, &[]), (Vec::new(), 0));
    for (v6, key, evidence) in [
        (false, "ipv4/ip_forward", "net.ipv4.ip_forward is 0"),
        (
            true,
            "ipv6/conf/all/forwarding",
            "net.ipv6.conf.all.forwarding is 0",
        ),
    ] {
        assert!(reaches(&cluster, v6));
        node.sysctl(&[(key, "0")]).unwrap();
        assert!(!reaches(&cluster, v6), "{key}");
        mend(&mut cluster, &[("forwarding", evidence)]);
        assert!(reaches(&cluster, v6), "{key}");
    }
    // Somebody's routing by marks.
    node.ip(&[
        "rule",
        "add",
        "fwmark",
        "0x20000/0xf0000",
        "lookup",
        "main",
        "priority",
        "99",
    ])
    .unwrap();
    let (findings, _) = found(&cluster, &[]);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0]["check"], "marks");
    assert!(
        findings[0]["evidence"]
            .as_str()
            .unwrap()
            .contains("rule 99 chooses routes by mark 0x20000/0xf0000")
    );
    assert_eq!(found(&cluster, &["--mark-mask", "0x00000fff"]), (Vec::new(), 0));
}

#[test]
fn what_a_node_lacks_is_named() {
    let cluster = Cluster::start(&ClusterSpec {
        nodes: 1,
        ..ClusterSpec::default()
    })
    .unwrap();
    let node = node(&cluster);
    let names = |args: &[&str]| -> Vec<String> {
        let (findings, code) = found(&cluster, args);
        assert_eq!(code, i32::from(!findings.is_empty()));
        findings
            .iter()
            .map(|finding| finding["check"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&[]), Vec::<String>::new());
    assert_eq!(names(&["--bpffs", "/tmp"]), ["bpffs"]);
    assert_eq!(names(&["--fabric-interface", "nic9"]), ["fabric-interface"]);
    assert_eq!(names(&["--networking", "flannel"]), ["network"]);
    node.ip(&[
        "link",
        "add",
        "cilium_host",
        "type",
        "veth",
        "peer",
        "name",
        "cilium_net",
    ])
    .unwrap();
    assert_eq!(names(&[]), ["other-dataplane"]);
}

#[test]
fn rules_of_others_about_our_marks_are_found() {
    let cluster = cluster(Networking::Udr);
    let node = node(&cluster);
    // kube-proxy's are nobody's business, in either shape.
    let service = ServiceSpec {
        address: "10.96.0.10".parse().unwrap(),
        port: Port::Tcp(80),
        backend: "10.244.2.2:8080".parse().unwrap(),
        masquerade: true,
    };
    KubeProxy::Nftables
        .install(cluster.node("node-1").unwrap(), &[service])
        .unwrap();
    assert_eq!(told(&cluster), []);
    node.nft(
        "table inet theirs {
        chain ch_seen { type filter hook prerouting priority 0; meta mark & 0x00100000 == 0x00100000 accept; }
        chain ch_set { type filter hook postrouting priority 0; meta mark set meta mark or 0x00200000; }
        chain ch_all { type filter hook output priority 0; meta mark set 5; }
        chain ch_low { type filter hook output priority 0; meta mark & 0xff == 5 meta mark set meta mark & 0xffffff00; }
    }",
    )
    .unwrap();
    let findings = told(&cluster);
    for part in [
        "table theirs, chain ch_seen: a rule matches bits 0x100000 of",
        "table theirs, chain ch_set: a rule writes bits 0x200000 of",
        "table theirs, chain ch_all: a rule writes bits 0xffffffff of",
    ] {
        assert!(
            findings
                .iter()
                .any(|(check, evidence)| check == "marks" && evidence.contains(part)),
            "{part}: {findings:#?}"
        );
    }
    assert_eq!(findings.len(), 3, "{findings:#?}");
    node.nft("delete table inet theirs").unwrap();
    let mangle = |args: &[&str]| node.exec("iptables-nft", &[&["-t", "mangle"], args].concat());
    mangle(&[
        "-A",
        "PREROUTING",
        "-m",
        "mark",
        "--mark",
        "0x80000/0x80000",
        "-j",
        "MARK",
        "--set-xmark",
        "0x40000/0x40000",
    ])
    .unwrap();
    let findings = told(&cluster);
    let part = "table mangle, chain PREROUTING: a rule matches bits 0x80000 and writes bits 0x40000 of";
    assert!(
        findings.len() == 1 && findings[0].1.contains(part),
        "{findings:#?}"
    );
    mangle(&["-F"]).unwrap();
    assert_eq!(told(&cluster), []);
}

#[test]
fn a_running_agent_looks_again_and_says_what_changed() {
    let agent = AgentSpec::new()
        .unwrap()
        .env("CALICO_AZURE_PREFLIGHT_INTERVAL", "1");
    let mut cluster = Cluster::start(&ClusterSpec {
        nodes: 1,
        plugin: Plugin::Bridge,
        agents: Some(agent),
        ..ClusterSpec::default()
    })
    .unwrap();
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: a}}";
    cluster.source.write("namespace.yaml", namespace).unwrap();
    let pod = PodManifest::new("a", "near", "node-1", &[], &[Port::Tcp(WEB)]);
    cluster.add_pod(pod).unwrap();
    cluster.wait_endpoints(SOON).unwrap();
    let node = node(&cluster);
    let agent = cluster.agent("node-1").unwrap();
    let has = |status: &calico_azure_tests::lab::AgentStatus, part: &str| {
        let findings = status.preflight.findings.iter();
        findings
            .filter(|finding| finding["severity"] != "info")
            .any(|finding| finding["evidence"].as_str().unwrap().contains(part))
    };
    for (key, evidence) in [
        ("ipv4/ip_forward", "net.ipv4.ip_forward is 0"),
        ("ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding is 0"),
        (
            "bridge/bridge-nf-call-iptables",
            "net.bridge.bridge-nf-call-iptables is 0",
        ),
        (
            "bridge/bridge-nf-call-ip6tables",
            "net.bridge.bridge-nf-call-ip6tables is 0",
        ),
    ] {
        agent
            .wait_for("finds the node in order", SOON, |status| !has(status, evidence))
            .unwrap();
        node.sysctl(&[(key, "0")]).unwrap();
        let status = agent
            .wait_for(evidence, SOON, |status| has(status, evidence))
            .unwrap();
        assert_eq!(status.problems, Vec::<String>::new(), "the agent itself is well");
        node.sysctl(&[(key, "1")]).unwrap();
        agent
            .wait_for("finds it mended", SOON, |status| !has(status, evidence))
            .unwrap();
        let log = std::fs::read_to_string(agent.log_path()).unwrap();
        assert!(log.contains(evidence), "{log}");
        assert!(log.contains(&format!("no longer so: {evidence}")), "{log}");
    }
}
