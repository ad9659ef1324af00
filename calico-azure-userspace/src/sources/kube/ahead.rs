//! Reads the objects of a first list on a thread of its own, while the next ones come in: most of the work of a start is that, and it needs
//! nothing of what is known. What was read is entered, in its order, by the thread that everything else is on. Only `follow` uses this.

use std::hash::RandomState;
use std::io;
use std::sync::mpsc;
use std::thread;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::protobuf::{self, Schema};
use super::table::id;
use super::wire::{Line, Status};
use crate::model::Kind;
use crate::model::api::{ApiObject, ApiReader, Said};

/// Bytes that make it worth waking the other thread.
const BATCH: usize = 64 << 10;
/// Batches that may be under way: what they hold is held twice.
const UNDER_WAY: usize = 8;

/// How objects of a kind are read.
#[derive(Clone)]
pub(super) struct Reading {
    pub(super) kind: Kind,
    pub(super) api_version: String,
    pub(super) hashing: RandomState,
}

/// An object, and all that its table has to know.
pub(super) struct Read {
    pub(super) id: Box<str>,
    pub(super) fingerprint: u64,
    pub(super) said: Said,
}

impl Reading {
    pub(super) fn read(&self, object: ApiObject<'_>) -> Read {
        Read {
            id: id(object.namespace(), object.name()),
            fingerprint: object.fingerprint(&self.hashing),
            said: object.read(&self.api_version, self.kind),
        }
    }
}

/// What was in an event of a watch; with versions.
#[expect(clippy::large_enum_variant, reason = "nearly all are objects")]
pub(super) enum Event {
    Upsert(Read, String),
    Delete(Box<str>, String),
    /// Whether it ends the initial events.
    Bookmark(bool, String),
    Error(Status),
    Garbled(String),
}

/// Events of Protobuf, one behind the other.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// The other thread. It ends with the value.
pub(super) struct Ahead {
    next: Batch,
    batches: mpsc::Sender<Batch>,
    events: UnboundedReceiver<Vec<Event>>,
    under_way: usize,
}

impl Ahead {
    pub(super) fn start(reading: Reading, how: (ApiReader, Schema)) -> io::Result<Self> {
        let (batches, to_read) = mpsc::channel::<Batch>();
        let (sender, events) = unbounded_channel();
        let run = move || {
            while let Ok(batch) = to_read.recv() {
                if sender.send(batch.read(&reading, how)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("kube-ahead".into()).spawn(run)?;
        Ok(Self {
            next: Batch::default(),
            batches,
            events,
            under_way: 0,
        })
    }

    /// Takes an event to be read.
    pub(super) fn push(&mut self, event: &[u8]) {
        self.next.bytes.extend_from_slice(event);
        self.next.ends.push(self.next.bytes.len());
        if self.next.bytes.len() >= BATCH {
            self.flush();
        }
    }

    /// Nothing more comes for now.
    pub(super) fn flush(&mut self) {
        if self.has_some() && self.batches.send(std::mem::take(&mut self.next)).is_ok() {
            self.under_way += 1;
        }
    }

    pub(super) fn has_some(&self) -> bool {
        !self.next.ends.is_empty()
    }

    /// Whether something is still to come.
    pub(super) fn is_busy(&self) -> bool {
        self.under_way > 0 || self.has_some()
    }

    /// Whether what is read has to be taken first.
    pub(super) fn is_full(&self) -> bool {
        self.under_way >= UNDER_WAY
    }

    /// The next that were read, in their order. May be dropped before it is ready.
    pub(super) async fn next(&mut self) -> Vec<Event> {
        match self.events.recv().await {
            Some(events) => {
                self.under_way -= 1;
                events
            }
            // The thread lives as long as this does.
            None => std::future::pending().await,
        }
    }
}

impl Batch {
    fn read(&self, reading: &Reading, how: (ApiReader, Schema)) -> Vec<Event> {
        let mut begin = 0;
        let mut events = Vec::with_capacity(self.ends.len());
        for end in &self.ends {
            let bytes = self.bytes.get(begin..*end).unwrap_or_default();
            begin = *end;
            events.push(match protobuf::event(bytes, how) {
                Ok(Line::Upsert(object)) => {
                    let version = object.resource_version().to_owned();
                    Event::Upsert(reading.read(object), version)
                }
                Ok(Line::Delete(object)) => {
                    let version = object.resource_version().to_owned();
                    Event::Delete(id(object.namespace(), object.name()), version)
                }
                Ok(Line::Bookmark(object)) => {
                    let version = object.resource_version().to_owned();
                    Event::Bookmark(object.ends_initial_events(), version)
                }
                Ok(Line::Error(status)) => Event::Error(status),
                Err(garbled) => Event::Garbled(garbled.to_string()),
            });
        }
        events
    }
}
