//! Values that are written as one word: networks, addresses, protocols, names, selectors.

use std::net::IpAddr;

use ipnet::IpNet;

use super::report::{Read, Report, closest, quote};
use super::yaml::{Node, Value};
use crate::selector::Selector;

/// Longest selector that Calico's API takes.
const MAX_SELECTOR: usize = 1024;

/// A CIDR, or an address that stands for itself. Bits beyond the prefix are masked, as Calico does.
pub(super) fn net<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<IpNet> {
    let text = report.string(node)?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let Ok(net) = text.parse::<IpNet>() else {
        let message = format!(
            "{} is not a network: expected an address and a prefix length, like 10.0.0.0/8",
            quote(text)
        );
        return Err(match guess_net(text) {
            Some(guess) => report.error_with_help(node.place, message, format!("did you mean {guess}?")),
            None => report.error(node.place, message),
        });
    };
    let masked = net.trunc();
    if masked != net {
        let message = format!("{text} has bits set beyond its prefix; it is taken as {masked}");
        report.warning(
            node.place,
            message,
            format!(
                "write {masked}, or {}/{} for the one address",
                net.addr(),
                net.max_prefix_len()
            ),
        );
    }
    Ok(masked)
}

/// IPv4 networks are often written without their trailing zeros.
fn guess_net(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let missing = 4_usize.checked_sub(address.split('.').count())?;
    format!("{}{}/{length}", address, ".0".repeat(missing))
        .parse()
        .ok()
}

pub(super) fn address<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<IpAddr> {
    let text = report.string(node)?;
    // Calico's annotations write addresses as host prefixes.
    let parsed = text
        .parse::<IpNet>()
        .ok()
        .filter(|net| net.prefix_len() == net.max_prefix_len());
    match parsed.map(|net| net.addr()).or_else(|| text.parse().ok()) {
        Some(address) => Ok(address),
        None => Err(report.error(node.place, format!("{} is not an IP address", quote(text)))),
    }
}

/// Calico's names of protocols.
const PROTOCOLS: [(&str, u8); 6] = [
    ("TCP", 6),
    ("UDP", 17),
    ("SCTP", 132),
    ("ICMP", 1),
    ("ICMPv6", 58),
    ("UDPLite", 136),
];

/// A protocol, and whether it was given by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    pub(super) number: u8,
    pub(super) named: bool,
}

/// A protocol by name, in any case, or by number.
pub(super) fn protocol<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<Protocol> {
    let names = PROTOCOLS.map(|(name, _)| name);
    let expected = format!("{} or a number from 1 to 255", names.join(", "));
    let Value::Scalar(scalar) = &node.value else {
        return Err(report.error(
            node.place,
            format!("expected {expected}, found {}", node.describe()),
        ));
    };
    if let Some((_, number)) = PROTOCOLS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(&scalar.text))
    {
        return Ok(Protocol {
            number: *number,
            named: true,
        });
    }
    match scalar.text.parse() {
        Ok(number) if number != 0 && scalar.text.bytes().all(|b| b.is_ascii_digit()) => {
            Ok(Protocol { number, named: false })
        }
        _ => {
            let message = format!("expected {expected}, found {}", scalar.describe());
            Err(match closest(&scalar.text, names) {
                Some(name) => report.error_with_help(node.place, message, format!("did you mean {name}?")),
                None => report.error(node.place, message),
            })
        }
    }
}

