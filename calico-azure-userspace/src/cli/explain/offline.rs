//! Explanations from manifests.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;

use super::ends::{find, pair};
use super::report::{Decision, Report, StageReport, word};
use super::{Engines, ExplainArgs, trace};
use crate::analysis::{Inhabited, has_ports, has_types, protocol_name};
use crate::cli::engine;
use crate::cli::inputs::{Inputs, print_notes};
use crate::judge::{Answer, Cluster, EngineName, Judge, Reference, Step};
use crate::model::load::Origin;
use crate::model::locate::{self, Written};
use crate::model::{Key, Kind, Resource};
use crate::policy::pending::pending;
use crate::policy::reference::{Flow, Leg};
use crate::policy::{RuleRef, Store};

type Origins = HashMap<Key, Origin>;

pub(super) fn explain(args: &ExplainArgs, err: &mut dyn Write) -> Result<Report, Box<dyn std::error::Error>> {
    let inputs = Inputs::read(&args.paths, err)?;
    let keys = inputs.resources.iter().map(Resource::key);
    let origins: Origins = keys.zip(inputs.origins).collect();
    let v6 = [&args.from, &args.to].iter().any(|who| who.contains(':')) || args.protocol == 58;
    let world = Inhabited::new(inputs.resources.into_iter().collect(), v6);
    print_notes(&world.notes, err);

    let cluster = Cluster::new(&world.store);
    let oracle = cluster.oracle();
    let (from, to) = (
        find("--from", &args.from, &world, oracle)?,
        find("--to", &args.to, &world, oracle)?,
    );
    for note in [&from.note, &to.note].into_iter().flatten() {
        let _closed = writeln!(err, "note: {note}");
    }
    let (from, to) = pair(&from, &to)?;
    let flow = args.flow(from.address, to.address)?;

    let legs = oracle.path(&flow).legs;
    let (said, not_asked) = ask(args, &cluster, &flow)?;
    let (_, steps) = said.first().ok_or("--engine: expected at least one")?;
    let decide = |steps: &[Step]| decision(&cluster, &flow, steps, &origins);
    let engines = said
        .iter()
        .map(|(name, steps)| (name.as_str(), decide(steps)))
        .collect();
    let stages: Vec<StageReport> = legs
        .iter()
        .enumerate()
        .map(|(place, leg)| stage(&world.store, leg, place, &said))
        .collect();
    let agree = said.iter().all(|(_, others)| others == steps);
    let pending = match pending(&world.store) {
        Some(store) => Some(if_enforced(&store, &flow, &origins)?),
        None => None,
    };
    let ports = has_ports(flow.protocol);
    Ok(Report {
        protocol: protocol_name(flow.protocol),
        sport: ports.then_some(flow.sport),
        dport: ports.then_some(flow.dport),
        icmp: has_types(flow.protocol).then(|| flow.dport.to_be_bytes()),
        from,
        to,
        decision: decide(steps),
        agree,
        engines,
        not_asked,
        stages,
        pending,
        notes: Vec::new(),
    })
}

type SaidByAll = (Vec<(EngineName, Vec<Step>)>, BTreeMap<&'static str, String>);

/// What each engine says of each stage. With `all`, one that cannot run here is passed over.
fn ask(
    args: &ExplainArgs,
    cluster: &Cluster<'_>,
    flow: &Flow,
) -> Result<SaidByAll, Box<dyn std::error::Error>> {
    let all = args.engine.contains(&Engines::All);
    let mut said = Vec::new();
    let mut not_asked = BTreeMap::new();
    for name in EngineName::ALL {
        if !all && !args.engine.contains(&Engines::One(name)) {
            continue;
        }
        let steps = engine::start(name, cluster, args.object.as_deref())
            .and_then(|engine| Ok(Judge::new(cluster, engine).steps(flow)?));
        match steps {
            Ok(steps) => said.push((name, steps)),
            Err(error) if all && name == EngineName::Kernel => {
                not_asked.insert(name.as_str(), error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    Ok((said, not_asked))
}

/// The last word: of the first that denies, else of the last that was asked.
fn decision(cluster: &Cluster<'_>, flow: &Flow, steps: &[Step], origins: &Origins) -> Decision {
    let denied = steps.iter().find(|step| !step.answer.allow);
    let Some(step) = denied.or(steps.last()) else {
        let Answer { allow, reason, .. } = cluster.unasked(flow);
        return Decision {
            verdict: word(allow),
            reason,
            ..Decision::default()
        };
    };
    Decision {
        verdict: word(step.answer.allow),
        reason: step.answer.reason,
        stage: Some(step.stage.to_string()),
        at: Some(step.at.clone()),
        rule: step.answer.rule.as_ref().map(ToString::to_string),
        written: step.answer.rule.as_ref().and_then(|rule| place_of(rule, origins)),
    }
}

fn stage(store: &Store, leg: &Leg, place: usize, said: &[(EngineName, Vec<Step>)]) -> StageReport {
    let answer = Answer::of_rule(leg.verdict.allow, leg.verdict.rule.clone());
    let answers: Vec<(EngineName, &Answer)> = said
        .iter()
        .filter_map(|(name, steps)| Some((*name, &steps.get(place)?.answer)))
        .collect();
    let agree = answers
        .windows(2)
        .all(|pair| matches!(pair, [(_, a), (_, b)] if a == b));
    let answer = answers.first().map_or(&answer, |(_, answer)| *answer);
    let disagree = answers.iter().filter(|_| !agree).map(|(name, answer)| {
        let rule = answer
            .rule
            .as_ref()
            .map(|rule| format!(" by {rule}"))
            .unwrap_or_default();
        (
            name.as_str(),
            format!("{}, {}{rule}", word(answer.allow), answer.reason),
        )
    });
    StageReport {
        stage: leg.stage.to_string(),
        at: leg.at.clone(),
        verdict: word(answer.allow),
        reason: answer.reason,
        rule: answer.rule.as_ref().map(ToString::to_string),
        disagree: disagree.collect(),
        trace: trace::of(store, leg.direction, &leg.verdict.trace),
        tables: None,
    }
}

fn if_enforced(
    store: &Store,
    flow: &Flow,
    origins: &Origins,
) -> Result<Decision, Box<dyn std::error::Error>> {
    let cluster = Cluster::new(store);
    let steps = Judge::new(&cluster, Reference).steps(flow)?;
    Ok(decision(&cluster, flow, &steps, origins))
}

/// Where what decided is written.
fn place_of(rule: &RuleRef, origins: &Origins) -> Option<Written> {
    let named = |kind, name: &str| {
        origins.get(&Key {
            kind,
            namespace: None,
            name: name.to_owned(),
        })
    };
    match rule {
        RuleRef::Rule {
            policy,
            ingress,
            index,
            ..
        } => locate::rule(origins.get(policy)?, *ingress, *index),
        RuleRef::ProfileRule { name, ingress, index } => {
            locate::rule(named(Kind::Profile, name)?, *ingress, *index)
        }
        RuleRef::TierDefault { tier } => locate::default_action(named(Kind::Tier, tier)?),
        _ => None,
    }
}
