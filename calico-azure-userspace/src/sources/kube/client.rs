//! One connection to an API server, and requests over it.
//!
//! Over TLS all watches share one HTTP/2 connection, which is pinged: 5,000 nodes with a connection for each of 25 kinds
//! would be a burden to the API server, and Azure's load balancer forgets connections that are idle for 240 s without
//! telling either side.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::Config;
use kube::client::{Body, Client, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use tokio::time::timeout;
use tower::ServiceBuilder;

use super::wire::Status;
use super::{KubeConfig, KubeError, Timing, protobuf};

/// How long an idle connection is trusted before it is asked, and how long an answer may take.
const KEEPALIVE: Duration = Duration::from_secs(20);
const PING_ANSWER: Duration = Duration::from_secs(10);
/// Credentials are not read again more often than this, as a plug-in may have to be asked for them.
const RENEWAL: Duration = Duration::from_secs(5);

/// A request that did not give what was asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    /// No answer, or half of one.
    #[error("{0}")]
    Lost(String),
    /// It began, and then nothing came for so long.
    #[error("nothing was heard for {} s", .0.as_secs_f32())]
    Silent(Duration),
    #[error("{} (status {})", .0.message, .0.code)]
    Refused(Status),
    /// Says this nevertheless.
    #[error("the answer is not what an API server says: {0}")]
    Garbled(String),
}

impl Failure {
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Refused(status) => Some(status.code),
            Self::Lost(_) | Self::Silent(_) | Self::Garbled(_) => None,
        }
    }

    pub(super) fn is_expired(&self) -> bool {
        matches!(self, Self::Refused(status) if status.is_expired())
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(status) => status.retry_after(),
            Self::Lost(_) | Self::Silent(_) | Self::Garbled(_) => None,
        }
    }
}

/// Reads where the API server is and who we are there.
async fn configuration(told: &KubeConfig) -> Result<Config, KubeError> {
    let Some(files) = &told.kubeconfig else {
        return Config::incluster().map_err(|source| KubeError::NotInCluster(source.to_string()));
    };
    let failed = |source: &dyn std::error::Error| KubeError::Kubeconfig {
        path: files.clone(),
        message: causes(source),
    };
    // As kubectl reads KUBECONFIG: several files are one.
    let mut merged = Kubeconfig::default();
    for file in std::env::split_paths(files).filter(|file| file.as_os_str() != "") {
        let read = Kubeconfig::read_from(file).map_err(|error| failed(&error))?;
        merged = merged.merge(read).map_err(|error| failed(&error))?;
    }
    let options = KubeConfigOptions {
        context: told.context.clone(),
        ..KubeConfigOptions::default()
    };
    Config::from_custom_kubeconfig(merged, &options)
        .await
        .map_err(|error| failed(&error))
}

/// Makes a client. Tokens from files are read again as they are rotated, plug-ins are asked again before theirs expire: that is
/// what the layers of `kube` do.
fn client(config: &Config) -> Result<Client, KubeError> {
    let unusable = |source: kube::Error| KubeError::Unusable(causes(&source));
    if let Some(proxy) = &config.proxy_url {
        return Err(KubeError::Unusable(format!(
            "the kubeconfig names a proxy, {proxy}: proxies are not supported, remove proxy-url"
        )));
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(PING_ANSWER));
    tcp.set_keepalive_retries(Some(2));
    tcp.set_connect_timeout(Some(PING_ANSWER));
    let tls = HttpsConnectorBuilder::new()
        .with_tls_config(config.rustls_client_config().map_err(unusable)?)
        .https_or_http();
    let tls = match &config.tls_server_name {
        Some(name) => {
            let name = name.clone().try_into();
            let name = name.map_err(|error| KubeError::Unusable(format!("tls-server-name: {error}")))?;
            tls.with_server_name_resolver(FixedServerNameResolver::new(name))
        }
        None => tls,
    };
    let http = legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(KEEPALIVE)
        .http2_keep_alive_timeout(PING_ANSWER)
        .http2_adaptive_window(true)
        .build(tls.enable_all_versions().wrap_connector(tcp));
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(unusable)?)
        .layer(config.extra_headers_layer().map_err(unusable)?)
        .map_err(tower::BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}

/// Every cause, as the last one usually says what is wrong.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// An API server.
#[derive(Clone)]
pub(super) struct Api {
    told: Arc<KubeConfig>,
    current: Arc<Mutex<Current>>,
    timing: Timing,
}

/// The client of the moment.
struct Current {
    client: Client,
    made: Instant,
}

