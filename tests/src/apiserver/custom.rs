//! Definitions of the custom kinds that policy is written in: structural, and with whatever an object says below `spec`.

use serde_json::{Value, json};

/// A custom kind.
#[derive(Clone, Copy, Debug)]
pub struct Custom {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
}

const CALICO: &str = "crd.projectcalico.org";

const fn calico(kind: &'static str, namespaced: bool) -> Custom {
    Custom {
        group: CALICO,
        version: "v1",
        kind,
        namespaced,
    }
}

const fn sig_network(version: &'static str, kind: &'static str) -> Custom {
    Custom {
        group: "policy.networking.k8s.io",
        version,
        kind,
        namespaced: false,
    }
}

/// Those of Calico that an agent reads, as Calico stores them.
pub const CALICO_KINDS: [Custom; 11] = [
    calico("NetworkPolicy", true),
    calico("GlobalNetworkPolicy", false),
    calico("StagedNetworkPolicy", true),
    calico("StagedGlobalNetworkPolicy", false),
    calico("StagedKubernetesNetworkPolicy", true),
    calico("Tier", false),
    calico("NetworkSet", true),
    calico("GlobalNetworkSet", false),
    calico("HostEndpoint", false),
    calico("FelixConfiguration", false),
    calico("IPPool", false),
];

/// Those of the network policy API.
pub const CLUSTER_KINDS: [Custom; 3] = [
    sig_network("v1alpha2", "ClusterNetworkPolicy"),
    sig_network("v1alpha1", "AdminNetworkPolicy"),
    sig_network("v1alpha1", "BaselineAdminNetworkPolicy"),
];

impl Custom {
    /// The resource's name in paths.
    #[must_use]
    pub fn plural(&self) -> String {
        super::objects::plural(self.kind)
    }

    /// `crd.projectcalico.org/v1`, say.
    #[must_use]
    pub fn api_version(&self) -> String {
        format!("{}/{}", self.group, self.version)
    }

    /// The CustomResourceDefinition.
    #[must_use]
    pub fn definition(&self) -> Value {
        let plural = self.plural();
        let scope = if self.namespaced { "Namespaced" } else { "Cluster" };
        let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": format!("{plural}.{}", self.group),
                // The server wants this of groups that are Kubernetes' own.
                "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
            },
            "spec": {
                "group": self.group,
                "scope": scope,
                "names": {
                    "kind": self.kind,
                    "listKind": format!("{}List", self.kind),
                    "plural": plural,
                    "singular": self.kind.to_ascii_lowercase(),
                },
                "versions": [{
                    "name": self.version,
                    "served": true,
                    "storage": true,
                    "schema": {"openAPIV3Schema": {
                        "type": "object",
                        "properties": {"spec": anything},
                    }},
                }],
            },
        })
    }
}
