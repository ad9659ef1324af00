//! ARM's resources, read and written.

use std::time::{Duration, Instant};

use http::{Method, Request};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::http::{Answer, Http, body};
use super::token::{IMDS, Source, Token, encoded};
use super::{ArmError, Timing};
use crate::azure::cloud::Cloud;
use crate::azure::config::{Auth, CloudConfig};
use crate::azure::resource::{EffectiveRoute, Id, Nic, RouteTable, VirtualNetwork};
use crate::azure::secret::Secret;

/// Versions of ARM's interface.
const NETWORK: &str = "2024-05-01";
const SCALE_SETS: &str = "2024-07-01";
/// Scale sets' network interfaces have this one only (`vmssNetworkInterface.json`).
const SCALE_SET_NICS: &str = "2018-10-01";
/// Times that a question is asked again.
const RETRIES: u32 = 3;

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
struct Operation {
    status: String,
    error: ProblemDetail,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Page {
    value: Vec<Value>,
    next_link: Option<String>,
}

/// A request: to what, and how.
struct Ask<'a> {
    method: Method,
    url: String,
    body: Option<&'a Value>,
    if_match: Option<&'a str>,
}

impl Ask<'_> {
    fn get(url: String) -> Self {
        Self {
            method: Method::GET,
            url,
            body: None,
            if_match: None,
        }
    }

    /// For messages: without what is asked for.
    fn what(&self) -> String {
        let path = self.url.split('?').next().unwrap_or_default();
        let path = path
            .split_once("://")
            .and_then(|(_, rest)| rest.find('/').map(|at| rest.split_at(at).1));
        format!("{} {}", self.method, path.unwrap_or(&self.url))
    }

    fn is_write(&self) -> bool {
        self.method == Method::PUT
    }
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
        })
    }

    /// The table; `None` if there is none.
    ///
    /// # Errors
    /// [`ArmError`].
    pub async fn route_table(&self, id: &Id) -> Result<Option<RouteTable>, ArmError> {
        let Some(body) = self.found(&self.url(id.as_str(), NETWORK)).await? else {
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
            url: self.url(id.as_str(), NETWORK),
            body: Some(body),
            if_match: Some(etag),
        };
        let answer = self.send(&ask).await?;
        self.done(&ask.what(), answer).await.map(drop)
    }

    /// The virtual network with its subnets; `None` if there is none.
    ///
    /// # Errors
    /// [`ArmError`].
    pub async fn network(&self, id: &Id) -> Result<Option<VirtualNetwork>, ArmError> {
        let Some(body) = self.found(&self.url(id.as_str(), NETWORK)).await? else {
            return Ok(None);
        };
        VirtualNetwork::read(&body)
            .map(Some)
            .map_err(|error| garbled(id, &error))
    }

    /// Network interfaces of the group's machines and scale sets.
    ///
    /// # Errors
    /// [`ArmError`].
    pub async fn nics(&self, subscription: &str, group: &str) -> Result<Vec<Nic>, ArmError> {
        let group = format!("/subscriptions/{subscription}/resourceGroups/{group}/providers");
        let list = self.url(&format!("{group}/Microsoft.Network/networkInterfaces"), NETWORK);
        let mut bodies = self.list(list).await?;
        let sets = self.url(
            &format!("{group}/Microsoft.Compute/virtualMachineScaleSets"),
            SCALE_SETS,
        );
        for set in self.list(sets).await? {
            let id = set.get("id").and_then(Value::as_str).unwrap_or_default();
            let list = self.url(&format!("{id}/networkInterfaces"), SCALE_SET_NICS);
            bodies.extend(self.list(list).await?);
        }
        let nics = bodies.iter().map(Nic::read).collect::<Result<_, _>>();
        nics.map_err(|error| garbled(&Id::new(group), &error))
    }

    /// What the fabric does with what the interface sends: the only truth there is. Takes seconds; its machine must run.
    ///
    /// # Errors
    /// [`ArmError`].
    pub async fn effective_routes(&self, nic: &Id) -> Result<Vec<EffectiveRoute>, ArmError> {
        let ask = Ask {
            method: Method::POST,
            url: self.url(&format!("{nic}/effectiveRouteTable"), NETWORK),
            body: None,
            if_match: None,
        };
        let answer = self.send(&ask).await?;
        let body = self.done(&ask.what(), answer).await?;
        let page: Page = serde_json::from_slice(&body).map_err(|error| garbled(nic, &error))?;
        let routes = page.value.into_iter().map(serde_json::from_value);
        routes
            .collect::<Result<_, _>>()
            .map_err(|error| garbled(nic, &error))
    }

    fn url(&self, path: &str, version: &str) -> String {
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
            Err(ArmError::Refused { status: 404, .. }) => Ok(None),
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
            let Some(body) = self.found(&url).await? else {
                return Ok(all);
            };
            let page: Page = serde_json::from_value(body).map_err(|error| ArmError::Garbled {
                what: Ask::get(url).what(),
                why: error.to_string(),
            })?;
            all.extend(page.value);
            next = page.next_link.filter(|link| !link.is_empty());
        }
        Ok(all)
    }

    /// Waits for what a request began; the last answer's body.
    async fn done(&self, what: &str, mut answer: Answer) -> Result<Vec<u8>, ArmError> {
        let begun = Instant::now();
        let link = |answer: &Answer, name: &str| answer.header(name).map(str::to_owned);
        let operation = link(&answer, "azure-asyncoperation");
        let location = link(&answer, "location").filter(|_| answer.status == 202);
        let Some(at) = operation.clone().or(location) else {
            return Ok(answer.body);
        };
        if !self.is_ours(&at) {
            return Err(ArmError::Garbled {
                what: what.to_owned(),
                why: format!("its operation leads away from {}", self.cloud.resource_manager),
            });
        }
        loop {
            let pause = answer.retry_after().unwrap_or(self.timing.pause);
            if begun.elapsed() + pause > self.timing.operation {
                return Err(ArmError::Late {
                    what: what.to_owned(),
                    after: begun.elapsed(),
                });
            }
            sleep(pause).await;
            answer = self.send(&Ask::get(at.clone())).await?;
            if operation.is_none() {
                if answer.status != 202 {
                    return Ok(answer.body);
                }
                continue;
            }
            let seen: Operation =
                serde_json::from_slice(&answer.body).map_err(|error| ArmError::Garbled {
                    what: what.to_owned(),
                    why: error.to_string(),
                })?;
            match seen.status.as_str() {
                "Succeeded" => return Ok(answer.body),
                "Failed" | "Canceled" => {
                    return Err(ArmError::Refused {
                        what: what.to_owned(),
                        status: answer.status,
                        code: if seen.error.code.is_empty() {
                            seen.status
                        } else {
                            seen.error.code
                        },
                        message: seen.error.message,
                    });
                }
                _ => {}
            }
        }
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

    /// ARM has said when it will take such requests again.
    async fn hold(&self, ask: &Ask<'_>, begun: Instant) -> Result<(), ArmError> {
        let until = self.holds.lock().await[usize::from(ask.is_write())];
        let wait = until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        });
        if begun.elapsed() + wait > self.timing.operation {
            return Err(ArmError::Throttled {
                what: ask.what(),
                wait,
            });
        }
        sleep(wait).await;
        Ok(())
    }

    async fn once(&self, ask: &Ask<'_>) -> Result<Answer, ArmError> {
        let token = self.bearer().await?;
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
        sent.map_err(lost)
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

fn refused(ask: &Ask<'_>, answer: &Answer) -> ArmError {
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