impl Api {
    pub(super) async fn connect(told: &KubeConfig) -> Result<Self, KubeError> {
        let current = Current {
            client: client(&configuration(told).await?)?,
            made: Instant::now(),
        };
        Ok(Self {
            told: Arc::new(told.clone()),
            current: Arc::new(Mutex::new(current)),
            timing: told.timing,
        })
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads again where the API server is and who we are there: tokens, certificates and authorities are replaced, and `kube` looks at
    /// token files once a minute, and at the others never.
    async fn renew(&self) {
        {
            let mut current = self.current();
            if current.made.elapsed() < RENEWAL {
                return;
            }
            current.made = Instant::now();
        }
        match configuration(&self.told).await.and_then(|found| client(&found)) {
            Ok(client) => self.current().client = client,
            Err(error) => tracing::warn!("{error}; what was read before is used"),
        }
    }

    async fn open(&self, path: &str, accept: &str) -> Result<Response<Body>, Failure> {
        let request = Request::get(path).header(ACCEPT, accept).body(Body::empty());
        self.send(request).await
    }

    /// Sends an object, and gives what the server made of it.
    pub(super) async fn write(&self, method: Method, path: &str, object: &Value) -> Result<Value, Failure> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(object.to_string().into_bytes()));
        let response = self.send(request).await?;
        let body = self.whole(response).await?;
        serde_json::from_slice(&body).map_err(|error| Failure::Garbled(error.to_string()))
    }

    async fn send(&self, request: Result<Request<Body>, http::Error>) -> Result<Response<Body>, Failure> {
        let request = request.map_err(|error| Failure::Garbled(error.to_string()))?;
        let answer = self.ask(request).await;
        if let Err(failure) = &answer
            && (failure.code() == Some(401) || matches!(failure, Failure::Lost(_)))
        {
            self.renew().await;
        }
        answer
    }

    async fn ask(&self, request: Request<Body>) -> Result<Response<Body>, Failure> {
        let Timing { answer: patience, .. } = self.timing;
        let client = self.current().client.clone();
        let answer = timeout(patience, client.send(request)).await;
        let response = answer
            .map_err(|_late| Failure::Lost(format!("no answer within {} s", patience.as_secs_f32())))?
            .map_err(|error| Failure::Lost(causes(&error)))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let retry_after = seconds(response.headers());
        // What cannot be read to its end says nothing more than its status.
        let body = self.whole(response).await.unwrap_or_default();
        Err(Failure::Refused(status(code, retry_after, &body)))
    }

    /// The whole answer.
    pub(super) async fn get(&self, path: &str, accept: &str) -> Result<Vec<u8>, Failure> {
        let response = self.open(path, accept).await?;
        self.whole(response).await
    }

    async fn whole(&self, response: Response<Body>) -> Result<Vec<u8>, Failure> {
        let mut events = self.events_of(response);
        while events.more().await? {}
        Ok(events.buffer)
    }

    /// The answer, event by event.
    pub(super) async fn events(&self, path: &str, accept: &str) -> Result<Events, Failure> {
        Ok(self.events_of(self.open(path, accept).await?))
    }

    fn events_of(&self, response: Response<Body>) -> Events {
        let kind = response.headers().get(CONTENT_TYPE);
        Events {
            is_framed: kind.is_some_and(|kind| kind.as_bytes().starts_with(protobuf::MEDIA_TYPE.as_bytes())),
            body: response.into_body(),
            idle: self.timing.idle,
            buffer: Vec::new(),
            taken: 0,
            searched: 0,
        }
    }
}

fn seconds(headers: &HeaderMap) -> Option<u64> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

/// What a refusal says; proxies and servers that are starting say it in their own words.
fn status(code: u16, retry_after: Option<u64>, body: &[u8]) -> Status {
    const LONGEST: usize = 300;
    let mut status: Status = if protobuf::is(body) {
        protobuf::status(body).unwrap_or_default()
    } else {
        serde_json::from_slice(body).unwrap_or_default()
    };
    status.code = code;
    if status.message.is_empty() {
        let text = String::from_utf8_lossy(body);
        status.message = text.trim().chars().take(LONGEST).collect();
    }
    if status.message.is_empty() {
        status.message = "the API server refuses".to_owned();
    }
    status.or_retry_after(retry_after)
}

/// A body that comes in lines, or in frames that begin with their length.
pub(super) struct Events {
    is_framed: bool,
    body: Body,
    idle: Duration,
    buffer: Vec<u8>,
    /// Up to here events have been handed over.
    taken: usize,
    /// Up to here there is no further end of a line.
    searched: usize,
}

/// One event of a watch, as it was sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sent<'b> {
    Line(&'b [u8]),
    Frame(&'b [u8]),
}

impl Events {
    /// The next event; `None` at the end. What is left over then is half an event.
    pub(super) async fn next(&mut self) -> Result<Option<Sent<'_>>, Failure> {
        loop {
            let found = if self.is_framed {
                self.frame()?
            } else {
                self.line()
            };
            if let Some((begin, end)) = found {
                let bytes = self.buffer.get(begin..end).unwrap_or_default();
                return Ok(Some(if self.is_framed {
                    Sent::Frame(bytes)
                } else {
                    Sent::Line(bytes)
                }));
            }
            self.buffer.drain(..self.taken);
            self.taken = 0;
            self.searched = self.buffer.len();
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// Takes a line, if it is there to its end.
    fn line(&mut self) -> Option<(usize, usize)> {
        let rest = self.buffer.get(self.searched..).unwrap_or_default();
        let (begin, end) = (self.taken, self.searched + memchr::memchr(b'\n', rest)?);
        (self.taken, self.searched) = (end + 1, end + 1);
        Some((begin, end))
    }

    /// Takes a frame, if it is there to its end.
    fn frame(&mut self) -> Result<Option<(usize, usize)>, Failure> {
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        let Some((length, rest)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > protobuf::LONGEST {
            return Err(Failure::Garbled(format!("an event of {length} bytes")));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let begin = self.taken + size_of::<u32>();
        self.taken = begin + length;
        Ok(Some((begin, self.taken)))
    }

    /// Reads on; whether there was anything.
    async fn more(&mut self) -> Result<bool, Failure> {
        loop {
            let frame = timeout(self.idle, self.body.frame()).await;
            let frame = frame.map_err(|_silent| Failure::Silent(self.idle))?;
            match frame {
                None => return Ok(false),
                Some(Err(error)) => return Err(Failure::Lost(causes(&error))),
                Some(Ok(frame)) => {
                    // Anything else is trailers.
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                        return Ok(true);
                    }
                }
            }
        }
    }
}
