//! Connections as a graph, for Graphviz and for Mermaid.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use crate::analysis::{Connectivity, Place};

/// Places that have a connection, each with a number, by namespace; those that have none last.
struct Nodes<'c> {
    numbers: BTreeMap<&'c Place, usize>,
    namespaces: BTreeMap<&'c str, Vec<(usize, String)>>,
    others: Vec<(usize, String)>,
}

impl<'c> Nodes<'c> {
    fn of(found: &'c Connectivity) -> Self {
        let mut numbers: BTreeMap<&Place, usize> = found
            .pairs()
            .flat_map(|pair| [(pair.src, 0), (pair.dst, 0)])
            .collect();
        let mut namespaces: BTreeMap<&str, Vec<(usize, String)>> = BTreeMap::new();
        let mut others = Vec::new();
        for (next, (place, number)) in numbers.iter_mut().enumerate() {
            *number = next;
            match place {
                Place::Pod { namespace, name } => namespaces
                    .entry(namespace)
                    .or_default()
                    .push((next, name.clone())),
                Place::Workload {
                    namespace,
                    name,
                    kind,
                } => {
                    let label = format!("{name} ({})", kind.as_str());
                    namespaces.entry(namespace).or_default().push((next, label));
                }
                Place::Host { .. } | Place::Cidr(_) => others.push((next, place.to_string())),
            }
        }
        Self {
            numbers,
            namespaces,
            others,
        }
    }

    fn number(&self, place: &Place) -> usize {
        self.numbers.get(place).copied().unwrap_or_default()
    }
}

pub(super) fn dot(found: &Connectivity, out: &mut dyn Write) -> io::Result<()> {
    let nodes = Nodes::of(found);
    writeln!(out, "digraph connectivity {{\n  rankdir=LR;\n  node [shape=box];")?;
    for (place, (namespace, members)) in nodes.namespaces.iter().enumerate() {
        writeln!(
            out,
            "  subgraph cluster_{place} {{\n    label={};",
            quoted(namespace)
        )?;
        for (number, label) in members {
            writeln!(out, "    n{number} [label={}];", quoted(label))?;
        }
        writeln!(out, "  }}")?;
    }
    for (number, label) in &nodes.others {
        writeln!(out, "  n{number} [label={}, shape=ellipse];", quoted(label))?;
    }
    for pair in found.pairs() {
        let (src, dst) = (nodes.number(pair.src), nodes.number(pair.dst));
        writeln!(
            out,
            "  n{src} -> n{dst} [label={}];",
            quoted(&pair.connections.to_string())
        )?;
    }
    writeln!(out, "}}")?;
    out.flush()
}

/// A quoted string of the DOT language, in which a backslash begins an escape.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push('\u{fffd}'),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

pub(super) fn mermaid(found: &Connectivity, out: &mut dyn Write) -> io::Result<()> {
    let nodes = Nodes::of(found);
    writeln!(out, "flowchart LR")?;
    for (place, (namespace, members)) in nodes.namespaces.iter().enumerate() {
        writeln!(out, "  subgraph s{place}[{}]", encoded(namespace))?;
        for (number, label) in members {
            writeln!(out, "    n{number}[{}]", encoded(label))?;
        }
        writeln!(out, "  end")?;
    }
    for (number, label) in &nodes.others {
        writeln!(out, "  n{number}([{}])", encoded(label))?;
    }
    for pair in found.pairs() {
        let (src, dst) = (nodes.number(pair.src), nodes.number(pair.dst));
        writeln!(
            out,
            "  n{src} -->|{}| n{dst}",
            encoded(&pair.connections.to_string())
        )?;
    }
    out.flush()
}

/// A quoted text of Mermaid's, which knows no escapes but the code points of characters.
fn encoded(text: &str) -> String {
    let mut encoded = String::from("\"");
    for c in text.chars() {
        match c {
            c if c.is_control() => encoded.push('\u{fffd}'),
            c if c.is_alphanumeric() || " ./:-_,()*".contains(c) => encoded.push(c),
            c => {
                // Writing to a string does not fail.
                let _ok = write!(encoded, "#{};", u32::from(c));
            }
        }
    }
    encoded.push('"');
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_stay_inside_their_quotes() {
        assert_eq!(quoted("a\"b\\N\n"), "\"a\\\"b\\\\N\u{fffd}\"");
        assert_eq!(encoded("a\"b]#1; <c>"), "\"a#34;b#93;#35;1#59; #60;c#62;\"");
        assert_eq!(
            encoded("2001:db8::/32 (host) 1-2,*"),
            "\"2001:db8::/32 (host) 1-2,*\""
        );
    }
}
