//! Contradictions between resources; `compile` and `topology` find them, users read them.

use std::net::IpAddr;

use super::Direction;
use crate::model::Key;

/// A contradiction between resources that no single object shows. Nothing is opened by any of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Problem {
    /// Two pods on one link.
    #[error(
        "interface {interface} (index {ifindex}) is claimed by pod {winner} and pod {loser}; {loser} gets none, so \
         its traffic is not judged as its own: delete the pod that no longer exists"
    )]
    InterfaceContested {
        ifindex: u32,
        interface: String,
        winner: String,
        loser: String,
    },
    /// Two pods with one address.
    #[error(
        "address {address} is claimed by pod {winner} and pod {loser}; it counts as {winner}'s, and {loser} may not \
         send from it: delete the pod that no longer exists, or mend the address pools if they overlap"
    )]
    AddressContested {
        address: IpAddr,
        winner: String,
        loser: String,
    },
    /// A policy names a tier that nobody made.
    #[error(
        "{policy}: spec.tier: tier {tier} does not exist; the policy is enforced after all existing tiers, and what \
         it does not decide is denied: create the tier or correct the name"
    )]
    TierMissing { policy: Key, tier: String },
    /// A pod's namespace is not among the inputs.
    #[error(
        "pod {pod}: namespace {namespace} is not known, so its profile kns.{namespace} is missing: no labels are \
         inherited from it, and what no policy decides is denied: add the Namespace object"
    )]
    NamespaceMissing { pod: String, namespace: String },
    /// A pod asks for source prefixes that the configuration does not grant.
    #[error(
        "pod {pod}: annotation cni.projectcalico.org/allowedSourcePrefixes: not granted, so the pod is isolated, as \
         Calico does it: remove the annotation, or set workloadSourceSpoofing: Any in FelixConfiguration default (or \
         node.<node>)"
    )]
    SourcePrefixesRefused { pod: String },
    /// A rule asks about the pod's own address, and the pod has several that differ in the answer.
    #[error(
        "{policy}: {}[{index}]: pod {pod} has several addresses of one family and the rule holds for some of them \
         only; for this pod an Allow does not apply, and a Deny or Pass denies: select the pod by label instead of \
         by its address",
        if *direction == Direction::Ingress { "spec.ingress" } else { "spec.egress" }
    )]
    OwnAddressAmbiguous {
        policy: Key,
        direction: Direction,
        index: u32,
        pod: String,
    },
}
