//! A pod sends SYNs from ever new ports at full rate while another connection of the node does its work.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::Scope;
use super::report::{Report, Table, Target};
use super::stats::Samples;
use super::wire::sender::{Sender, frame};
use super::wire::{Contender, Engine, Path, tcp};

const RULES: usize = 100;
/// The established connections of others that must all be there afterwards.
const KNOWN: u16 = 500;
/// Where the flood goes, and the made-up connections: policy allows it, and the pods themselves never answer.
const FLOODED: u16 = 5999;
const MADE_UP: u16 = 5998;

/// With and without the flood.
#[derive(Default)]
struct Measured {
    rate: [Samples; 2],
    p99: [Samples; 2],
    floods: Samples,
}

pub(super) fn run(scope: &Scope) -> Result<Report> {
    let mut contenders = Vec::new();
    for engine in Engine::ALL {
        let mut contender = Contender::new(engine, false)?;
        contender.install(RULES)?;
        for pod in [contender.client()?, contender.server(Path::OneNode)?] {
            pod.ns.nft(&deaf())?;
        }
        contenders.push(contender);
    }
    let mut measured: Vec<Measured> = contenders.iter().map(|_| Measured::default()).collect();
    let mut kept = Samples::default();
    let mut half_open = Samples::default();
    for round in 0..=scope.runs {
        for (contender, measured) in contenders.iter().zip(&mut measured) {
            contender.forget()?;
            let ours = contender.ours.first();
            if ours.is_some() {
                establish(contender)?;
            }
            let calm = exchanges(scope, contender, None)?;
            let before = ours.map(super::wire::ours::Ours::flows).transpose()?;
            let count = AtomicU64::new(0);
            let flooded = exchanges(scope, contender, Some(&count))?;
            let after = ours.map(super::wire::ours::Ours::flows).transpose()?;
            if round == 0 {
                continue;
            }
            for (at, found) in [calm, flooded].into_iter().enumerate() {
                if let (Some(rate), Some(p99)) = (measured.rate.get_mut(at), measured.p99.get_mut(at)) {
                    rate.push(found.rate);
                    p99.push(found.p99);
                }
            }
            let seconds = window(scope).as_secs_f64();
            measured
                .floods
                .push(count.load(Ordering::Relaxed) as f64 / seconds);
            if let (Some([established, _]), Some([left, half])) = (before, after) {
                ensure!(
                    established >= usize::from(KNOWN),
                    "only {established} flows were established"
                );
                kept.push(left as f64 / established as f64);
                half_open.push(half as f64);
            }
        }
    }
    report(&contenders, &measured, &kept, &half_open)
}

fn report(
    contenders: &[Contender],
    measured: &[Measured],
    kept: &Samples,
    half_open: &Samples,
) -> Result<Report> {
    let mut table = Table::new(
        format!("One byte to and fro on an established connection between two pods of a node, {RULES} rules"),
        [
            "engine",
            "SYNs per second",
            "requests per second, calm",
            "flooded",
            "flooded : calm",
            "p99 µs, calm",
            "p99 µs, flooded",
        ],
    );
    for (contender, measured) in contenders.iter().zip(measured) {
        let [calm, flooded] = &measured.rate;
        let [p99_calm, p99_flooded] = &measured.p99;
        table.row([
            contender.engine.name().into(),
            measured.floods.figure()?.into(),
            calm.figure()?.into(),
            flooded.figure()?.into(),
            flooded.over(calm)?.into(),
            p99_calm.figure()?.into(),
            p99_flooded.figure()?.into(),
        ]);
    }
    let targets = vec![Target::at_least(
        "established flows that are still in the table after the flood, share",
        kept.figure()?.median,
        1.0,
    )];
    Ok(Report {
        tables: vec![table],
        targets,
        notes: vec![
            format!(
                "Half-open entries after a flood: {}. They have a table of their own.",
                super::report::number(half_open.figure()?.median)
            ),
            "The flood comes from the client's own pod, from ever new ports to a port that policy allows and where nobody \
             answers, on the processor that the server uses; so the rate falls also where nobody decides."
                .into(),
        ],
        ..Report::default()
    })
}

fn window(scope: &Scope) -> Duration {
    Duration::from_millis(if scope.quick { 40 } else { 500 })
}

/// On the connection under test; with a counter, while the flood goes on.
fn exchanges(scope: &Scope, contender: &Contender, flood: Option<&AtomicU64>) -> Result<tcp::Exchanges> {
    let (from, to) = (contender.client()?, contender.server(Path::OneNode)?);
    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let flooding = flood.map(|count| {
            let (stop, sender) = (&stop, Sender::open_on(from, 1));
            threads.spawn(move || -> Result<()> {
                let sender = sender?;
                // From pod a, whom policy allows.
                let packet = frame(from, to.ip, 6, FLOODED);
                let mut ports = (1024..=u16::MAX).cycle();
                while !stop.load(Ordering::Relaxed) {
                    let sent = sender.send(&packet, &mut ports, Duration::from_millis(5))?;
                    count.fetch_add(sent.packets, Ordering::Relaxed);
                }
                Ok(())
            })
        });
        let found = tcp::requests(from, contender.servers(Path::OneNode), window(scope));
        stop.store(true, Ordering::Relaxed);
        if let Some(flooding) = flooding {
            flooding.join().map_err(|_| anyhow!("the flood panicked"))??;
        }
        found
    })
}

/// For the pods' own namespaces: their stacks neither answer nor reset what the benchmark makes up.
fn deaf() -> String {
    let ports = format!("{MADE_UP}-{FLOODED}");
    format!(
        "table ip deaf {{
chain prerouting {{
type filter hook prerouting priority raw; policy accept;
tcp dport {ports} drop
tcp sport {ports} drop
}}
}}
"
    )
}

/// Makes so many established flows from pod `a` to pod `b`: SYN, SYN and ACK, ACK.
fn establish(contender: &Contender) -> Result<()> {
    let (from, to) = (contender.client()?, contender.server(Path::OneNode)?);
    let (there, back) = (Sender::open(from)?, Sender::open(to)?);
    /// Of the TCP header, behind Ethernet and IPv4.
    const FLAGS: usize = 14 + 20 + 13;
    let time = Duration::from_secs(1);
    let with = |mut frame: Vec<u8>, flags: u8| -> Result<Vec<u8>> {
        *frame.get_mut(FLAGS).context("no TCP header")? = flags;
        Ok(frame)
    };
    for port in 20_000..20_000 + KNOWN {
        let syn = frame(from, to.ip, 6, MADE_UP);
        there.send(&syn, &mut std::iter::once(port), time)?;
        let mut answer = with(frame(to, from.ip, 6, port), 0x12)?;
        answer[34..36].copy_from_slice(&MADE_UP.to_be_bytes());
        back.send(&answer, &mut std::iter::once(MADE_UP), time)?;
        there.send(&with(syn, 0x10)?, &mut std::iter::once(port), time)?;
    }
    Ok(())
}
