//! What an API server sends: pages of lists, lines of watches, and what it says when it refuses.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize as Derive, Deserializer};
use serde_json::value::RawValue;

use crate::model::api::{ApiObject, ApiReader};

/// What a page says about its list.
#[derive(Debug, Default, Derive)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Page {
    pub(super) resource_version: String,
    /// Where the next page begins; empty at the end.
    #[serde(rename = "continue")]
    pub(super) next: String,
}

/// Reads a page of a list, and hands its objects over one by one.
pub(super) fn page<'t>(
    text: &'t [u8],
    reader: ApiReader,
    each: &mut dyn FnMut(ApiObject<'t>),
) -> Result<Page, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let page = deserializer.deserialize_map(List { reader, each })?;
    deserializer.end()?;
    Ok(page)
}

struct List<'t, 'e> {
    reader: ApiReader,
    each: &'e mut dyn FnMut(ApiObject<'t>),
}

impl<'t> Visitor<'t> for List<'t, '_> {
    type Value = Page;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<Page, A::Error> {
        let mut page = Page::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "metadata" => page = map.next_value()?,
                "items" => map.next_value_seed(Items {
                    reader: self.reader,
                    each: &mut *self.each,
                })?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(page)
    }
}

struct Items<'t, 'e> {
    reader: ApiReader,
    each: &'e mut dyn FnMut(ApiObject<'t>),
}

impl<'t> DeserializeSeed<'t> for Items<'t, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'t>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'t> Visitor<'t> for Items<'t, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("objects")
    }

    /// None at all is null where Go writes it.
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(object) = list.next_element_seed(self.reader)? {
            (self.each)(object);
        }
        Ok(())
    }
}

/// One line of a watch.
#[derive(Debug)]
pub(super) enum Line<'t> {
    /// Added or modified.
    Upsert(ApiObject<'t>),
    Delete(ApiObject<'t>),
    /// Nothing happened up to its resource version.
    Bookmark(ApiObject<'t>),
    Error(Status),
}

/// As Go writes it, so that an object need not be looked for before it is read.
const PREFIXES: [(&str, &str); 4] = [
    ("ADDED", "{\"type\":\"ADDED\",\"object\":"),
    ("MODIFIED", "{\"type\":\"MODIFIED\",\"object\":"),
    ("DELETED", "{\"type\":\"DELETED\",\"object\":"),
    ("BOOKMARK", "{\"type\":\"BOOKMARK\",\"object\":"),
];

#[derive(Derive)]
struct AnyLine<'t> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    object: &'t RawValue,
}

/// Reads a line of a watch.
pub(super) fn line(text: &[u8], reader: ApiReader) -> Result<Line<'_>, serde_json::Error> {
    let text = std::str::from_utf8(text).map_err(Error::custom)?.trim_end();
    let found = PREFIXES.iter().find_map(|(kind, prefix)| {
        let object = text.strip_prefix(prefix)?.strip_suffix('}')?;
        Some((*kind, object))
    });
    if let Some((kind, object)) = found {
        return of_type(kind, object, reader);
    }
    let line: AnyLine<'_> = serde_json::from_str(text)?;
    of_type(&line.kind, line.object.get(), reader)
}

fn of_type<'t>(kind: &str, object: &'t str, reader: ApiReader) -> Result<Line<'t>, serde_json::Error> {
    let read = || {
        let mut deserializer = serde_json::Deserializer::from_str(object);
        let object = reader.deserialize(&mut deserializer)?;
        deserializer.end().map(|()| object)
    };
    Ok(match kind {
        "ADDED" | "MODIFIED" => Line::Upsert(read()?),
        "DELETED" => Line::Delete(read()?),
        "BOOKMARK" => Line::Bookmark(read()?),
        "ERROR" => Line::Error(serde_json::from_str(object)?),
        other => return Err(Error::custom(format!("a watch does not say {other:?}"))),
    })
}