/// One of a few words, spelled exactly.
pub(super) fn word<'t, T: Copy>(
    report: &mut Report<'t>,
    node: &Node<'t>,
    words: &[(&'static str, T)],
) -> Read<T> {
    one_of(report, node, words, |word, text| word == text)
}

/// One of a few words, in any case.
pub(super) fn word_in_any_case<'t, T: Copy>(
    report: &mut Report<'t>,
    node: &Node<'t>,
    words: &[(&'static str, T)],
) -> Read<T> {
    one_of(report, node, words, str::eq_ignore_ascii_case)
}

fn one_of<'t, T: Copy>(
    report: &mut Report<'t>,
    node: &Node<'t>,
    words: &[(&'static str, T)],
    is: impl Fn(&str, &str) -> bool,
) -> Read<T> {
    let text = report.string(node)?;
    if let Some((_, value)) = words.iter().find(|(word, _)| is(word, text)) {
        return Ok(*value);
    }
    let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let message = format!("expected {}, found {}", names.join(" or "), quote(text));
    Err(match closest(text, names) {
        Some(name) => report.error_with_help(node.place, message, format!("did you mean {name}?")),
        None => report.error(node.place, message),
    })
}

/// A name of an object or namespace. A wrong one that still tells objects apart is reported and taken: an object that
/// the API would refuse must not be less strict for it.
pub(super) fn name<'n, 't>(report: &mut Report<'t>, node: &'n Node<'t>) -> Read<&'n str> {
    let text = match report.string(node) {
        Ok(text) => text,
        Err(reported) => return node.text().filter(|text| is_name(text)).ok_or(reported),
    };
    if is_name(text) {
        return Ok(text);
    }
    let message = format!(
        "{} is no name: expected 1 to 253 letters, digits, '-' and '.'",
        quote(text)
    );
    let reported = report.error(node.place, message);
    // Names end up in selectors, which have no escapes.
    let harmless = !text.is_empty() && !text.contains(|c: char| c.is_control() || matches!(c, '"' | '\''));
    if harmless { Ok(text) } else { Err(reported) }
}

fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':');
    (1..=253).contains(&text.len()) && text.bytes().all(allowed)
}

/// A selector; what `global()` means depends on the field, so it is the caller's business.
pub(super) fn selector<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<Selector> {
    let text = report.string(node)?;
    let length = text.chars().count();
    if length > MAX_SELECTOR {
        // Understood all the same, so it is enforced as written.
        let help = "select by fewer labels, or split the policy".to_owned();
        let message = format!("the selector has {length} characters; the API takes {MAX_SELECTOR}");
        report.error_with_help(node.place, message, help);
    }
    Selector::parse(text).map_err(|error| {
        let place = report.inside(node, error.offset);
        report.error(place, format!("this is no selector: {}", error.message))
    })
}

/// A selector in a field where `global()` has no meaning.
pub(super) fn selector_without_global<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<Selector> {
    let selector = selector(report, node)?;
    if selector.contains_global() {
        let message = "global() has a meaning only in a rule's namespaceSelector, alone";
        return Err(report.error(node.place, message));
    }
    Ok(selector)
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use super::super::yaml;
    use super::*;

    /// Texts and what they are read as, and texts that are refused with a part of the one message about each.
    #[track_caller]
    pub(in super::super) fn check<T: std::fmt::Debug + PartialEq>(
        read: impl for<'t> Fn(&mut Report<'t>, &Node<'t>) -> Read<T>,
        good: &[(&str, T)],
        bad: &[(&str, &str)],
    ) {
        let run = |text: &str| {
            let mut report = Report::new(Path::new("x"), text);
            let mut value = None;
            let end = yaml::documents(yaml::Part::whole(text), &mut |node| {
                value = Some(read(&mut report, &node));
            });
            assert_eq!(end, Ok(()));
            let value = value.unwrap();
            (value, report.into_problems())
        };
        for (text, expected) in good {
            let (value, problems) = run(text);
            assert_eq!(value.as_ref(), Ok(expected), "{text}: {problems:?}");
        }
        for (text, fragment) in bad {
            let (value, problems) = run(text);
            assert!(value.is_err(), "{text} gave {value:?}");
            let shown = problems.iter().map(ToString::to_string).collect::<String>();
            assert!(problems.len() == 1 && shown.contains(fragment), "{text}: {shown}");
        }
    }

    #[test]
    fn nets() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        check(
            super::net,
            &[
                ("10.0.0.0/8", net("10.0.0.0/8")),
                ("10.1.2.3/8", net("10.0.0.0/8")),
                ("10.1.2.3", net("10.1.2.3/32")),
                ("\"fd00::1\"", net("fd00::1/128")),
                ("fd00::1/64", net("fd00::/64")),
            ],
            &[
                ("10.0.0/8", "did you mean 10.0.0.0/8?"),
                ("10.0.0.0/33", "is not a network"),
                ("10", "in quotes"),
                ("[10.0.0.0/8]", "a list"),
                ("x", "is not a network"),
            ],
        );
    }

    #[test]
    fn protocols() {
        let by_name = |number| Protocol { number, named: true };
        check(
            protocol,
            &[
                ("TCP", by_name(6)),
                ("udp", by_name(17)),
                ("ICMPv6", by_name(58)),
                ("UDPLite", by_name(136)),
                (
                    "132",
                    Protocol {
                        number: 132,
                        named: false,
                    },
                ),
            ],
            &[
                ("0", "from 1 to 255"),
                ("256", "from 1 to 255"),
                ("TPC", "did you mean TCP?"),
                ("{a: b}", "found a mapping"),
            ],
        );
    }

    #[test]
    fn addresses() {
        check(
            address,
            &[
                ("10.0.0.1", "10.0.0.1".parse().unwrap()),
                ("10.0.0.1/32", "10.0.0.1".parse().unwrap()),
            ],
            &[("10.0.0.0/24", "not an IP address"), ("x", "not an IP address")],
        );
    }
}
