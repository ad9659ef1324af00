//! Flow records: one line of JSON for each drop and each packet that a `Log` rule matched.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use calico_azure_ebpf::abi::{Event, Hook, Reason};
use serde::Serialize;

use crate::policy::RuleRef;

/// A packet, the verdict on it and who is responsible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowRecord {
    /// Nanoseconds since 1970, as a string: a JSON number would lose the last digits.
    pub time: String,
    pub node: String,
    /// `allow` or `deny`.
    pub verdict: &'static str,
    /// An `abi::Reason`.
    pub reason: &'static str,
    /// An `abi::Hook`.
    pub hook: &'static str,
    pub interface: String,
    /// `namespace/name` of the pod behind the interface.
    pub endpoint: Option<String>,
    pub src: Option<IpAddr>,
    pub sport: u16,
    pub dst: Option<IpAddr>,
    /// Destination port; `type << 8 | code` for ICMP.
    pub dport: u16,
    pub protocol: Protocol,
    /// Deciding rule, `tier default / NetworkPolicy shop/db / ingress[0]`.
    pub rule: Option<String>,
    /// What would decide if staged policies were enforced; absent if there are none or policy was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staged: Option<StagedVerdict>,
    /// A `Log` rule asked for this record.
    pub log: bool,
    /// Bytes, link-layer header included.
    pub bytes: u32,
}

/// What staged policies would do with a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StagedVerdict {
    /// `allow`, `deny`, or `unknown` while the tables of staged policies are being made.
    pub verdict: &'static str,
    /// Rule that would decide.
    pub rule: Option<String>,
}

impl StagedVerdict {
    /// While nobody can tell.
    pub const UNKNOWN: Self = Self {
        verdict: "unknown",
        rule: None,
    };
}

/// A protocol, by name where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Protocol {
    Name(&'static str),
    Number(u8),
}

impl From<u8> for Protocol {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Name("icmp"),
            6 => Self::Name("tcp"),
            17 => Self::Name("udp"),
            58 => Self::Name("icmpv6"),
            132 => Self::Name("sctp"),
            136 => Self::Name("udplite"),
            number => Self::Number(number),
        }
    }
}

/// What turns ids into names.
#[derive(Clone, Debug, Default)]
pub struct FlowContext {
    pub node: String,
    /// Interface names by ifindex.
    pub interfaces: BTreeMap<u32, String>,
    /// Pods by ifindex.
    pub endpoints: BTreeMap<u32, String>,
    pub rules: BTreeMap<u32, RuleRef>,
    /// Nanoseconds from the monotonic clock's zero to 1970's.
    pub clock_offset: u64,
}

impl FlowContext {
    /// Names everything in an event. Codes that this build does not know are shown as `unknown`.
    #[must_use]
    pub fn record(&self, event: &Event) -> FlowRecord {
        let reason = Reason::try_from(event.reason).ok();
        let hook = Hook::try_from(event.hook).ok();
        FlowRecord {
            time: self.clock_offset.wrapping_add(event.time).to_string(),
            node: self.node.clone(),
            verdict: if reason.is_some_and(Reason::passes) {
                "allow"
            } else {
                "deny"
            },
            reason: reason.map_or("unknown", Reason::as_str),
            hook: hook.map_or("unknown", Hook::as_str),
            interface: self
                .interfaces
                .get(&event.ifindex)
                .cloned()
                .unwrap_or_else(|| event.ifindex.to_string()),
            endpoint: self.endpoints.get(&event.ifindex).cloned(),
            src: address(event.ethertype, event.src),
            sport: event.sport,
            dst: address(event.ethertype, event.dst),
            dport: event.dport,
            protocol: event.protocol.into(),
            rule: self.rule(event.rule),
            staged: None,
            log: event.log != 0,
            bytes: event.len,
        }
    }

    fn rule(&self, id: u32) -> Option<String> {
        match (id, self.rules.get(&id)) {
            (0, _) => None,
            (_, Some(rule)) => Some(rule.to_string()),
            // Decided by tables that an earlier agent wrote, or that were replaced since.
            (id, None) => Some(format!("rule {id} of tables no longer in force")),
        }
    }
}

fn address(ethertype: u16, words: [u32; 4]) -> Option<IpAddr> {
    match ethertype {
        0x0800 => Some(IpAddr::V4(Ipv4Addr::from_bits(u32::from_be(words[0])))),
        0x86dd => {
            let bits = words
                .iter()
                .fold(0_u128, |bits, word| bits << 32 | u128::from(u32::from_be(*word)));
            Some(IpAddr::V6(Ipv6Addr::from_bits(bits)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_what_the_event_numbers() {
        let event = Event {
            time: 5,
            src: [u32::from_ne_bytes([10, 0, 0, 1]), 0, 0, 0],
            dst: [u32::from_ne_bytes([10, 0, 0, 2]), 0, 0, 0],
            ifindex: 7,
            rule: 3,
            len: 60,
            sport: 1000,
            dport: 80,
            ethertype: 0x0800,
            protocol: 6,
            reason: Reason::PolicyDeny as u8,
            hook: Hook::ToWorkload as u8,
            ..Event::default()
        };
        let context = FlowContext {
            node: "n1".into(),
            endpoints: [(7, "a/b".into())].into(),
            rules: [(
                3,
                RuleRef::TierDefault {
                    tier: "default".into(),
                },
            )]
            .into(),
            clock_offset: 100,
            ..FlowContext::default()
        };
        let json = serde_json::to_value(context.record(&event)).unwrap();
        assert_eq!(json["time"], "105");
        assert_eq!(
            (&json["src"], &json["dst"]),
            (&"10.0.0.1".into(), &"10.0.0.2".into())
        );
        assert_eq!(
            (&json["verdict"], &json["reason"]),
            (&"deny".into(), &"policy-deny".into())
        );
        assert_eq!(
            (&json["protocol"], &json["endpoint"]),
            (&"tcp".into(), &"a/b".into())
        );
        assert_eq!(json["interface"], "7", "a link that is gone keeps its number");
        assert!(json["rule"].as_str().unwrap().contains("default"), "{json}");
        let unknown = context.record(&Event {
            rule: 9,
            reason: 255,
            ..event
        });
        assert_eq!((unknown.reason, unknown.verdict), ("unknown", "deny"));
        assert!(unknown.rule.unwrap().contains('9'));
    }
}
