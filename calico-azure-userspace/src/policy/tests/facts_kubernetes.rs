//! The facts whose trap lies in how Kubernetes' own objects are read.

use super::world::*;
use crate::model::{Pod, Resource};
use crate::policy::{Direction, Event, Store};

const WEB: &str = "10.0.0.1";

#[test]
fn fact_16_ports_of_init_containers_have_names_too() {
    let pods = "---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: blue}
spec:
  nodeName: n1
  initContainers: [{name: i, ports: [{name: sidecar, containerPort: 9000}]}]
  containers: [{name: c, ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]}]
status: {phase: Running, podIPs: [{ip: 10.0.0.8}]}
";
    let policy = |rule: &str| {
        let spec = format!("selector: all(), egress: [{{action: Allow, {rule}}}]");
        let text = pods.to_owned() + &calico("GlobalNetworkPolicy", "name: p", &spec);
        world(yaml(&text))
    };
    let to = |store: &Store, protocol, port| {
        ask(store, Direction::Egress, "10.0.0.8", protocol, port).starts_with('+')
    };
    let store = policy("destination: {ports: [sidecar, http]}, protocol: TCP");
    assert!(to(&store, TCP, 9000) && to(&store, TCP, 8080));
    assert!(!to(&store, UDP, 8080) && !to(&store, TCP, 53));
    let any = policy("destination: {ports: [dns]}");
    assert!(
        to(&any, UDP, 53) && !to(&any, TCP, 53),
        "the endpoint says which protocol"
    );
    let not = policy("destination: {notPorts: [http]}, protocol: TCP");
    assert!(!to(&not, TCP, 8080) && to(&not, TCP, 8081));
}

#[test]
fn fact_20_source_prefixes_are_an_annotation_that_isolates_unless_felix_grants_it() {
    let pod = "---
apiVersion: v1
kind: Pod
metadata:
  name: router
  namespace: blue
  annotations: {cni.projectcalico.org/allowedSourcePrefixes: '[\"192.0.2.0/24\"]'}
spec: {nodeName: n1, containers: []}
status: {phase: Running, podIPs: [{ip: 10.0.0.8}]}
";
    let reached = |spoofing: &str| {
        let settings = calico("FelixConfiguration", "name: default", spoofing);
        let resources: Vec<Resource> = yaml(&(pod.to_owned() + &settings));
        let asks = resources.iter().any(|resource| match resource {
            Resource::Pod(Pod { allowed_sources, .. }) => !allowed_sources.is_empty(),
            _ => false,
        });
        let mut store = nodes([]);
        for resource in resources {
            store.apply(Event::Upsert(resource));
        }
        (asks, way(&store, WEB, "10.0.0.8", TCP, 80).starts_with('+'))
    };
    assert_eq!(reached("workloadSourceSpoofing: Disabled"), (true, false));
    assert_eq!(reached("ipv6Support: true"), (true, false));
    assert_eq!(reached("workloadSourceSpoofing: Any"), (true, true));
}

const SLICES: &str = "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: svc-1, namespace: blue, labels: {kubernetes.io/service-name: svc}}
addressType: IPv4
ports: [{name: web, port: 8080, protocol: TCP}, {name: none}]
endpoints:
- {addresses: [10.0.0.2], conditions: {ready: true}}
- {addresses: [10.0.0.3], conditions: {ready: false, serving: false, terminating: true}}
";

#[test]
fn fact_16_a_services_backends_count_ready_or_not_and_its_namespace_is_the_policys_own() {
    for service in ["{name: svc}", "{name: svc, namespace: blue}"] {
        let spec =
            format!("selector: all(), egress: [{{action: Allow, destination: {{services: {service}}}}}]");
        let policy = calico("NetworkPolicy", "name: p, namespace: blue", &spec);
        let store = world(yaml(&(SLICES.to_owned() + &policy)));
        let to = |peer, port| ask(&store, Direction::Egress, peer, TCP, port).starts_with('+');
        assert!(to("10.0.0.2", 8080) && to("10.0.0.3", 8080), "{service}");
        assert!(!to("10.0.0.2", 80) && !to("10.0.0.9", 8080), "{service}");
    }
}

#[test]
fn fact_10_cluster_network_policies_lie_before_and_after_the_default_tier() {
    let policy = |name: &str, tier: &str, action: &str| {
        format!(
            "---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {{name: {name}}}
spec:
  tier: {tier}
  priority: 10
  subject: {{namespaces: {{}}}}
  ingress: [{{action: {action}, from: [{{namespaces: {{}}}}]}}]
"
        )
    };
    let store = |admin: &str, more: &str| {
        let text = policy("a", "Admin", admin) + &policy("b", "Baseline", "Deny") + more;
        world(yaml(&text))
    };
    let said = |store: &Store| ingress(store, "10.0.0.2");
    assert_eq!(
        said(&store("Accept", "")),
        "+ tier kube-admin / ClusterNetworkPolicy a / ingress[0]"
    );
    assert_eq!(
        said(&store("Pass", "")),
        "- tier kube-baseline / ClusterNetworkPolicy b / ingress[0]"
    );
    let default = calico(
        "GlobalNetworkPolicy",
        "name: p",
        "selector: all(), ingress: [{action: Allow}]",
    );
    assert_eq!(
        said(&store("Pass", &default)),
        format!("+ {}", gnp("p", 0, "default"))
    );
}
