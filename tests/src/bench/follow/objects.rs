//! A cluster's objects as an API server holds them: of usual size, most of which policy does not read.

use std::net::Ipv4Addr;

use serde_json::{Map, Value, json};

/// Pods of the node whose agent is measured.
pub(super) const LOCAL: u32 = 110;
const NAMESPACES: u32 = 200;
const APPS: u32 = 10;
/// Where its agent runs; the others are `node-2` and so on.
const HERE: &str = "node-1";

pub(super) fn namespace(i: u32) -> Value {
    let name = format!("team-{}", i % NAMESPACES);
    let purpose = if i == 7 { "dns" } else { "work" };
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"team": name, "purpose": purpose, "kubernetes.io/metadata.name": name}},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
    })
}

pub(super) fn namespaces() -> impl Iterator<Item = Value> {
    (0..NAMESPACES).map(namespace)
}

/// The agent's own and those of others; a heartbeat is the same node at another `beat`.
pub(super) fn node(i: u32, beat: u32) -> Value {
    let cidr = format!("{}/24", Ipv4Addr::from_bits(0x0b00_0000 + i * 256));
    let name = format!("node-{}", i + 1);
    let time = time(beat);
    let condition = |kind: &str, status: &str| {
        json!({"type": kind, "status": status, "lastHeartbeatTime": time, "lastTransitionTime": "2026-01-01T00:00:00Z",
               "reason": format!("KubeletHas{kind}"), "message": format!("kubelet has {kind} to tell of")})
    };
    let image = |i: u32| {
        json!({"names": [format!("registry.example/team/image-{i}@sha256:{:064x}", i), format!("registry.example/team/image-{i}:v{i}")],
               "sizeBytes": 100_000_000})
    };
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": node_labels(&name), "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
        "spec": {"podCIDR": cidr, "podCIDRs": [cidr], "providerID": format!("azure:///subscriptions/{i:036}")},
        "status": {
            "addresses": [{"type": "InternalIP", "address": Ipv4Addr::from_bits(0xac10_0000 + i).to_string()},
                          {"type": "Hostname", "address": name}],
            "conditions": [condition("MemoryPressure", "False"), condition("DiskPressure", "False"),
                           condition("PIDPressure", "False"), condition("Ready", "True")],
            "images": (0..40).map(image).collect::<Vec<_>>(),
            "nodeInfo": {"kernelVersion": "6.8.0-1015-azure", "osImage": "Ubuntu 22.04.5 LTS", "kubeletVersion": "v1.31.2"},
        },
    })
}

fn node_labels(name: &str) -> Value {
    json!({
        "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        "agentpool": "nodepool1", "node.kubernetes.io/instance-type": "Standard_D8s_v5",
        "topology.kubernetes.io/region": "westeurope", "topology.kubernetes.io/zone": "westeurope-1",
        "kubernetes.azure.com/cluster": "MC_group_cluster_westeurope", "kubernetes.azure.com/mode": "user",
    })
}

fn time(beat: u32) -> String {
    format!(
        "2026-01-01T{:02}:{:02}:{:02}Z",
        beat / 3600 % 24,
        beat / 60 % 60,
        beat % 60
    )
}

pub(super) fn address(i: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0100 + i)
}

/// How far a pod has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Nobody runs it yet.
    Made,
    /// It has a node.
    Bound,
    /// It has an address.
    Runs,
}

/// Of an application that is spread over all nodes; the first `LOCAL` are here.
pub(super) fn pod(i: u32, nodes: u32, life: Life) -> Value {
    let (app, namespace) = (i / NAMESPACES % APPS, format!("team-{}", i % NAMESPACES));
    let node = match i {
        0..LOCAL => HERE.to_owned(),
        _ => format!("node-{}", 2 + i % (nodes - 1).max(1)),
    };
    let mut object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("app-{app}-7d4b9c6f5d-{i:05x}"), "namespace": namespace,
            "labels": {"app": format!("app-{app}"), "app.kubernetes.io/instance": namespace,
                       "pod-template-hash": "7d4b9c6f5d", "version": format!("v{}", app % 3)},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "9090",
                            "checksum/config": format!("{i:064x}")},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("app-{app}-7d4b9c6f5d"),
                                 "uid": format!("{i:036}"), "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": spec(app),
    });
    if life != Life::Made {
        object["spec"]["nodeName"] = json!(node);
    }
    object["status"] = match life {
        Life::Made | Life::Bound => json!({"phase": "Pending"}),
        Life::Runs => status(&address(i).to_string()),
    };
    object
}

