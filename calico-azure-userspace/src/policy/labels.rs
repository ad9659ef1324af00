//! Effective labels: an object's own over what it inherits from its profiles (its namespace, its service account).

use super::store::Store;
use crate::model::{HostEndpoint, Labels, NetworkSet, Pod, label};
use crate::selector::LabelSource;

/// Under a prefix: the name of the namespace or service account itself, whatever its labels say.
const NAME: &str = "projectcalico.org/name";

/// What selectors see of one object. Own labels win, then those of the profile that comes first. A profile whose
/// object is unknown gives nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EffectiveLabels<'a> {
    own: Labels,
    /// Of its profiles, first first.
    inherited: Vec<Inherited<'a>>,
}

/// What a profile gives to its endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Inherited<'a> {
    /// `labelsToApply` of a Profile object.
    Applied(&'a Labels),
    /// Of a namespace or service account: its name and labels, under a prefix.
    Prefixed {
        prefix: &'static str,
        name: &'a str,
        labels: &'a Labels,
    },
}

impl<'a> EffectiveLabels<'a> {
    /// Of a pod.
    #[must_use]
    pub fn of_pod(store: &'a Store, pod: &Pod) -> Self {
        let inherited = if pod.profiles.is_none() && !store.has_profiles() {
            // As below, without making the profiles' names.
            namespace(store, &pod.namespace)
                .into_iter()
                .chain(service_account(store, &pod.namespace, &pod.service_account))
                .collect()
        } else {
            of_profiles(store, &profile_names(pod))
        };
        Self {
            own: pod.own_labels(),
            inherited,
        }
    }

    /// Of a network set, which inherits from its namespace if it has one.
    #[must_use]
    pub fn of_network_set(store: &'a Store, set: &NetworkSet) -> Self {
        let mut own = set.labels.clone();
        let mut inherited = Vec::new();
        if let Some(namespace) = &set.namespace {
            own.insert(label::NAMESPACE.to_owned(), namespace.clone());
            inherited.extend(of_profile(store, &format!("kns.{namespace}")));
        }
        Self { own, inherited }
    }

    /// Of a host endpoint.
    #[must_use]
    pub fn of_host_endpoint(store: &'a Store, endpoint: &HostEndpoint) -> Self {
        Self {
            own: endpoint.labels.clone(),
            inherited: of_profiles(store, &endpoint.profiles),
        }
    }
}

impl EffectiveLabels<'_> {
    /// Without those that are inherited.
    pub(super) fn own(&self) -> &Labels {
        &self.own
    }
}

impl LabelSource for EffectiveLabels<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let inherited = || self.inherited.iter().find_map(|profile| profile.get(key));
        self.own.get(key).map(String::as_str).or_else(inherited)
    }
}

impl Inherited<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match self {
            Self::Applied(labels) => labels.get(key).map(String::as_str),
            Self::Prefixed { prefix, name, labels } => match key.strip_prefix(prefix)? {
                NAME => Some(name),
                key => labels.get(key).map(String::as_str),
            },
        }
    }
}

/// Names of the pod's profiles, first first: those it names, else those of its namespace and service account.
#[must_use]
pub fn profile_names(pod: &Pod) -> Vec<String> {
    pod.profiles.clone().unwrap_or_else(|| {
        vec![
            format!("kns.{}", pod.namespace),
            format!("ksa.{}.{}", pod.namespace, pod.service_account),
        ]
    })
}

fn of_profiles<'a>(store: &'a Store, names: &[String]) -> Vec<Inherited<'a>> {
    names.iter().filter_map(|name| of_profile(store, name)).collect()
}

fn of_profile<'a>(store: &'a Store, name: &str) -> Option<Inherited<'a>> {
    if let Some(profile) = store.profile(name) {
        return Some(Inherited::Applied(&profile.labels_to_apply));
    }
    if let Some(name) = name.strip_prefix("kns.") {
        return namespace(store, name);
    }
    // A namespace's name has no dots.
    let (namespace, name) = name.strip_prefix("ksa.")?.split_once('.')?;
    service_account(store, namespace, name)
}

fn namespace<'a>(store: &'a Store, name: &str) -> Option<Inherited<'a>> {
    store.namespace(name).map(|namespace| Inherited::Prefixed {
        prefix: label::NAMESPACE_PREFIX,
        name: &namespace.name,
        labels: &namespace.labels,
    })
}

fn service_account<'a>(store: &'a Store, namespace: &str, name: &str) -> Option<Inherited<'a>> {
    store
        .service_account(namespace, name)
        .map(|account| Inherited::Prefixed {
            prefix: label::SERVICE_ACCOUNT_PREFIX,
            name: &account.name,
            labels: &account.labels,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Namespace, Profile, Resource, ServiceAccount};

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
            labels: labels(&[("app", "web")]).into(),
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

    #[test]
    fn the_profile_that_comes_first_wins_and_an_object_stands_before_what_is_built_in() {
        let profile = |name: &str, pairs: &[(&str, &str)]| {
            Resource::Profile(Profile {
                name: name.into(),
                labels_to_apply: labels(pairs),
                ..Profile::default()
            })
        };
        let mut store = store();
        for resource in [
            profile("one", &[("tone", "low"), ("app", "shadowed")]),
            profile("two", &[("tone", "high"), ("pitch", "c"), ("pcns.team", "two")]),
            profile("ksa.blue.web", &[("pcsa.role", "object")]),
        ] {
            store.apply(crate::policy::Event::Upsert(resource));
        }
        let named = |names: &[&str]| Pod {
            profiles: Some(names.iter().map(|name| (*name).to_owned()).collect()),
            ..pod()
        };
        let pods = [
            pod(),
            named(&["one", "gone", "two", "kns.blue"]),
            named(&["two", "one"]),
        ];
        let keys = [
            "app",
            "tone",
            "pitch",
            "pcns.team",
            "pcsa.role",
            "pcsa.projectcalico.org/name",
        ];
        let expected = [
            [Some("web"), None, None, Some("sea"), Some("object"), None],
            [Some("web"), Some("low"), Some("c"), Some("two"), None, None],
            [Some("web"), Some("high"), Some("c"), Some("two"), None, None],
        ];
        for (pod, expected) in pods.iter().zip(expected) {
            let effective = EffectiveLabels::of_pod(&store, pod);
            assert_eq!(keys.map(|key| effective.get(key)), expected, "{:?}", pod.profiles);
        }
        let host = HostEndpoint {
            labels: labels(&[("tone", "own")]),
            profiles: vec!["one".into(), "two".into()],
            ..HostEndpoint::default()
        };
        let effective = EffectiveLabels::of_host_endpoint(&store, &host);
        let expected = [Some("shadowed"), Some("own"), Some("c"), Some("two"), None, None];
        assert_eq!(keys.map(|key| effective.get(key)), expected);
    }
}
