//! One resource, listed and then watched, for as long as anybody wants to know.
//!
//! Not kube-runtime's watcher: that keeps what it reads as typed objects, and does not tell of bookmarks, which are the only
//! proof that a quiet watch is alive.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::Timing;
use super::backoff::{Backoff, between};
use super::client::{Api, Failure, Sent};
use super::protobuf::{self, Schema};
use super::wire::{self, Line, Page};
use crate::model::api::{ApiObject, ApiReader};

/// Objects in a page of a list.
const PAGE: usize = 500;
/// A watch that ends sooner is no good.
const SHORTEST: Duration = Duration::from_secs(1);
/// Refusals of a version in a row after which it is not the version that is wrong.
const PATIENCE: u32 = 3;

/// Who is told.
pub(super) trait Sink {
    /// A list begins, from the start.
    fn begin(&mut self);
    fn upsert(&mut self, object: ApiObject<'_>);
    fn delete(&mut self, object: &ApiObject<'_>);
    /// The list is complete: what it left out is gone.
    fn end(&mut self);
    /// Something came that may be a bookmark.
    fn heard(&mut self);
    /// A list is wanted although nothing is wrong with the watch.
    fn wants_list(&self) -> bool {
        false
    }
    fn failed(&mut self, path: &str, failure: &Failure, times: u32);
    fn succeeded(&mut self);
}

/// What is followed.
pub(super) struct Target {
    /// Like `/api/v1/pods`.
    pub(super) path: String,
    /// Like `fieldSelector=…`, or empty.
    pub(super) selector: &'static str,
    pub(super) reader: ApiReader,
    pub(super) accept: Accept,
    /// What is read of answers in Protobuf, if any are accepted.
    pub(super) fields: Option<Schema>,
}

/// How answers are to be written.
pub(super) struct Accept {
    pub(super) list: &'static str,
    pub(super) watch: &'static str,
}

pub(super) const WHOLE: Accept = Accept {
    list: "application/json",
    watch: "application/json",
};
/// Shorter, where the server can: each can for Kubernetes' own kinds.
pub(super) const SHORT: Accept = Accept {
    list: "application/vnd.kubernetes.protobuf,application/json",
    watch: "application/vnd.kubernetes.protobuf,application/json",
};
/// Names and labels only, where the server can; else everything.
pub(super) const METADATA: Accept = Accept {
    list: "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
    watch: "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
};

/// Why a request is over.
enum End {
    /// The watch reached its end in peace.
    Quiet,
    /// What we know is too old, or wanted anew.
    Expired,
    /// This server tells nobody what there is by watch.
    NoStream,
    Failed(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        if failure.is_expired() {
            Self::Expired
        } else {
            Self::Failed(failure)
        }
    }
}

pub(super) struct Follower<S> {
    api: Api,
    timing: Timing,
    target: Target,
    sink: S,
    /// Up to which everything is known; `None`: list first.
    version: Option<String>,
    /// The server tells what there is as the beginning of a watch.
    streams: bool,
    backoff: Backoff,
    /// Times in a row that a list was out of date as soon as it was there.
    expired: u32,
}

impl<S: Sink> Follower<S> {
    pub(super) fn new(api: Api, timing: Timing, target: Target, sink: S) -> Self {
        Self {
            api,
            timing,
            target,
            sink,
            version: None,
            streams: true,
            backoff: Backoff::new(timing.first_retry, timing.last_retry),
            expired: 0,
        }
    }

    /// Never ends of its own accord.
    pub(super) async fn run(mut self) {
        loop {
            let begun = Instant::now();
            let end = match self.version.clone() {
                Some(version) => self.watch(Some(&version)).await,
                None if self.streams => self.watch(None).await,
                None => self.list().await,
            };
            match end {
                Ok(()) => {}
                Err(End::Quiet) if begun.elapsed() >= SHORTEST => self.all_is_well(),
                Err(End::Quiet) => sleep(self.backoff.next(None)).await,
                Err(End::NoStream) => self.streams = false,
                Err(End::Expired) => {
                    self.version = None;
                    self.expired += 1;
                    if self.expired > 1 {
                        sleep(self.backoff.next(None)).await;
                    }
                }
                Err(End::Failed(failure)) => {
                    let wait = self.backoff.next(failure.retry_after());
                    self.sink
                        .failed(&self.target.path, &failure, self.backoff.failures());
                    let refused = failure.code().is_some_and(|code| matches!(code, 400 | 404 | 422));
                    if refused && self.backoff.failures() >= PATIENCE {
                        self.version = None;
                    }
                    sleep(wait).await;
                }
            }
        }
    }

    fn url(&self, query: &str) -> String {
        let Target { path, selector, .. } = &self.target;
        let and = if selector.is_empty() { "" } else { "&" };
        format!("{path}?{selector}{and}{query}")
    }

    /// Reads the whole list, page by page.
    async fn list(&mut self) -> Result<(), End> {
        self.sink.begin();
        let mut next = String::new();
        loop {
            let mut query = format!("limit={PAGE}");
            if !next.is_empty() {
                query.push_str("&continue=");
                query.extend(form_encoded(&next));
            }
            let body = self.api.get(&self.url(&query), self.target.accept.list).await?;
            let sink = &mut self.sink;
            let page = self.target.page(&body, &mut |object| sink.upsert(object))?;
            self.sink.heard();
            if page.next.is_empty() {
                self.listed(page.resource_version);
                return Ok(());
            }
            next = page.next;
        }
    }

    fn listed(&mut self, version: String) {
        self.sink.end();
        self.sink.succeeded();
        self.backoff.reset();
        self.version = Some(version);
    }

    /// Reads changes, and before them, if no version is known, what there is.
    async fn watch(&mut self, version: Option<&str>) -> Result<(), End> {
        let mut listing = version.is_none();
        let limit = between(self.timing.watch_least, self.timing.watch_most)
            .as_secs()
            .max(1);
        let mut query = format!("watch=true&allowWatchBookmarks=true&timeoutSeconds={limit}");
        match version {
            Some(version) => {
                query.push_str("&resourceVersion=");
                query.extend(form_encoded(version));
            }
            None => query.push_str("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"),
        }
        let opened = self.api.events(&self.url(&query), self.target.accept.watch).await;
        let mut events = match opened {
            // Servers before 1.27, and those that have it turned off, say that the field is forbidden.
            Err(failure) if listing && matches!(failure.code(), Some(400 | 422)) => {
                return Err(End::NoStream);
            }
            opened => opened?,
        };
        if listing {
            self.sink.begin();
        } else {
            // Nothing may happen for long.
            self.sink.succeeded();
        }
        loop {
            let event = match events.next().await {
                // A server that takes the request for an ordinary watch may have nothing to say.
                Err(Failure::Silent(_)) if listing => return Err(End::NoStream),
                // Not every server sends bookmarks of what never changes. A new watch shows whether it lives.
                Err(Failure::Silent(_)) => return Err(End::Quiet),
                Err(Failure::Lost(_)) if listing && self.backoff.failures() > 0 => {
                    return Err(End::NoStream);
                }
                event => event?,
            };
            let Some(event) = event else {
                return Err(if listing { End::NoStream } else { End::Quiet });
            };
            match self.target.line(event)? {
                Line::Upsert(object) => {
                    self.note(listing, object.resource_version());
                    self.sink.upsert(object);
                }
                Line::Delete(object) => {
                    self.note(listing, object.resource_version());
                    self.sink.delete(&object);
                }
                Line::Bookmark(object) if listing => {
                    if !object.ends_initial_events() {
                        return Err(End::NoStream);
                    }
                    listing = false;
                    self.listed(object.resource_version().to_owned());
                }
                Line::Bookmark(object) => self.note(listing, object.resource_version()),
                Line::Error(status) => {
                    let failure = Failure::Refused(status);
                    let code = failure.code().unwrap_or_default();
                    // The version may be what is wrong.
                    let is_passing = matches!(code, 401 | 403 | 429 | 500..);
                    return Err(if is_passing {
                        End::from(failure)
                    } else {
                        End::Expired
                    });
                }
            }
            self.sink.heard();
            if !listing && self.sink.wants_list() {
                return Err(End::Expired);
            }
        }
    }

    /// All is known up to here.
    fn note(&mut self, listing: bool, version: &str) {
        if listing || version.is_empty() {
            return;
        }
        version.clone_into(self.version.get_or_insert_default());
        self.all_is_well();
    }

    fn all_is_well(&mut self) {
        self.backoff.reset();
        self.expired = 0;
    }
}

impl Target {
    fn page<'t>(&self, body: &'t [u8], each: &mut dyn FnMut(ApiObject<'t>)) -> Result<Page, End> {
        match self.fields {
            Some(fields) if protobuf::is(body) => {
                protobuf::page(body, (self.reader, fields), each).map_err(garbled)
            }
            _ => wire::page(body, self.reader, each).map_err(garbled),
        }
    }

    fn line<'t>(&self, event: Sent<'t>) -> Result<Line<'t>, End> {
        match (event, self.fields) {
            (Sent::Line(line), _) => wire::line(line, self.reader).map_err(garbled),
            (Sent::Frame(frame), Some(fields)) => {
                protobuf::event(frame, (self.reader, fields)).map_err(garbled)
            }
            (Sent::Frame(_), None) => Err(garbled("Protobuf was not asked for")),
        }
    }
}

fn garbled(error: impl ToString) -> End {
    End::Failed(Failure::Garbled(error.to_string()))
}

/// Tokens of lists are base64.
fn form_encoded(text: &str) -> impl Iterator<Item = char> {
    const HEX: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    text.bytes().flat_map(|byte| {
        let hex = |digit: u8| HEX.get(usize::from(digit)).copied().unwrap_or('0');
        let is_plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let written = if is_plain {
            [Some(char::from(byte)), None, None]
        } else {
            [Some('%'), Some(hex(byte >> 4)), Some(hex(byte & 15))]
        };
        written.into_iter().flatten()
    })
}