fn spec(app: u32) -> Value {
    let variable =
        |i: u32| json!({"name": format!("SETTING_{i}"), "value": format!("the value of setting {i}")});
    let probe = json!({"httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"}, "periodSeconds": 10,
                       "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3});
    let mounts = json!([{"name": "config", "mountPath": "/etc/app"},
                        {"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}]);
    json!({
        "containers": [{
            "name": "app", "image": format!("registry.example/team/app-{app}:v1.{app}.0"), "imagePullPolicy": "IfNotPresent",
            "args": ["--config=/etc/app/config.yaml", "--log-level=info"],
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"},
                      {"name": "metrics", "containerPort": 9090, "protocol": "TCP"}],
            "env": (0..20).map(variable).collect::<Vec<_>>(),
            "resources": {"limits": {"cpu": "1", "memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
            "volumeMounts": mounts, "livenessProbe": probe, "readinessProbe": probe,
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "securityContext": {"runAsNonRoot": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        }],
        "volumes": [{"name": "config", "configMap": {"name": format!("app-{app}"), "defaultMode": 420}},
                    {"name": "token", "projected": {"defaultMode": 420, "sources": [
                        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}]}}],
        "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "serviceAccountName": "default", "terminationGracePeriodSeconds": 30,
        "schedulerName": "default-scheduler", "enableServiceLinks": true, "priority": 0, "preemptionPolicy": "PreemptLowerPriority",
        "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
    })
}

fn status(ip: &str) -> Value {
    const THEN: &str = "2026-01-01T00:00:00Z";
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": THEN});
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
    json!({
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "172.16.0.1", "qosClass": "Burstable", "startTime": THEN,
        "conditions": conditions,
        "containerStatuses": [{"name": "app", "ready": true, "started": true, "restartCount": 0,
            "image": "registry.example/team/app:v1", "imageID": format!("registry.example/team/app@sha256:{:064}", 1),
            "containerID": format!("containerd://{:064}", 2), "state": {"running": {"startedAt": THEN}}, "lastState": {}}],
    })
}

/// Who wrote which field, which an API server keeps and sends with every object.
pub(super) fn with_managers(mut object: Value) -> Value {
    let fields = fields(&object);
    let entry = |manager: &str| {
        json!({"manager": manager, "operation": "Update", "apiVersion": object["apiVersion"], "time": "2026-01-01T00:00:00Z",
               "fieldsType": "FieldsV1", "fieldsV1": fields})
    };
    let entries = json!([entry("kube-controller-manager")]);
    object["metadata"]["managedFields"] = entries;
    object["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    object
}

fn fields(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let named = map.iter().map(|(key, value)| (format!("f:{key}"), fields(value)));
            Value::Object(named.collect::<Map<_, _>>())
        }
        _ => json!({}),
    }
}

/// Five for each namespace: about one application each, which two others, and all of another team's, may reach.
pub(super) fn policy(i: u32) -> Value {
    let own = format!("team-{}", i % NAMESPACES);
    let app = |app: u32| format!("app == 'app-{}'", app % APPS);
    let rule = |peer: &str, selector: String, port: u16| json!({"action": "Allow", "protocol": "TCP", peer: {"selector": selector}, "destination": {"ports": [port]}});
    let outside = |name: String, port: u16| json!({"action": "Allow", "protocol": "TCP", "source": {"namespaceSelector": name}, "destination": {"ports": [port]}});
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
        "metadata": {"name": format!("policy-{i}"), "namespace": own},
        "spec": {
            "order": i, "selector": app(i / NAMESPACES * 2), "types": ["Ingress", "Egress"],
            "ingress": [rule("source", app(i), 8080), rule("source", app(i + 1), 9090),
                        outside(format!("team == 'team-{}'", (i + 1) % NAMESPACES), 443)],
            "egress": [
                {"action": "Allow", "protocol": "TCP", "destination": {"selector": app(i + 2), "ports": [5432]}},
                {"action": "Allow", "protocol": "UDP", "destination": {"namespaceSelector": "purpose == 'dns'", "ports": [53]}}],
        },
    })
}
