//! Protobuf as serde reads it, by tables of the fields that somebody reads. Whatever has no place in them is skipped over by its length.
//! Only its siblings use this.
//!
//! Wire format: <https://protobuf.dev/programming-guides/encoding/>. API servers write every field that is no pointer in Go, also when it
//! is empty; what is empty is left out here, as it is in their JSON.

use std::fmt;

use k8s_openapi::jiff::Timestamp;
use serde::de::value::{BorrowedStrDeserializer, StringDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

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

/// What is not Protobuf, or not what was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(in super::super) struct Garbled(String);

impl Garbled {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }
}

impl serde::de::Error for Garbled {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// A field's value as it is on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Raw<'t> {
    Number(u64),
    Bytes(&'t [u8]),
    /// Four or eight bytes, which nothing that is read here has.
    Fixed,
}

/// The fields of a message, in the order written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'t>(pub(super) &'t [u8]);

impl<'t> Fields<'t> {
    fn take(&mut self, length: u64) -> Result<&'t [u8], Garbled> {
        let split = usize::try_from(length)
            .ok()
            .and_then(|length| self.0.split_at_checked(length));
        let (taken, rest) = split.ok_or_else(|| {
            Garbled(format!(
                "{length} bytes were announced, {} are there",
                self.0.len()
            ))
        })?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Garbled> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self
                .0
                .split_first()
                .ok_or_else(|| Garbled::new("a number has no end"))?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Garbled::new("a number of more than 64 bits"))
    }

    fn field(&mut self) -> Result<(u32, Raw<'t>), Garbled> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(Garbled::custom)?;
        let raw = match key & 7 {
            0 => Raw::Number(self.varint()?),
            1 => self.take(8).map(|_| Raw::Fixed)?,
            2 => {
                let length = self.varint()?;
                Raw::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Raw::Fixed)?,
            wire => return Err(Garbled(format!("field {number} is of wire type {wire}"))),
        };
        Ok((number, raw))
    }

    /// The last value of a field, as Protobuf has it where it says that there is but one.
    pub(super) fn last(self, number: u32) -> Result<Option<Raw<'t>>, Garbled> {
        let mut found = None;
        for field in self {
            let (known, raw) = field?;
            if known == number {
                found = Some(raw);
            }
        }
        Ok(found)
    }

    /// The bytes of a field; none are none.
    pub(super) fn bytes(self, number: u32) -> Result<&'t [u8], Garbled> {
        match self.last(number)? {
            None => Ok(&[]),
            Some(Raw::Bytes(bytes)) => Ok(bytes),
            Some(raw) => Err(unexpected(raw, "bytes")),
        }
    }

    /// The text of a field; none is empty.
    pub(super) fn text(self, number: u32) -> Result<&'t str, Garbled> {
        utf8(self.bytes(number)?)
    }
}

impl<'t> Iterator for Fields<'t> {
    type Item = Result<(u32, Raw<'t>), Garbled>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn unexpected(raw: Raw<'_>, expected: &str) -> Garbled {
    let found = match raw {
        Raw::Number(_) => "a number",
        Raw::Bytes(_) => "bytes",
        Raw::Fixed => "a number of fixed length",
    };
    Garbled(format!("{found} where {expected} should be"))
}

fn utf8(bytes: &[u8]) -> Result<&str, Garbled> {
    std::str::from_utf8(bytes).map_err(Garbled::custom)
}

/// A message, of which these fields are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'t> {
    pub(super) bytes: &'t [u8],
    pub(super) fields: &'static [Field],
}

impl<'t> Deserializer<'t> for Message<'t> {
    type Error = Garbled;

    fn deserialize_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Garbled> {
        visitor.visit_map(Entries {
            message: self,
            next: self.fields,
            value: None,
        })
    }

    forward_to_deserialize_any! {
        <V: Visitor<'t>>
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

/// A message's fields, in the order of its table.
struct Entries<'t> {
    message: Message<'t>,
    next: &'static [Field],
    value: Option<(&'static Field, Raw<'t>)>,
}

impl<'t> MapAccess<'t> for Entries<'t> {
    type Error = Garbled;

    fn next_key_seed<K: DeserializeSeed<'t>>(&mut self, seed: K) -> Result<Option<K::Value>, Garbled> {
        while let Some((field, rest)) = self.next.split_first() {
            self.next = rest;
            let Some(raw) = Fields(self.message.bytes).last(field.number)? else {
                continue;
            };
            let is_empty = match (field.shape, raw) {
                (Shape::Text, Raw::Bytes(bytes)) => bytes.is_empty() && !field.repeated,
                (Shape::Bool | Shape::Integer, Raw::Number(number)) => number == 0,
                _ => false,
            };
            if !is_empty {
                self.value = Some((field, raw));
                return seed
                    .deserialize(BorrowedStrDeserializer::new(field.name))
                    .map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'t>>(&mut self, seed: V) -> Result<V::Value, Garbled> {
        let (field, raw) = self
            .value
            .take()
            .ok_or_else(|| Garbled::new("a value without a key"))?;
        let rest = Fields(self.message.bytes);
        let occurrences = Occurrences {
            number: field.number,
            shape: field.shape,
            rest,
        };
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
    let time = Timestamp::from_second(seconds).map_err(Garbled::custom)?;
    Ok(time.to_string())
}
