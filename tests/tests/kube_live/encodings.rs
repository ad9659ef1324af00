//! What a real server says in Protobuf is what it says in JSON.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use calico_azure_tests::apiserver::{ApiServer, Objects, collection};
use calico_azure_userspace::model::load::parse_text;
use calico_azure_userspace::model::{Key, Resource};
use calico_azure_userspace::sources::Event;
use calico_azure_userspace::sources::kube::{KubeConfig, watch_until};
use http::Request;
use serde_json::{Value, json};

use super::SOON;

/// Those that are read as Protobuf.
const READ: [(&str, &str); 3] = [
    ("v1", "Pod"),
    ("v1", "Node"),
    ("discovery.k8s.io/v1beta1", "EndpointSlice"),
];

/// With everything in it that is read, and much that is not.
fn objects() -> Vec<Value> {
    let container = |name: &str, ports: Value| {
        json!({
            "name": name, "image": "i", "command": ["/bin/a", "-b"], "ports": ports,
            "env": [{"name": "KEY", "value": "a long one"}], "resources": {"requests": {"cpu": "100m"}},
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        })
    };
    let ports = json!([
        {"name": "http", "containerPort": 8080}, {"containerPort": 9090, "protocol": "UDP"},
        {"name": "sctp", "containerPort": 65535, "hostPort": 65535, "protocol": "SCTP", "hostIP": "127.0.0.1"},
    ]);
    let annotations = json!({
        "cni.projectcalico.org/podIP": "10.0.0.9/32", "cni.projectcalico.org/podIPs": "10.0.0.9/32,fd00::9/128",
        "checksum/config": "ü – 漢字 \"quoted\"\n", "cni.projectcalico.org/allowedSourcePrefixes": "[\"192.0.2.0/24\"]",
    });
    let full = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "full", "namespace": "shop", "labels": {"app": "web", "empty": ""}, "annotations": annotations,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "u", "controller": true},
                                {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "v"}]},
        "spec": {"nodeName": "node-1", "serviceAccountName": "default", "containers": [container("c", ports), container("d", json!([]))],
            "initContainers": [container("i", json!([{"name": "init", "containerPort": 53, "protocol": "UDP"}]))],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}], "tolerations": [{"operator": "Exists"}]},
        "status": {"phase": "Running", "podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}, {"ip": "fd00::9"}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    });
    let hosted = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hosted", "namespace": "shop"},
        "spec": {"nodeName": "node-2", "hostNetwork": true, "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Pending"},
    });
    let unbound = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "unbound", "namespace": "shop"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}, "status": {"phase": "Pending"},
    });
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "node-1", "labels": {"zone": "1"}, "annotations": {
            "flannel.alpha.coreos.com/backend-type": "vxlan", "flannel.alpha.coreos.com/public-ip": "10.240.0.4",
            "flannel.alpha.coreos.com/backend-data": "{\"VNI\":1,\"VtepMAC\":\"02:00:00:00:00:01\"}"}},
        "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:244:1::/64"], "providerID": "azure:///x"},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.240.0.4"}, {"type": "Hostname", "address": "node-1"}],
            "capacity": {"cpu": "4"}, "images": [{"names": ["a", "b"], "sizeBytes": 7}]},
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1beta1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": ["10.0.0.9"], "conditions": {"ready": true}, "hostname": "a"}, {"addresses": ["10.0.0.10"]}],
        "ports": [{"name": "http", "port": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}],
    });
    vec![full, hosted, unbound, node, slice]
}

/// What the server says in JSON.
fn expected(api: &Objects) -> BTreeMap<Key, Resource> {
    let lists = READ.map(|(version, kind)| api.list(&collection(version, kind, None)).unwrap().unwrap());
    let read = |object: Value| parse_text(Path::new("object.json"), &object.to_string()).resources;
    let resources = lists.into_iter().flatten().flat_map(read);
    resources.map(|resource| (resource.key(), resource)).collect()
}

#[test]
fn protobuf_says_what_json_says() {
    let server = ApiServer::start().unwrap();
    let api = Objects::connect(server.kubeconfig()).unwrap();
    api.put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}))
        .unwrap();
    let (first, later) = {
        let mut objects = objects();
        let later = objects.split_off(1);
        (objects, later)
    };
    let put = |object: &Value| {
        api.put(object).unwrap();
        if object.get("status").is_some() {
            api.put_status(object).unwrap();
        }
    };
    // One is listed, the others are watched.
    first.iter().for_each(put);
    for (version, kind) in READ {
        let request = Request::get(collection(version, kind, None))
            .header("Accept", "application/vnd.kubernetes.protobuf,application/json");
        let answer = server.block_on(server.client().request_text(request.body(Vec::new()).unwrap()));
        // It is no text, which is how it shows.
        let is_binary = answer.as_ref().map_or(true, |text| text.starts_with("k8s\0"));
        assert!(is_binary, "{kind}: {answer:?}");
    }
    let config = KubeConfig {
        kubeconfig: Some(server.kubeconfig().to_owned()),
        ..KubeConfig::default()
    };
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, events) = channel::<Vec<Event>>();
    watch_until(&config, sender, Arc::clone(&stop)).unwrap();
    let mut known = BTreeMap::new();
    let mut until_equal = |what: &str| {
        let end = Instant::now() + SOON;
        loop {
            for event in events
                .recv_timeout(Duration::from_millis(50))
                .into_iter()
                .flatten()
            {
                match event {
                    Event::Upsert(resource) => drop(known.insert(resource.key(), resource)),
                    Event::Delete(key) => drop(known.remove(&key)),
                    Event::Problems(problems) => assert!(problems.is_empty(), "{problems:?}"),
                    Event::InSync => {}
                }
            }
            let expected = expected(&api);
            let kinds: Vec<_> = expected.keys().map(|key| key.kind).collect();
            let found: BTreeMap<_, _> = known
                .iter()
                .filter(|(key, _)| kinds.contains(&key.kind))
                .collect();
            if found == expected.iter().collect() {
                return expected.len();
            }
            assert!(Instant::now() < end, "{what}:\n{found:#?}\n{expected:#?}");
        }
    };
    assert_eq!(until_equal("listed"), 1);
    later.iter().for_each(put);
    assert_eq!(until_equal("watched"), objects().len());
    let mut changed = objects()[0].clone();
    changed["metadata"]["labels"]["app"] = json!("other");
    changed["status"]["podIP"] = json!("10.0.0.11");
    changed["status"]["podIPs"] = json!([{"ip": "10.0.0.11"}]);
    put(&changed);
    api.delete(&objects()[2]).unwrap();
    assert_eq!(until_equal("changed"), objects().len() - 1);
    stop.store(true, Ordering::Relaxed);
}
