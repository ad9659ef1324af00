//! Agents that follow a real kube-apiserver over a real etcd, with real pods: what is written is on the wire, whatever breaks in between.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod changes;
mod encodings;
mod failures;
mod rights;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use calico_azure_tests::apiserver::ApiSpec;
use calico_azure_tests::kubelab::{KubeLab, Wire, disagreements};
use calico_azure_tests::lab::{PodManifest, Port};
use serde_json::{Value, json};

/// A flow that policy changes.
const FREE: u16 = 8080;
/// Always allowed at a stranger's.
const OPEN: u16 = 9000;
const PACE: Duration = Duration::from_millis(2);
const SOON: Duration = Duration::from_secs(30);
const CALICO: &str = "crd.projectcalico.org/v1";

/// Two namespaces; a client and servers on its node and on another (if there is one), and a stranger, at whom [`OPEN`] is allowed
/// and [`FREE`] is denied, whatever happens.
fn lab(nodes: u8, spec: &ApiSpec) -> KubeLab {
    let mut lab = KubeLab::start(nodes, &[Port::Udp(FREE), Port::Udp(OPEN)], spec).unwrap();
    for name in ["shop", "far"] {
        lab.add_namespace(name).unwrap();
    }
    let last = format!("node-{nodes}");
    for (namespace, name, node, labels) in [
        (
            "shop",
            "client",
            "node-1",
            &[("app", "client"), ("role", "buyer")][..],
        ),
        ("shop", "near", "node-1", &[("app", "server")]),
        ("shop", "away", &last, &[("app", "server")]),
        ("shop", "stranger", &last, &[("app", "stranger")]),
        ("far", "visitor", &last, &[("app", "client")]),
    ] {
        let pod = PodManifest::new(namespace, name, node, labels, &[]);
        lab.add_pod(pod).unwrap();
    }
    let open = json!([{"ports": [{"protocol": "UDP", "port": OPEN}]}]);
    lab.objects.put(&policy("stranger", "stranger", open)).unwrap();
    lab
}

/// What policy changes, and what it never does.
fn watch(lab: &KubeLab) -> Wire {
    let mut wire = Wire::default();
    for (name, to, port) in [
        ("near", "shop/near", FREE),
        ("away", "shop/away", FREE),
        ("always", "shop/stranger", OPEN),
        ("never", "shop/stranger", FREE),
    ] {
        wire.watch(name, lab, "shop/client", to, port, PACE).unwrap();
    }
    for (name, allowed) in [("near", true), ("away", true), ("always", true), ("never", false)] {
        wire.is(name, allowed, SOON).unwrap();
    }
    wire
}

/// A NetworkPolicy for what is let in.
fn policy(name: &str, app: &str, ingress: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"], "ingress": ingress},
    })
}

/// What a server lets in.
fn servers(ingress: Value) -> Value {
    policy("servers", "server", ingress)
}

/// Waits until the wire, the tables and the objects say the same.
#[track_caller]
fn agree(lab: &KubeLab, patience: Duration) -> usize {
    let end = Instant::now() + patience;
    loop {
        let (findings, packets) = disagreements(lab).unwrap();
        if findings.is_empty() {
            return packets.len();
        }
        assert!(Instant::now() < end, "{}", findings.join("\n"));
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What an agent that listens in this thread's namespace answers, whatever its code.
fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
