//! What a scalar is, as Kubernetes' own YAML reader sees it: YAML 1.1's words for booleans included.

use std::borrow::Cow;

#[derive(Clone, Debug)]
pub(in crate::model) struct Scalar<'t> {
    pub(in crate::model) text: Cow<'t, str>,
    /// Neither quoted nor a block: only such a one can be anything but a string.
    pub(in crate::model) plain: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::model) enum Resolved {
    Null,
    Bool(bool),
    Integer(i128),
    Number(f64),
    Text,
}

impl Scalar<'_> {
    pub(in crate::model) fn resolve(&self) -> Resolved {
        if !self.plain {
            return Resolved::Text;
        }
        match &*self.text {
            "" | "~" | "null" | "Null" | "NULL" => Resolved::Null,
            "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => {
                Resolved::Bool(true)
            }
            "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => {
                Resolved::Bool(false)
            }
            text => integer(text)
                .map(Resolved::Integer)
                .or_else(|| number(text))
                .unwrap_or(Resolved::Text),
        }
    }

    pub(in crate::model) fn describe(&self) -> String {
        let text = super::super::report::quote(&self.text);
        match self.resolve() {
            Resolved::Null => "nothing".into(),
            Resolved::Bool(_) => format!("the boolean {}", self.text),
            Resolved::Integer(_) | Resolved::Number(_) => format!("the number {}", self.text),
            Resolved::Text => text,
        }
    }
}

fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let number = if let Some(hex) = digits.strip_prefix("0x") {
        plain_digits(hex, 16)?
    } else if let Some(octal) = digits.strip_prefix("0o") {
        plain_digits(octal, 8)?
    } else if digits.len() > 1 && digits.starts_with('0') {
        // Octal to YAML 1.1 and decimal to YAML 1.2: nobody can tell, so it is no number at all.
        return None;
    } else {
        plain_digits(digits, 10)?
    };
    Some(if negative { -number } else { number })
}

fn plain_digits(digits: &str, radix: u32) -> Option<i128> {
    // `from_str_radix` takes a sign of its own.
    let all = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    if all {
        i128::from_str_radix(digits, radix).ok()
    } else {
        None
    }
}

/// Finite only: JSON has no other numbers.
fn number(text: &str) -> Option<Resolved> {
    let has_digit = text.bytes().any(|b| b.is_ascii_digit());
    let looks = text
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'));
    let digits = text.trim_start_matches(['-', '+']);
    let padded = digits
        .strip_prefix('0')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if !has_digit || !looks || padded {
        return None;
    }
    let number = text.parse::<f64>().ok()?;
    number.is_finite().then_some(Resolved::Number(number))
}
