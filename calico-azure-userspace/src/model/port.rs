//! Ports: numbers, ranges, names, and the names that endpoints give to theirs.

use super::report::{Read, Report, Reported, quote};
use super::scalars;
use super::types::{NamedPort, PortRange};
use super::yaml::{Node, Resolved, Value};

const EXPECTED: &str = "a port from 1 to 65535, a range like \"8000:8999\", or the name of a port";
const NUMBER: &str = "a port number from 1 to 65535";
const LONGEST_NAME: usize = 128;
/// TCP, UDP, SCTP.
pub(super) const WITH_PORTS: [u8; 3] = [6, 17, 132];

/// What is meant where no protocol is named.
pub(super) const TCP: u8 = 6;
const PROTOCOLS: [(&str, u8); 3] = [("TCP", TCP), ("UDP", 17), ("SCTP", 132)];

/// A protocol as Kubernetes spells it.
pub(super) fn protocol<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<u8> {
    scalars::word(report, node, &PROTOCOLS)
}

/// Longest name of a port that Kubernetes takes.
const LONGEST_SERVICE_NAME: usize = 15;

/// A name of a port as Kubernetes takes it. It must not look like a number.
pub(super) fn name<'n, 't>(report: &mut Report<'t>, node: &'n Node<'t>) -> Read<&'n str> {
    let text = report.string(node)?;
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good = text.len() <= LONGEST_SERVICE_NAME
        && text.bytes().all(allowed)
        && text.bytes().any(|b| b.is_ascii_lowercase())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--");
    if good {
        return Ok(text);
    }
    let message = format!(
        "{} is no name of a port: expected at most {LONGEST_SERVICE_NAME} lower-case letters, digits and '-', a letter among them",
        quote(text)
    );
    Err(match parse(text) {
        Some(_) => report.error_with_help(
            node.place,
            message,
            format!("for the number write {text}, not in quotes"),
        ),
        None => report.error(node.place, message),
    })
}

/// One entry of a rule's list of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PortMatch {
    Range(PortRange),
    Name(String),
}

/// A port number, `first:last`, or a name.
pub(super) fn port_match<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<PortMatch> {
    let (text, resolved) = match &node.value {
        Value::Scalar(scalar) => (&*scalar.text, scalar.resolve()),
        Value::List(_) | Value::Map(_) => ("", Resolved::Null),
    };
    if matches!(resolved, Resolved::Null | Resolved::Bool(_)) {
        let message = format!("expected {EXPECTED}, found {}", node.describe());
        return Err(report.error(node.place, message));
    }
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    match (parse(first), parse(last)) {
        (Some(first), Some(last)) if first <= last => Ok(PortMatch::Range(PortRange { first, last })),
        (Some(first), Some(last)) => {
            let message = format!("the range {text} ends before it begins");
            Err(report.error_with_help(node.place, message, format!("write \"{last}:{first}\"")))
        }
        _ if resolved == Resolved::Text && is_name(text) => Ok(PortMatch::Name(text.to_owned())),
        _ => {
            let message = format!("expected {EXPECTED}, found {}", quote(text));
            Err(match text.split_once('-') {
                Some((first, last)) if parse(first).is_some() && parse(last).is_some() => {
                    report.error_with_help(node.place, message, format!("write \"{first}:{last}\""))
                }
                _ => report.error(node.place, message),
            })
        }
    }
}

fn parse(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits {
        text.parse().ok().filter(|port| *port != 0)
    } else {
        None
    }
}

/// Calico takes names without a letter, too; they would be mistaken for numbers.
fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    text.len() <= LONGEST_NAME && text.bytes().all(allowed) && text.bytes().any(|b| b.is_ascii_alphabetic())
}

/// A port number, or the name of a port.
pub(super) fn number_or_name<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<PortMatch> {
    match &node.value {
        Value::Scalar(scalar) if scalar.resolve() == Resolved::Text => {
            name(report, node).map(|name| PortMatch::Name(name.to_owned()))
        }
        _ => number(report, node).map(|port| {
            PortMatch::Range(PortRange {
                first: port,
                last: port,
            })
        }),
    }
}

