//! Tokens for ARM: from the machine's identity, for a token of the cluster's, or for a password.

use std::time::{Duration, Instant, SystemTime};

use http::{Method, Request};
use serde::Deserialize;

use super::http::{Answer, Body, Http, body};
use super::{ArmError, Timing};
use crate::azure::cloud::Cloud;
use crate::azure::config::{Auth, Identity};
use crate::azure::secret::Secret;

/// The instance metadata service, for whom nobody names another one.
pub(super) const IMDS: &str = "http://169.254.169.254";
/// A token is asked for anew this long before it ends.
const EARLY: Duration = Duration::from_secs(300);
/// Seconds. No token is good for longer than a day.
const LONGEST: u64 = 24 * 60 * 60;
/// Times that the metadata service is asked; after a machine's start it says 404 or 410 for a while.
const ASKED: u32 = 6;

/// A token and its end.
pub(super) struct Token {
    pub(super) secret: Secret,
    ends: Instant,
}

impl Token {
    pub(super) fn is_fresh(&self) -> bool {
        self.ends.saturating_duration_since(Instant::now()) > EARLY
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    /// Seconds, a number or in quotes.
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
    /// Seconds since 1970, in quotes.
    #[serde(default)]
    expires_on: Option<serde_json::Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refused {
    error: String,
    error_description: String,
}

pub(super) struct Source<'a> {
    pub(super) http: &'a Http,
    pub(super) auth: &'a Auth,
    pub(super) cloud: &'a Cloud,
    pub(super) imds: &'a str,
    pub(super) timing: Timing,
}

impl Source<'_> {
    /// Gets a token.
    pub(super) async fn token(&self) -> Result<Token, ArmError> {
        let audience = &self.cloud.resource_manager;
        match self.auth {
            Auth::ManagedIdentity { identity } => {
                let mut url = format!(
                    "{}/metadata/identity/oauth2/token?api-version=2018-02-01&resource={}",
                    self.imds,
                    encoded(&format!("{audience}/"))
                );
                match identity {
                    None => {}
                    Some(Identity::Client(id)) => url.push_str(&format!("&client_id={}", encoded(id))),
                    Some(Identity::Resource(id)) => url.push_str(&format!("&msi_res_id={}", encoded(id))),
                }
                self.of_machine(&url).await
            }
            Auth::Federated { tenant, client, file } => {
                let url = self.directory(tenant);
                let assertion = std::fs::read_to_string(file).map_err(|error| ArmError::Token {
                    from: file.display().to_string(),
                    why: error.to_string(),
                })?;
                let form = [
                    ("client_id", client.as_str()),
                    ("grant_type", "client_credentials"),
                    (
                        "client_assertion_type",
                        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                    ),
                    ("client_assertion", assertion.trim()),
                ];
                self.exchange(&url, &form).await
            }
            Auth::ClientSecret {
                tenant,
                client,
                secret,
            } => {
                let form = [
                    ("client_id", client.as_str()),
                    ("grant_type", "client_credentials"),
                    ("client_secret", secret.expose()),
                ];
                self.exchange(&self.directory(tenant), &form).await
            }
        }
    }

    fn directory(&self, tenant: &str) -> String {
        format!("{}/{}/oauth2/v2.0/token", self.cloud.directory, encoded(tenant))
    }

    async fn exchange(&self, url: &str, form: &[(&str, &str)]) -> Result<Token, ArmError> {
        let scope = format!("{}/.default", self.cloud.resource_manager);
        let mut text = format!("scope={}", encoded(&scope));
        for (key, value) in form {
            text.push_str(&format!("&{key}={}", encoded(value)));
        }
        let request = Request::post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body(text.into_bytes()));
        let sent = self.send(url, request, true).await?;
        granted(url, &sent)
    }

    /// The metadata service is on this machine: no proxy.
    async fn of_machine(&self, url: &str) -> Result<Token, ArmError> {
        let mut pause = self.timing.pause;
        for asked in 1.. {
            let request = Request::builder()
                .method(Method::GET)
                .uri(url)
                .header("metadata", "true")
                .body(body(Vec::new()));
            let sent = self.send(url, request, false).await;
            let again = match &sent {
                Ok(answer) => matches!(answer.status, 404 | 410 | 429 | 500..=599),
                Err(_) => true,
            };
            if !again || asked == ASKED {
                return granted(url, &sent?);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Err(failed(url, "it was not asked"))
    }

    async fn send(
        &self,
        url: &str,
        request: Result<Request<Body>, http::Error>,
        proxied: bool,
    ) -> Result<Answer, ArmError> {
        let request = request.map_err(|error| failed(url, &error.to_string()))?;
        let sent = self.http.send(request, self.timing.answer, proxied).await;
        sent.map_err(|why| failed(url, &why))
    }
}

/// Without what was asked: it may name who asks.
fn failed(url: &str, why: &str) -> ArmError {
    ArmError::Token {
        from: url.split('?').next().unwrap_or_default().to_owned(),
        why: why.to_owned(),
    }
}

fn granted(url: &str, answer: &Answer) -> Result<Token, ArmError> {
    if answer.status != 200 {
        let refused: Refused = serde_json::from_slice(&answer.body).unwrap_or_default();
        let first = refused.error_description.lines().next().unwrap_or_default();
        let why = format!("status {} {} {first}", answer.status, refused.error);
        return Err(failed(url, why.trim_end()));
    }
    // The parser's words would quote the token.
    let granted: Granted =
        serde_json::from_slice(&answer.body).map_err(|_quotes| failed(url, "the answer holds no token"))?;
    let number = |value: Option<serde_json::Value>| match value? {
        serde_json::Value::Number(number) => number.as_u64(),
        serde_json::Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let until = |at: u64| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        at.saturating_sub(now.unwrap_or_default().as_secs())
    };
    let lasts = number(granted.expires_on)
        .map(until)
        .or(number(granted.expires_in));
    Ok(Token {
        secret: Secret::new(granted.access_token),
        ends: Instant::now() + Duration::from_secs(lasts.unwrap_or(0).min(LONGEST)),
    })
}

/// As a part of a query or a form (RFC 3986's unreserved characters stay).
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
