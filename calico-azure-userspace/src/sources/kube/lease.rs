//! Who of several may act: a Lease that one holds and renews, as Kubernetes' own components elect their leaders (client-go
//! `tools/leaderelection`). Clocks are not compared: a holder is late if its Lease has not changed for as long as it lasts, on our clock.

use std::time::{Duration, Instant};

use http::Method;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::client::{Api, Failure};

/// Which Lease, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseName {
    pub namespace: String,
    pub name: String,
    /// Ours; no two have the same.
    pub identity: String,
}

/// How long a Lease lasts without being renewed; Kubernetes' own components have 15 s.
pub(super) const LASTS: Duration = Duration::from_secs(15);

/// One candidate.
pub(super) struct Candidate {
    name: LeaseName,
    /// What the Lease said when it was last different, and when that was.
    observed: Option<(Value, Instant)>,
}

impl Candidate {
    pub(super) fn new(name: LeaseName) -> Self {
        Self { name, observed: None }
    }

    fn collection(&self) -> String {
        format!(
            "/apis/coordination.k8s.io/v1/namespaces/{}/leases",
            self.name.namespace
        )
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.name.name)
    }

    /// Takes the Lease if it is free, renews it if it is ours. Whether it is.
    pub(super) async fn step(&mut self, api: &Api) -> Result<bool, Failure> {
        let found = match api.get(&self.path(), "application/json").await {
            Ok(body) => parsed(&body)?,
            Err(failure) if failure.code() == Some(404) => {
                let lease = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": self.name.name, "namespace": self.name.namespace},
                    "spec": self.spec(&Value::Null),
                });
                return taken(api.write(Method::POST, &self.collection(), &lease).await);
            }
            Err(failure) => return Err(failure),
        };
        let spec = &found["spec"];
        if self.observed.as_ref().is_none_or(|(known, _)| known != spec) {
            self.observed = Some((spec.clone(), Instant::now()));
        }
        let holder = spec["holderIdentity"].as_str().unwrap_or_default();
        let lasts = spec["leaseDurationSeconds"]
            .as_u64()
            .map_or(LASTS, Duration::from_secs);
        let is_late = self
            .observed
            .as_ref()
            .is_some_and(|(_, since)| since.elapsed() > lasts);
        if !holder.is_empty() && holder != self.name.identity && !is_late {
            return Ok(false);
        }
        let mut lease = found.clone();
        lease["spec"] = self.spec(spec);
        // Only if nobody was faster: the object carries its resource version.
        taken(api.write(Method::PUT, &self.path(), &lease).await)
    }

    /// Lets go of the Lease, if it is ours, so that nobody has to wait for its end.
    pub(super) async fn release(&self, api: &Api) -> Result<(), Failure> {
        let mut lease = parsed(&api.get(&self.path(), "application/json").await?)?;
        if lease["spec"]["holderIdentity"] == self.name.identity.as_str() {
            lease["spec"]["holderIdentity"] = json!("");
            lease["spec"]["leaseDurationSeconds"] = json!(1);
            api.write(Method::PUT, &self.path(), &lease).await?;
        }
        Ok(())
    }

    /// As ours, from now on.
    fn spec(&self, before: &Value) -> Value {
        let now = now();
        let ours = before["holderIdentity"] == self.name.identity.as_str();
        let changes = before["leaseTransitions"].as_u64().unwrap_or(0);
        let since = if ours {
            before["acquireTime"].clone()
        } else {
            json!(now)
        };
        json!({
            "holderIdentity": self.name.identity,
            "leaseDurationSeconds": LASTS.as_secs(),
            "acquireTime": since,
            "renewTime": now,
            "leaseTransitions": if before.is_null() || ours { changes } else { changes + 1 },
        })
    }
}

/// A `MicroTime`.
pub(super) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

fn parsed(body: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::Garbled(error.to_string()))
}

/// Somebody else was faster: then it is theirs.
fn taken(written: Result<Value, Failure>) -> Result<bool, Failure> {
    match written {
        Ok(_) => Ok(true),
        Err(failure) if failure.code() == Some(409) => Ok(false),
        Err(failure) => Err(failure),
    }
}
