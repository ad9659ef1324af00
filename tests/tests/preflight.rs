//! What `calico-azure preflight` finds on a node of the lab when something is broken there: the evidence, and that its commands bring the
//! traffic back.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::time::Duration;

use calico_azure_tests::lab::probe::{self};
use calico_azure_tests::lab::{
    AgentSpec, Cluster, ClusterSpec, NetNs, Networking, PodManifest, Port, binary,
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

/// Findings that are more than worth knowing, and the exit code.
fn found(node: &NetNs, args: &[&str]) -> (Vec<Value>, i32) {
    let mut command = node.command(binary().unwrap());
    let output = command
        .args(["preflight", "--interface-prefix", "veth", "-o", "json"])
        .args(args)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr));
    });
    assert_eq!(report["unread"], Value::Array(Vec::new()));
    let findings = report["findings"].as_array().unwrap().iter();
    let grave = findings
        .filter(|finding| finding["severity"] != "info")
        .cloned()
        .collect();
    (grave, output.status.code().unwrap())
}

/// The only finding; its commands are run.
#[track_caller]
fn mend(node: &NetNs, check: &str, evidence: &str) {
    let (findings, code) = found(node, &[]);
    let [only] = findings.as_slice() else {
        panic!("{check}: {findings:#?}");
    };
    assert_eq!((only["check"].as_str().unwrap(), code), (check, 1));
    assert!(only["evidence"].as_str().unwrap().contains(evidence), "{only:#}");
    let commands = only["fix"].as_array().unwrap();
    assert!(!commands.is_empty(), "{only:#}");
    for command in commands {
        node.exec("sh", &["-c", command.as_str().unwrap()]).unwrap();
    }
    assert_eq!(found(node, &[]), (Vec::new(), 0));
}

#[test]
fn what_is_broken_on_a_node_is_found_and_its_commands_mend_it() {
    let cluster = cluster(Networking::Udr);
    let node = node(&cluster);
    assert_eq!(found(&node, &[]), (Vec::new(), 0));
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
        mend(&node, "forwarding", evidence);
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
    let (findings, _) = found(&node, &[]);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0]["check"], "marks");
    assert!(
        findings[0]["evidence"]
            .as_str()
            .unwrap()
            .contains("rule 99 chooses routes by mark 0x20000/0xf0000")
    );
    assert_eq!(found(&node, &["--mark-mask", "0x00000fff"]), (Vec::new(), 0));
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
        let (findings, code) = found(&node, args);
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

/// Between nodes, of this many bytes with headers, unfragmented.
fn fits(cluster: &Cluster, bytes: usize) -> bool {
    let to = cluster.pod("a/far").unwrap().ip(false).unwrap().to_string();
    let ns = cluster.pod("a/near").unwrap().net.ns().clone();
    let payload = (bytes - 28).to_string();
    ns.exec("ping", &["-c", "1", "-W", "1", "-M", "do", "-s", &payload, &to])
        .is_ok()
}

#[test]
fn a_tunnel_that_promises_more_than_it_carries_is_found() {
    let cluster = cluster(Networking::Flannel);
    let node = node(&cluster);
    assert_eq!(found(&node, &[]), (Vec::new(), 0));
    assert!(fits(&cluster, 1430));
    // As after a change of the NIC's MTU, and where somebody set the plug-in's by hand.
    let pod = cluster.pod("a/near").unwrap().net.ifname().to_owned();
    let inside = cluster.pod("a/near").unwrap().net.ns().clone();
    let set = |ns: &NetNs, device: &str, mtu: &str| ns.ip(&["link", "set", device, "mtu", mtu]).unwrap();
    set(&node, "eth0", "1400");
    set(&node, &pod, "1500");
    set(&inside, "eth0", "1500");
    assert!(!fits(&cluster, 1480), "what is too big gets through");
    let (findings, _) = found(&node, &[]);
    let evidence: Vec<&str> = findings
        .iter()
        .map(|finding| finding["evidence"].as_str().unwrap())
        .collect();
    for part in [
        "flannel.1 has MTU 1450, and eth0 carries 1400".to_owned(),
        format!("{pod} among them, have MTU 1500"),
    ] {
        assert!(
            evidence.iter().any(|evidence| evidence.contains(&part)),
            "{part}: {evidence:#?}"
        );
    }
    set(&node, "eth0", "1500");
    set(&node, &pod, "1430");
    set(&inside, "eth0", "1430");
    assert_eq!(found(&node, &[]), (Vec::new(), 0));
    assert!(fits(&cluster, 1430));
}

#[test]
fn an_annotation_of_flannels_that_is_wrong_is_in_the_status() {
    let cluster = cluster(Networking::Flannel);
    let right = cluster.node("node-1").unwrap().manifest();
    let mut wrong = right.clone();
    let annotations = &mut wrong["metadata"]["annotations"];
    annotations["flannel.alpha.coreos.com/public-ip"] = "10.240.0.99".into();
    annotations["flannel.alpha.coreos.com/backend-data"] =
        r#"{"VNI":1,"VtepMAC":"02:00:00:00:00:99"}"#.into();
    let agent = cluster
        .agents
        .iter()
        .find(|agent| agent.node() == "node-1")
        .unwrap();
    let told = |parts: &[&str]| {
        let end = std::time::Instant::now() + SOON;
        loop {
            let problems = agent.status().unwrap().unwrap().problems;
            let all = parts
                .iter()
                .all(|part| problems.iter().any(|problem| problem.contains(part)));
            if all && problems.len() == parts.len() {
                return;
            }
            assert!(std::time::Instant::now() < end, "{parts:?}: {problems:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    told(&[]);
    let other = cluster.node("node-2").unwrap().manifest();
    cluster
        .source
        .write_objects("nodes.yaml", &[wrong, other.clone()])
        .unwrap();
    told(&[
        "ends at 10.240.0.99, which is no address",
        "the address 02:00:00:00:00:99, and no flannel.* has it",
    ]);
    cluster
        .source
        .write_objects("nodes.yaml", &[right, other])
        .unwrap();
    told(&[]);
}
