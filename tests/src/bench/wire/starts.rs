//! New flows over a growing number of rules: datagrams from ever new ports, and TCP connections.

use anyhow::{Context as _, Result, ensure};

use super::sender::{Sender, frame};
use super::{Contender, Engine, Path, tcp, tick};
use crate::bench::Scope;
use crate::bench::plot::{Kind, Plot, Series};
use crate::bench::report::{Report, Table, Target};
use crate::bench::stats::{Samples, rounds};

/// At so many rules the product must already be cheaper than the netfilter engines.
const CHEAPER_AT: usize = 100;
/// So many new flows in one measurement at most, so that no table fills up.
const FLOWS: usize = 20_000;

pub(super) fn measure(scope: &Scope, contenders: &mut [Contender], report: &mut Report) -> Result<()> {
    let mut table = Table::new(
        "New flows (median ± median absolute deviation)",
        [
            "path",
            "rules",
            "engine",
            "new UDP flow, ns",
            "over no program, ns",
            "TCP connections per second",
            "x no program",
        ],
    );
    for path in Path::ALL {
        let mut curves: Vec<Series> = contenders
            .iter()
            .map(|contender| Series {
                name: contender.engine.name().to_owned(),
                ..Series::default()
            })
            .collect();
        for &count in &scope.rules {
            for contender in &mut *contenders {
                contender.install(count)?;
            }
            let datagrams = rounds(scope.runs, contenders, |contender| {
                datagram(scope, contender, path)
            })?;
            let connections = rounds(scope.runs, contenders, |contender| {
                contender.forget()?;
                tcp::connections(contender.client()?, contender.servers(path), tick(scope))
            })?;
            let nobody = datagrams.first().context("no contenders")?;
            let unhindered = connections.first().context("no contenders")?;
            let rows = contenders.iter().zip(&datagrams).zip(&connections);
            for (((contender, datagrams), connections), curve) in rows.zip(&mut curves) {
                let figure = datagrams.figure()?;
                curve.points.push((count as f64, figure));
                table.row([
                    path.name().into(),
                    (count as f64).into(),
                    contender.engine.name().into(),
                    figure.into(),
                    datagrams.paired(nobody, |a, b| a - b).figure()?.into(),
                    connections.figure()?.into(),
                    connections.over(unhindered)?.into(),
                ]);
            }
            if count == CHEAPER_AT || (scope.quick && Some(&count) == scope.rules.last()) {
                targets(contenders, &datagrams, path, count, report)?;
            }
        }
        report.plots.push(Plot {
            name: format!("new-flows-{}", path.name().replace(' ', "-")),
            title: format!("A new UDP flow between pods, {}", path.name()),
            x: "rules on the receiving pod".into(),
            y: "ns".into(),
            kind: Kind::Curves,
            series: curves,
        });
    }
    report.tables.push(table);
    Ok(())
}

/// What a new flow costs more than with no program, against the same of the netfilter engines.
fn targets(
    contenders: &[Contender],
    samples: &[Samples],
    path: Path,
    count: usize,
    report: &mut Report,
) -> Result<()> {
    let of = |engine| -> Result<&Samples> {
        let at = contenders.iter().position(|contender| contender.engine == engine);
        at.and_then(|at| samples.get(at)).context("an engine is missing")
    };
    let nobody = of(Engine::Nobody)?;
    let added = |engine| -> Result<Samples> { Ok(of(engine)?.paired(nobody, |a, b| a - b)) };
    let ours = added(Engine::Ours)?;
    for other in [Engine::Iptables, Engine::Nftables] {
        report.targets.push(Target::at_most(
            format!(
                "{}, {count} rules: what a new flow costs over no program, ours : {}",
                path.name(),
                other.name()
            ),
            ours.over(&added(other)?)?.median,
            1.0,
        ));
    }
    Ok(())
}

fn datagram(scope: &Scope, contender: &Contender, path: Path) -> Result<f64> {
    contender.forget()?;
    let (from, to) = (contender.client()?, contender.server(path)?);
    let sender = Sender::open(from)?;
    let packet = frame(from, to.ip, 17, 5601);
    let before = to.received()?;
    let mut ports = (1024..=u16::MAX).take(FLOWS);
    let sent = sender.send(&packet, &mut ports, tick(scope))?;
    let arrived = to.received()?.saturating_sub(before);
    ensure!(
        arrived * 100 >= sent.packets * 95,
        "{}: {arrived} of {} datagrams arrived",
        contender.engine.name(),
        sent.packets
    );
    Ok(sent.cost())
}
