//! Connections as a table.

use std::io::{self, Write};

use crate::analysis::{Connectivity, Place};
use crate::cli::inputs::row;

pub(super) fn write(found: &Connectivity, out: &mut dyn Write) -> io::Result<()> {
    let mut widths = [4, 2];
    let mut count = 0_usize;
    for pair in found.pairs() {
        for (width, place) in widths.iter_mut().zip([pair.src, pair.dst]) {
            *width = (*width).max(place.to_string().chars().count());
        }
        count += 1;
    }
    if count == 0 {
        writeln!(out, "nobody may talk to anybody")?;
        return out.flush();
    }
    row(out, &["FROM", "TO", "CONNECTIONS"], &widths)?;
    let mut last: Option<&Place> = None;
    let mut seen = Seen::default();
    for pair in found.pairs() {
        let connections = pair.connections.to_string();
        for place in [pair.src, pair.dst] {
            seen.place(place);
        }
        seen.others |= connections.contains("others");
        seen.types |= connections.contains("ICMP ") || connections.contains("ICMPv6 ");
        // The sender is named once.
        let src = if last == Some(pair.src) {
            String::new()
        } else {
            pair.src.to_string()
        };
        last = Some(pair.src);
        row(out, &[&src, &pair.dst.to_string(), &connections], &widths)?;
    }
    writeln!(out)?;
    let pairs = if count == 1 { "pair" } else { "pairs" };
    writeln!(
        out,
        "{count} {pairs} may talk; no other may. TCP, UDP or SCTP without ports: all of them."
    )?;
    seen.legend(out)?;
    out.flush()
}

/// What needs a word of explanation.
#[derive(Default)]
struct Seen {
    workload: bool,
    host: bool,
    cidr: bool,
    others: bool,
    types: bool,
}

impl Seen {
    fn place(&mut self, place: &Place) {
        match place {
            Place::Pod { .. } => {}
            Place::Workload { .. } => self.workload = true,
            Place::Host { .. } => self.host = true,
            Place::Cidr(_) => self.cidr = true,
        }
    }

    fn legend(&self, out: &mut dyn Write) -> io::Result<()> {
        let lines = [
            (
                self.workload,
                "a/b (Deployment): each pod that the workload would make",
            ),
            (self.host, "n (host): node n, as its host endpoints have it"),
            (
                self.cidr,
                "10.0.0.0/8: the addresses in it that belong to nobody listed, and to no node",
            ),
            (
                self.types,
                "ICMP 8: of that type; ICMP 3/4: of that type and code",
            ),
            (self.others, "others: every protocol that the line does not name"),
        ];
        for (_, line) in lines.iter().filter(|(seen, _)| *seen) {
            writeln!(out, "{line}")?;
        }
        Ok(())
    }
}
