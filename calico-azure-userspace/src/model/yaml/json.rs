//! JSON from a program, as the same tree: no places, and without what nobody reads.
//!
//! Most of what an API server says of a pod is of no use to policy. It is skipped while it is read, so that it is
//! neither copied nor kept.

use std::borrow::Cow;
use std::fmt;
use std::hash::Hasher;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Entry, Node, Place, Scalar, Value};

/// What of a value is kept: all of it where the value is not of the expected type.
#[derive(Clone, Copy, Debug)]
pub(in crate::model) enum Keep {
    All,
    /// Of a mapping all entries, but of these only that.
    AllBut(&'static [(&'static str, Keep)]),
    /// Of a mapping only these entries.
    Only(&'static [(&'static str, Keep)]),
    /// Of a list this of each item.
    Each(&'static Keep),
}

impl Keep {
    fn entry(self, key: &str) -> Option<Self> {
        let among = |entries: &[(&str, Self)]| {
            let mut known = entries.iter();
            known.find_map(|(known, keep)| (*known == key).then_some(*keep))
        };
        match self {
            Self::Only(entries) => among(entries),
            Self::AllBut(entries) => among(entries).or(Some(Self::All)),
            Self::All | Self::Each(_) => Some(Self::All),
        }
    }

    fn item(self) -> Self {
        match self {
            Self::Each(keep) => *keep,
            Self::All | Self::AllBut(_) | Self::Only(_) => Self::All,
        }
    }
}

impl<'t> DeserializeSeed<'t> for Keep {
    type Value = Node<'t>;

    fn deserialize<D: serde::Deserializer<'t>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let value = deserializer.deserialize_any(Reader(self))?;
        Ok(Node {
            value,
            place: Place::default(),
        })
    }
}

struct Reader(Keep);

fn plain<'t>(text: impl Into<Cow<'t, str>>) -> Value<'t> {
    Value::Scalar(Scalar {
        text: text.into(),
        plain: true,
    })
}

fn quoted<'t>(text: impl Into<Cow<'t, str>>) -> Value<'t> {
    Value::Scalar(Scalar {
        text: text.into(),
        plain: false,
    })
}

impl<'t> Visitor<'t> for Reader {
    type Value = Value<'t>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(plain("null"))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(plain(if value { "true" } else { "false" }))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(plain(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(plain(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        // With a point or an exponent, so that 1.0 does not become an integer.
        Ok(plain(format!("{value:?}")))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'t str) -> Result<Self::Value, E> {
        Ok(quoted(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(quoted(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(self.0.item())? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key_seed(Text)? {
            let Some(keep) = self.0.entry(&key) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            entries.push(Entry {
                key,
                key_place: Place::default(),
                node: map.next_value_seed(keep)?,
                merged: false,
            });
        }
        Ok(Value::Map(entries))
    }
}

/// A string, borrowed where it is written as it is.
struct Text;

impl<'t> DeserializeSeed<'t> for Text {
    type Value = Cow<'t, str>;

    fn deserialize<D: serde::Deserializer<'t>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'t> Visitor<'t> for Text {
    type Value = Cow<'t, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'t str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

impl<'t> Entry<'t> {
    pub(in crate::model) fn string(key: &'static str, value: impl Into<Cow<'t, str>>) -> Self {
        Self {
            key: Cow::Borrowed(key),
            key_place: Place::default(),
            node: Node {
                value: quoted(value),
                place: Place::default(),
            },
            merged: false,
        }
    }
}

impl Node<'_> {
    /// Feeds everything that is here to a hasher, but for entries of this name.
    pub(in crate::model) fn hash_without(&self, skipped: &str, hasher: &mut impl Hasher) {
        match &self.value {
            Value::Scalar(Scalar { text, plain }) => {
                hasher.write_u8(u8::from(*plain));
                hasher.write(text.as_bytes());
            }
            Value::List(items) => {
                hasher.write_u8(2);
                items.iter().for_each(|item| item.hash_without(skipped, hasher));
            }
            Value::Map(entries) => {
                hasher.write_u8(3);
                for entry in entries.iter().filter(|entry| entry.key != skipped) {
                    hasher.write(entry.key.as_bytes());
                    hasher.write_u8(4);
                    entry.node.hash_without(skipped, hasher);
                }
            }
        }
        // Ends strings, lists and mappings: no UTF-8 has it.
        hasher.write_u8(0xff);
    }
}
