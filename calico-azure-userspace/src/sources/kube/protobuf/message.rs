//! Protobuf as serde reads it, by tables of the fields that somebody reads. Whatever has no place in them is skipped over by its length.
//! Only its siblings use this.
//!
//! API servers write every field that is no pointer in Go, also when it is empty; what is empty is left out here, as it is in their JSON.

use k8s_openapi::jiff::Timestamp;
use serde::de::value::{BorrowedStrDeserializer, StringDeserializer};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::fields::{Fields, Garbled, Raw, unexpected, utf8};

/// A field that somebody reads.
#[derive(Debug)]
pub(in super::super) struct Field {
    number: u32,
    /// In JSON.
    name: &'static str,
    shape: Shape,
    repeated: bool,
}

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Shape {
    Text,
    Bool,
    Integer,
    /// `meta.v1.Time`: seconds and nanoseconds.
    Time,
    /// Text by text.
    Map,
    Message(&'static [Field]),
}

impl Field {
    pub(super) const fn one(number: u32, name: &'static str, shape: Shape) -> Self {
        Self {
            number,
            name,
            shape,
            repeated: false,
        }
    }

    pub(super) const fn each(number: u32, name: &'static str, shape: Shape) -> Self {
        Self {
            number,
            name,
            shape,
            repeated: true,
        }
    }
}

/// A message, of which these fields are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'t> {
    pub(super) bytes: &'t [u8],
    pub(super) fields: &'static [Field],
}

/// No table has more fields (a test counts them).
pub(super) const MOST: usize = 8;

impl<'t> Deserializer<'t> for Message<'t> {
    type Error = Garbled;

    fn deserialize_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Garbled> {
        visitor.visit_map(Entries::of(self)?)
    }

    forward_to_deserialize_any! {
        <V: Visitor<'t>>
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

/// A message's fields, in the order of its table.
struct Entries<'t> {
    fields: &'static [Field],
    found: [Found<'t>; MOST],
    next: usize,
    value: Option<(&'static Field, Raw<'t>, Occurrences<'t>)>,
}

/// Where a field is in a message.
#[derive(Clone, Copy)]
struct Found<'t> {
    /// The last value, as Protobuf has it where it says that there is but one.
    last: Option<Raw<'t>>,
    /// The message from the first value on.
    from: Fields<'t>,
}

impl<'t> Entries<'t> {
    /// Looks at each field of the message once.
    fn of(message: Message<'t>) -> Result<Self, Garbled> {
        let nowhere = Found {
            last: None,
            from: Fields(&[]),
        };
        let mut found = [nowhere; MOST];
        let mut rest = Fields(message.bytes);
        loop {
            let from = rest;
            let Some(field) = rest.next() else { break };
            let (number, raw) = field?;
            let places = message.fields.iter().zip(&mut found);
            let mut places = places.filter(|(field, _)| field.number == number);
            if let Some((_, place)) = places.next() {
                if place.last.is_none() {
                    place.from = from;
                }
                place.last = Some(raw);
            }
        }
        Ok(Self {
            fields: message.fields,
            found,
            next: 0,
            value: None,
        })
    }
}

impl<'t> MapAccess<'t> for Entries<'t> {
    type Error = Garbled;

    fn next_key_seed<K: DeserializeSeed<'t>>(&mut self, seed: K) -> Result<Option<K::Value>, Garbled> {
        while let (Some(field), Some(found)) = (self.fields.get(self.next), self.found.get(self.next)) {
            self.next += 1;
            let Some(raw) = found.last else {
                continue;
            };
            let is_empty = match (field.shape, raw) {
                (Shape::Text, Raw::Bytes(bytes)) => bytes.is_empty() && !field.repeated,
                (Shape::Bool | Shape::Integer, Raw::Number(number)) => number == 0,
                _ => false,
            };
            if !is_empty {
                let occurrences = Occurrences {
                    number: field.number,
                    shape: field.shape,
                    rest: found.from,
                };
                self.value = Some((field, raw, occurrences));
                return seed
                    .deserialize(BorrowedStrDeserializer::new(field.name))
                    .map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'t>>(&mut self, seed: V) -> Result<V::Value, Garbled> {
        let (field, raw, occurrences) = self
            .value
            .take()
            .ok_or_else(|| Garbled::new("a value without a key"))?;
        let value = match field.shape {
            Shape::Map => Content::Map(occurrences),
            _ if field.repeated => Content::List(occurrences),
            shape => Content::One(shape, raw),
        };
        seed.deserialize(value)
    }
}

/// Each value of a field.
struct Occurrences<'t> {
    number: u32,
    shape: Shape,
    rest: Fields<'t>,
}

