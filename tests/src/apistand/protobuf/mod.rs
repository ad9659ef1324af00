//! Objects as an API server writes them in Protobuf, from their JSON. The numbers are written down here a second time, so that what
//! the product reads is not measured by its own tables.

mod rows;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

use self::rows::To::{Bool, Integer, Message, Port, Quantities, Text, Texts, Time, Wrapped};
use self::rows::{Row, To, rows};

/// Whether such a kind is served in Protobuf.
pub(super) fn serves((_, kind): (&str, &str)) -> bool {
    rows(kind).is_some()
}

/// The object's message, without what an answer has around it; `None` for kinds that are served in JSON only.
///
/// # Panics
/// If the object has a field that nobody wrote down here, or one that no API server would let it have.
pub(super) fn object(object: &Value) -> Option<Vec<u8>> {
    let kind = object["kind"].as_str().unwrap_or_default();
    Some(message(object, rows(kind)?))
}

fn message(value: &Value, rows: &'static [Row]) -> Vec<u8> {
    let empty = Map::new();
    let entries = value.as_object().unwrap_or(&empty);
    let mut bytes = Vec::new();
    let mut known = vec!["apiVersion", "kind"];
    for (name, number, to) in rows {
        match to {
            Message(inner) if name.is_empty() => {
                let of_inner = |key: &str| names(inner).any(|name| name == key);
                let own: Map<String, Value> = entries
                    .clone()
                    .into_iter()
                    .filter(|(key, _)| of_inner(key))
                    .collect();
                known.extend(names(inner));
                if !own.is_empty() {
                    put(&mut bytes, *number, &message(&Value::Object(own), inner));
                }
            }
            to => {
                known.push(name);
                for item in items(entries.get(*name)) {
                    field(&mut bytes, *number, *to, item);
                }
            }
        }
    }
    if let Some(key) = entries.keys().find(|key| !known.contains(&key.as_str())) {
        panic!("the stand-in has no number for {key:?} of {value}");
    }
    bytes
}

fn names(rows: &'static [Row]) -> impl Iterator<Item = &'static str> {
    rows.iter()
        .map(|(name, ..)| *name)
        .filter(|name| !name.is_empty())
}

fn items(value: Option<&Value>) -> &[Value] {
    match value {
        None | Some(Value::Null) => &[],
        Some(Value::Array(items)) => items,
        Some(value) => std::slice::from_ref(value),
    }
}

fn field(bytes: &mut Vec<u8>, number: u64, to: To, value: &Value) {
    let text = || value.as_str().unwrap_or_else(|| panic!("text expected: {value}"));
    let integer = |value: &Value| {
        value
            .as_i64()
            .unwrap_or_else(|| panic!("a number expected: {value}"))
    };
    match to {
        Text => put(bytes, number, text().as_bytes()),
        Bool => put_number(
            bytes,
            number,
            u64::from(value.as_bool().unwrap_or_else(|| panic!("{value}"))),
        ),
        Integer => put_number(bytes, number, integer(value).cast_unsigned()),
        Time => {
            let time: Timestamp = text().parse().unwrap_or_else(|error| panic!("{value}: {error}"));
            let mut inner = Vec::new();
            put_number(&mut inner, 1, time.as_second().cast_unsigned());
            put_number(&mut inner, 2, 0);
            put(bytes, number, &inner);
        }
        Wrapped => {
            let mut inner = Vec::new();
            put(
                &mut inner,
                1,
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned)
                    .as_bytes(),
            );
            put(bytes, number, &inner);
        }
        Port => {
            let mut inner = Vec::new();
            put_number(&mut inner, 1, u64::from(value.is_string()));
            put_number(&mut inner, 2, value.as_u64().unwrap_or_default());
            put(&mut inner, 3, value.as_str().unwrap_or_default().as_bytes());
            put(bytes, number, &inner);
        }
        Texts | Quantities => {
            let inner = if matches!(to, Texts) { Text } else { Wrapped };
            for (key, value) in value.as_object().into_iter().flatten() {
                let mut pair = Vec::new();
                put(&mut pair, 1, key.as_bytes());
                field(&mut pair, 2, inner, value);
                put(bytes, number, &pair);
            }
        }
        Message(rows) => put(bytes, number, &message(value, rows)),
    }
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            return bytes.push(low & 0x7f);
        }
        bytes.push(low | 0x80);
    }
}

fn put_number(bytes: &mut Vec<u8>, number: u64, value: u64) {
    varint(bytes, number << 3);
    varint(bytes, value);
}

fn put(bytes: &mut Vec<u8>, number: u64, content: &[u8]) {
    varint(bytes, number << 3 | 2);
    varint(bytes, content.len() as u64);
    bytes.extend_from_slice(content);
}

/// What an answer is: four bytes, and what says what follows.
pub(super) fn answer((api_version, kind): (&str, &str), message: &[u8]) -> Vec<u8> {
    let mut of = Vec::new();
    put(&mut of, 1, api_version.as_bytes());
    put(&mut of, 2, kind.as_bytes());
    let mut bytes = b"k8s\0".to_vec();
    put(&mut bytes, 1, &of);
    put(&mut bytes, 2, message);
    put(&mut bytes, 3, b"");
    put(&mut bytes, 4, b"");
    bytes
}

/// A page of a list, of objects' messages.
pub(super) fn page<'m>(
    (api_version, kind): (&str, &str),
    version: u64,
    next: &str,
    items: impl Iterator<Item = &'m [u8]>,
) -> Vec<u8> {
    let mut metadata = Vec::new();
    put(&mut metadata, 1, b"");
    put(&mut metadata, 2, version.to_string().as_bytes());
    put(&mut metadata, 3, next.as_bytes());
    let mut list = Vec::new();
    put(&mut list, 1, &metadata);
    items.for_each(|item| put(&mut list, 2, item));
    answer((api_version, &format!("{kind}List")), &list)
}

/// An event of a watch about what an answer would say, with its length before it.
pub(super) fn event(said: &str, answer: &[u8]) -> Vec<u8> {
    let mut raw = Vec::new();
    put(&mut raw, 1, answer);
    let mut event = Vec::new();
    put(&mut event, 1, said.as_bytes());
    put(&mut event, 2, &raw);
    let mut bytes = u32::try_from(event.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes()
        .to_vec();
    bytes.append(&mut event);
    bytes
}

/// `Status`, from its JSON.
pub(super) fn status(status: &Value) -> Vec<u8> {
    const STATUS: &[Row] = &[
        ("metadata", 1, Message(&[])),
        ("status", 2, Text),
        ("message", 3, Text),
        ("reason", 4, Text),
        ("code", 6, Integer),
    ];
    answer(("v1", "Status"), &message(status, STATUS))
}
