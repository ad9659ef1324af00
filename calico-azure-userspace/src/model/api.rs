//! Objects as an API server tells them: one by one, in JSON, with much that is of no use here.

use std::hash::{BuildHasher, Hasher as _};
use std::path::Path;

use serde::Deserializer;
use serde::de::DeserializeSeed;

use super::kinds;
use super::object::{self, Objects};
use super::problem::Problem;
use super::report::Report;
use super::types::{Kind, Resource};
use super::yaml::{Entry, Keep, Node, Value};

/// `metadata`: unknown fields are everyday there.
const METADATA: (&str, Keep) = (
    "metadata",
    Keep::Only(&[
        ("name", Keep::All),
        ("generateName", Keep::All),
        ("namespace", Keep::All),
        ("resourceVersion", Keep::All),
        ("deletionTimestamp", Keep::All),
        ("labels", Keep::All),
        ("annotations", ANNOTATIONS),
        ("ownerReferences", Keep::Each(&OWNER)),
    ]),
);
/// Those that some kind reads, and the one that ends the initial events of a watch.
const ANNOTATIONS: Keep = Keep::Only(&[
    ("cni.projectcalico.org/podIPs", Keep::All),
    ("cni.projectcalico.org/podIP", Keep::All),
    ("vpc.amazonaws.com/pod-ips", Keep::All),
    ("cni.projectcalico.org/allowedSourcePrefixes", Keep::All),
    ("projectcalico.org/metadata", Keep::All),
    ("flannel.alpha.coreos.com/backend-type", Keep::All),
    ("flannel.alpha.coreos.com/backend-data", Keep::All),
    ("flannel.alpha.coreos.com/backend-v6-data", Keep::All),
    ("flannel.alpha.coreos.com/public-ip", Keep::All),
    ("flannel.alpha.coreos.com/public-ipv6", Keep::All),
    (INITIAL_EVENTS_END, Keep::All),
]);
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";
const OWNER: Keep = Keep::Only(&[
    ("kind", Keep::All),
    ("name", Keep::All),
    ("controller", Keep::All),
]);

const NOTHING_ELSE: Keep = Keep::Only(&[METADATA]);

const POD: Keep = Keep::Only(&[
    METADATA,
    (
        "spec",
        Keep::Only(&[
            ("nodeName", Keep::All),
            ("hostNetwork", Keep::All),
            ("serviceAccountName", Keep::All),
            ("serviceAccount", Keep::All),
            ("containers", Keep::Each(&CONTAINER)),
            ("initContainers", Keep::Each(&CONTAINER)),
        ]),
    ),
    (
        "status",
        Keep::Only(&[("phase", Keep::All), ("podIP", Keep::All), ("podIPs", Keep::All)]),
    ),
]);
const CONTAINER: Keep = Keep::Only(&[("ports", Keep::All)]);

/// Kubelets report on a node's conditions and images every few minutes.
const NODE: Keep = Keep::Only(&[
    METADATA,
    (
        "spec",
        Keep::Only(&[
            ("podCIDR", Keep::All),
            ("podCIDRs", Keep::All),
            ("providerID", Keep::All),
        ]),
    ),
    ("status", Keep::Only(&[("addresses", Keep::All)])),
]);

const SERVICE: Keep = Keep::Only(&[
    METADATA,
    ("spec", Keep::All),
    ("status", Keep::Only(&[("loadBalancer", Keep::All)])),
]);

/// Readiness comes and goes, and is no business of policy.
const ENDPOINT_SLICE: Keep = Keep::Only(&[
    METADATA,
    ("addressType", Keep::All),
    ("endpoints", Keep::Each(&Keep::Only(&[("addresses", Keep::All)]))),
    ("ports", Keep::All),
]);

const ENDPOINTS: Keep = Keep::Only(&[
    METADATA,
    (
        "subsets",
        Keep::Each(&Keep::Only(&[
            ("addresses", Keep::Each(&IP)),
            ("notReadyAddresses", Keep::Each(&IP)),
            ("ports", Keep::All),
        ])),
    ),
]);
const IP: Keep = Keep::Only(&[("ip", Keep::All)]);

/// Unknown fields are errors in these, so all of them have to be seen; but nobody reads the status.
const STRICT: Keep = Keep::AllBut(&[METADATA, ("status", Keep::Only(&[]))]);

