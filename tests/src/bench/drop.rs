//! How many packets per second can be dropped: live frames out of a pod, dropped on the host side of its veth, by TC and by
//! XDP programs.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use aya::programs::TcAttachType;
use calico_azure_ebpf::abi::Reason;

use super::Scope;
use super::plot::{Kind, Plot, Series};
use super::report::{Report, Table, Target};
use super::stats::rounds;
use super::wire::ours::Ours;
use super::wire::sender::{frame, thread_time};
use super::wire::topology::{Pod, Topology};
use super::yardstick::Yardstick;
use crate::harness::pin;
use crate::harness::scenario::{address, policy, store};

/// What of the minimal program's rate must be left.
const SHARE: f64 = 0.9;

/// A topology with a program on `va` that drops what pod `a` sends.
struct Dropper {
    name: &'static str,
    /// The baseline, by name.
    against: &'static str,
    packet: Vec<u8>,
    generator: Yardstick,
    // Programs end before the namespaces that they are attached in.
    ours: Vec<Ours>,
    /// Why ours dropped, to be seen in its counters.
    reason: Option<Reason>,
    _yardstick: Option<Yardstick>,
    topology: Topology,
}

const MINIMAL_TC: &str = "TC: parse, one lookup, drop";
const MINIMAL_XDP: &str = "XDP: parse, one lookup, drop";

pub(super) fn run(scope: &Scope) -> Result<Report> {
    let mut report = Report::default();
    let mut droppers = vec![
        minimal(MINIMAL_TC)?,
        ours("TC: ours, denied by policy", Reason::PolicyDeny)?,
        ours("TC: ours, not the pod's own source", Reason::SpoofedSource)?,
        minimal(MINIMAL_XDP)?,
        untracked()?,
    ];
    let frames = if scope.quick { 10_000 } else { 500_000 };
    let samples = rounds(scope.runs, &mut droppers, |dropper| dropper.measure(frames))?;
    let mut table = Table::new(
        "Packets per second of processor time that are sent over a veth and dropped there",
        ["program", "million per second", "x minimal program"],
    );
    let mut bars = Vec::new();
    for (dropper, own) in droppers.iter().zip(&samples) {
        let baseline = droppers.iter().position(|other| other.name == dropper.against);
        let baseline = baseline.and_then(|at| samples.get(at)).context("no baseline")?;
        let ratio = own.over(baseline)?;
        table.row([dropper.name.into(), own.figure()?.into(), ratio.into()]);
        bars.push(Series {
            name: dropper.name.to_owned(),
            points: vec![(0.0, own.figure()?)],
        });
        if dropper.name.contains("XDP: ours") {
            let name = "XDP drop rate, of a minimal program";
            report.targets.push(Target::at_least(name, ratio.median, SHARE));
        }
    }
    report.tables.push(table);
    report.plots.push(Plot {
        name: "drop".into(),
        title: "Packets dropped on a pod's veth".into(),
        x: "live frames, one processor".into(),
        y: "million per second".into(),
        kind: Kind::Bars(vec!["64 frames at a time".into()]),
        series: bars,
    });
    report.notes.push(
        "Sender and receiver are one thread, so what is counted holds the sending too. A TC program sees a packet only \
         after the kernel has made an skb of it, which is most of the cost. The minimal programs keep no counters and \
         record nothing."
            .into(),
    );
    Ok(report)
}

fn minimal(name: &'static str) -> Result<Dropper> {
    let mut dropper = Dropper::new(name, name)?;
    let Topology { nodes: [node, _], .. } = &dropper.topology;
    let attached = node.ns.run(|| -> Result<Yardstick> {
        let mut yardstick = Yardstick::load()?;
        if name == MINIMAL_TC {
            yardstick.attach("minimal_tc", "va", TcAttachType::Ingress)?;
        } else {
            yardstick.attach_xdp("minimal_xdp", "va")?;
        }
        yardstick.block(dropper.topology.pod("va")?.v4())?;
        Ok(yardstick)
    })??;
    dropper._yardstick = Some(attached);
    Ok(dropper)
}

fn ours(name: &'static str, reason: Reason) -> Result<Dropper> {
    let mut dropper = Dropper::new(name, MINIMAL_TC)?;
    let closed = policy("closed", "a", None, Some(Vec::new()));
    dropper.ours = Ours::install(&dropper.topology, &store([closed]))?;
    dropper.reason = Some(reason);
    if reason == Reason::SpoofedSource {
        let forged = Pod {
            ip: Ipv4Addr::new(10, 244, 1, 99).into(),
            ..dropper.topology.pod("va")?.clone()
        };
        dropper.packet = frame(&forged, address("b", false), 6, 80);
    }
    Ok(dropper)
}

/// Untracked policy, which XDP has first.
fn untracked() -> Result<Dropper> {
    let mut dropper = Dropper::new("XDP: ours, denied by untracked policy", MINIMAL_XDP)?;
    let early = Ours::install_early(&dropper.topology, dropper.topology.pod("va")?)?;
    dropper.ours.push(early);
    dropper.reason = Some(Reason::PolicyDeny);
    Ok(dropper)
}

impl Dropper {
    fn new(name: &'static str, against: &'static str) -> Result<Self> {
        let topology = Topology::new()?;
        let pod = topology.pod("va")?;
        let packet = frame(pod, address("b", false), 6, 80);
        // With it the veth takes in frames that XDP programs send.
        let Topology { nodes: [node, _], .. } = &topology;
        node.ns.exec("ethtool", &["-K", "va", "gro", "on"])?;
        let mut generator = pod.ns.run(Yardstick::load)??;
        generator.aim(pod.inside()?)?;
        Ok(Self {
            name,
            against,
            packet,
            generator,
            ours: Vec::new(),
            reason: None,
            _yardstick: None,
            topology,
        })
    }

    /// Million packets per second of processor time.
    fn measure(&mut self, frames: u32) -> Result<f64> {
        let pod = self.topology.pod("va")?;
        let dropped = |ours: &[Ours], reason| -> Result<u64> {
            match (ours.first(), reason) {
                (Some(ours), Some(reason)) => ours.dropped(reason),
                _ => Ok(0),
            }
        };
        let before = dropped(&self.ours, self.reason)?;
        let (generator, packet) = (&mut self.generator, &self.packet);
        let cpu = pod.ns.run(|| -> Result<f64> {
            pin(0)?;
            let begun = thread_time()?;
            generator.live_frames("generate", packet, frames)?;
            Ok((thread_time()? - begun).as_secs_f64())
        })??;
        if self.reason.is_some() {
            let after = dropped(&self.ours, self.reason)?;
            ensure!(
                (after - before) * 100 >= u64::from(frames) * 95,
                "{}: {} of {frames} packets were dropped",
                self.name,
                after - before
            );
        }
        Ok(f64::from(frames) / cpu / 1e6)
    }
}
