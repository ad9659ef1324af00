//! Packets as people and programs write them: one JSON object a line.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use crate::analysis::{has_ports, has_types};
use crate::policy::Direction;
use crate::policy::reference::Flow;

/// A packet to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) flow: Flow,
    /// One endpoint's policy in one direction; `None`: the whole way.
    pub(crate) at: Option<(Direction, PodName)>,
}

/// Namespace and name.
pub(crate) type PodName = (String, String);

/// Why a line is no packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PacketError {
    #[error("not a JSON object: {0}")]
    Json(String),
    #[error("{field} is missing")]
    Missing { field: &'static str },
    #[error("{field}: expected {expected}, found {found}")]
    Wrong {
        field: &'static str,
        expected: &'static str,
        found: String,
    },
    #[error("src {0} and dst {1} are of different families")]
    Families(IpAddr, IpAddr),
    #[error("hook and endpoint come together: expected both, or neither for the whole way")]
    Half,
}

/// A line's fields, as they come.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Line {
    pub(crate) id: Value,
    src: Value,
    dst: Value,
    protocol: Value,
    sport: Value,
    dport: Value,
    icmp_type: Value,
    icmp_code: Value,
    hook: Value,
    endpoint: Value,
}

impl Line {
    pub(crate) fn parse(text: &str) -> Result<Self, PacketError> {
        serde_json::from_str(text).map_err(|error| PacketError::Json(error.to_string()))
    }

    pub(crate) fn packet(&self) -> Result<Packet, PacketError> {
        let src = address("src", &self.src)?;
        let dst = address("dst", &self.dst)?;
        if src.is_ipv4() != dst.is_ipv4() {
            return Err(PacketError::Families(src, dst));
        }
        let protocol = self.protocol()?;
        let [sport, dport] = [("sport", &self.sport), ("dport", &self.dport)].map(|(f, v)| port(f, v));
        let [kind, code] =
            [("icmp_type", &self.icmp_type), ("icmp_code", &self.icmp_code)].map(|(f, v)| byte(f, v));
        let (sport, dport, kind, code) = (sport?, dport?, kind?, code?);
        let (sport, dport) = if has_types(protocol) {
            (0, u16::from_be_bytes([kind, code]))
        } else if has_ports(protocol) {
            (sport, dport)
        } else {
            (0, 0)
        };
        Ok(Packet {
            flow: Flow {
                src,
                dst,
                protocol,
                sport,
                dport,
            },
            at: self.at()?,
        })
    }

    fn protocol(&self) -> Result<u8, PacketError> {
        let wrong = || {
            wrong(
                "protocol",
                "tcp, udp, sctp, icmp, icmpv6, udplite or a number from 0 to 255",
                &self.protocol,
            )
        };
        match &self.protocol {
            Value::Null => Err(PacketError::Missing { field: "protocol" }),
            Value::String(name) => protocol(name).ok_or_else(wrong),
            other => other
                .as_u64()
                .and_then(|number| u8::try_from(number).ok())
                .ok_or_else(wrong),
        }
    }

    fn at(&self) -> Result<Option<(Direction, PodName)>, PacketError> {
        let hook = match &self.hook {
            Value::Null => None,
            Value::String(hook) if hook.eq_ignore_ascii_case("ingress") => Some(Direction::Ingress),
            Value::String(hook) if hook.eq_ignore_ascii_case("egress") => Some(Direction::Egress),
            other => return Err(wrong("hook", "ingress or egress", other)),
        };
        let endpoint = match &self.endpoint {
            Value::Null => None,
            Value::String(name) => {
                let parts = name
                    .split_once('/')
                    .filter(|(a, b)| !a.is_empty() && !b.is_empty());
                let (namespace, name) =
                    parts.ok_or_else(|| wrong("endpoint", "namespace/pod", &self.endpoint))?;
                Some((namespace.to_owned(), name.to_owned()))
            }
            other => return Err(wrong("endpoint", "namespace/pod", other)),
        };
        match (hook, endpoint) {
            (Some(hook), Some(endpoint)) => Ok(Some((hook, endpoint))),
            (None, None) => Ok(None),
            _ => Err(PacketError::Half),
        }
    }
}

