//! Connections as people and programs read them.
//!
//! JSON: `"all"`, or a list of `{"protocol":"TCP","ports":["80","443-450"]}`. Protocols are named (TCP, UDP, SCTP,
//! ICMP, ICMPv6, UDPLite) or numbers in quotes; all ports are `["1-65535"]`. ICMP and ICMPv6 have `"types"` if they
//! are not wholly in the set: `"8"`, `"0-8"`, `"3/4"`, `"3/0-3"`. `{"protocol":"others","except":["47"]}` stands for
//! every protocol that neither the list nor `except` names.

use std::fmt;

use serde::ser::{Serialize, SerializeSeq as _, Serializer};

use super::connections::{Connections, NAMED, domain, has_ports, has_types};
use crate::policy::compile::ranges::Range;

/// What a set has of one protocol, or of all that are not listed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Part {
    pub protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub types: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}

impl Connections {
    /// The set protocol by protocol: those with a name, then by number, then the others.
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        let number = |protocol: &u8| NAMED.iter().all(|(named, _)| named != protocol);
        let protocols = NAMED.map(|(protocol, _)| protocol).into_iter();
        let protocols: Vec<u8> = protocols.chain(self.named().filter(number)).collect();
        let (listed, missing): (Vec<u8>, Vec<u8>) = protocols
            .into_iter()
            .partition(|protocol| !self.of(*protocol).is_empty());
        let mut parts: Vec<Part> = listed.into_iter().map(|protocol| self.part(protocol)).collect();
        if self.others() {
            parts.push(Part {
                protocol: "others".to_owned(),
                ports: None,
                types: None,
                except: missing.into_iter().map(protocol_name).collect(),
            });
        }
        parts
    }

    fn part(&self, protocol: u8) -> Part {
        let ranges = self.of(protocol);
        let narrower = *ranges != *domain(protocol);
        Part {
            protocol: protocol_name(protocol),
            ports: has_ports(protocol).then(|| ranges.iter().map(ports).collect()),
            types: (has_types(protocol) && narrower).then(|| ranges.iter().flat_map(types).collect()),
            except: Vec::new(),
        }
    }
}

/// The protocol's name, or its number.
#[must_use]
pub fn protocol_name(protocol: u8) -> String {
    let named = NAMED.iter().find(|(number, _)| *number == protocol);
    named.map_or_else(|| protocol.to_string(), |(_, name)| (*name).to_owned())
}

fn ports(range: &Range) -> String {
    span(range.0, range.1)
}

fn span<T: fmt::Display + PartialEq>(first: T, last: T) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

/// `type` for all of its codes, else `type/code`.
fn types(range: &Range) -> Vec<String> {
    let ([mut first, code], [mut last, end]) = (range.0.to_be_bytes(), range.1.to_be_bytes());
    if first == last && (code, end) != (0, u8::MAX) {
        return vec![format!("{first}/{}", span(code, end))];
    }
    let (mut before, mut after) = (None, None);
    let mut whole = true;
    if code != 0 {
        before = Some(format!("{first}/{}", span(code, u8::MAX)));
        whole &= first < last;
        first = first.saturating_add(1);
    }
    if end != u8::MAX {
        after = Some(format!("{last}/{}", span(0, end)));
        whole &= first < last;
        last = last.saturating_sub(1);
    }
    let whole = (whole && first <= last).then(|| span(first, last));
    [before, whole, after].into_iter().flatten().collect()
}

impl Serialize for Connections {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_all() {
            return serializer.serialize_str("all");
        }
        let parts = self.parts();
        let mut list = serializer.serialize_seq(Some(parts.len()))?;
        for part in &parts {
            list.serialize_element(part)?;
        }
        list.end()
    }
}

/// `all`, `none`, or `TCP 80,443-450; UDP; ICMP 8; others except 47`. All ports are not spelled out.
impl fmt::Display for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() || self.is_none() {
            return f.write_str(if self.is_all() { "all" } else { "none" });
        }
        for (place, part) in self.parts().into_iter().enumerate() {
            let Part {
                protocol,
                ports,
                types,
                except,
            } = part;
            let separator = if place == 0 { "" } else { "; " };
            write!(f, "{separator}{protocol}")?;
            let list = ports.or(types).unwrap_or_default();
            if !list.is_empty() && list != ["1-65535"] {
                write!(f, " {}", list.join(","))?;
            }
            if !except.is_empty() {
                write!(f, " except {}", except.join(", "))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(others: bool, named: &[(u8, &[Range])]) -> Connections {
        Connections::new(
            others,
            named
                .iter()
                .map(|(protocol, ranges)| (*protocol, (*ranges).into())),
        )
    }

    fn shown(connections: &Connections) -> (String, String) {
        (
            connections.to_string(),
            serde_json::to_string(connections).unwrap(),
        )
    }

    #[test]
    fn everything_and_nothing() {
        assert_eq!(shown(&Connections::all()), ("all".into(), "\"all\"".into()));
        assert_eq!(shown(&Connections::none()), ("none".into(), "[]".into()));
    }

    #[test]
    fn ports_are_sorted_ranges_and_all_of_them_a_range_too() {
        let (text, json) = shown(&set(
            false,
            &[(17, &[(0, 65535)]), (6, &[(80, 80), (443, 450)]), (47, &[(0, 0)])],
        ));
        assert_eq!(text, "TCP 80,443-450; UDP; 47");
        let expected = r#"[{"protocol":"TCP","ports":["80","443-450"]},{"protocol":"UDP","ports":["1-65535"]},{"protocol":"47"}]"#;
        assert_eq!(json, expected);
    }

    #[test]
    fn types_are_shown_if_not_all_of_them_are_there() {
        let echo = (8 << 8, 8 << 8 | 255);
        for (range, expected) in [
            (echo, "8"),
            ((8 << 8, 8 << 8), "8/0"),
            ((3 << 8 | 1, 3 << 8 | 4), "3/1-4"),
            ((0, 8 << 8 | 255), "0-8"),
            ((0, 8 << 8), "0-7,8/0"),
            ((3 << 8 | 254, 5 << 8 | 1), "3/254-255,4,5/0-1"),
            ((3 << 8 | 255, 4 << 8), "3/255,4/0"),
            ((1, u16::MAX), "0/1-255,1-255"),
            ((0, u16::MAX - 1), "0-254,255/0-254"),
        ] {
            assert_eq!(
                set(false, &[(1, &[range])]).to_string(),
                format!("ICMP {expected}")
            );
        }
        let (text, json) = shown(&set(false, &[(1, &[echo]), (58, &[(0, u16::MAX)])]));
        assert_eq!(text, "ICMP 8; ICMPv6");
        assert_eq!(
            json,
            r#"[{"protocol":"ICMP","types":["8"]},{"protocol":"ICMPv6"}]"#
        );
    }

    #[test]
    fn others_name_what_they_leave_out() {
        let connections = set(true, &[(6, &[(1, 21), (23, 65535)]), (58, &[]), (47, &[])]);
        assert_eq!(
            connections.to_string(),
            "TCP 1-21,23-65535; UDP; SCTP; ICMP; UDPLite; others except ICMPv6, 47"
        );
        let json = serde_json::to_value(&connections).unwrap();
        let last = json.as_array().unwrap().last().unwrap();
        assert_eq!(
            *last,
            serde_json::json!({"protocol": "others", "except": ["ICMPv6", "47"]})
        );
    }
}
