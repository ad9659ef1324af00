//! Which kinds an API server has, and from which of its APIs each is read. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::model::Kind;
use crate::model::api::watched;

/// Where a kind is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Like `networking.k8s.io/v1`.
    pub(super) api_version: String,
    /// A CustomResourceDefinition serves it.
    pub(super) is_custom: bool,
}

impl Place {
    pub(super) fn path(&self, kind: Kind) -> String {
        format!("{}/{}", api_path(&self.api_version), plural(kind))
    }
}

/// Where the resources of a version are.
pub(super) fn api_path(api_version: &str) -> String {
    let root = if api_version.contains('/') { "apis" } else { "api" };
    format!("/{root}/{api_version}")
}

/// The resource of a kind.
pub(super) fn plural(kind: Kind) -> String {
    let name = kind.written().to_ascii_lowercase();
    match name.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if name.ends_with('s') => name,
        None => format!("{name}s"),
    }
}

/// What discovery says of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Resources that can be listed and watched.
    Serves(BTreeSet<String>),
    /// It is there, but its server does not answer.
    Unknown,
}

/// Versions that are there.
pub(super) type Versions = BTreeMap<String, Version>;

/// CustomResourceDefinitions by name (`plural.group`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Customs {
    Known(BTreeSet<String>),
    /// They may not be listed.
    Hidden,
}

impl Customs {
    fn has(&self, kind: Kind, api_version: &str) -> bool {
        matches!(self, Self::Known(names) if names.contains(&definition(kind, api_version)))
    }
}

/// The name of what defines the kind in the group of a version.
fn definition(kind: Kind, api_version: &str) -> String {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    format!("{}.{group}", plural(kind))
}

/// Definitions of a kind that are there, each with a version from which it would be read.
pub(super) fn definitions(kind: Kind, customs: &Customs) -> Vec<(String, &'static str)> {
    let known = watched().filter(|(known, _)| *known == kind);
    let versions = known.flat_map(|(_, versions)| order(kind, versions, customs));
    let defined = versions.filter(|api_version| customs.has(kind, api_version));
    defined
        .filter_map(|api_version| Some((definition(kind, api_version), api_version.split_once('/')?.1)))
        .collect()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    At(Place),
    /// By nobody.
    Nowhere,
    /// That cannot be told now.
    Unknown,
    /// By nobody but a server that does not answer, and that keeps its objects where this kind is not.
    Doubtful,
    /// It will be in a moment: its definition is there.
    Soon,
}

const CALICO: &str = "projectcalico.org/v3";
const CALICO_CRD: &str = "crd.projectcalico.org/v1";

