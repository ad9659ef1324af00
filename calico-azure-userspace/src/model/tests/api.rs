//! What is left out of an API server's objects makes no difference.

use std::hash::RandomState;
use std::time::Instant;

use proptest::prelude::*;
use serde::de::DeserializeSeed as _;
use serde_json::{Value, json};

use super::*;
use crate::model::api::{ApiObject, ApiReader, watched};

fn read(text: &str, kind: Kind) -> ApiObject<'_> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    ApiReader::new(Some(kind)).deserialize(&mut deserializer).unwrap()
}

/// The kind of a manifest, as the model has it.
fn kind_of(object: &Value) -> Kind {
    let text = |key: &str| object[key].as_str().unwrap();
    let mut kinds = watched();
    kinds
        .find(|(kind, versions)| kind.written() == text("kind") && versions.contains(&text("apiVersion")))
        .map(|(kind, _)| kind)
        .unwrap_or_else(|| panic!("{object} is of no kind that is watched"))
}

/// Read as an API server's object, it is what it is as a manifest, in which nothing is left out.
fn check(object: &Value) -> bool {
    let kind = kind_of(object);
    let version = object["apiVersion"].as_str().unwrap();
    let text = object.to_string();
    let whole = load(&text);
    let trimmed = read(&text, kind).read(version, kind);
    assert_eq!(whole.resources.first(), trimmed.resource.as_ref(), "{text}");
    let said = |problems: &[Problem]| -> Vec<_> {
        let said = problems.iter();
        said.map(|problem| {
            (
                problem.field.clone(),
                problem.message.clone(),
                problem.help.clone(),
            )
        })
        .collect()
    };
    assert_eq!(said(&whole.problems), said(&trimmed.problems), "{text}");
    for problem in &trimmed.problems {
        let place = problem.file.to_string_lossy();
        assert!(
            place.ends_with(" on the API server") && problem.line.is_none(),
            "{problem}"
        );
    }
    trimmed.resource.is_some()
}

/// Every object of the manifests that come with the tests and the examples, as JSON.
fn corpus() -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut objects = Vec::new();
    for dir in ["tests/corpus/manifests", "examples"] {
        for file in crate::model::load::manifests(&root.join(dir)).unwrap() {
            let text = std::fs::read_to_string(&file).unwrap();
            let found: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
            objects.extend(found.into_iter().filter(Value::is_object));
        }
    }
    let is_watched = |object: &Value| {
        let of = |key: &str| object[key].as_str().unwrap_or_default();
        watched().any(|(kind, versions)| kind.written() == of("kind") && versions.contains(&of("apiVersion")))
    };
    objects.retain(is_watched);
    objects
}

