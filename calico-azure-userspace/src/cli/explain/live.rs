//! Explanations from a running agent's tables.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::ExplainArgs;
use super::ends::{Known, pair};
use super::report::{Decision, Report, StageReport, Tables, word};
use crate::analysis::{has_ports, has_types, protocol_name};
use crate::judge::{EngineName, LiveStep, LiveTables};
use crate::policy::reference::Flow;

type Failed = Box<dyn std::error::Error>;

pub(super) fn explain(args: &ExplainArgs) -> Result<Report, Failed> {
    // Names are read until all that are needed are there.
    let tables = args.live.read(|tables| {
        let steps = ask(args, tables).map(|(_, _, _, steps)| steps);
        steps.is_ok_and(|steps| !tables.lacks_name(&steps))
    })?;
    let (from, to, flow, steps) = ask(args, &tables)?;
    let node = tables.node();
    let mut notes = vec![format!("of a new flow, by the tables in force on node {node}")];
    let [src, dst] = [flow.src, flow.dst].map(|address| tables.owner(address));
    let decision = match steps.iter().find(|step| !step.allow).or(steps.last()) {
        Some(step) => of_step(step),
        None if src.is_some() => Decision {
            verdict: word(true),
            reason: crate::judge::reason::WITHIN_POD,
            ..Decision::default()
        },
        None => {
            let (src, dst) = (flow.src, flow.dst);
            return Err(
                format!("neither {src} nor {dst} is a pod of node {node}: ask where one of them is").into(),
            );
        }
    };
    for (owner, address, what) in [(src, flow.src, "sends"), (dst, flow.dst, "gets")] {
        if owner.is_none() {
            notes.push(format!(
                "{address} is no pod of this node: what it {what} is not decided here"
            ));
        }
    }
    let ports = has_ports(flow.protocol);
    let kernel = EngineName::Kernel.as_str();
    Ok(Report {
        from,
        to,
        protocol: protocol_name(flow.protocol),
        sport: ports.then_some(flow.sport),
        dport: ports.then_some(flow.dport),
        icmp: has_types(flow.protocol).then(|| flow.dport.to_be_bytes()),
        engines: [(kernel, decision.clone())].into(),
        decision,
        agree: true,
        not_asked: BTreeMap::new(),
        stages: steps.iter().map(stage).collect(),
        pending: None,
        notes,
    })
}

type Asked = (super::report::End, super::report::End, Flow, Vec<LiveStep>);

fn ask(args: &ExplainArgs, tables: &LiveTables) -> Result<Asked, Failed> {
    let (from, to) = (
        find("--from", &args.from, tables)?,
        find("--to", &args.to, tables)?,
    );
    let (from, to) = pair(&from, &to)?;
    let flow = args.flow(from.address, to.address)?;
    let steps = tables.steps(&flow);
    Ok((from, to, flow, steps))
}

fn find(flag: &str, who: &str, tables: &LiveTables) -> Result<Known, String> {
    if let Ok(address) = who.parse::<IpAddr>() {
        return Ok(Known {
            name: tables.owner(address).map(ToOwned::to_owned),
            addresses: vec![address],
            note: None,
        });
    }
    let addresses = tables.addresses(who).ok_or_else(|| {
        let pods: Vec<&str> = tables.pods().collect();
        format!(
            "{flag} {who}: this is no pod of node {}; give the address of one that is elsewhere; here are: {}",
            tables.node(),
            pods.join(", ")
        )
    })?;
    Ok(Known {
        name: Some(who.to_owned()),
        addresses: addresses.to_vec(),
        note: None,
    })
}

fn of_step(step: &LiveStep) -> Decision {
    Decision {
        verdict: word(step.allow),
        reason: step.reason,
        stage: Some(step.stage.to_string()),
        at: Some(step.at.clone()),
        rule: step.rule.clone(),
        written: None,
    }
}

fn stage(step: &LiveStep) -> StageReport {
    StageReport {
        stage: step.stage.to_string(),
        at: step.at.clone(),
        verdict: word(step.allow),
        reason: step.reason,
        rule: step.rule.clone(),
        disagree: BTreeMap::new(),
        trace: Vec::new(),
        tables: step.found.map(|found| Tables {
            policy_set: found.set,
            peer_class: found.class,
            port_table: found.table,
        }),
    }
}
