//! Workloads: one pod stands for those that a workload would make, unless the inputs have them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::analysis::place::Place;
use crate::model::{Kind, Pod, Resource, Workload};
use crate::policy::store::{Event, Name, Store};

/// Adds a pod for each workload that has none; what each stands for.
pub(super) fn add_pods(store: &mut Store) -> BTreeMap<Name, Place> {
    let workloads: Vec<Arc<Workload>> = store.workloads().cloned().collect();
    let mut by_namespace: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in store.pods() {
        by_namespace.entry(&pod.namespace).or_default().push(pod);
    }
    let mut pods = Vec::new();
    let mut stand_ins = BTreeMap::new();
    for workload in &workloads {
        let namespace = workload.key.namespace.as_deref().unwrap_or_default();
        let own = by_namespace.get(namespace).map_or(&[][..], |pods| pods);
        let made_by_another = || workloads.iter().any(|other| makes_workload(other, workload));
        if own.iter().any(|pod| makes(workload, pod)) || made_by_another() {
            continue;
        }
        // No pod has such a name, so it is nobody else's.
        let name = format!("{} ({})", workload.key.name, workload.key.kind.as_str());
        let place = Place::Workload {
            namespace: namespace.to_owned(),
            name: workload.key.name.clone(),
            kind: workload.key.kind,
        };
        stand_ins.insert((namespace.to_owned(), name.clone()), place);
        pods.push(Pod {
            namespace: namespace.to_owned(),
            name,
            node: String::new(),
            ips: Vec::new(),
            finished: false,
            ..workload.template.clone()
        });
    }
    for pod in pods {
        store.apply(Event::Upsert(Resource::Pod(pod)));
    }
    stand_ins
}

/// Whether the pod is one of the workload's, by its owner, else by its labels.
pub(super) fn makes(workload: &Workload, pod: &Pod) -> bool {
    let owner = pod.owner.as_ref();
    let owned = owner.is_some_and(|(kind, name)| {
        let own = kind == workload.key.kind.as_str() && *name == workload.key.name;
        own || makes_through(workload, kind, name)
    });
    let selector = workload.selector.as_ref();
    owned || selector.is_some_and(|selector| selector.matches(&*pod.labels))
}

/// Whether what owns the pod is in turn the workload's: a Deployment's ReplicaSet, a CronJob's Job.
fn makes_through(workload: &Workload, kind: &str, name: &str) -> bool {
    let between = match workload.key.kind {
        Kind::Deployment => "ReplicaSet",
        Kind::CronJob => "Job",
        _ => return false,
    };
    let suffix = || name.strip_prefix(workload.key.name.as_str())?.strip_prefix('-');
    kind == between && suffix().is_some_and(|suffix| !suffix.is_empty() && !suffix.contains('-'))
}

fn makes_workload(maker: &Workload, made: &Workload) -> bool {
    maker.key.namespace == made.key.namespace
        && makes_through(maker, made.key.kind.as_str(), &made.key.name)
        && maker
            .selector
            .as_ref()
            .is_none_or(|selector| selector.matches(&*made.template.labels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Key, Labels};
    use crate::selector::Selector;

    fn labels(app: &str) -> Labels {
        Labels::from([("app".to_owned(), app.to_owned())])
    }

    fn workload(kind: Kind, name: &str, app: Option<&str>) -> Resource {
        Resource::Workload(Workload {
            key: Key {
                kind,
                namespace: Some("a".into()),
                name: name.into(),
            },
            selector: app.map(|app| Selector::eq("app", app)),
            template: Pod {
                namespace: "a".into(),
                labels: labels(app.unwrap_or("none")).into(),
                ..Pod::default()
            },
            scaled_to_zero: false,
        })
    }

    fn pod(namespace: &str, owner: Option<(&str, &str)>, app: &str) -> Resource {
        Resource::Pod(Pod {
            namespace: namespace.into(),
            name: "p".into(),
            labels: labels(app).into(),
            owner: owner.map(|(kind, name)| (kind.to_owned(), name.to_owned())),
            ..Pod::default()
        })
    }

    fn added(resources: impl IntoIterator<Item = Resource>) -> Vec<String> {
        let mut store: Store = resources.into_iter().collect();
        let places = add_pods(&mut store);
        assert_eq!(
            store.pods().filter(|pod| pod.name.contains('(')).count(),
            places.len()
        );
        places.values().map(ToString::to_string).collect()
    }

    #[test]
    fn a_workload_without_pods_has_one_that_stands_for_them() {
        let web = || workload(Kind::Deployment, "web", Some("web"));
        assert_eq!(added([web()]), ["a/web (Deployment)"]);
        assert_eq!(added([web(), pod("a", None, "db")]), ["a/web (Deployment)"]);
        assert_eq!(
            added([web(), pod("b", None, "web")]),
            ["a/web (Deployment)"],
            "elsewhere"
        );
    }

    #[test]
    fn a_workload_whose_pods_are_there_is_not_repeated() {
        let web = || workload(Kind::Deployment, "web", Some("web"));
        assert!(added([web(), pod("a", None, "web")]).is_empty(), "by label");
        let owned = |owner| added([web(), pod("a", Some(owner), "canary")]).is_empty();
        assert!(owned(("ReplicaSet", "web-5d4f8")) && owned(("Deployment", "web")));
        assert!(!owned(("ReplicaSet", "web-api-5d4f8")) && !owned(("ReplicaSet", "webx")));
        assert!(!owned(("StatefulSet", "web-5d4f8")));
        let job = pod("a", Some(("Job", "nightly-123")), "x");
        assert!(added([workload(Kind::CronJob, "nightly", None), job]).is_empty());
    }

    #[test]
    fn what_another_workload_makes_is_not_repeated() {
        let both = [
            workload(Kind::Deployment, "web", Some("web")),
            workload(Kind::ReplicaSet, "web-5d4f8", Some("web")),
            workload(Kind::ReplicaSet, "web-other", Some("other")),
        ];
        assert_eq!(added(both), ["a/web (Deployment)", "a/web-other (ReplicaSet)"]);
    }
}