/// An object of each kind of which the corpus has none, or too simple ones.
fn others() -> Vec<Value> {
    vec![
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "shop", "deletionTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"app": "x", "pcns.team": "forged"},
                "annotations": {"cni.projectcalico.org/podIP": "", "cni.projectcalico.org/podIPs": "10.0.0.1/32,fd00::1",
                    "cni.projectcalico.org/allowedSourcePrefixes": "[\"10.9.0.0/16\"]", "other": "x"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "r", "controller": true, "uid": "u"}]},
            "spec": {"nodeName": "n", "hostNetwork": false, "serviceAccount": "old", "tolerations": [{"key": "x"}],
                "volumes": [{"name": "v"}],
                "initContainers": [{"name": "i", "ports": [{"name": "init", "containerPort": 1, "protocol": "UDP"}]}],
                "containers": [{"name": "c", "image": "x", "env": [{"name": "A"}],
                    "ports": [{"name": "web", "containerPort": 8080, "hostPort": 1}, {"containerPort": 1}]}]},
            "status": {"phase": "Running", "hostIP": "10.1.1.1", "conditions": [{"type": "Ready"}]}}),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": {"a": "b"}},
            "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24", "fd00::/64"], "providerID": "x"},
            "status": {"addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.1.0.4"}],
                "images": [{"names": ["x"], "sizeBytes": 1}], "conditions": []}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "shop"},
            "spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "type": "LoadBalancer", "selector": {"a": "b"},
                "ports": [{"name": "p", "port": 80, "targetPort": "web", "nodePort": 30000}], "sessionAffinity": "None"},
            "status": {"loadBalancer": {"ingress": [{"ip": "20.0.0.1", "ipMode": "VIP"}]}, "conditions": []}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "s-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4", "ports": [{"name": "p", "port": 80, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": false}, "nodeName": "n",
                "targetRef": {"kind": "Pod", "name": "p"}}]}),
        json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "s", "namespace": "shop"},
            "subsets": [{"addresses": [{"ip": "10.0.0.1", "nodeName": "n"}], "notReadyAddresses": [{"ip": "10.0.0.2"}],
                "ports": [{"port": 80}]}]}),
        json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "FelixConfiguration", "metadata": {"name": "default"},
            "spec": {"defaultEndpointToHostAction": "Accept", "bpfEnabled": true, "ipv6Support": false,
                "failsafeInboundHostPorts": [{"protocol": "tcp", "port": 22}]}}),
        json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "pool"},
            "spec": {"cidr": "10.244.0.0/16", "ipipMode": "Never", "natOutgoing": true}}),
        json!({"apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint", "metadata": {"name": "w", "namespace": "shop"},
            "spec": {"orchestrator": "k8s", "node": "n", "pod": "p", "endpoint": "eth0", "interfaceName": "cali1",
                "ipNetworks": ["10.0.0.1/32"], "profiles": ["kns.shop"]}}),
        json!({"apiVersion": "projectcalico.org/v3", "kind": "StagedGlobalNetworkPolicy", "metadata": {"name": "s"},
            "spec": {"order": 10.1, "selector": "all()", "ingress": [{"action": "Deny"}]}}),
        json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "GlobalNetworkSet",
            "metadata": {"name": "s", "annotations": {"projectcalico.org/metadata": "{\"labels\":{\"kept\":\"there\"}}"}},
            "spec": {"nets": ["10.0.0.0/8"]}}),
        // Wrong ones.
        json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "GlobalNetworkPolicy", "metadata": {"name": "p"},
            "speck": 1, "spec": {"selector": "a =", "order": "x", "ingres": []}, "status": {"seen": true}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "shop", "labels": "none"},
            "spec": {"containers": {"name": "c"}, "nodeName": 7}, "status": {"podIPs": [{"ip": "x"}], "phase": []}}),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": [], "status": {"addresses": [1]}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "shop"},
            "spec": {"type": "ExternalName", "externalName": "example.org"}}),
    ]
}

#[test]
fn a_trimmed_object_says_what_the_whole_one_says() {
    let mut seen: Vec<Kind> = Vec::new();
    for mut object in corpus().into_iter().chain(others()) {
        if check(&object) {
            seen.push(kind_of(&object));
        }
        // What an API server adds.
        object["metadata"]["uid"] = json!("5a0a");
        object["metadata"]["generation"] = json!(3);
        object["metadata"]["resourceVersion"] = json!("17");
        object["metadata"]["managedFields"] = json!([{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]);
        object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] =
            json!("{\"a\": 1}\n");
        check(&object);
    }
    for (kind, _) in watched() {
        assert!(seen.contains(&kind), "no manifest of {kind:?}");
    }
}

/// Chooses as the seed has it.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        // Knuth's constants.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }
}

