//! Requests and answers over HTTP, through a proxy where the environment names one.

use std::io::Cursor;
use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

use super::ArmError;

/// Bytes. An answer that is longer is none of ARM's.
const LONGEST: usize = 64 << 20;
const CONNECT: Duration = Duration::from_secs(10);

pub(super) type Body = Full<Cursor<Vec<u8>>>;

/// A body of these bytes.
pub(super) fn body(bytes: Vec<u8>) -> Body {
    Full::new(Cursor::new(bytes))
}

/// An answer, whole.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// A header's text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// How long it asks to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        retry_after(self.header(RETRY_AFTER.as_str())?, SystemTime::now())
    }
}

/// Makes requests.
pub(super) struct Http {
    direct: Client<HttpsConnector<HttpConnector>, Body>,
    proxies: Matcher,
}

impl Http {
    pub(super) fn new() -> Result<Self, ArmError> {
        Ok(Self {
            direct: Client::builder(TokioExecutor::new()).build(secured(tcp())?),
            proxies: Matcher::from_env(),
        })
    }

    /// Sends a request and reads the whole answer. `proxied`: through a proxy, if there is one for its host.
    pub(super) async fn send(
        &self,
        request: Request<Body>,
        patience: Duration,
        proxied: bool,
    ) -> Result<Answer, String> {
        let exchange = async {
            let proxy = proxied.then(|| self.proxy(request.uri())).flatten();
            let response = match proxy {
                None => self.direct.request(request).await,
                Some(connector) => {
                    let client = Client::builder(TokioExecutor::new()).build::<_, Body>(connector);
                    client.request(request).await
                }
            };
            let (head, body) = response.map_err(|error| causes(&error))?.into_parts();
            let body = Limited::new(body, LONGEST).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            Ok(Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body: body.to_vec(),
            })
        };
        let late = |_| format!("nothing within {} s", patience.as_secs_f32());
        timeout(patience, exchange).await.map_err(late)?
    }

    /// The way to a host through its proxy; what is not encrypted goes there directly.
    fn proxy(&self, uri: &Uri) -> Option<HttpsConnector<Tunnel<HttpConnector>>> {
        if uri.scheme_str() != Some("https") {
            return None;
        }
        let proxy = self.proxies.intercept(uri)?;
        let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp());
        if let Some(who) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(who.clone());
        }
        secured(tunnel).ok()
    }
}

fn secured<C>(connector: C) -> Result<HttpsConnector<C>, ArmError> {
    let builder = HttpsConnectorBuilder::new().with_native_roots();
    let builder = builder.map_err(|error| ArmError::Tls(error.to_string()))?;
    Ok(builder
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(connector))
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp
}

/// Every cause, as the last one usually says what is wrong.
fn causes(error: &dyn std::error::Error) -> String {
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

/// Seconds, or a date as RFC 9110 writes it; a day at most.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    const LONGEST: u64 = 24 * 60 * 60;
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds.min(LONGEST)));
    }
    let at = date(text.trim())?;
    let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    Some(Duration::from_secs(at.saturating_sub(now).min(LONGEST)))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, in seconds since 1970.
fn date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut words = text.split_once(", ")?.1.split(' ');
    let day: u64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let year: u64 = words.next()?.parse().ok()?;
    let mut clock = words.next()?.split(':').map(str::parse::<u64>);
    let mut unit = || clock.next()?.ok();
    let (hours, minutes, seconds) = (unit()?, unit()?, unit()?);
    if words.next() != Some("GMT")
        || !(1970..10_000).contains(&year)
        || !(1..=31).contains(&day)
        || hours > 23
        || minutes > 59
        || seconds > 60
    {
        return None;
    }
    // Days since 1970-01-01 of the proleptic Gregorian calendar, counted in years that begin in March.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_come_again() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        assert_eq!(retry_after("7", now), Some(Duration::from_secs(7)));
        let day = Some(Duration::from_secs(86_400));
        assert_eq!(retry_after("18446744073709551615", now), day);
        assert_eq!(retry_after("Fri, 31 Dec 9999 23:59:59 GMT", now), day);
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now),
            Some(Duration::from_secs(7))
        );
        assert_eq!(
            retry_after("Thu, 01 Jan 1970 00:00:00 GMT", now),
            Some(Duration::ZERO)
        );
        assert_eq!(date("Thu, 29 Feb 2024 00:00:00 GMT"), Some(1_709_164_800));
        assert_eq!(date("Mon, 23 Nov 2026 12:00:00 GMT"), Some(1_795_435_200));
        for bad in [
            "",
            "soon",
            "Sun, 06 Now 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 18446744073709551615:49:37 GMT",
            "-1",
        ] {
            assert_eq!(retry_after(bad, now), None, "{bad}");
        }
    }
}
