//! Broken policies: one place of a good manifest is made nonsense. If that is reported, nothing may be open that was
//! closed before.
//!
//! An input is the place (two bytes), the nonsense (one), and the manifest.

use std::collections::BTreeSet;
use std::path::Path;

use calico_azure_userspace::model::Severity;
use calico_azure_userspace::model::load::{Loaded, parse_text};
use calico_azure_userspace::policy::Store;
use calico_azure_userspace::policy::generate::{flows, probes};
use calico_azure_userspace::policy::reference::Oracle;
use serde_json::{Value, json};

/// Objects of one input; checks take time by their square.
const OBJECTS: usize = 40;
/// Flows that are asked about for each.
const FLOWS: usize = 60;

pub(super) fn check(data: &[u8]) {
    let Some((&[low, high, what], text)) = data.split_first_chunk::<3>() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let Ok(objects) = serde_saphyr::from_multiple::<Value>(text) else {
        return;
    };
    if objects.len() > OBJECTS {
        return;
    }
    let place = usize::from(u16::from_le_bytes([low, high]));
    let Some((broken, index)) = mutated(&objects, place, what) else {
        return;
    };
    let (before, after) = (load(&objects), load(&broken));
    let is_good = |loaded: &Loaded| errors(loaded).is_empty() && !loaded.unreadable;
    // Only what is reported was not understood, and nonsense that makes a file unreadable keeps the last content.
    if !is_good(&before) || after.unreadable || is_good(&after) {
        return;
    }
    let [before, after] =
        [before, after].map(|loaded| loaded.resources.into_iter().collect::<Store>().on_one_node());
    if let Some(object) = broken.get(index) {
        narrows(&before, &after, u64::from(what), object);
    }
}

/// As one file of JSON documents: what a line number is worth here is checked elsewhere.
fn load(objects: &[Value]) -> Loaded {
    let text: Vec<String> = objects.iter().map(Value::to_string).collect();
    parse_text(Path::new("fuzz.yaml"), &text.join("\n---\n"))
}

fn errors(loaded: &Loaded) -> Vec<String> {
    let errors = loaded.problems.iter();
    let errors = errors.filter(|problem| problem.severity == Severity::Error);
    errors.map(ToString::to_string).collect()
}

/// Everything that the broken one allows, the good one does.
fn narrows(before: &Store, after: &Store, seed: u64, object: &Value) {
    let (good, bad) = (Oracle::new(before), Oracle::new(after));
    let cases = [before, after].map(|store| probes(store, seed, 2));
    for case in cases.iter().flatten() {
        let pods = [before, after].map(|store| store.pod(&case.namespace, &case.pod));
        let [Some(was), Some(is)] = pods else { continue };
        let opens =
            bad.decide(is, case.direction, &case.probe).0 && !good.decide(was, case.direction, &case.probe).0;
        let rules =
            [(&good, was), (&bad, is)].map(|(oracle, pod)| oracle.decide(pod, case.direction, &case.probe).2);
        assert!(
            !opens,
            "{case:?}\nwas denied by {:?}\nand is allowed by {:?}\nnow that this is broken: {object}",
            rules[0], rules[1]
        );
    }
    for flow in [before, after]
        .into_iter()
        .flat_map(|store| flows(store, seed, FLOWS))
    {
        let opens = bad.path(&flow).allow && !good.path(&flow).allow;
        let legs = bad.path(&flow).legs;
        let legs: Vec<_> = legs
            .iter()
            .map(|leg| (leg.stage, &leg.at, &leg.verdict.rule))
            .collect();
        assert!(
            !opens,
            "{flow:?}\nwas denied at {:?}\nand is allowed by {legs:?}\nnow that this is broken: {object}",
            good.path(&flow)
                .denied_at()
                .map(|leg| (leg.stage, leg.verdict.rule.clone()))
        );
    }
}

/// The objects with one place of one policy's `spec` made nonsense, and which of them that is. Places are counted
/// through all policies.
fn mutated(objects: &[Value], place: usize, what: u8) -> Option<(Vec<Value>, usize)> {
    let mut objects = objects.to_vec();
    let is_policy = |object: &Value| {
        let kind = object.get("kind").and_then(Value::as_str);
        kind.is_some_and(|kind| kind.ends_with("Policy"))
    };
    let counts: Vec<usize> = objects
        .iter()
        .map(|object| match object.get("spec") {
            Some(spec) if is_policy(object) => places(spec),
            _ => 0,
        })
        .collect();
    let mut left = place.checked_rem(counts.iter().sum())?;
    for (index, (object, count)) in objects.iter_mut().zip(counts).enumerate() {
        if left < count {
            spoil(object.get_mut("spec")?, &mut left, what);
            return Some((objects, index));
        }
        left -= count;
    }
    None
}

/// A value, and those in it.
fn places(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(places).sum(),
        Value::Object(fields) => fields.values().map(places).sum::<usize>(),
        _ => 0,
    }
}

/// Spoils the `left`th place.
fn spoil(value: &mut Value, left: &mut usize, what: u8) {
    if *left == 0 {
        // Once only.
        *left = usize::MAX;
        *value = nonsense(value, what);
        return;
    }
    *left -= 1;
    let inside: Vec<&mut Value> = match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => Vec::new(),
    };
    for value in inside {
        if *left == usize::MAX {
            return;
        }
        let here = places(value);
        if *left < here {
            return spoil(value, left, what);
        }
        *left -= here;
    }
}

/// What nobody can have meant, or the value with something about it that nobody can have meant.
fn nonsense(value: &Value, what: u8) -> Value {
    match what % 12 {
        0 => json!("?"),
        1 => json!(-1),
        2 => json!(0.5),
        3 => json!(true),
        4 => json!([]),
        5 => json!({}),
        6 => json!(["?"]),
        7 => json!({ "?": "?" }),
        8 => json!(70_000),
        9 => json!(""),
        // A field that does not exist, a field that is missing, a list with one item more.
        10 => match value.clone() {
            Value::Object(mut fields) => {
                fields.insert("?".to_owned(), json!(1));
                Value::Object(fields)
            }
            Value::Array(mut items) => {
                items.push(json!("?"));
                Value::Array(items)
            }
            value => json!(format!("{value}?")),
        },
        _ => match value.clone() {
            Value::Object(fields) => {
                let names: BTreeSet<String> = fields.keys().cloned().collect();
                let gone = names.into_iter().nth(usize::from(what / 12)).unwrap_or_default();
                let kept = fields.into_iter().map(|(name, value)| {
                    let name = if name == gone { format!("{name}?") } else { name };
                    (name, value)
                });
                Value::Object(kept.collect())
            }
            value => json!([value]),
        },
    }
}
