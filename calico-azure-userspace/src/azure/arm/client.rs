//! ARM's resources, read and written.

use std::time::{Duration, Instant};

use http::{Method, Request};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::http::{Answer, Http, body};
use super::limits::{Limits, Remaining};
use super::token::{IMDS, Source, Token, encoded};
use super::wire::{Ask, EffectiveRoutes, Operation, Page, is_group_missing, refused, version};
use super::{ArmError, Timing};
use crate::azure::cloud::Cloud;
use crate::azure::config::{Auth, CloudConfig};
use crate::azure::resource::{EffectiveRoute, Id, Nic, RouteTable, ScaleSet, VirtualNetwork};
use crate::azure::secret::Secret;
use crate::azure::security::SecurityGroup;

/// Times that a question is asked again.
const RETRIES: u32 = 3;

/// What is wanted of an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// That it is over.
    Done,
    /// What it was asked.
    Result,
}

/// A client of ARM.
pub struct Arm {
    http: Http,
    cloud: Cloud,
    auth: Auth,
    imds: String,
    timing: Timing,
    token: Mutex<Option<Token>>,
    /// Until when ARM wants no reads, and no writes.
    holds: Mutex<[Option<Instant>; 2]>,
    limits: Limits,
}

impl Arm {
    /// A client for the cloud that the file names. `env`: `AZURE_AUTHORITY_HOST` and `AZURE_POD_IDENTITY_AUTHORITY_HOST` replace the
    /// directory and the metadata service, as in Azure's own clients.
    ///
    /// # Errors
    /// If there are no certificates to trust.
    pub fn new(
        config: &CloudConfig,
        timing: Timing,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ArmError> {
        let host = |name: &str| {
            let host = env(name).filter(|host| !host.is_empty());
            host.map(|host| host.trim_end_matches('/').to_owned())
        };
        let mut cloud = config.cloud.clone();
        if let Some(directory) = host("AZURE_AUTHORITY_HOST") {
            cloud.directory = directory;
        }
        Ok(Self {
            http: Http::new()?,
            cloud,
            auth: config.auth.clone(),
            imds: host("AZURE_POD_IDENTITY_AUTHORITY_HOST").unwrap_or_else(|| IMDS.to_owned()),
            timing,
            token: Mutex::new(None),
            holds: Mutex::new([None, None]),
            limits: Limits::default(),
        })
    }

    /// The table; `None` if there is none.
    ///
    /// # Errors
    /// [`ArmError`].
    pub async fn route_table(&self, id: &Id) -> Result<Option<RouteTable>, ArmError> {
        let Some(body) = self.found(&self.url(id.as_str())).await? else {
            return Ok(None);
        };
        RouteTable::read(body)
            .map(Some)
            .map_err(|error| garbled(id, &error))
    }

    /// Writes the whole table, if it is still the one with this ETag, and waits until ARM says that it is done.
    ///
    /// # Errors
    /// [`ArmError::Changed`] if it is not. After [`ArmError::Lost`] or [`ArmError::Late`] it may have been written all the same.
    pub async fn put_route_table(&self, id: &Id, body: &Value, etag: &str) -> Result<(), ArmError> {
        let ask = Ask {
            method: Method::PUT,
            url: self.url(id.as_str()),
            body: Some(body),
            if_match: Some(etag),
        };
        if etag.is_empty() {
            let why = "it has no etag, so that what others change could be lost".to_owned();
            let what = ask.what();
            return Err(ArmError::Garbled { what, why });
        }
        let answer = self.send(&ask).await?;
        self.done(&ask.what(), answer, Outcome::Done).await.map(drop)
    }

    /// The virtual network with its subnets; `None` if there is none.
    ///
    /// # Errors
    /// [`ArmError`].
    pub async fn network(&self, id: &Id) -> Result<Option<VirtualNetwork>, ArmError> {
        let Some(body) = self.found(&self.url(id.as_str())).await? else {
            return Ok(None);
        };
        VirtualNetwork::read(&body)
            .map(Some)
            .map_err(|error| garbled(id, &error))
    }

    /// The security group; `None` if there is none.
    ///
    /// # Errors
    /// [`ArmError`].
    pub async fn security_group(&self, id: &Id) -> Result<Option<SecurityGroup>, ArmError> {
        let Some(body) = self.found(&self.url(id.as_str())).await? else {
            return Ok(None);
        };
        SecurityGroup::read(&body)
            .map(Some)
            .map_err(|error| garbled(id, &error))
    }

    /// Network interfaces of the group's machines and scale sets.
    ///
    /// # Errors
    /// [`ArmError`].
    pub async fn nics(&self, subscription: &str, group: &str) -> Result<Vec<Nic>, ArmError> {
        let group = format!("/subscriptions/{subscription}/resourceGroups/{group}/providers");
        let read = |bodies: Vec<Value>| {
            let nics = bodies.iter().map(Nic::read).collect::<Result<Vec<_>, _>>();
            nics.map_err(|error| garbled(&Id::new(&group), &error))
        };
        let list = self.url(&format!("{group}/Microsoft.Network/networkInterfaces"));
        let mut nics = read(self.list(list).await?)?;
        let sets = self.url(&format!("{group}/Microsoft.Compute/virtualMachineScaleSets"));
        for set in self.list(sets).await? {
            let id = set.get("id").and_then(Value::as_str).unwrap_or_default();
            let bodies = match self.list(self.url(&format!("{id}/networkInterfaces"))).await {
                Ok(bodies) => bodies,
                // It has gone since it was listed.
                Err(ArmError::Refused { status: 404, .. }) => continue,
                Err(error) => return Err(error),
            };
            let model = ScaleSet::read(&set).map_err(|error| garbled(&Id::new(id), &error))?;
            let mut of_set = read(bodies)?;
            for nic in &mut of_set {
                nic.place = model.place(nic.id.name());
            }
            nics.extend(of_set);
        }
        Ok(nics)
    }

    /// What the fabric does with what the interface sends: the only truth there is. Takes seconds; its machine must run.
    ///
    /// # Errors
    /// [`ArmError`].
    pub async fn effective_routes(&self, nic: &Id) -> Result<Vec<EffectiveRoute>, ArmError> {
        let ask = Ask {
            method: Method::POST,
            url: self.url(&format!("{nic}/effectiveRouteTable")),
            body: None,
            if_match: None,
        };
        let answer = self.send(&ask).await?;
        let body = self.done(&ask.what(), answer, Outcome::Result).await?;
        let routes: EffectiveRoutes = serde_json::from_slice(&body).map_err(|error| garbled(nic, &error))?;
        Ok(routes.value)
    }

    /// Requests that ARM will still take, by the last answers that said so.
    #[must_use]
    pub fn remaining(&self) -> Remaining {
        self.limits.remaining()
    }

    fn url(&self, path: &str) -> String {
        let version = version(path);
        // Names of resource groups may hold spaces, brackets, and any alphabet's letters.
        let path = path.split('/').map(encoded).collect::<Vec<_>>().join("/");
        format!("{}{path}?api-version={version}", self.cloud.resource_manager)
    }

    /// Whether it leads to the same server; ARM writes links with and without the port.
    fn is_ours(&self, url: &str) -> bool {
        let server = |url: &str| {
            let uri: http::Uri = url.parse().ok()?;
            let scheme = uri.scheme_str()?.to_ascii_lowercase();
            let usual = if scheme == "https" { 443 } else { 80 };
            let port = uri.port_u16().unwrap_or(usual);
            Some((uri.host()?.to_ascii_lowercase(), port, scheme))
        };
        server(url).is_some_and(|other| server(&self.cloud.resource_manager) == Some(other))
    }

    async fn found(&self, url: &str) -> Result<Option<Value>, ArmError> {
        let ask = Ask::get(url.to_owned());
        match self.send(&ask).await {
            Ok(answer) => serde_json::from_slice(&answer.body)
                .map(Some)
                .map_err(|error| ArmError::Garbled {
                    what: ask.what(),
                    why: error.to_string(),
                }),
            Err(ArmError::Refused {
                status: 404, code, ..
            }) if !is_group_missing(&code) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every page.
    async fn list(&self, url: String) -> Result<Vec<Value>, ArmError> {
        const PAGES: usize = 10_000;
        let mut all = Vec::new();
        let mut next = Some(url);
        for _ in 0..PAGES {
            let Some(url) = next.take() else { return Ok(all) };
            // Elsewhere nobody is to have the token.
            if !self.is_ours(&url) {
                return Err(ArmError::Garbled {
                    what: "a list's nextLink".into(),
                    why: format!("leads away from {}", self.cloud.resource_manager),
                });
            }
            // A list that is not there is not an empty one.
            let ask = Ask::get(url);
            let answer = self.send(&ask).await?;
            let page: Page = serde_json::from_slice(&answer.body).map_err(|error| ArmError::Garbled {
                what: ask.what(),
                why: error.to_string(),
            })?;
            all.extend(page.value);
            next = page.next_link.filter(|link| !link.is_empty());
        }
        Ok(all)
    }

    /// Waits for what a request began. The result is where `Location` says; `Azure-AsyncOperation`, if there is both, only says when.
    async fn done(&self, what: &str, answer: Answer, outcome: Outcome) -> Result<Vec<u8>, ArmError> {
        let begun = Instant::now();
        let link = |name: &str| answer.header(name).map(str::to_owned);
        let operation = link("azure-asyncoperation");
        let location = link("location").filter(|_| answer.status == 202);
        for at in [&operation, &location].into_iter().flatten() {
            if !self.is_ours(at) {
                return Err(ArmError::Garbled {
                    what: what.to_owned(),
                    why: format!("its operation leads away from {}", self.cloud.resource_manager),
                });
            }
        }
        let mut pause = answer.retry_after();
        if let Some(at) = &operation {
            loop {
                self.pause(what, begun, pause).await?;
                let seen = self.send(&Ask::get(at.clone())).await?;
                pause = seen.retry_after();
                if Operation::is_over(what, &seen)? {
                    break;
                }
            }
        }
        match (location, outcome) {
            (Some(at), _) if operation.is_none() || outcome == Outcome::Result => {
                // What an operation that is over has made is there.
                let mut waits = operation.is_none();
                loop {
                    if waits {
                        self.pause(what, begun, pause).await?;
                    }
                    let seen = self.send(&Ask::get(at.clone())).await?;
                    if seen.status != 202 {
                        return Ok(seen.body);
                    }
                    (waits, pause) = (true, seen.retry_after());
                }
            }
            (None, Outcome::Result) if operation.is_some() => Err(ArmError::Garbled {
                what: what.to_owned(),
                why: "its operation does not say by Location where the result is".to_owned(),
            }),
            _ => Ok(answer.body),
        }
    }

    /// Before the next look at an operation that was begun then.
    async fn pause(&self, what: &str, begun: Instant, asked: Option<Duration>) -> Result<(), ArmError> {
        let pause = asked.unwrap_or(self.timing.pause);
        if begun.elapsed() + pause > self.timing.operation {
            return Err(ArmError::Late {
                what: what.to_owned(),
                after: begun.elapsed(),
            });
        }
        sleep(pause).await;
        Ok(())
    }

    /// Sends, when ARM takes it; questions again if the answer says nothing.
    async fn send(&self, ask: &Ask<'_>) -> Result<Answer, ArmError> {
        let begun = Instant::now();
        let mut pause = self.timing.pause;
        let mut renewed = false;
        let mut tries = 0;
        loop {
            self.hold(ask, begun).await?;
            let sent = self.once(ask).await;
            let again = !ask.is_write() && tries < RETRIES;
            let wait = match &sent {
                Ok(answer) => match answer.status {
                    200..=299 => return sent,
                    // Nothing was done; who writes has to look again before.
                    401 if ask.is_write() => {
                        *self.token.lock().await = None;
                        return Err(ArmError::Expired { what: ask.what() });
                    }
                    // Rotated, or revoked.
                    401 if !renewed => {
                        renewed = true;
                        *self.token.lock().await = None;
                        continue;
                    }
                    429 => {
                        let wait = answer.retry_after().unwrap_or(pause);
                        self.holds.lock().await[usize::from(ask.is_write())] = Some(Instant::now() + wait);
                        // Nothing was done. What is to be written may be another by then.
                        if again {
                            tries += 1;
                            continue;
                        }
                        return Err(ArmError::Throttled {
                            what: ask.what(),
                            wait,
                        });
                    }
                    408 | 500..=599 if again => answer.retry_after().unwrap_or(pause),
                    _ => return Err(refused(ask, answer)),
                },
                Err(ArmError::Lost { .. }) if again => pause,
                Err(error) => return Err(error.clone()),
            };
            tries += 1;
            if begun.elapsed() + wait > self.timing.operation {
                return match sent {
                    Ok(answer) => Err(refused(ask, &answer)),
                    Err(error) => Err(error),
                };
            }
            sleep(jittered(wait)).await;
            pause *= 2;
        }
    }

    /// ARM has said when it will take such requests again. What is to be written does not wait: it would be old by then.
    async fn hold(&self, ask: &Ask<'_>, begun: Instant) -> Result<(), ArmError> {
        let until = self.holds.lock().await[usize::from(ask.is_write())];
        let mut wait = until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        });
        if ask.is_write() && wait.is_zero() {
            return Ok(());
        }
        // Before ARM has to say so.
        if !ask.is_write() && self.limits.is_low() {
            wait = wait.max(self.timing.pause);
        }
        if ask.is_write() || begun.elapsed() + wait > self.timing.operation {
            return Err(ArmError::Throttled {
                what: ask.what(),
                wait,
            });
        }
        sleep(wait).await;
        Ok(())
    }

    async fn once(&self, ask: &Ask<'_>) -> Result<Answer, ArmError> {
        let token = if ask.is_write() {
            // That of the reading before: getting another takes a while.
            let known = self.token.lock().await;
            let known = known.as_ref().map(|token| token.secret.clone());
            known.ok_or_else(|| ArmError::Expired { what: ask.what() })?
        } else {
            self.bearer().await?
        };
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(&ask.url)
            .header("authorization", format!("Bearer {}", token.expose()))
            .header("accept", "application/json");
        if let Some(etag) = ask.if_match {
            request = request.header("if-match", etag);
        }
        let bytes = match ask.body {
            None => Vec::new(),
            Some(value) => {
                request = request.header("content-type", "application/json");
                value.to_string().into_bytes()
            }
        };
        let lost = |why: String| ArmError::Lost {
            what: ask.what(),
            why,
        };
        let request = request
            .body(body(bytes))
            .map_err(|error| lost(error.to_string()))?;
        let sent = self.http.send(request, self.timing.answer, true).await;
        let answer = sent.map_err(lost)?;
        self.limits.note(&answer);
        Ok(answer)
    }

    async fn bearer(&self) -> Result<Secret, ArmError> {
        let mut token = self.token.lock().await;
        if let Some(known) = token.as_ref().filter(|token| token.is_fresh()) {
            return Ok(known.secret.clone());
        }
        let source = Source {
            http: &self.http,
            auth: &self.auth,
            cloud: &self.cloud,
            imds: &self.imds,
            timing: self.timing,
        };
        let new = source.token().await?;
        let secret = new.secret.clone();
        *token = Some(new);
        Ok(secret)
    }
}

fn garbled(id: &Id, error: &serde_json::Error) -> ArmError {
    ArmError::Garbled {
        what: id.to_string(),
        why: error.to_string(),
    }
}

/// Up to half as long again, so that many who were sent away do not come back together.
fn jittered(wait: Duration) -> Duration {
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .subsec_nanos();
    wait + wait.mul_f64(f64::from(nanos % 1000) / 2000.0)
}
