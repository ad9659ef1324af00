//! Effective labels: an object's own over what it inherits from its namespace and service account.

use super::store::Store;
use crate::model::{Labels, NetworkSet, Pod, label};
use crate::selector::LabelSource;

const NAMESPACE_PREFIX: &str = "pcns.";
const SERVICE_ACCOUNT_PREFIX: &str = "pcsa.";
/// Under a prefix: the name of the namespace or service account itself, whatever its labels say.
const NAME: &str = "projectcalico.org/name";

/// What selectors see of one object. Own labels win, then those of the profile that comes first: `kns.<namespace>`,
/// then `ksa.<namespace>.<service account>`. A profile whose object is unknown gives nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EffectiveLabels<'a> {
    own: Labels,
    namespace: Option<(&'a str, &'a Labels)>,
    service_account: Option<(&'a str, &'a Labels)>,
}

impl<'a> EffectiveLabels<'a> {
    /// Of a pod.
    #[must_use]
    pub fn of_pod(store: &'a Store, pod: &Pod) -> Self {
        Self {
            own: pod.own_labels(),
            namespace: namespace(store, &pod.namespace),
            service_account: store
                .service_account(&pod.namespace, &pod.service_account)
                .map(|account| (account.name.as_str(), &account.labels)),
        }
    }

    /// Of a network set, which inherits from its namespace if it has one.
    #[must_use]
    pub fn of_network_set(store: &'a Store, set: &NetworkSet) -> Self {
        let mut own = set.labels.clone();
        if let Some(namespace) = &set.namespace {
            own.insert(label::NAMESPACE.to_owned(), namespace.clone());
        }
        let namespace = set.namespace.as_deref().and_then(|name| namespace(store, name));
        Self {
            own,
            namespace,
            service_account: None,
        }
    }
}

impl LabelSource for EffectiveLabels<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        if let Some(value) = self.own.get(key) {
            return Some(value);
        }
        let (profile, key) = if let Some(key) = key.strip_prefix(NAMESPACE_PREFIX) {
            (self.namespace, key)
        } else {
            (self.service_account, key.strip_prefix(SERVICE_ACCOUNT_PREFIX)?)
        };
        let (name, labels) = profile?;
        if key == NAME {
            Some(name)
        } else {
            labels.get(key).map(String::as_str)
        }
    }
}

fn namespace<'a>(store: &'a Store, name: &str) -> Option<(&'a str, &'a Labels)> {
    store
        .namespace(name)
        .map(|namespace| (namespace.name.as_str(), &namespace.labels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Namespace, Resource, ServiceAccount};

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn store() -> Store {
        [
            Resource::Namespace(Namespace {
                name: "blue".into(),
                labels: labels(&[("team", "sea"), (NAME, "forged")]),
            }),
            Resource::ServiceAccount(ServiceAccount {
                namespace: "blue".into(),
                name: "web".into(),
                labels: labels(&[("role", "front")]),
            }),
        ]
        .into_iter()
        .collect()
    }

    fn pod() -> Pod {
        Pod {
            namespace: "blue".into(),
            name: "p".into(),
            labels: labels(&[("app", "web")]),
            service_account: "web".into(),
            ..Pod::default()
        }
    }

    #[test]
    fn a_pod_inherits_from_its_namespace_and_service_account() {
        let store = store();
        let effective = EffectiveLabels::of_pod(&store, &pod());
        let expected = [
            ("app", Some("web")),
            ("projectcalico.org/namespace", Some("blue")),
            ("projectcalico.org/orchestrator", Some("k8s")),
            ("projectcalico.org/serviceaccount", Some("web")),
            ("pcns.team", Some("sea")),
            ("pcns.projectcalico.org/name", Some("blue")),
            ("pcsa.role", Some("front")),
            ("pcsa.projectcalico.org/name", Some("web")),
            ("team", None),
            ("pcns.role", None),
        ];
        for (key, value) in expected {
            assert_eq!(effective.get(key), value, "{key}");
        }
    }

    #[test]
    fn own_labels_shadow_inherited_ones_on_network_sets() {
        let store = store();
        let mut set = NetworkSet {
            namespace: Some("blue".into()),
            name: "s".into(),
            labels: labels(&[("pcns.team", "own")]),
            nets: Vec::new(),
        };
        let effective = EffectiveLabels::of_network_set(&store, &set);
        assert_eq!(effective.get("pcns.team"), Some("own"));
        assert_eq!(effective.get("projectcalico.org/namespace"), Some("blue"));
        assert_eq!(effective.get("pcns.projectcalico.org/name"), Some("blue"));
        set.namespace = None;
        let effective = EffectiveLabels::of_network_set(&store, &set);
        assert_eq!(effective.get("projectcalico.org/namespace"), None);
        assert_eq!(effective.get("pcns.projectcalico.org/name"), None);
    }

    #[test]
    fn an_unknown_namespace_gives_nothing_not_even_its_name() {
        let store = Store::default();
        let effective = EffectiveLabels::of_pod(&store, &pod());
        assert_eq!(effective.get("pcns.projectcalico.org/name"), None);
        assert_eq!(effective.get("pcsa.projectcalico.org/name"), None);
        assert_eq!(effective.get("projectcalico.org/namespace"), Some("blue"));
    }
}