/// Takes out, adds or replaces something anywhere.
fn spoil(value: &mut Value, rng: &mut Dice, is_top: bool) {
    let junk = [
        json!(null),
        json!(-1.5),
        json!(""),
        json!([{}]),
        json!({"x": [1]}),
        json!(true),
        json!("10.0.0.0/8"),
    ];
    if !is_top && rng.chance(15) {
        if let Some(other) = rng.pick(&junk) {
            *value = other.clone();
        }
        return;
    }
    match value {
        Value::Array(items) if !items.is_empty() => {
            let index = rng.below(items.len());
            if let Some(item) = items.get_mut(index) {
                spoil(item, rng, false);
            }
        }
        Value::Object(entries) => {
            if rng.chance(10) {
                entries.insert("unknown".into(), json!(1));
            }
            let keys: Vec<String> = entries.keys().cloned().collect();
            if let Some(key) = rng.pick(&keys)
                && !matches!(
                    key.as_str(),
                    "apiVersion" | "kind" | "name" | "namespace" | "metadata"
                )
            {
                if rng.chance(10) {
                    entries.remove(key);
                } else if let Some(inside) = entries.get_mut(key) {
                    spoil(inside, rng, false);
                }
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn spoilt_objects_are_spoilt_alike(seed: u64) {
        let mut rng = Dice(seed);
        let objects = others();
        let Some(object) = rng.pick(&objects) else { return Ok(()) };
        let mut object = object.clone();
        for _ in 0..3 {
            spoil(&mut object, &mut rng, true);
        }
        check(&object);
    }
}

#[test]
fn fingerprints_tell_what_matters_from_what_does_not() {
    let state = RandomState::new();
    let print = |object: &Value| read(&object.to_string(), kind_of(object)).fingerprint(&state);
    let objects = others();
    let pod = objects.first().unwrap();
    let mut same = pod.clone();
    same["metadata"]["resourceVersion"] = json!("99");
    same["metadata"]["managedFields"] = json!([]);
    same["status"]["conditions"] = json!([]);
    same["spec"]["containers"][0]["image"] = json!("y");
    same.as_object_mut().unwrap().remove("kind");
    assert_eq!(print(pod), read(&same.to_string(), Kind::Pod).fingerprint(&state));
    for (pointer, value) in [
        ("/status/phase", json!("Failed")),
        ("/spec/hostNetwork", json!("false")),
        ("/metadata/labels/app", json!("y")),
        ("/spec/containers/0/ports/0/containerPort", json!(8081)),
        ("/metadata/ownerReferences/0/controller", json!(false)),
    ] {
        let mut other = pod.clone();
        *other.pointer_mut(pointer).unwrap() = value;
        assert_ne!(print(pod), print(&other), "{pointer}");
    }
    // The same characters, otherwise divided.
    let labels = |labels: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "labels": labels}});
    assert_ne!(
        print(&labels(json!({"a": "bc"}))),
        print(&labels(json!({"ab": "c"})))
    );
}

/// Prints what one pod costs; release builds are to stay below 10 µs.
#[test]
fn the_cost_of_a_pod() {
    const PODS: u32 = 2000;
    let mut pod = others().remove(0);
    pod["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("deletionTimestamp");
    pod["status"]["podIPs"] = json!([{"ip": "10.0.0.1"}]);
    // As large as pods are.
    let fields = json!({"f:spec": {"f:containers": vec![json!({"f:image": {}, "f:ports": {}}); 40]}});
    pod["metadata"]["managedFields"] = json!([{"manager": "kubelet", "fieldsV1": fields}]);
    pod["spec"]["containers"][0]["env"] = json!(vec![
        json!({"name": "KEY", "value": "a value of some length"});
        30
    ]);
    pod["status"]["conditions"] = json!(vec![
        json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026"});
        5
    ]);
    let text = pod.to_string();
    let state = RandomState::new();
    let begun = Instant::now();
    let mut read_well = 0;
    for _ in 0..PODS {
        let object = read(&text, Kind::Pod);
        let _print = object.fingerprint(&state);
        read_well += u32::from(object.read("v1", Kind::Pod).resource.is_some());
    }
    let each = begun.elapsed() / PODS;
    println!(
        "a pod of {} bytes: {:.1} µs",
        text.len(),
        each.as_secs_f64() * 1e6
    );
    assert_eq!(read_well, PODS);
}
