//! The agent's source `kube` against a stand-in for an API server that misbehaves.

mod failures;
mod first_list;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use calico_azure_tests::apistand::ApiStand;
use calico_azure_userspace::model::load::parse_text;
use calico_azure_userspace::model::{Key, Kind, Resource};
use calico_azure_userspace::sources::Event;
use calico_azure_userspace::sources::kube::{KubeConfig, KubeStatus, Timing, watch_until};
use serde_json::{Value, json};
use tempfile::TempDir;

const CRD: &str = "crd.projectcalico.org/v1";
const V3: &str = "projectcalico.org/v3";
/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// As impatient as a test.
const TIMING: Timing = Timing {
    watch_least: Duration::from_secs(1),
    watch_most: Duration::from_secs(3),
    idle: Duration::from_millis(700),
    answer: Duration::from_secs(1),
    first_retry: Duration::from_millis(20),
    last_retry: Duration::from_millis(200),
    settle: Duration::from_millis(20),
    poll: Duration::from_millis(200),
    seldom: Duration::from_secs(60),
};

/// The source, and what follows from its events.
struct Watched {
    events: Receiver<Vec<Event>>,
    stop: Arc<AtomicBool>,
    status: Arc<KubeStatus>,
    known: BTreeMap<Key, Resource>,
    problems: Vec<String>,
    in_sync: u32,
    /// Upserts and deletes so far.
    changes: usize,
    _kubeconfig: TempDir,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Watched {
    fn new(stand: &ApiStand) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("kubeconfig");
        std::fs::write(&path, stand.kubeconfig()).expect("a file");
        let config = KubeConfig {
            kubeconfig: Some(path),
            context: Some("stand".into()),
            timing: TIMING,
        };
        let (sender, events) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let status = watch_until(&config, sender, Arc::clone(&stop)).expect("a usable configuration");
        Self {
            events,
            stop,
            status,
            known: BTreeMap::new(),
            problems: Vec::new(),
            in_sync: 0,
            changes: 0,
            _kubeconfig: dir,
        }
    }

    fn in_sync(stand: &ApiStand) -> Self {
        let mut watched = Self::new(stand);
        watched.until("in sync", |watched| watched.in_sync == 1);
        watched
    }

    fn take(&mut self, events: Vec<Event>) {
        let mut deleted = false;
        for event in events {
            match event {
                Event::Upsert(resource) => {
                    assert!(!deleted, "an upsert after a delete of the same burst");
                    self.changes += 1;
                    self.known.insert(resource.key(), resource);
                }
                Event::Delete(key) => {
                    deleted = true;
                    self.changes += 1;
                    self.known.remove(&key);
                }
                Event::Problems(problems) => {
                    self.problems = problems.iter().map(ToString::to_string).collect();
                }
                Event::InSync => self.in_sync += 1,
            }
        }
    }

    #[track_caller]
    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so(self) {
            let left = end.saturating_duration_since(Instant::now());
            let status = self.status.kinds();
            match self.events.recv_timeout(left.min(Duration::from_millis(50))) {
                Ok(events) => self.take(events),
                Err(_) if left.is_zero() => panic!(
                    "not {what}: {:#?}\n{:#?}\n{status:#?}",
                    self.known.keys().collect::<Vec<_>>(),
                    self.problems
                ),
                Err(_) => {}
            }
        }
    }

    /// Takes what comes in a while.
    fn rest(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let Ok(events) = self
            .events
            .recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            self.take(events);
        }
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.known.values().find_map(|resource| match resource {
            Resource::Namespace(namespace) if namespace.name == name => {
                namespace.labels.get("stage").map(String::as_str)
            }
            _ => None,
        })
    }

    #[track_caller]
    fn until_equal(&mut self, stand: &ApiStand) {
        let expected = expected(stand);
        self.until("as the server has it", |watched| watched.known == expected);
    }
}

/// What the server's objects are, read as manifests.
fn expected(stand: &ApiStand) -> BTreeMap<Key, Resource> {
    let read = |text: &Arc<str>| parse_text(Path::new("object.json"), text).resources;
    stand
        .objects()
        .iter()
        .flat_map(read)
        .filter(|resource| !matches!(resource, Resource::Pod(pod) if pod.finished))
        .map(|resource| (resource.key(), resource))
        .collect()
}

fn namespace(name: &str, stage: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"stage": stage}}})
}

fn pod(name: &str, phase: &str, address: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}, "managedFields": [{"manager": "kubelet"}]},
        "spec": {"nodeName": "n1", "serviceAccountName": "web", "containers": [{"name": "c", "image": "i",
            "ports": [{"name": "http", "containerPort": 80}]}]},
        "status": {"phase": phase, "conditions": [{"type": "Ready"}],
            "podIPs": [{"ip": std::net::Ipv4Addr::from(0x0a00_0000 + address).to_string()}]},
    })
}

fn node() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"zone": "1"}},
        "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:244:1::/64"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.240.0.4"}]},
    })
}

