//! What the store knows after events, and which pods it has.

use crate::model::{HostRole, Key, Kind, Labels, Namespace, Pod, Policy, Resource, WorkloadEndpoint};
use crate::policy::{Event, Store};

#[test]
fn apply_reports_whether_anything_changed() {
    let mut store = Store::default();
    let namespace = Namespace {
        name: "a".into(),
        ..Default::default()
    };
    let upsert = Event::Upsert(Resource::Namespace(namespace));
    assert!(store.apply(upsert.clone()));
    assert!(!store.apply(upsert));
    let key = Key {
        kind: Kind::Namespace,
        namespace: None,
        name: "a".into(),
    };
    assert!(store.apply(Event::Delete(key.clone())));
    assert!(!store.apply(Event::Delete(key)));
    assert_eq!(store, Store::default());
}

#[test]
fn a_workload_endpoint_stands_in_for_a_missing_pod_only() {
    let pod = |labels: &[(&str, &str)]| Pod {
        namespace: "a".into(),
        name: "p".into(),
        labels: Labels::from_iter(labels.iter().map(|(k, v)| ((*k).into(), (*v).into()))).into(),
        ..Pod::default()
    };
    let endpoint = |pod| {
        Resource::WorkloadEndpoint(WorkloadEndpoint {
            name: "n1-k8s-p-eth0".into(),
            interface: "cali1".into(),
            pod,
        })
    };
    let mut store: Store = [endpoint(pod(&[("from", "endpoint")]))].into_iter().collect();
    let from = |store: &Store| {
        let labels = store.pods().map(|pod| pod.labels.get("from").cloned());
        labels.collect::<Vec<_>>()
    };
    assert_eq!(from(&store), [Some("endpoint".to_owned())]);
    store.apply(Event::Upsert(Resource::Pod(pod(&[("from", "pod")]))));
    assert_eq!(from(&store), [Some("pod".to_owned())]);
    let named: Vec<_> = store.named_interfaces(&pod(&[])).collect();
    assert_eq!(named, ["cali1"], "what it says of the link is news");
    store.apply(Event::Delete(Resource::Pod(pod(&[])).key()));
    assert_eq!(from(&store), [Some("endpoint".to_owned())]);
    let renamed = Pod {
        name: "q".into(),
        ..pod(&[])
    };
    assert!(store.apply(Event::Upsert(endpoint(renamed))));
    assert!(store.pod("a", "p").is_none(), "it stands for another now");
    assert!(store.pod("a", "q").is_some());
    assert!(store.apply(Event::Delete(endpoint(pod(&[])).key())));
    assert_eq!(store, Store::default());
}

#[test]
fn a_policy_is_deleted_by_its_own_kind_only() {
    let policy = |kind| Policy {
        key: Key {
            kind,
            namespace: Some("a".into()),
            name: "p".into(),
        },
        tier: "default".into(),
        order: None,
        selector: crate::selector::Selector::all(),
        ingress: None,
        egress: None,
        staged: None,
        host: HostRole::Normal,
    };
    let mut store: Store = [Kind::NetworkPolicy, Kind::KubernetesNetworkPolicy]
        .map(|kind| Resource::Policy(policy(kind)))
        .into_iter()
        .collect();
    store.apply(Event::Delete(policy(Kind::NetworkPolicy).key));
    let left: Vec<_> = store.policies().map(|p| p.key.kind).collect();
    assert_eq!(left, [Kind::KubernetesNetworkPolicy]);
}