/// From which version a kind is read. Never from two, which may have the same objects.
///
/// Facts of Calico: up to 3.31 its objects are stored as `crd.projectcalico.org/v1`, and its own API server, which need not be there,
/// offers the same objects as `projectcalico.org/v3`. Newer releases can store `projectcalico.org/v3` itself, as
/// CustomResourceDefinitions; what the older group still holds then is left over. Its API server makes up Profiles from
/// namespaces and service accounts, and has no WorkloadEndpoints but pods: both count themselves.
fn order(kind: Kind, versions: &[&'static str], customs: &Customs) -> Vec<&'static str> {
    if !versions.contains(&CALICO) {
        return versions.to_vec();
    }
    if customs.has(kind, CALICO) {
        vec![CALICO]
    } else if matches!(kind, Kind::Profile | Kind::WorkloadEndpoint) {
        vec![CALICO_CRD]
    } else {
        vec![CALICO_CRD, CALICO]
    }
}

/// Chooses for every kind.
pub(super) fn choose(versions: &Versions, customs: &Customs) -> BTreeMap<Kind, Choice> {
    let mut choices: BTreeMap<Kind, Choice> = watched()
        .map(|(kind, known)| (kind, of_kind(kind, known, versions, customs)))
        .collect();
    // The same, in an older form.
    match choices.get(&Kind::EndpointSlice) {
        Some(Choice::Nowhere) | None => {}
        Some(_) => {
            choices.insert(Kind::Endpoints, Choice::Nowhere);
        }
    }
    choices
}

fn of_kind(kind: Kind, known: &[&'static str], versions: &Versions, customs: &Customs) -> Choice {
    let plural = plural(kind);
    let mut is_defined = false;
    for api_version in order(kind, known, customs) {
        let is_custom = customs.has(kind, api_version);
        match versions.get(api_version) {
            Some(Version::Serves(resources)) if resources.contains(&plural) => {
                return Choice::At(Place {
                    api_version: api_version.to_owned(),
                    is_custom,
                });
            }
            Some(Version::Unknown) if api_version == CALICO && is_only_offered(kind, versions, customs) => {
                return Choice::Doubtful;
            }
            Some(Version::Unknown) => return Choice::Unknown,
            _ => is_defined |= is_custom,
        }
    }
    if is_defined { Choice::Soon } else { Choice::Nowhere }
}

/// Whether objects of a kind cannot be there although Calico's API server may offer it: where the older group stores what Calico has (and
/// not an etcd of its own), that server keeps a kind's objects in the definition of that kind, and there is none.
fn is_only_offered(kind: Kind, versions: &Versions, customs: &Customs) -> bool {
    let Customs::Known(_) = customs else { return false };
    let stored = matches!(versions.get(CALICO_CRD), Some(Version::Serves(_)));
    stored && !customs.has(kind, CALICO_CRD) && !customs.has(kind, CALICO)
}

/// Whether a kind's definition is certain to be gone, rather than not yet known to a server that has just started.
pub(super) fn is_certainly_gone(kind: Kind, place: &Place, customs: &Customs) -> bool {
    place.is_custom && matches!(customs, Customs::Known(_)) && !customs.has(kind, &place.api_version)
}

/// Both of Calico's groups are there, and nobody says which one stores.
pub(super) fn is_ambiguous(versions: &Versions, customs: &Customs) -> bool {
    *customs == Customs::Hidden && versions.contains_key(CALICO) && versions.contains_key(CALICO_CRD)
}

/// Versions of which something is read.
pub(super) fn interesting() -> BTreeSet<&'static str> {
    watched()
        .flat_map(|(_, versions)| versions.iter().copied())
        .collect()
}

/// `/apis`.
#[derive(Debug, Deserialize)]
pub(super) struct Groups {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
struct Group {
    versions: Vec<GroupVersion>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupVersion {
    group_version: String,
}

impl Groups {
    pub(super) fn versions(&self) -> impl Iterator<Item = &str> {
        let versions = self.groups.iter().flat_map(|group| &group.versions);
        versions.map(|version| version.group_version.as_str())
    }
}

/// `/api/v1` or `/apis/GROUP/VERSION`.
#[derive(Debug, Deserialize)]
pub(super) struct Resources {
    resources: Vec<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    verbs: Vec<String>,
}

impl Resources {
    pub(super) fn listed(self) -> BTreeSet<String> {
        let can = |resource: &Named, verb: &str| resource.verbs.iter().any(|known| known == verb);
        let listed = self.resources.into_iter();
        listed
            .filter(|resource| can(resource, "list") && can(resource, "watch"))
            .map(|resource| resource.name)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(served: &[(&str, &[&str])]) -> Versions {
        let of = |names: &[&str]| Version::Serves(names.iter().map(|name| (*name).to_owned()).collect());
        served
            .iter()
            .map(|(version, names)| ((*version).to_owned(), of(names)))
            .collect()
    }

    fn customs(names: &[&str]) -> Customs {
        Customs::Known(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn check(versions: &Versions, customs: &Customs, kind: Kind, expected: &str) {
        let shown = match choose(versions, customs).get(&kind) {
            Some(Choice::At(place)) => place.path(kind),
            other => format!("{other:?}"),
        };
        assert_eq!(shown, expected, "{kind:?}");
    }

    /// What the chart lets the agent do, by group and resource.
    fn granted() -> BTreeMap<(String, String), BTreeSet<String>> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/chart/templates/rbac.yaml");
        let text = std::fs::read_to_string(path).unwrap();
        let plain = text.lines().filter(|line| !line.contains("{{"));
        let plain = plain.collect::<Vec<_>>().join("\n");
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&plain).unwrap();
        let role = documents
            .into_iter()
            .find(|one| one["kind"] == "ClusterRole")
            .unwrap();
        let words = |rule: &serde_json::Value, list: &str| -> Vec<String> {
            serde_json::from_value(rule[list].clone()).unwrap()
        };
        let mut granted: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for rule in role["rules"].as_array().unwrap() {
            for group in words(rule, "apiGroups") {
                for resource in words(rule, "resources") {
                    let verbs = granted.entry((group.clone(), resource)).or_default();
                    verbs.extend(words(rule, "verbs"));
                }
            }
        }
        granted
    }

    #[test]
    fn the_chart_grants_what_is_watched_and_nothing_more() {
        let mut wanted: BTreeSet<(String, String)> = watched()
            .flat_map(|(kind, versions)| {
                let group =
                    |version: &&str| version.split_once('/').map_or("", |(group, _)| group).to_owned();
                versions.iter().map(move |version| (group(version), plural(kind)))
            })
            .collect();
        let definitions = ("apiextensions.k8s.io", "customresourcedefinitions");
        wanted.insert((definitions.0.to_owned(), definitions.1.to_owned()));
        let granted = granted();
        let verbs: BTreeSet<String> = ["list", "watch"].map(str::to_owned).into();
        for (resource, granted) in &granted {
            assert_eq!(*granted, verbs, "{resource:?}");
        }
        let granted: BTreeSet<(String, String)> = granted.into_keys().collect();
        let differ: Vec<_> = granted.symmetric_difference(&wanted).collect();
        assert!(differ.is_empty(), "{differ:?}");
    }

    #[test]
    fn resources_have_the_names_that_kubernetes_and_calico_give_them() {
        for (kind, expected) in [
            (Kind::KubernetesNetworkPolicy, "networkpolicies"),
            (Kind::Endpoints, "endpoints"),
            (Kind::EndpointSlice, "endpointslices"),
            (Kind::IpPool, "ippools"),
            (Kind::StagedGlobalNetworkPolicy, "stagedglobalnetworkpolicies"),
            (Kind::BaselineAdminNetworkPolicy, "baselineadminnetworkpolicies"),
        ] {
            assert_eq!(plural(kind), expected);
        }
    }

    #[test]
    fn endpoints_only_where_there_are_no_slices() {
        let none = customs(&[]);
        let old = versions(&[("v1", &["endpoints", "pods"])]);
        check(&old, &none, Kind::Endpoints, "/api/v1/endpoints");
        let slices: &[&str] = &["endpointslices"];
        let beta = versions(&[("v1", &["endpoints"]), ("discovery.k8s.io/v1beta1", slices)]);
        let path = "/apis/discovery.k8s.io/v1beta1/endpointslices";
        check(&beta, &none, Kind::EndpointSlice, path);
        check(&beta, &none, Kind::Endpoints, "Some(Nowhere)");
        let both = versions(&[
            ("discovery.k8s.io/v1", slices),
            ("discovery.k8s.io/v1beta1", slices),
        ]);
        check(
            &both,
            &none,
            Kind::EndpointSlice,
            "/apis/discovery.k8s.io/v1/endpointslices",
        );
    }

    #[test]
    fn an_object_of_calico_is_never_taken_twice() {
        let names: &[&str] = &["networkpolicies", "profiles"];
        let (older, newer) = (
            "/apis/crd.projectcalico.org/v1/networkpolicies",
            "/apis/projectcalico.org/v3/networkpolicies",
        );
        let crd = "networkpolicies.crd.projectcalico.org";
        let native = "networkpolicies.projectcalico.org";
        let both = versions(&[(CALICO, names), (CALICO_CRD, &["networkpolicies"])]);
        let only = versions(&[(CALICO, names)]);
        for (versions, customs, expected) in [
            (&both, customs(&[crd]), older),
            (&both, customs(&[crd, native]), newer),
            (&both, Customs::Hidden, older),
            (&only, customs(&[]), newer),
            (&only, Customs::Hidden, newer),
        ] {
            check(versions, &customs, Kind::NetworkPolicy, expected);
            check(versions, &customs, Kind::Profile, "Some(Nowhere)");
        }
        assert!(is_ambiguous(&both, &Customs::Hidden));
        assert!(!is_ambiguous(&both, &customs(&[])));
    }

    #[test]
    fn what_does_not_answer_is_not_what_is_not_there() {
        let native = customs(&["tiers.projectcalico.org"]);
        check(&versions(&[]), &native, Kind::Tier, "Some(Soon)");
        let awaited = vec![("tiers.projectcalico.org".to_owned(), "v3")];
        assert_eq!(definitions(Kind::Tier, &native), awaited);
        assert_eq!(definitions(Kind::Tier, &customs(&[])), []);
        let mut away = versions(&[]);
        away.insert(CALICO.to_owned(), Version::Unknown);
        check(&away, &customs(&[]), Kind::Tier, "Some(Unknown)");
        check(&away, &native, Kind::Tier, "Some(Unknown)");
        // The older group stores Calico's objects, and of this kind there are none.
        let mut stored = versions(&[(CALICO_CRD, &["globalnetworkpolicies"])]);
        stored.insert(CALICO.to_owned(), Version::Unknown);
        let others = customs(&["globalnetworkpolicies.crd.projectcalico.org"]);
        check(&stored, &others, Kind::Tier, "Some(Doubtful)");
        check(&stored, &Customs::Hidden, Kind::Tier, "Some(Unknown)");
        check(&stored, &native, Kind::Tier, "Some(Unknown)");
        let starting = customs(&["tiers.crd.projectcalico.org"]);
        check(&stored, &starting, Kind::Tier, "Some(Unknown)");
        let place = Place {
            api_version: CALICO.to_owned(),
            is_custom: true,
        };
        assert!(is_certainly_gone(Kind::Tier, &place, &customs(&[])));
        assert!(!is_certainly_gone(Kind::Tier, &place, &native));
        assert!(!is_certainly_gone(Kind::Tier, &place, &Customs::Hidden));
    }
}
