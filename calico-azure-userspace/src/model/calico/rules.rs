//! Lists of rules, and what becomes of those that are not understood.

use super::rule::{Context, rule};
use crate::model::report::{Read, Report, Reported};
use crate::model::types::{Action, Rule};
use crate::model::yaml::Node;

/// What the API takes in one direction.
const MAX_RULES: usize = 1024;

/// Whether anything was not understood.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Broken(pub(super) bool);

impl Broken {
    pub(super) fn or_default<T: Default>(&mut self, read: Read<T>) -> T {
        read.unwrap_or_else(|Reported| {
            self.0 = true;
            T::default()
        })
    }
}

/// Rules of a policy that was not understood as a whole: nothing is allowed, and whatever could be denied is.
pub(in crate::model) fn distrust(rules: &mut Vec<Rule>) {
    rules.retain(|rule| matches!(rule.action, Action::Deny | Action::Pass));
    for rule in rules {
        rule.action = Action::Deny;
    }
}

/// In the place of a list that nobody can read, or that may be missing.
pub(super) fn deny_everything() -> Vec<Rule> {
    vec![Rule::everything(0, Action::Deny)]
}

/// The rules that mean something; `Err` if it is no list at all.
pub(super) fn rules<'t>(report: &mut Report<'t>, node: &Node<'t>, context: &Context<'_>) -> Read<Vec<Rule>> {
    let list = report.list(node)?;
    if list.len() > MAX_RULES {
        let message = format!(
            "there are {} rules in this direction; the API takes {MAX_RULES}",
            list.len()
        );
        report.error_with_help(node.place, message, "split the policy");
    }
    let mut rules = Vec::with_capacity(list.len());
    for (index, node) in list.iter().enumerate() {
        rules.extend(report.item(index, |report| rule(report, node, index, context)));
    }
    Ok(rules)
}

/// More than the API takes is enforced all the same.
pub(super) fn limit(report: &mut Report<'_>, node: &Node<'_>, length: usize, most: usize) {
    if length > most {
        let message = format!("the list has {length} entries; the API takes {most}");
        report.error_with_help(node.place, message, "split the rule, or use a network set");
    }
}
