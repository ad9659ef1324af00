//! Packets that must die, each shown with where it died and who says so.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context as _;
use calico_azure_ebpf::abi::Reason;

use super::Findings;
use super::screen::{Colour, Screen};
use crate::lab::probe::{self, Crafted, Payload};
use crate::lab::{Cluster, Counter, Flow, NetNs, plan};

const PATIENCE: Duration = Duration::from_secs(3);
/// Marks the crafted packets in the flow log.
const PORT: u16 = 40_001;

/// A forged packet, and the reason that must stop it on its own node.
struct Forgery {
    what: &'static str,
    from: &'static str,
    packet: Crafted,
    reason: Reason,
}

pub(super) fn forged(cluster: &mut Cluster, screen: &Screen, findings: &mut Findings) -> anyhow::Result<()> {
    for forgery in forgeries(cluster)? {
        forge(cluster, screen, findings, &forgery)?;
    }
    // The node itself is trusted; the fabric is what stops it, without a word to anybody but its own counter.
    let node = cluster.node("node-1")?;
    let dst = address(cluster, "data/db", false)?;
    let src = "198.51.100.9".parse().context("an address")?;
    let payload = Payload::Udp {
        sport: PORT,
        dport: PORT,
    };
    let name = "p1_unknown_source";
    let before = counter(cluster, name)?;
    Crafted { src, dst, payload }.send(node.ns())?;
    let after = settle(|| counter(cluster, name), |now| now.packets > before.packets)?;
    if after.packets > before.packets {
        screen.good(&format!(
            "an unknown source from node-1 itself: died in the fabric, counter {name}"
        ));
    } else {
        findings.add(
            screen,
            "an unknown source from node-1 itself: the fabric did not count it".to_owned(),
        );
    }
    Ok(())
}

fn forgeries(cluster: &Cluster) -> anyhow::Result<Vec<Forgery>> {
    let payload = || Payload::Udp {
        sport: PORT,
        dport: PORT,
    };
    let spoof = |what, src, dst| Forgery {
        what,
        from: "shop/api-1",
        packet: Crafted {
            src,
            dst,
            payload: payload(),
        },
        reason: Reason::SpoofedSource,
    };
    let mut list = Vec::new();
    for v6 in [false, true] {
        let dst = address(cluster, "data/db", v6)?;
        let unknown: IpAddr = if v6 { "2001:db8::9" } else { "198.51.100.9" }
            .parse()
            .context("an address")?;
        list.push(spoof(
            "the address of another pod",
            address(cluster, "shop/frontend-1", v6)?,
            dst,
        ));
        list.push(spoof("an address of nobody", unknown, dst));
    }
    let (src, dst) = (
        address(cluster, "ops/batch", false)?,
        address(cluster, "shop/frontend-1", false)?,
    );
    let inner = Crafted {
        src,
        dst,
        payload: payload(),
    };
    list.push(Forgery {
        what: "IP in IP, which would carry what it likes past policy",
        from: "ops/batch",
        packet: Crafted {
            src,
            dst,
            payload: Payload::Ipip(Box::new(inner)),
        },
        reason: Reason::WorkloadTunnel,
    });
    Ok(list)
}

/// Sends one packet; our own reason must be in the flow log, and the fabric must not have seen it.
fn forge(
    cluster: &Cluster,
    screen: &Screen,
    findings: &mut Findings,
    forgery: &Forgery,
) -> anyhow::Result<()> {
    let Forgery {
        what,
        from,
        packet,
        reason,
    } = forgery;
    let what = format!("{what} ({}) from {from}", packet.src);
    let pod = cluster.pod(from)?;
    let flows = flows(cluster, &pod.manifest.node)?;
    let (mark, before) = (flows.mark(), cluster.fabric.counters()?);
    packet.send(pod.net.ns())?;
    let mine = |flow: &Flow| {
        flow.src == Some(packet.src) && flow.dst == Some(packet.dst) && flow.reason == reason.as_str()
    };
    let seen = flows.wait_for(mark, &format!("a record of {what}"), PATIENCE, mine);
    match findings.expect(screen, seen)? {
        Some(flow) => {
            let place = format!(
                "died at {} of {}",
                flow.hook,
                flow.interface.as_deref().unwrap_or("?")
            );
            screen.good(&format!(
                "{what}: {place}, {}",
                screen.paint(Colour::Bold, &flow.reason)
            ));
            screen.detail(|| flow.line.clone());
        }
        None => {
            for (name, now) in cluster.fabric.counters()? {
                if now.packets > before.get(&name).copied().unwrap_or_default().packets {
                    screen.text(&format!("     the fabric dropped it: {name}"));
                }
            }
        }
    }
    Ok(())
}

/// A probe to a known threat: denied, and logged because a `Log` rule comes before the `Deny`.
pub(super) fn logged(cluster: &mut Cluster, screen: &Screen, findings: &mut Findings) -> anyhow::Result<()> {
    const POD: &str = "ops/batch";
    for dst in [IpAddr::from(plan::THREAT_V4), plan::THREAT_V6.into()] {
        let pod = cluster.pod(POD)?;
        let flows = flows(cluster, &pod.manifest.node)?;
        let mark = flows.mark();
        let ns: &NetNs = pod.net.ns();
        let outcome = probe::tcp(ns, dst, 443, Duration::from_millis(300))?;
        if outcome.passed() {
            findings.add(
                screen,
                format!("{POD} -> {dst} tcp/443: {outcome}; must be denied"),
            );
        }
        let mine = |flow: &Flow| {
            let denied = flow.verdict == "deny" && flow.log;
            denied && flow.dst == Some(dst) && flow.endpoint.as_deref() == Some(POD)
        };
        let seen = flows.wait_for(
            mark,
            &format!("a logged denial of {POD} -> {dst}"),
            PATIENCE,
            mine,
        );
        let Some(flow) = findings.expect(screen, seen)? else {
            continue;
        };
        let rule = flow.rule.as_deref().unwrap_or_default();
        if rule.contains("security.threats") && rule.ends_with("egress[1]") {
            screen.good(&format!(
                "{POD} -> {dst} tcp/443: {outcome}, denied and logged by {rule}"
            ));
        } else {
            let text = format!(
                "{POD} -> {dst} tcp/443: expected rule egress[1] of security.threats, found {rule:?}"
            );
            findings.add(screen, text);
        }
        screen.text(&format!("     {}", screen.paint(Colour::Dim, &flow.line)));
    }
    Ok(())
}

fn flows(cluster: &Cluster, node: &str) -> anyhow::Result<crate::lab::FlowLog> {
    let agent = cluster.agents.iter().find(|agent| agent.node() == node);
    Ok(agent.with_context(|| format!("{node} has no agent"))?.flows())
}

fn address(cluster: &Cluster, pod: &str, v6: bool) -> anyhow::Result<IpAddr> {
    cluster
        .pod(pod)?
        .ip(v6)
        .with_context(|| format!("{pod} lacks an address of one family"))
}

fn counter(cluster: &Cluster, name: &str) -> anyhow::Result<Counter> {
    Ok(cluster.fabric.counters()?.get(name).copied().unwrap_or_default())
}

/// A packet may still be queued when its sender returns.
fn settle<T>(read: impl Fn() -> anyhow::Result<T>, done: impl Fn(&T) -> bool) -> anyhow::Result<T> {
    for _ in 0..50 {
        let value = read()?;
        if done(&value) {
            return Ok(value);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    read()
}