fn slice() -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": ["10.0.0.9"], "conditions": {"ready": true}}, {"addresses": ["10.0.0.10"]}],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    })
}

fn policy(api_version: &str, kind: &str, name: &str, order: u32) -> Value {
    let mut object = json!({
        "apiVersion": api_version, "kind": kind, "metadata": {"name": name},
        "spec": {"order": order, "selector": "all()", "ingress": [{"action": "Deny"}]},
    });
    if kind == "NetworkPolicy" {
        object["metadata"]["namespace"] = json!("shop");
    }
    object
}

#[test]
fn everything_is_read_then_each_change() {
    let stand = ApiStand::start().unwrap();
    stand.put(&namespace("shop", "1"));
    for index in 0..1200 {
        let phase = if index % 10 == 0 { "Succeeded" } else { "Running" };
        stand.put(&pod(&format!("p{index}"), phase, index));
    }
    stand.put(&node());
    stand.put(&slice());
    for (no_streams, no_protobuf) in [(false, false), (true, false), (false, true), (true, true)] {
        stand.faults(|faults| (faults.no_streams, faults.no_protobuf) = (no_streams, no_protobuf));
        let binary = stand.binary_answers();
        let mut watched = Watched::in_sync(&stand);
        assert_eq!(watched.known, expected(&stand));
        assert_eq!(watched.known.len(), 1 + 1080 + 2);
        assert_eq!(stand.binary_answers() > binary, !no_protobuf);
        assert!(watched.status.in_sync());

        stand.put(&namespace("shop", "2"));
        stand.put(&namespace("more", "1"));
        watched.until("changed", |watched| {
            watched.label("shop") == Some("2") && watched.label("more") == Some("1")
        });
        stand.delete(&namespace("more", "1"));
        stand.put(&pod("p1", "Succeeded", 1));
        watched.until_equal(&stand);
        // What policy does not read is no change.
        let before = watched.changes;
        let mut same = pod("p2", "Running", 2);
        same["status"]["conditions"] = json!([{"type": "Ready", "status": "False"}]);
        stand.put(&same);
        watched.rest(Duration::from_millis(500));
        assert_eq!(watched.changes, before);
        assert_eq!((watched.in_sync, &watched.problems), (1, &Vec::new()));
        stand.put(&namespace("shop", "1"));
        stand.put(&pod("p1", "Running", 1));
    }
}

#[test]
fn custom_kinds_come_and_go() {
    let stand = ApiStand::start().unwrap();
    let mut watched = Watched::in_sync(&stand);
    stand.define(CRD, "GlobalNetworkPolicy");
    stand.put(&policy(CRD, "GlobalNetworkPolicy", "p", 1));
    watched.until("read", |watched| watched.known.len() == 1);
    watched.until_equal(&stand);
    // Its server has just started and does not know it yet: its definition does.
    stand.withdraw(CRD, "GlobalNetworkPolicy");
    stand.close();
    watched.rest(Duration::from_millis(700));
    assert_eq!(watched.known.len(), 1);
    stand.serve(CRD, "GlobalNetworkPolicy");
    stand.put(&policy(CRD, "GlobalNetworkPolicy", "p", 2));
    watched.until_equal(&stand);
    stand.undefine(CRD, "GlobalNetworkPolicy");
    watched.until("gone", |watched| watched.known.is_empty());
    stand.define(CRD, "GlobalNetworkPolicy");
    stand.put(&policy(CRD, "GlobalNetworkPolicy", "p", 3));
    watched.until_equal(&stand);
    assert_eq!((watched.in_sync, watched.known.len()), (1, 1));
}

#[test]
fn where_definitions_are_hidden_kinds_are_looked_for() {
    let stand = ApiStand::start().unwrap();
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    stand.faults(|faults| faults.forbidden = vec![path.into()]);
    let mut watched = Watched::in_sync(&stand);
    assert_eq!(watched.problems, [""; 0]);
    stand.define(CRD, "NetworkSet");
    let set = json!({"apiVersion": CRD, "kind": "NetworkSet", "metadata": {"name": "s", "namespace": "shop"},
        "spec": {"nets": ["10.0.0.0/8"]}});
    stand.put(&set);
    watched.until("read", |watched| watched.known.len() == 1);
    // Calico's API server, which offers the same object.
    stand.serve(V3, "NetworkSet");
    watched.until("told of the doubt", |watched| {
        watched.problems.join("").contains("customresourcedefinitions")
    });
    assert_eq!(watched.known.len(), 1);
    stand.withdraw(V3, "NetworkSet");
    stand.undefine(CRD, "NetworkSet");
    watched.until("gone", |watched| {
        watched.known.is_empty() && watched.problems.is_empty()
    });
}