/// A protocol by its name, in any case, or its number.
pub(crate) fn protocol(name: &str) -> Option<u8> {
    Some(match name.to_ascii_lowercase().as_str() {
        "tcp" => 6,
        "udp" => 17,
        "sctp" => 132,
        "icmp" => 1,
        "icmpv6" => 58,
        "udplite" => 136,
        number => number.parse().ok()?,
    })
}

fn wrong(field: &'static str, expected: &'static str, found: &Value) -> PacketError {
    PacketError::Wrong {
        field,
        expected,
        found: found.to_string(),
    }
}

fn address(field: &'static str, value: &Value) -> Result<IpAddr, PacketError> {
    match value {
        Value::Null => Err(PacketError::Missing { field }),
        Value::String(text) => text.parse().map_err(|_| wrong(field, "an IP address", value)),
        other => Err(wrong(field, "an IP address", other)),
    }
}

fn number<T: TryFrom<u64> + Default>(
    field: &'static str,
    expected: &'static str,
    value: &Value,
) -> Result<T, PacketError> {
    match value {
        Value::Null => Ok(T::default()),
        other => {
            let number = other.as_u64().and_then(|number| T::try_from(number).ok());
            number.ok_or_else(|| wrong(field, expected, other))
        }
    }
}

fn port(field: &'static str, value: &Value) -> Result<u16, PacketError> {
    number(field, "a port from 0 to 65535", value)
}

fn byte(field: &'static str, value: &Value) -> Result<u8, PacketError> {
    number(field, "a number from 0 to 255", value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(text: &str) -> Result<Packet, String> {
        let line = Line::parse(text).map_err(|error| error.to_string())?;
        line.packet().map_err(|error| error.to_string())
    }

    #[test]
    fn lines_become_packets() {
        let tcp = packet(
            r#"{"id":1,"src":"10.0.0.1","dst":"10.0.0.2","protocol":"TCP","sport":5,"dport":80,"hook":"ingress","endpoint":"a/b"}"#,
        )
        .unwrap();
        assert_eq!((tcp.flow.protocol, tcp.flow.sport, tcp.flow.dport), (6, 5, 80));
        assert_eq!(tcp.at, Some((Direction::Ingress, ("a".into(), "b".into()))));
        let icmp = packet(
            r#"{"src":"::1","dst":"::2","protocol":"ICMPv6","icmp_type":128,"icmp_code":1,"dport":7}"#,
        );
        let icmp = icmp.unwrap();
        assert_eq!(
            (icmp.flow.protocol, icmp.flow.dport, icmp.at),
            (58, 128 << 8 | 1, None)
        );
        let gre = packet(r#"{"src":"10.0.0.1","dst":"10.0.0.2","protocol":47,"dport":7}"#).unwrap();
        assert_eq!((gre.flow.protocol, gre.flow.dport), (47, 0), "no ports");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, error) in [
            ("[", "not a JSON object"),
            (r#"{"dst":"10.0.0.2","protocol":6}"#, "src is missing"),
            (
                r#"{"src":"x","dst":"10.0.0.2","protocol":6}"#,
                "src: expected an IP address, found \"x\"",
            ),
            (
                r#"{"src":"::1","dst":"10.0.0.2","protocol":6}"#,
                "different families",
            ),
            (r#"{"src":"10.0.0.1","dst":"10.0.0.2"}"#, "protocol is missing"),
            (
                r#"{"src":"10.0.0.1","dst":"10.0.0.2","protocol":256}"#,
                "protocol: expected tcp",
            ),
            (
                r#"{"src":"10.0.0.1","dst":"10.0.0.2","protocol":6,"dport":65536}"#,
                "dport: expected a port",
            ),
            (
                r#"{"src":"10.0.0.1","dst":"10.0.0.2","protocol":1,"icmp_type":256}"#,
                "icmp_type: expected a number",
            ),
            (
                r#"{"src":"10.0.0.1","dst":"10.0.0.2","protocol":6,"hook":"ingress"}"#,
                "come together",
            ),
            (
                r#"{"src":"10.0.0.1","dst":"10.0.0.2","protocol":6,"hook":"in","endpoint":"a/b"}"#,
                "hook: expected",
            ),
            (
                r#"{"src":"10.0.0.1","dst":"10.0.0.2","protocol":6,"hook":"egress","endpoint":"b"}"#,
                "endpoint: expected",
            ),
        ] {
            let found = packet(text).unwrap_err();
            assert!(found.contains(error), "{text}: {found}");
        }
    }
}
