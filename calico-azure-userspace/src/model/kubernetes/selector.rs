//! Kubernetes' label selectors.

use crate::model::report::{Read, Report, Reported, quote};
use crate::model::scalars;
use crate::model::yaml::{Node, Place};
use crate::selector::Selector;

#[derive(Clone, Copy)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

const OPERATORS: [(&str, Operator); 4] = [
    ("In", Operator::In),
    ("NotIn", Operator::NotIn),
    ("Exists", Operator::Exists),
    ("DoesNotExist", Operator::DoesNotExist),
];

/// A label selector; an empty one selects everything.
pub(in crate::model) fn labels<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<Selector> {
    let fields = report.strict(node, &["matchLabels", "matchExpressions"])?;
    let matched = fields.read(report, "matchLabels", |report, node| {
        let mut selector = Selector::all();
        for entry in report.distinct(node)? {
            check_key(report, &entry.key, entry.key_place)?;
            let value = if entry.node.is_null() {
                ""
            } else {
                value(report, &entry.node)?
            };
            selector = selector.and(&Selector::eq(&entry.key, value));
        }
        Ok(selector)
    });
    let expressions = fields.read(report, "matchExpressions", |report, node| {
        report.all(node, expression)
    });
    let selector = matched?.unwrap_or_default();
    let expressions = expressions?.unwrap_or_default();
    if !fields.complete {
        return Err(Reported);
    }
    Ok(expressions
        .iter()
        .fold(selector, |all, expression| all.and(expression)))
}

fn expression<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<Selector> {
    let fields = report.strict(node, &["key", "operator", "values"])?;
    let key = fields.read(report, "key", |report, node| {
        let key = report.string(node)?;
        check_key(report, key, node.place)?;
        Ok(key)
    });
    let operator = fields.read(report, "operator", |report, node| {
        scalars::word(report, node, &OPERATORS)
    });
    let values = fields.read(report, "values", |report, node| report.all(node, value));
    let (Some(key), Some(operator)) = (key?, operator?) else {
        return Err(report.error(fields.place, "expected a key and an operator"));
    };
    let values = values?.unwrap_or_default();
    if !fields.complete {
        return Err(Reported);
    }
    match (operator, values.is_empty()) {
        (Operator::In, false) => Ok(Selector::in_set(key, values)),
        (Operator::NotIn, false) => Ok(Selector::not_in_set(key, values)),
        (Operator::Exists, true) => Ok(Selector::has(key)),
        (Operator::DoesNotExist, true) => Ok(Selector::not_has(key)),
        (Operator::In | Operator::NotIn, true) => {
            Err(report.error(fields.place, "values is missing: In and NotIn need at least one"))
        }
        (Operator::Exists | Operator::DoesNotExist, false) => {
            Err(report.error(fields.place, "expected no values with Exists and DoesNotExist"))
        }
    }
}

/// `name` or `prefix/name`.
fn check_key(report: &mut Report<'_>, key: &str, place: Place) -> Read<()> {
    let (prefix, name) = key
        .rsplit_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let allowed = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let good = (1..=63).contains(&name.len())
        && allowed(name)
        && prefix.is_none_or(|prefix| (1..=253).contains(&prefix.len()) && allowed(prefix));
    if good {
        Ok(())
    } else {
        Err(report.error(place, format!("{} is no label key", quote(key))))
    }
}

fn value<'n, 't>(report: &mut Report<'t>, node: &'n Node<'t>) -> Read<&'n str> {
    let text = report.string(node)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.len() > 63 || !text.bytes().all(allowed) {
        let message = format!(
            "{} is no label value: expected up to 63 letters, digits, '-', '_' and '.'",
            quote(text)
        );
        return Err(report.error(node.place, message));
    }
    Ok(text)
}