/// What of an object of the kind has to be read.
fn keep(kind: Kind) -> Keep {
    match kind {
        Kind::Namespace | Kind::ServiceAccount => NOTHING_ELSE,
        Kind::Pod => POD,
        Kind::Node => NODE,
        Kind::Service => SERVICE,
        Kind::EndpointSlice => ENDPOINT_SLICE,
        Kind::Endpoints => ENDPOINTS,
        _ => STRICT,
    }
}

/// The kinds that a cluster's policy depends on, with the versions in which they are read. Workloads are not among them: their
/// pods are.
pub fn watched() -> impl Iterator<Item = (Kind, &'static [&'static str])> {
    const WORKLOADS: [Kind; 7] = [
        Kind::Deployment,
        Kind::StatefulSet,
        Kind::DaemonSet,
        Kind::ReplicaSet,
        Kind::ReplicationController,
        Kind::Job,
        Kind::CronJob,
    ];
    kinds::read()
        .flat_map(|(versions, kinds)| kinds.iter().map(move |kind| (*kind, versions)))
        .filter(|(kind, _)| !WORKLOADS.contains(kind))
}

/// One object, not validated yet.
#[derive(Debug)]
pub struct ApiObject<'t> {
    node: Node<'t>,
}

/// What an object says.
#[derive(Debug, Default)]
pub struct Said {
    /// `None`: nothing that concerns policy, or nothing that can be used.
    pub resource: Option<Resource>,
    pub problems: Vec<Problem>,
}

/// Reads an object of the kind out of a deserializer: the names of any kind with `None`.
#[derive(Clone, Copy, Debug)]
pub struct ApiReader(Keep);

impl ApiReader {
    #[must_use]
    pub fn new(kind: Option<Kind>) -> Self {
        Self(kind.map_or(NOTHING_ELSE, keep))
    }
}

impl<'t> DeserializeSeed<'t> for ApiReader {
    type Value = ApiObject<'t>;

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let mut node = self.0.deserialize(deserializer)?;
        // Items of lists lack what their list says, and watched objects repeat it.
        if let Value::Map(entries) = &mut node.value {
            entries.retain(|entry| entry.key != "apiVersion" && entry.key != "kind");
        }
        Ok(ApiObject { node })
    }
}

impl<'t> ApiObject<'t> {
    fn metadata(&self, key: &str) -> Option<&Node<'t>> {
        self.node.get("metadata")?.get(key)
    }

    fn text(&self, key: &str) -> &str {
        self.metadata(key).and_then(Node::text).unwrap_or_default()
    }

    /// Empty if it has none.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.text("namespace")
    }

    #[must_use]
    pub fn name(&self) -> &str {
        self.text("name")
    }

    #[must_use]
    pub fn resource_version(&self) -> &str {
        self.text("resourceVersion")
    }

    /// Of a bookmark: whether everything that there was has been told.
    #[must_use]
    pub fn ends_initial_events(&self) -> bool {
        let annotations = self.metadata("annotations");
        let end = annotations.and_then(|annotations| annotations.get(INITIAL_EVENTS_END));
        end.and_then(Node::text) == Some("true")
    }

    /// The same for two objects that say the same to policy, and otherwise different but for an accident in 2^64.
    #[must_use]
    pub fn fingerprint(&self, state: &impl BuildHasher) -> u64 {
        let mut hasher = state.build_hasher();
        self.node.hash_without("resourceVersion", &mut hasher);
        hasher.finish()
    }

    /// Validates it.
    #[must_use]
    pub fn read(mut self, api_version: &str, kind: Kind) -> Said {
        if let Value::Map(entries) = &mut self.node.value {
            entries.push(Entry::string("apiVersion", api_version.to_owned()));
            entries.push(Entry::string("kind", kind.written()));
        }
        let mut report = Report::new(Path::new(""), "");
        let mut objects = Objects::default();
        object::document(&mut report, &self.node, &mut objects);
        let mut problems = report.into_problems();
        for problem in &mut problems {
            let slash = if self.namespace().is_empty() { "" } else { "/" };
            let id = format!("{}{slash}{}", self.namespace(), self.name());
            problem.file = format!("{} {id} on the API server", kind.written()).into();
            // There is no text to point into.
            (problem.line, problem.column, problem.excerpt) = (None, None, None);
        }
        Said {
            resource: objects.resources.pop().map(|(resource, _)| resource),
            problems,
        }
    }
}