/// `Status` of Kubernetes' API: why not.
#[derive(Debug, Default, Clone, PartialEq, Eq, Derive)]
#[serde(default)]
pub(super) struct Status {
    pub(super) message: String,
    pub(super) reason: String,
    pub(super) code: u16,
    pub(super) details: Option<Details>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Derive)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Details {
    retry_after_seconds: u64,
    #[serde(deserialize_with = "or_none")]
    causes: Vec<Cause>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Derive)]
#[serde(default)]
struct Cause {
    reason: String,
}

fn or_none<'t, D: Deserializer<'t>>(deserializer: D) -> Result<Vec<Cause>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Status {
    /// What was asked for is no longer, or not yet, known to the server that answered: list again.
    pub(super) fn is_expired(&self) -> bool {
        let too_new = |details: &Details| {
            let mut causes = details.causes.iter();
            causes.any(|cause| cause.reason == "ResourceVersionTooLarge")
        };
        self.code == 410
            || self.reason == "Expired"
            || self.reason == "Gone"
            || self.details.as_ref().is_some_and(too_new)
    }

    /// The header says it, too.
    pub(super) fn or_retry_after(mut self, seconds: Option<u64>) -> Self {
        let details = self.details.get_or_insert_default();
        if details.retry_after_seconds == 0 {
            details.retry_after_seconds = seconds.unwrap_or_default();
        }
        self
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        let seconds = self.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    const READER: fn() -> ApiReader = || ApiReader::new(Some(Kind::Pod));

    #[test]
    fn pages_hand_over_their_objects() {
        let text =
            br#"{"kind":"PodList","items":[{"metadata":{"name":"a","namespace":"x","managedFields":[1,[2]]}},
            {"metadata":{"name":"b"}}],"metadata":{"resourceVersion":"7","continue":"more"}}"#;
        let mut names = Vec::new();
        let found = page(text, READER(), &mut |object| names.push(object.name().to_owned())).unwrap();
        assert_eq!(
            (names, found.resource_version.as_str(), found.next.as_str()),
            (vec!["a".to_owned(), "b".to_owned()], "7", "more")
        );
        let empty = page(
            br#"{"items":null,"metadata":{"resourceVersion":"1"}}"#,
            READER(),
            &mut |_| panic!("an object"),
        );
        assert_eq!(empty.unwrap().next, "");
        assert!(page(br#"{"items":[{"metadata":{"na"#, READER(), &mut |_| ()).is_err());
        assert!(page(b"<html>", READER(), &mut |_| ()).is_err());
    }

    #[test]
    fn lines_are_read_in_any_order() {
        for text in [
            r#"{"type":"DELETED","object":{"metadata":{"name":"a","resourceVersion":"9"}}}"#,
            r#"{ "object": {"metadata":{"name":"a","resourceVersion":"9"}}, "type": "DELETED" }"#,
        ] {
            let Line::Delete(object) = line(text.as_bytes(), READER()).unwrap() else {
                panic!("{text}")
            };
            assert_eq!((object.name(), object.resource_version()), ("a", "9"));
        }
        let gone = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}"#;
        let Line::Error(status) = line(gone.as_bytes(), READER()).unwrap() else {
            panic!("no error")
        };
        assert!(status.is_expired());
        for bad in [
            "",
            "{",
            r#"{"type":"ADDED","object":{"metadata":"#,
            r#"{"type":"NEWS","object":{}}"#,
        ] {
            assert!(line(bad.as_bytes(), READER()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_version_from_the_future_is_as_good_as_expired() {
        let text = r#"{"code":504,"reason":"Timeout","details":{"retryAfterSeconds":1,
            "causes":[{"reason":"ResourceVersionTooLarge"}]}}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert!(status.is_expired());
        assert_eq!(status.retry_after(), Some(Duration::from_secs(1)));
        let busy: Status = serde_json::from_str(r#"{"code":429,"details":{"causes":null}}"#).unwrap();
        assert!(!busy.is_expired());
    }
}