#[test]
fn objects_of_calico_are_taken_once() {
    let stand = ApiStand::start().unwrap();
    stand.define(CRD, "GlobalNetworkPolicy");
    stand.put(&policy(CRD, "GlobalNetworkPolicy", "default.p", 1));
    stand.put(&policy(CRD, "GlobalNetworkPolicy", "q", 1));
    let mut watched = Watched::in_sync(&stand);
    let names = |watched: &Watched| -> Vec<String> {
        let keys = watched.known.keys();
        keys.map(|key| key.name.clone()).collect()
    };
    assert_eq!(names(&watched), ["p", "q"]);
    // The aggregated server's copies do not count.
    stand.serve(V3, "GlobalNetworkPolicy");
    stand.put(&policy(V3, "GlobalNetworkPolicy", "copy", 1));
    watched.rest(Duration::from_millis(500));
    assert_eq!(names(&watched), ["p", "q"]);
    // Calico was upgraded to store the newer group itself.
    let changes = watched.changes;
    stand.put(&policy(V3, "GlobalNetworkPolicy", "p", 2));
    stand.define(V3, "GlobalNetworkPolicy");
    watched.until("moved", |watched| names(watched) == ["copy", "p"]);
    assert!(watched.changes > changes);
    let order = |watched: &Watched| {
        watched.known.values().find_map(|resource| match resource {
            Resource::Policy(policy) if policy.key.name == "p" => policy.order,
            _ => None,
        })
    };
    watched.until("read anew", |watched| order(watched) == Some(2.0));
}

#[test]
fn calicos_own_server_holds_up_only_what_it_may_store() {
    let down = |stand: &ApiStand, down: bool| {
        let paths = vec![format!("/apis/{V3}"), format!("/apis/{V3}/tiers")];
        stand.faults(|faults| faults.status = down.then_some((503, paths)));
    };
    let stand = ApiStand::start().unwrap();
    stand.define(CRD, "GlobalNetworkPolicy");
    stand.serve(V3, "GlobalNetworkPolicy");
    stand.serve(V3, "Tier");
    stand.put(&policy(CRD, "GlobalNetworkPolicy", "p", 1));
    let tier = json!({"apiVersion": V3, "kind": "Tier", "metadata": {"name": "t"}, "spec": {"order": 1}});
    stand.put(&tier);
    down(&stand, true);
    let mut watched = Watched::in_sync(&stand);
    let names = |watched: &Watched| -> Vec<String> {
        let keys = watched.known.keys();
        keys.map(|key| key.name.clone()).collect()
    };
    assert_eq!(names(&watched), ["p"]);
    watched.until("told", |watched| {
        watched.problems.iter().any(|problem| problem.contains(V3))
    });
    // It comes back, and has something of its own; it goes again, and that stays.
    down(&stand, false);
    watched.until("read, too", |watched| names(watched).contains(&"t".to_owned()));
    down(&stand, true);
    stand.close();
    stand.define(CRD, "NetworkSet");
    watched.until("told again", |watched| {
        watched.problems.iter().any(|problem| problem.contains(V3))
    });
    watched.rest(Duration::from_millis(500));
    assert_eq!(names(&watched).len(), 2, "{:?}", watched.known.keys());
}

#[test]
fn two_names_for_one_policy() {
    let stand = ApiStand::start().unwrap();
    stand.define(CRD, "GlobalNetworkPolicy");
    stand.put(&policy(CRD, "GlobalNetworkPolicy", "p", 1));
    stand.put(&policy(CRD, "GlobalNetworkPolicy", "default.p", 2));
    let mut watched = Watched::in_sync(&stand);
    let orders = |watched: &Watched| -> Vec<Option<f64>> {
        let policies = watched.known.values();
        policies
            .map(|resource| match resource {
                Resource::Policy(policy) => policy.order,
                _ => None,
            })
            .collect()
    };
    assert_eq!(orders(&watched), [Some(2.0)]);
    watched.until("told", |watched| watched.problems.len() == 1);
    stand.delete(&policy(CRD, "GlobalNetworkPolicy", "default.p", 2));
    watched.until("handed on", |watched| {
        orders(watched) == [Some(1.0)] && watched.problems.is_empty()
    });
    stand.delete(&policy(CRD, "GlobalNetworkPolicy", "p", 1));
    watched.until("gone", |watched| watched.known.is_empty());
}

#[test]
fn a_broken_object_is_named_and_its_problem_goes_with_it() {
    let stand = ApiStand::start().unwrap();
    stand.define(CRD, "NetworkPolicy");
    let mut broken = policy(CRD, "NetworkPolicy", "p", 1);
    broken["spec"]["selector"] = json!("app = 'db'");
    stand.put(&broken);
    let mut watched = Watched::in_sync(&stand);
    watched.until("told", |watched| watched.problems.len() == 1);
    let problem = watched.problems.join("");
    assert!(
        problem.contains("NetworkPolicy shop/p on the API server"),
        "{problem}"
    );
    assert!(problem.contains("spec.selector"), "{problem}");
    // It selects all the same.
    assert_eq!(
        watched.known.keys().next().map(|key| key.kind),
        Some(Kind::NetworkPolicy)
    );
    stand.delete(&broken);
    watched.until("gone", |watched| {
        watched.known.is_empty() && watched.problems.is_empty()
    });
}
