//! What is answered about a packet.

use calico_azure_ebpf::abi::Reason;

use crate::policy::RuleRef;

/// What becomes of a packet, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub allow: bool,
    /// One of [`reason`], or the name of an `abi::Reason`.
    pub reason: &'static str,
    /// What decided; `None` if nothing was asked.
    pub rule: Option<RuleRef>,
}

/// Reasons of verdicts that no program gives.
pub mod reason {
    /// Neither end is known, and no host on the way has a host endpoint.
    pub const OUTSIDE: &str = "no-policy";
    /// A pod talks to itself.
    pub const WITHIN_POD: &str = "within-pod";
    /// A host talks to itself.
    pub const WITHIN_HOST: &str = "within-host";
    /// A failsafe port of a host endpoint.
    pub const FAILSAFE: &str = "failsafe";
    /// `defaultEndpointToHostAction`.
    pub const ENDPOINT_TO_HOST: &str = "endpoint-to-host";
}

impl Answer {
    /// One that no rule gave.
    pub(super) fn bare(allow: bool, reason: &'static str) -> Self {
        Self {
            allow,
            reason,
            rule: None,
        }
    }

    /// What a rule, or what stands for one, decided.
    #[must_use]
    pub fn of_rule(allow: bool, rule: RuleRef) -> Self {
        let reason = match rule {
            RuleRef::Failsafe { .. } => reason::FAILSAFE,
            RuleRef::EndpointToHost => reason::ENDPOINT_TO_HOST,
            RuleRef::HostToPod => Reason::FromHost.as_str(),
            RuleRef::Isolated => Reason::NoEndpoint.as_str(),
            _ if allow => Reason::PolicyAllow.as_str(),
            _ => Reason::PolicyDeny.as_str(),
        };
        Self {
            allow,
            reason,
            rule: Some(rule),
        }
    }
}