/// A port number.
pub(super) fn number<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<u16> {
    match report.integer(node, NUMBER)? {
        0 => Err(report.error(node.place, format!("expected {NUMBER}, found 0"))),
        port => Ok(port),
    }
}

/// A port of an endpoint; `None` if it has no name, so that no rule can mean it.
pub(super) fn named<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<Option<NamedPort>> {
    let fields = report.strict(node, &["name", "protocol", "port", "hostPort"])?;
    let name = fields.read(report, "name", |report, node| {
        let name = report.string(node)?;
        if name.is_empty() || is_name(name) {
            return Ok(name);
        }
        let message = format!(
            "{} is no name of a port: expected letters, digits, '-', '_' and '.', a letter among them",
            quote(name)
        );
        Err(report.error(node.place, message))
    });
    let protocol = fields.read(report, "protocol", |report, node| {
        let protocol = scalars::protocol(report, node)?.number;
        if WITH_PORTS.contains(&protocol) {
            return Ok(protocol);
        }
        Err(report.error(node.place, "a port's protocol is TCP, UDP or SCTP"))
    });
    let port = fields.read(report, "port", number);
    let (name, protocol, port) = (name?.unwrap_or_default(), protocol?, port?);
    if name.is_empty() {
        return Ok(None);
    }
    match (protocol, port) {
        (Some(protocol), Some(port)) if fields.complete => Ok(Some(NamedPort {
            name: name.to_owned(),
            protocol,
            port,
        })),
        (Some(_), Some(_)) => Err(Reported),
        _ => Err(report.error(fields.place, "expected name, protocol and port")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scalars::tests::check;
    use super::*;

    #[test]
    fn entries_of_port_lists() {
        let range = |first, last| PortMatch::Range(PortRange { first, last });
        let name = |name: &str| PortMatch::Name(name.to_owned());
        check(
            port_match,
            &[
                ("80", range(80, 80)),
                ("'80'", range(80, 80)),
                ("80:90", range(80, 90)),
                ("1:65535", range(1, 65535)),
                ("http", name("http")),
                ("'8080-tcp'", name("8080-tcp")),
                ("'true'", name("true")),
            ],
            &[
                ("0", "from 1 to 65535"),
                ("65536", "from 1 to 65535"),
                ("0x50", "from 1 to 65535"),
                ("1e3", "from 1 to 65535"),
                ("90:80", "ends before"),
                ("80-90", "write \"80:90\""),
                ("true", "the boolean true"),
                ("{}", "a mapping"),
                ("'+80'", "from 1 to 65535"),
                ("80:90:100", "from 1 to 65535"),
                ("web server", "from 1 to 65535"),
                ("ht:tp", "from 1 to 65535"),
            ],
        );
        let longest = "a".repeat(LONGEST_NAME);
        check(
            port_match,
            &[(&longest, name(&longest))],
            &[(&format!("{longest}a"), "the name of a port")],
        );
    }

    #[test]
    fn ports_of_endpoints() {
        let http = NamedPort {
            name: "http".into(),
            protocol: 6,
            port: 80,
        };
        check(
            named,
            &[
                ("{name: http, protocol: TCP, port: 80}", Some(http.clone())),
                (
                    "{name: http, protocol: tcp, port: 80, hostPort: 8080}",
                    Some(http),
                ),
                ("{hostPort: 8080, port: 80, protocol: TCP}", None),
            ],
            &[
                ("{name: http, protocol: TCP}", "expected name, protocol and port"),
                ("{name: http, port: 80}", "expected name, protocol and port"),
                ("{name: http, port: 0, protocol: TCP}", "found 0"),
                ("{name: http, port: 80, protocol: ICMP}", "TCP, UDP or SCTP"),
                ("{name: '80', port: 80, protocol: TCP}", "no name of a port"),
                ("{name: http, port: 80, protocol: TCP, prot: 1}", "unknown field"),
            ],
        );
    }
}
