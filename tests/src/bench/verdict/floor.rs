//! Established flows, and the parts that their cost is made of.

use anyhow::{Context as _, Result};

use super::{Bench, Case};
use crate::bench::report::{Report, Table, Target};
use crate::bench::stats::{Samples, rounds};
use crate::harness::At;
use crate::harness::packet::{ACK, Frame, SYN};
use crate::harness::scenario::{B, address, store};

/// What an established flow may cost over an empty program, in lookups of the same key size.
const LOOKUPS: f64 = 3.0;

pub(super) fn measure(bench: &mut Bench, report: &mut Report) -> Result<()> {
    bench.apply(&store([]))?;
    let at = At::to_workload(B);
    let syn = |v6| Frame::new(address("remote", v6), address("b", v6), 6, 1000, 80);
    let mut arp = syn(false).bytes();
    arp[12..14].copy_from_slice(&[8, 6]);
    for v6 in [false, true] {
        let syn = syn(v6);
        bench.harness.run(at, &syn.bytes())?;
        bench
            .harness
            .run(At::from_workload(B), &syn.reply().flags(SYN | ACK).bytes())?;
        // The packet that completes the handshake.
        bench.harness.run(at, &syn.flags(ACK).bytes())?;
    }
    let ack = |v6| syn(v6).flags(ACK).bytes();
    let any = syn(false).bytes();
    let mut cases = [
        ("an empty program", Case::yardstick("empty", any.clone(), true)),
        ("reading the clock", Case::yardstick("clock", any.clone(), true)),
        (
            "one hash lookup, key of 16 bytes (IPv4 flow)",
            Case::yardstick("lookup4", any.clone(), true),
        ),
        (
            "one hash lookup, key of 40 bytes (IPv6 flow)",
            Case::yardstick("lookup6", any, true),
        ),
        ("ours: no verdict (ARP)", Case::ours(at, arp, true)),
        ("ours: established, IPv4", Case::ours(at, ack(false), true)),
        ("ours: established, IPv6", Case::ours(at, ack(true), true)),
    ];
    let runs = bench.scope.runs;
    let samples = rounds(runs, &mut cases, |(_, case)| bench.measure(case))?;
    let empty = samples.first().context("no cases")?;
    let mut table = Table::new(
        "Established flows, nanoseconds per packet",
        ["program", "cost", "over empty", "x empty"],
    );
    for ((name, _), samples) in cases.iter().zip(&samples) {
        table.row([
            (*name).into(),
            samples.figure()?.into(),
            samples.paired(empty, |a, b| a - b).figure()?.median.into(),
            samples.over(empty)?.into(),
        ]);
    }
    report.tables.push(table);
    for (family, lookup, flow) in [("IPv4", 2, 5), ("IPv6", 3, 6)] {
        let over = |at: usize| -> Result<Samples> {
            Ok(samples
                .get(at)
                .context("no such case")?
                .paired(empty, |a, b| a - b))
        };
        let lookups = over(flow)?.over(&over(lookup)?)?;
        report.targets.push(Target::at_most(
            format!("established, {family}, over an empty program, in lookups of its key size"),
            lookups.median,
            LOOKUPS,
        ));
    }
    Ok(())
}
