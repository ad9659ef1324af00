//! What decides after all tiers: an endpoint's profiles, in their order.

use std::sync::Arc;

use super::sets::{SetContent, SetPolicy};
use crate::model::{Action, HostRole, Key, Kind, Pod, Policy, Profile, Rule};
use crate::policy::labels::profile_names;
use crate::policy::store::Store;
use crate::selector::Selector;

/// A profile that endpoints have even if nobody made it.
const DEFAULT_ALLOW: &str = "projectcalico-default-allow";

/// One profile in a policy set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum SetProfile {
    /// Decides whatever comes to it: built in, or denying in the place of one that does not exist.
    All { name: String, allows: bool },
    /// The rules of a Profile object.
    Rules { name: String, rules: SetPolicy },
}

impl SetProfile {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::All { name, .. } | Self::Rules { name, .. } => name,
        }
    }
}

/// A profile of an endpoint before its rules are compiled.
pub(super) enum Found<'a> {
    All { name: String, allows: bool },
    Object(&'a Arc<Profile>),
}

/// The pod's profiles up to the first that leaves nothing to the next.
pub(super) fn of_pod<'a>(store: &'a Store, pod: &Pod) -> Vec<Found<'a>> {
    of_names(store, profile_names(pod))
}

/// Those of the profiles up to the first that leaves nothing to the next.
pub(super) fn of_names(store: &Store, names: Vec<String>) -> Vec<Found<'_>> {
    let mut found = Vec::new();
    for name in names {
        let allows = if let Some(profile) = store.profile(&name) {
            found.push(Found::Object(profile));
            continue;
        } else if let Some(namespace) = name.strip_prefix("kns.") {
            store.namespace(namespace).is_some()
        } else if let Some((namespace, account)) =
            name.strip_prefix("ksa.").and_then(|rest| rest.split_once('.'))
            && store.service_account(namespace, account).is_some()
        {
            // It has labels, and no rules.
            continue;
        } else {
            name == DEFAULT_ALLOW
        };
        found.push(Found::All { name, allows });
        break;
    }
    found
}

/// The profile's rules as if they were a policy. `Pass` has nowhere to go to and denies.
pub(super) fn as_policy(profile: &Profile) -> Policy {
    let rules = |rules: &[Rule]| {
        let closed = |rule: &Rule| match rule.action {
            Action::Pass => Rule {
                action: Action::Deny,
                ..rule.clone()
            },
            _ => rule.clone(),
        };
        Some(rules.iter().map(closed).collect())
    };
    Policy {
        key: Key {
            kind: Kind::Profile,
            namespace: None,
            name: profile.name.clone(),
        },
        tier: String::new(),
        order: None,
        selector: Selector::all(),
        ingress: rules(&profile.ingress),
        egress: rules(&profile.egress),
        staged: None,
        host: HostRole::Normal,
    }
}

impl SetContent {
    /// Names of the profiles that may decide.
    pub(super) fn profile_names(&self) -> Option<String> {
        let profiles = self.profiles.as_ref()?;
        let names: Vec<&str> = profiles.iter().map(SetProfile::name).collect();
        Some(names.join(", "))
    }
}
