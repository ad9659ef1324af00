//! Pods in a burst, each of which talks from the moment it has a network: nothing passes that policy denies.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use calico_azure_tests::lab::{AgentSpec, Cluster, ClusterSpec, NetNs, Plugin, PodManifest};

const PODS: usize = 200;
/// Of those that are ports of a bridge, whose agents know whose they are only from the CNI plug-in's answer.
const PORTS: usize = 60;
/// As a kubelet starts pods beside each other.
const STARTING: usize = 4;
const SOON: Duration = Duration::from_secs(30);
const ALLOWED: u16 = 5000;
const DENIED: u16 = 5001;
/// Of the new pods, who let nobody in.
const INGRESS: u16 = 5002;
const EVERY: Duration = Duration::from_millis(20);

const POLICIES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: burst, namespace: a}
spec:
  selector: app == 'burst'
  types: [Ingress, Egress]
  egress:
  - {action: Allow, protocol: UDP, destination: {ports: [5000]}}
";

/// Talks until it is answered, and a while longer; how long that took, or what was heard instead. `stranger` meanwhile tries to reach it at
/// its own address, which policy denies.
fn talk(from: &NetNs, own: IpAddr, to: IpAddr, stranger: &NetNs) -> Result<Duration, String> {
    let begun = Instant::now();
    let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let bind = |ns: &NetNs, address: SocketAddr| ns.run(|| UdpSocket::bind(address)).unwrap().unwrap();
    let door = SocketAddr::from((own, INGRESS));
    let (inside, outside) = (bind(from, door), bind(stranger, any.parse().unwrap()));
    inside.set_nonblocking(true).unwrap();
    let socket = |port: u16| {
        let socket = from.run(|| UdpSocket::bind(any)).unwrap().unwrap();
        socket.connect(SocketAddr::from((to, port))).unwrap();
        socket.set_read_timeout(Some(EVERY)).unwrap();
        socket
    };
    let (allowed, denied) = (socket(ALLOWED), socket(DENIED));
    let mut answered = None;
    loop {
        // Nobody has a route before the network is there, and errors come back for what was sent before.
        let _refused = denied.send(b"no");
        let _refused = outside.send_to(b"no", door);
        if let Ok((_, by)) = inside.recv_from(&mut [0; 8]) {
            return Err(format!("{own} was reached by {by}"));
        }
        let sent = allowed.send(b"yes");
        let heard = allowed.recv(&mut [0; 8]);
        if heard.is_ok() {
            answered.get_or_insert_with(|| begun.elapsed());
            std::thread::sleep(EVERY);
        }
        match answered {
            Some(after) if begun.elapsed() > after + EVERY * 10 => return Ok(after),
            None if begun.elapsed() > SOON => {
                return Err(format!("{} to {to}: sent {sent:?}, heard {heard:?}", from.name()));
            }
            _ => {}
        }
    }
}

/// Answers on one port, and notes who got through to the other, until it is told to stop.
fn serve(server: &NetNs, to: IpAddr, stop: &AtomicBool, through: &Mutex<BTreeSet<SocketAddr>>) {
    let bind = |port| {
        let socket = server.run(|| UdpSocket::bind((to, port))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        socket
    };
    let (allowed, denied) = (bind(ALLOWED), bind(DENIED));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if let Ok((_, from)) = allowed.recv_from(&mut [0; 8]) {
                    let _gone = allowed.send_to(b"yes", from);
                }
            }
        });
        while !stop.load(Ordering::Relaxed) {
            if let Ok((_, from)) = denied.recv_from(&mut [0; 8]) {
                through.lock().unwrap().insert(from);
            }
        }
    });
}

#[test]
fn two_hundred_pods_at_once_send_nothing_that_policy_denies() {
    burst(Plugin::Ptp, PODS, "node-2");
}

#[test]
fn nor_to_a_pod_of_their_own_node() {
    burst(Plugin::Ptp, PORTS, "node-1");
    burst(Plugin::Bridge, PORTS, "node-1");
}

#[test]
fn nor_do_pods_on_a_bridge() {
    burst(Plugin::Bridge, PORTS, "node-2");
}

/// On `node-1`; who they talk to, and who tries to reach them, is on `peer`.
fn burst(plugin: Plugin, pods: usize, peer: &str) {
    let mut cluster = Cluster::start(&ClusterSpec {
        plugin,
        agents: Some(AgentSpec::new().unwrap()),
        ..ClusterSpec::default()
    })
    .unwrap();
    cluster.source.write("policies.yaml", POLICIES).unwrap();
    let server = PodManifest::new("a", "server", peer, &[("app", "server")], &[]);
    cluster.add_pod(server).unwrap();
    cluster.wait_endpoints(SOON).unwrap();

    let pod = cluster.pod("a/server").unwrap();
    let (server, to) = (pod.net.ns(), [pod.ip(false).unwrap(), pod.ip(true).unwrap()]);
    let node = cluster.node("node-1").unwrap();
    let (stop, next) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (through, took) = (Mutex::new(BTreeSet::new()), Mutex::new(Vec::new()));
    let alive = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for to in to {
            let (stop, through) = (&stop, &through);
            scope.spawn(move || serve(server, to, stop, through));
        }
        let starting = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= pods {
                    return;
                }
                let manifest = PodManifest::new(
                    "a",
                    &format!("burst-{number}"),
                    "node-1",
                    &[("app", "burst")],
                    &[],
                );
                cluster
                    .source
                    .write_objects(&manifest.file(), &[manifest.bound()])
                    .unwrap();
                let net = node.add_pod("a", &format!("burst-{number}")).unwrap();
                let from = net.ns().clone();
                let (own, to, took) = (net.ips()[number % 2], to[number % 2], &took);
                let talking = std::thread::Builder::new().stack_size(256 << 10);
                let talking = talking.spawn_scoped(scope, move || {
                    took.lock().unwrap().push(talk(&from, own, to, server));
                });
                talking.unwrap();
                cluster
                    .source
                    .write_objects(&manifest.file(), &[manifest.running(net.ips())])
                    .unwrap();
                alive.lock().unwrap().push(net);
            }
        };
        let kubelets: Vec<_> = (0..STARTING).map(|_| scope.spawn(starting)).collect();
        for kubelet in kubelets {
            kubelet.join().unwrap();
        }
        while took.lock().unwrap().len() < pods {
            std::thread::sleep(EVERY);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let (took, silent): (Vec<_>, Vec<_>) = took.into_inner().unwrap().into_iter().partition(Result::is_ok);
    if !silent.is_empty() {
        let agent = cluster.agent("node-1").unwrap();
        let log = std::fs::read_to_string(agent.log_path()).unwrap_or_default();
        let status = agent.status().unwrap();
        panic!("not answered, or reached: {silent:#?}\nstatus: {status:#?}\nlog: {log}");
    }
    let mut took: Vec<Duration> = took.into_iter().flatten().collect();
    took.sort_unstable();
    println!(
        "{plugin:?}, to {peer}: from the end of CNI ADD to the first answer: p50 {:?}, p99 {:?}, longest {:?}",
        took[pods / 2],
        took[pods * 99 / 100],
        took[pods - 1]
    );
    assert_eq!(
        through.into_inner().unwrap(),
        BTreeSet::new(),
        "what policy denies got through"
    );
}