impl<'t> Occurrences<'t> {
    fn find(&mut self) -> Result<Option<Raw<'t>>, Garbled> {
        for field in &mut self.rest {
            let (number, raw) = field?;
            if number == self.number {
                return Ok(Some(raw));
            }
        }
        Ok(None)
    }
}

impl<'t> SeqAccess<'t> for Occurrences<'t> {
    type Error = Garbled;

    fn next_element_seed<S: DeserializeSeed<'t>>(&mut self, seed: S) -> Result<Option<S::Value>, Garbled> {
        let shape = self.shape;
        self.find()?
            .map(|raw| seed.deserialize(Content::One(shape, raw)))
            .transpose()
    }
}

/// A map's entries: messages of a key and a value.
struct Pairs<'t> {
    entries: Occurrences<'t>,
    value: &'t str,
}

impl<'t> MapAccess<'t> for Pairs<'t> {
    type Error = Garbled;

    fn next_key_seed<K: DeserializeSeed<'t>>(&mut self, seed: K) -> Result<Option<K::Value>, Garbled> {
        let Some(raw) = self.entries.find()? else {
            return Ok(None);
        };
        let Raw::Bytes(bytes) = raw else {
            return Err(unexpected(raw, "a pair"));
        };
        self.value = Fields(bytes).text(2)?;
        seed.deserialize(BorrowedStrDeserializer::new(Fields(bytes).text(1)?))
            .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'t>>(&mut self, seed: V) -> Result<V::Value, Garbled> {
        seed.deserialize(BorrowedStrDeserializer::new(self.value))
    }
}

/// What a field holds, to be read.
enum Content<'t> {
    One(Shape, Raw<'t>),
    List(Occurrences<'t>),
    Map(Occurrences<'t>),
}

impl<'t> Deserializer<'t> for Content<'t> {
    type Error = Garbled;

    fn deserialize_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Garbled> {
        let (shape, raw) = match self {
            Self::List(items) => return visitor.visit_seq(items),
            Self::Map(entries) => return visitor.visit_map(Pairs { entries, value: "" }),
            Self::One(shape, raw) => (shape, raw),
        };
        match (shape, raw) {
            (Shape::Text, Raw::Bytes(bytes)) => visitor.visit_borrowed_str(utf8(bytes)?),
            (Shape::Bool, Raw::Number(number)) => visitor.visit_bool(number != 0),
            // Negative ones are written with 64 bits.
            (Shape::Integer, Raw::Number(number)) => visitor.visit_i64(number.cast_signed()),
            (Shape::Time, Raw::Bytes(bytes)) => {
                StringDeserializer::new(time(bytes)?).deserialize_any(visitor)
            }
            (Shape::Message(fields), Raw::Bytes(bytes)) => Message { bytes, fields }.deserialize_any(visitor),
            (Shape::Text, raw) => Err(unexpected(raw, "text")),
            (Shape::Bool | Shape::Integer, raw) => Err(unexpected(raw, "a number")),
            (Shape::Time | Shape::Map | Shape::Message(_), raw) => Err(unexpected(raw, "a message")),
        }
    }

    fn deserialize_option<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Garbled> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        <V: Visitor<'t>>
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

/// As JSON has it.
fn time(bytes: &[u8]) -> Result<String, Garbled> {
    let seconds = match Fields(bytes).last(1)? {
        None => 0,
        Some(Raw::Number(seconds)) => seconds.cast_signed(),
        Some(raw) => return Err(unexpected(raw, "seconds")),
    };
    let time = Timestamp::from_second(seconds).map_err(|error| Garbled::new(error.to_string()))?;
    Ok(time.to_string())
}
