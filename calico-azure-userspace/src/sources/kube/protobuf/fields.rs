//! The wire format: what fields a message has, and where each ends (<https://protobuf.dev/programming-guides/encoding/>). Only its siblings use
//! this.

use std::fmt;

use serde::de::Error as _;

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

pub(super) fn unexpected(raw: Raw<'_>, expected: &str) -> Garbled {
    let found = match raw {
        Raw::Number(_) => "a number",
        Raw::Bytes(_) => "bytes",
        Raw::Fixed => "a number of fixed length",
    };
    Garbled(format!("{found} where {expected} should be"))
}

pub(super) fn utf8(bytes: &[u8]) -> Result<&str, Garbled> {
    std::str::from_utf8(bytes).map_err(Garbled::custom)
}
