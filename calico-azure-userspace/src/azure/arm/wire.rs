//! Requests and answers as ARM has them: versions, pages, operations, refusals.

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::ArmError;
use super::http::Answer;
use crate::azure::resource::EffectiveRoute;

/// The version of ARM's interface for a resource, by its provider. Versions of one provider are unknown to another.
pub(super) fn version(path: &str) -> &'static str {
    const NETWORK: &str = "2024-05-01";
    const SCALE_SETS: &str = "2024-07-01";
    /// Scale sets' network interfaces have this one only (`vmssNetworkInterface.json`), and what is asked of them too.
    const SCALE_SET_NICS: &str = "2018-10-01";
    let path = path.to_ascii_lowercase();
    match path.split_once("/providers/microsoft.compute/") {
        None => NETWORK,
        Some((_, of)) if of.contains("/networkinterfaces") => SCALE_SET_NICS,
        Some(_) => SCALE_SETS,
    }
}

/// Codes of a 404 that is about what the resource would be in.
pub(super) fn is_group_missing(code: &str) -> bool {
    matches!(code, "ResourceGroupNotFound" | "SubscriptionNotFound")
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    error: ProblemDetail,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ProblemDetail {
    code: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Operation {
    status: String,
    error: ProblemDetail,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    pub(super) value: Vec<Value>,
    #[serde(default)]
    pub(super) next_link: Option<String>,
}

/// Without `value` it is no answer: no routes at all would be a finding.
#[derive(Deserialize)]
pub(super) struct EffectiveRoutes {
    pub(super) value: Vec<EffectiveRoute>,
}

impl Operation {
    /// Whether it has succeeded, by what its status page says.
    pub(super) fn is_over(what: &str, answer: &Answer) -> Result<bool, ArmError> {
        let seen: Self = serde_json::from_slice(&answer.body).map_err(|error| ArmError::Garbled {
            what: what.to_owned(),
            why: error.to_string(),
        })?;
        match seen.status.as_str() {
            "Succeeded" => Ok(true),
            "Failed" | "Canceled" => Err(ArmError::Refused {
                what: what.to_owned(),
                status: answer.status,
                code: if seen.error.code.is_empty() {
                    seen.status
                } else {
                    seen.error.code
                },
                message: seen.error.message,
            }),
            _ => Ok(false),
        }
    }
}

/// A request: to what, and how.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) body: Option<&'a Value>,
    pub(super) if_match: Option<&'a str>,
}

impl Ask<'_> {
    pub(super) fn get(url: String) -> Self {
        Self {
            method: Method::GET,
            url,
            body: None,
            if_match: None,
        }
    }

    /// For messages: without what is asked for.
    pub(super) fn what(&self) -> String {
        let path = self.url.split('?').next().unwrap_or_default();
        let path = path
            .split_once("://")
            .and_then(|(_, rest)| rest.find('/').map(|at| rest.split_at(at).1));
        format!("{} {}", self.method, path.unwrap_or(&self.url))
    }

    pub(super) fn is_write(&self) -> bool {
        self.method == Method::PUT
    }
}

pub(super) fn refused(ask: &Ask<'_>, answer: &Answer) -> ArmError {
    if answer.status == 412 {
        return ArmError::Changed { what: ask.what() };
    }
    const LONGEST: usize = 300;
    let problem: Problem = serde_json::from_slice(&answer.body).unwrap_or_default();
    let mut message = problem.error.message;
    if message.is_empty() {
        let text = String::from_utf8_lossy(&answer.body);
        message = text.trim().chars().take(LONGEST).collect();
    }
    ArmError::Refused {
        what: ask.what(),
        status: answer.status,
        code: problem.error.code,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_provider_has_versions_of_its_own() {
        let of = |rest: &str| version(&format!("/subscriptions/s/resourceGroups/g/providers/{rest}"));
        assert_eq!(of("Microsoft.Network/routeTables/rt"), "2024-05-01");
        assert_eq!(
            of("Microsoft.Network/networkInterfaces/n/effectiveRouteTable"),
            "2024-05-01"
        );
        assert_eq!(of("Microsoft.Compute/virtualMachineScaleSets"), "2024-07-01");
        let nic = "microsoft.compute/virtualMachineScaleSets/s/virtualMachines/0/networkInterfaces/n/effectiveRouteTable";
        assert_eq!(of(nic), "2018-10-01");
    }
}
