//! `calico-azure doctor --watch`: two of them at a real API server and a stand-in for Azure, of which one looks; what breaks and what is mended
//! is told by events, metrics and readiness; when the one that looks ends, the other goes on.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use calico_azure_tests::apiserver::{ApiServer, Objects};
use calico_azure_tests::arm::{FakeArm, Fault, PASSWORD, TABLE};
use calico_azure_tests::lab::binary;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);

struct Doctor {
    child: Child,
    port: u16,
}

impl Doctor {
    fn start(dir: &Path, arm: &FakeArm, kubeconfig: &Path, name: &str, more: &[&str]) -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let config = dir.join("azure.json");
        let auth = json!({"aadClientId": "app", "aadClientSecret": PASSWORD});
        std::fs::write(&config, arm.cloud_config(&auth).to_string()).unwrap();
        let log = std::fs::File::create(dir.join(format!("{name}.log"))).unwrap();
        let child = Command::new(binary().unwrap())
            .args([
                "doctor",
                "--watch",
                "--interval",
                "1",
                "--lease",
                "calico-azure/calico-azure-doctor",
                "--identity",
                name,
            ])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .arg("--cloud-config")
            .arg(config)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(more)
            .env("AZURE_AUTHORITY_HOST", arm.url())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, port }
    }

    /// Status and body; nothing if nobody answers.
    fn page(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: doctor\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let status = text.split(' ').nth(1)?.parse().ok()?;
        Some((status, text.split_once("\r\n\r\n")?.1.to_owned()))
    }

    fn has(&self, line: &str) -> bool {
        self.page("/metrics")
            .is_some_and(|(_, text)| text.lines().any(|known| known == line))
    }

    fn leads(&self) -> bool {
        self.has("calico_azure_doctor_leader 1")
    }

    fn end(mut self) {
        let pid = i32::try_from(self.child.id()).unwrap();
        // SAFETY: no pointers, and a child of ours that nobody has waited for.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Doctor {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}

#[track_caller]
fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < end, "{what}: not in {SOON:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Reason, type and message of events about an object.
fn events(objects: &Objects, name: &str) -> Vec<(String, String, String)> {
    let events = objects
        .list("/api/v1/namespaces/default/events")
        .unwrap()
        .unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let about = events
        .iter()
        .filter(|event| event["involvedObject"]["name"] == name);
    about
        .map(|event| {
            (
                text(&event["reason"]),
                text(&event["type"]),
                text(&event["message"]),
            )
        })
        .collect()
}

/// The API server, the kubeconfig of one who has exactly the rights of `deploy/manifests`, one who may do everything, and Azure.
fn cluster() -> (ApiServer, PathBuf, Objects, FakeArm) {
    let server = ApiServer::start().unwrap();
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/manifests/doctor.yaml");
    let manifest = std::fs::read_to_string(manifest).unwrap();
    for name in ["calico-azure", "default"] {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        server.apply(&namespace.to_string(), false).unwrap();
    }
    server.apply(&manifest, false).unwrap();
    let kubeconfig = server
        .service_account("calico-azure", "calico-azure-doctor")
        .unwrap();
    let objects = Objects::connect(server.kubeconfig()).unwrap();
    let arm = FakeArm::start().unwrap();
    let mut routes = Vec::new();
    for i in 1..=2 {
        let (name, ip, cidr) = (
            format!("vm{i}"),
            format!("10.240.0.{i}"),
            format!("10.244.{i}.0/24"),
        );
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
            "status": {"addresses": [{"type": "InternalIP", "address": ip}]}});
        objects.put(&node).unwrap();
        objects.put_status(&node).unwrap();
        arm.add_nic(&name, &ip);
        routes.push(json!({"name": name, "properties": {
            "addressPrefix": cidr, "nextHopType": "VirtualAppliance", "nextHopIpAddress": ip}}));
    }
    arm.store()
        .change(TABLE, |table| table["properties"]["routes"] = json!(routes))
        .unwrap();
    (server, kubeconfig, objects, arm)
}

fn drop_route(arm: &FakeArm, name: &str) {
    let drop = |table: &mut Value| {
        let routes = table["properties"]["routes"].as_array_mut().unwrap();
        routes.retain(|route| route["name"] != name);
    };
    arm.store().change(TABLE, drop).unwrap();
}

