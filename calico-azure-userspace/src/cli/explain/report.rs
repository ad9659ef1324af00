//! What `explain` has found out, as it is printed as JSON.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::model::locate::Written;

/// Everything about one packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    pub(super) from: End,
    pub(super) to: End,
    pub(super) protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) icmp: Option<[u8; 2]>,
    #[serde(flatten)]
    pub(super) decision: Decision,
    /// Whether all engines say the same of every stage.
    pub(super) agree: bool,
    /// What each engine says in the end.
    pub(super) engines: BTreeMap<&'static str, Decision>,
    /// Engines that were not asked, and why.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) not_asked: BTreeMap<&'static str, String>,
    /// In the order of the way, also those after one that denies.
    pub(super) stages: Vec<StageReport>,
    /// What to know besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) notes: Vec<String>,
    /// If staged policies were enforced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pending: Option<Decision>,
}

/// One side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct End {
    pub(super) name: Option<String>,
    pub(super) address: IpAddr,
}

/// A verdict and what led to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Decision {
    pub(super) verdict: &'static str,
    pub(super) reason: &'static str,
    /// The stage that decided, and whose it is.
    pub(super) stage: Option<String>,
    pub(super) at: Option<String>,
    pub(super) rule: Option<String>,
    /// Where the rule is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) written: Option<Written>,
}

/// One stage of the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct StageReport {
    pub(super) stage: String,
    pub(super) at: String,
    pub(super) verdict: &'static str,
    pub(super) reason: &'static str,
    pub(super) rule: Option<String>,
    /// What engines say, if not all say this.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) disagree: BTreeMap<&'static str, String>,
    /// What was looked at, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) trace: Vec<Traced>,
    /// What was looked up, of a running agent's tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tables: Option<Tables>,
}

/// Ids in the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Tables {
    pub(super) policy_set: u32,
    pub(super) peer_class: u32,
    pub(super) port_table: u32,
}

/// One step of an evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(super) enum Traced {
    Stage {
        name: String,
    },
    Tier {
        tier: String,
    },
    Policy {
        policy: String,
    },
    Rule {
        rule: String,
        action: String,
        matched: bool,
        /// The first criteria that failed; several if a rule as written stands for several.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        failed: Vec<&'static str>,
    },
    Default {
        tier: String,
        action: &'static str,
    },
    Profile {
        profile: String,
        action: &'static str,
    },
}

pub(super) fn word(allow: bool) -> &'static str {
    if allow { "allow" } else { "deny" }
}
