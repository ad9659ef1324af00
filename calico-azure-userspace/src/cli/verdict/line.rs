//! One packet as a line of JSON.

use std::net::IpAddr;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::judge::Packet;
use crate::policy::Direction;
use crate::policy::reference::Flow;

/// The fields as they are written. Others are for somebody else.
#[derive(Debug, Deserialize)]
struct Fields<'l> {
    #[serde(borrow)]
    id: Option<&'l RawValue>,
    #[serde(borrow)]
    src: Option<&'l RawValue>,
    #[serde(borrow)]
    dst: Option<&'l RawValue>,
    #[serde(borrow)]
    protocol: Option<&'l RawValue>,
    #[serde(borrow)]
    sport: Option<&'l RawValue>,
    #[serde(borrow)]
    dport: Option<&'l RawValue>,
    #[serde(borrow)]
    icmp_type: Option<&'l RawValue>,
    #[serde(borrow)]
    icmp_code: Option<&'l RawValue>,
    #[serde(borrow)]
    hook: Option<&'l RawValue>,
    #[serde(borrow)]
    endpoint: Option<&'l RawValue>,
}

/// A line: its id, and the packet or what is wrong with it.
pub(super) type Line<'l> = (Option<&'l RawValue>, Result<Packet, String>);

/// Reads a line.
pub(super) fn read(text: &[u8]) -> Line<'_> {
    match serde_json::from_slice::<Fields<'_>>(text) {
        Ok(fields) => (fields.id, fields.packet()),
        Err(error) => {
            // An unfinished line, text that is no JSON, or JSON that is no object.
            let column = error.column();
            let text = error.to_string();
            let what = text.split(" at line ").next().unwrap_or_default();
            (None, Err(format!("this is no packet: {what} (column {column})")))
        }
    }
}

impl Fields<'_> {
    fn packet(&self) -> Result<Packet, String> {
        let src = required("src", self.src, address)?;
        let dst = required("dst", self.dst, address)?;
        let protocol = required("protocol", self.protocol, protocol)?;
        let sport = number::<u16>("sport", self.sport)?;
        let mut dport = number::<u16>("dport", self.dport)?;
        let (kind, code) = (
            number::<u8>("icmp_type", self.icmp_type)?,
            number::<u8>("icmp_code", self.icmp_code)?,
        );
        if matches!(protocol, 1 | 58) {
            dport = u16::from_be_bytes([kind, code]);
        }
        let hook = self
            .hook
            .map(|raw| text("hook", raw).and_then(|text| hook(&text)))
            .transpose()?;
        let endpoint = self.endpoint.map(|raw| text("endpoint", raw)).transpose()?;
        let at = match (hook, endpoint) {
            (Some(hook), Some(endpoint)) => {
                if !endpoint.contains('/') {
                    return Err(format!(
                        "endpoint: expected namespace/name of a pod, found {endpoint:?}"
                    ));
                }
                Some((hook, endpoint))
            }
            (None, None) => None,
            (Some(_), None) => return Err("endpoint: missing, and there is a hook".to_owned()),
            (None, Some(_)) => {
                return Err(
                    "hook: missing, and there is an endpoint; expected \"ingress\" or \"egress\"".to_owned(),
                );
            }
        };
        let flow = Flow {
            src,
            dst,
            protocol,
            sport,
            dport,
        };
        Ok(Packet { flow, at })
    }
}

fn required<T>(
    field: &str,
    raw: Option<&RawValue>,
    read: impl Fn(&str, &RawValue) -> Result<T, String>,
) -> Result<T, String> {
    let raw = raw.ok_or_else(|| format!("{field}: missing"))?;
    read(field, raw)
}

fn text(field: &str, raw: &RawValue) -> Result<String, String> {
    serde_json::from_str(raw.get()).map_err(|_| format!("{field}: expected a string, found {}", shown(raw)))
}

fn address(field: &str, raw: &RawValue) -> Result<IpAddr, String> {
    let found: Option<IpAddr> = serde_json::from_str(raw.get()).ok();
    found.ok_or_else(|| format!("{field}: expected an IPv4 or IPv6 address, found {}", shown(raw)))
}

fn number<T: DeserializeOwned + Default + Bounds>(field: &str, raw: Option<&RawValue>) -> Result<T, String> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else {
        return Ok(T::default());
    };
    let found = serde_json::from_str(raw.get()).ok();
    found.ok_or_else(|| {
        format!(
            "{field}: expected a number from 0 to {}, found {}",
            T::LAST,
            shown(raw)
        )
    })
}

trait Bounds {
    const LAST: u16;
}

impl Bounds for u8 {
    const LAST: u16 = 255;
}

impl Bounds for u16 {
    const LAST: u16 = u16::MAX;
}

fn protocol(field: &str, raw: &RawValue) -> Result<u8, String> {
    let number = serde_json::from_str::<u8>(raw.get()).ok();
    let named = || {
        let name: String = serde_json::from_str(raw.get()).ok()?;
        crate::cli::protocol::parse(&name)
    };
    number.or_else(named).ok_or_else(|| {
        let known = crate::cli::protocol::NAMES.map(|(name, _)| name).join(", ");
        format!(
            "{field}: expected {known} or a number from 0 to 255, found {}",
            shown(raw)
        )
    })
}

fn hook(text: &str) -> Result<Direction, String> {
    match text {
        "ingress" => Ok(Direction::Ingress),
        "egress" => Ok(Direction::Egress),
        other => Err(format!(
            "hook: expected \"ingress\" or \"egress\", found {other:?}"
        )),
    }
}

/// As much of a value as a message has room for.
fn shown(raw: &RawValue) -> String {
    const ROOM: usize = 40;
    let text = raw.get();
    let mut shown: String = text.chars().take(ROOM).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