#[test]
fn one_of_two_tells_what_breaks_and_what_is_mended() {
    let (_server, kubeconfig, objects, arm) = cluster();
    let dir = tempfile::tempdir().unwrap();
    let start = |name| Doctor::start(dir.path(), &arm, &kubeconfig, name, &[]);
    let first = start("one");
    wait("the first leads", || first.leads());
    let second = start("two");
    wait("the first has looked", || {
        first.has("calico_azure_doctor_routes 2")
    });
    wait("the second is there", || {
        second.has("calico_azure_doctor_leader 0")
    });
    assert_eq!(events(&objects, "vm2"), []);

    drop_route(&arm, "vm2");
    wait("a metric", || {
        first.has(r#"calico_azure_doctor_findings{check="route-missing",severity="error"} 1"#)
    });
    wait("an event", || events(&objects, "vm2").len() == 1);
    let (reason, kind, message) = events(&objects, "vm2").remove(0);
    assert_eq!((reason.as_str(), kind.as_str()), ("RouteMissing", "Warning"));
    let (_, command) = message.split_once("mend it with: ").unwrap();
    assert!(
        command.starts_with("az network route-table route create"),
        "{command}"
    );
    arm.az(command).unwrap();
    wait("good news", || events(&objects, "vm2").len() == 2);
    assert!(
        events(&objects, "vm2")
            .iter()
            .any(|(_, kind, message)| kind == "Normal" && message.contains("mended"))
    );
    assert!(!first.has(r#"calico_azure_doctor_findings{check="route-missing",severity="error"} 1"#));

    assert_eq!(first.page("/readiness").unwrap().0, 200);
    assert!(!second.leads());
    // It lets go of the Lease, so that nobody waits for its end.
    let begun = Instant::now();
    first.end();
    wait("the second leads", || second.leads());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    drop_route(&arm, "vm1");
    wait("an event of the second's", || !events(&objects, "vm1").is_empty());
    assert_eq!(second.page("/liveness").unwrap(), (200, "alive\n".to_owned()));
    for name in ["one", "two"] {
        let log = std::fs::read_to_string(dir.path().join(format!("{name}.log"))).unwrap();
        assert!(!log.contains(PASSWORD), "{log}");
    }
}

#[test]
fn a_leader_that_was_killed_is_followed_by_another_and_routes_are_managed() {
    let (_server, kubeconfig, _objects, arm) = cluster();
    let dir = tempfile::tempdir().unwrap();
    let more = ["--manage-routes=apply"];
    let start = |name| Doctor::start(dir.path(), &arm, &kubeconfig, name, &more);
    let mut first = start("one");
    wait("the first leads", || first.leads());
    drop_route(&arm, "vm2");
    wait("the route is back", || arm.store().routes(TABLE).len() == 2);
    wait("it is counted", || {
        first.has("calico_azure_doctor_changes_total 1")
    });
    let second = start("two");
    wait("the second is there", || {
        second.has("calico_azure_doctor_leader 0")
    });
    first.child.kill().unwrap();
    let begun = Instant::now();
    wait("the second leads", || second.leads());
    // Not before the Lease had ended.
    assert!(begun.elapsed() > Duration::from_secs(10), "{:?}", begun.elapsed());
    drop_route(&arm, "vm1");
    wait("the route is back again", || arm.store().routes(TABLE).len() == 2);
}

#[test]
fn who_may_not_write_tells_what_is_wrong_all_the_same() {
    let (_server, kubeconfig, objects, arm) = cluster();
    let dir = tempfile::tempdir().unwrap();
    // A cloud controller says that it could make no route to a node, whose podCIDR holds the two others'.
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "vm0"}, "spec": {"podCIDRs": ["10.244.0.0/22"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.240.0.3"}],
            "conditions": [{"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated", "message": "412",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    objects.put(&node).unwrap();
    objects.put_status(&node).unwrap();
    arm.store().remaining = Some(321);
    let doctor = Doctor::start(dir.path(), &arm, &kubeconfig, "one", &["--manage-routes=apply"]);
    wait("a metric", || {
        doctor.has(r#"calico_azure_doctor_findings{check="route-missing",severity="error"} 1"#)
    });
    assert!(doctor.has("calico_azure_doctor_unwritten 1"));
    assert!(doctor.has(r#"calico_azure_doctor_arm_requests_remaining{kind="read"} 321"#));
    let told = |wanted: &str| {
        let all = events(&objects, "vm0").into_iter();
        let mut messages: Vec<_> = all
            .filter(|(reason, kind, _)| reason == wanted && kind == "Warning")
            .map(|(.., message)| message)
            .collect();
        messages.sort();
        messages
    };
    // Of two things of one kind that are wrong with one node, one does not hide the other.
    wait("an event for each", || told("PodCidrDuplicate").len() == 2);
    let messages = told("PodCidrDuplicate");
    assert!(
        messages[0].contains("node vm1's") && messages[1].contains("node vm2's"),
        "{messages:?}"
    );
    wait("what Kubernetes says itself", || {
        told("NetworkUnavailable").len() == 1
    });
    wait("several looks", || {
        doctor.has("calico_azure_doctor_looks_total 4")
    });
    assert_eq!(
        (told("RouteMissing").len(), told("PodCidrDuplicate").len()),
        (1, 2)
    );
    assert_eq!(doctor.page("/readiness").unwrap().0, 200);
    assert!(doctor.has("calico_azure_doctor_failures_total 0"));
    assert_eq!(arm.store().routes(TABLE).len(), 2);
}

#[test]
fn who_is_told_to_end_while_azure_makes_it_wait_ends() {
    let (_server, kubeconfig, _objects, arm) = cluster();
    let dir = tempfile::tempdir().unwrap();
    // Less than its patience.
    arm.store().write_faults.extend(vec![Fault::Throttled(300); 5]);
    drop_route(&arm, "vm2");
    let doctor = Doctor::start(dir.path(), &arm, &kubeconfig, "one", &["--manage-routes=apply"]);
    let wrote = || arm.store().seen.iter().any(|seen| seen.method == "PUT");
    wait("a write", wrote);
    let begun = Instant::now();
    doctor.end();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(arm.store().routes(TABLE).len(), 1);
}
