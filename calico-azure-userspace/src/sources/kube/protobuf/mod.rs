//! Answers in Protobuf: shorter than JSON, and what nobody reads is skipped without being looked at. Only `follow` and `client` use this.
//!
//! Kubernetes' own kinds can be had so. An answer is four bytes, `k8s\0`, and a `runtime.Unknown` that holds the message; a watch is
//! a row of `WatchEvent`, each after its length in four bytes, with such an answer as its object
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding>).

mod fields;
mod message;
mod schema;
#[cfg(test)]
mod tests;

use serde::de::{Deserialize as _, DeserializeSeed as _};

use self::fields::{Fields, Raw, unexpected};
use self::message::{Field, Message};
use super::wire::{Line, Page, Status};
use crate::model::api::{ApiObject, ApiReader};

pub(super) use fields::Garbled;
pub(super) use schema::of as schema_of;

/// What is read of a kind.
pub(super) type Schema = &'static [Field];

/// What such answers say they are.
pub(super) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// No event is longer: etcd holds objects of 1.5 MB, and a frame with a wrong length must not be waited for.
pub(super) const LONGEST: usize = 64 << 20;

const MAGIC: &[u8] = b"k8s\0";

/// Whether this is such an answer.
pub(super) fn is(answer: &[u8]) -> bool {
    answer.starts_with(MAGIC)
}

/// The kind and the message in an answer.
fn opened(answer: &[u8]) -> Result<(&str, &[u8]), Garbled> {
    let unknown = answer.strip_prefix(MAGIC).map(Fields);
    let unknown = unknown.ok_or_else(|| Garbled::new("this is not Kubernetes' Protobuf"))?;
    let encoding = unknown.text(3)?;
    if !encoding.is_empty() {
        return Err(Garbled::new(format!(
            "the encoding {encoding:?} was not asked for"
        )));
    }
    let kind = Fields(unknown.bytes(1)?).text(2)?;
    Ok((kind, unknown.bytes(2)?))
}

/// Reads a page of a list, and hands its objects over one by one.
pub(super) fn page<'t>(
    answer: &'t [u8],
    (reader, fields): (ApiReader, Schema),
    each: &mut dyn FnMut(ApiObject<'t>),
) -> Result<Page, Garbled> {
    const ITEMS: u32 = 2;
    let (kind, list) = opened(answer)?;
    // What is no list, or half read, must not look like one without objects: those that it lacks are gone.
    if !kind.ends_with("List") {
        return Err(Garbled::new(format!("{kind:?} where a list should be")));
    }
    let metadata = Message {
        bytes: Fields(list).bytes(1)?,
        fields: schema::PAGE,
    };
    let page = Page::deserialize(metadata)?;
    for field in Fields(list) {
        match field? {
            (ITEMS, Raw::Bytes(bytes)) => each(reader.deserialize(Message { bytes, fields })?),
            (ITEMS, raw) => return Err(unexpected(raw, "an object")),
            _ => {}
        }
    }
    Ok(page)
}

/// Reads an event of a watch.
pub(super) fn event(event: &[u8], (reader, fields): (ApiReader, Schema)) -> Result<Line<'_>, Garbled> {
    let event = Fields(event);
    let said = event.text(1)?;
    let answer = Fields(event.bytes(2)?).bytes(1)?;
    if said == "ERROR" {
        return status(answer).map(Line::Error);
    }
    let (_kind, bytes) = opened(answer)?;
    let object = reader.deserialize(Message { bytes, fields })?;
    Ok(match said {
        "ADDED" | "MODIFIED" => Line::Upsert(object),
        "DELETED" => Line::Delete(object),
        "BOOKMARK" => Line::Bookmark(object),
        other => return Err(Garbled::new(format!("a watch does not say {other:?}"))),
    })
}

/// Reads a refusal.
pub(super) fn status(answer: &[u8]) -> Result<Status, Garbled> {
    let (kind, bytes) = opened(answer)?;
    if kind != "Status" {
        return Err(Garbled::new(format!("{kind:?} where a Status should be")));
    }
    let fields = schema::STATUS;
    Status::deserialize(Message { bytes, fields })
}
