//! Selectors of one side of a rule, with the scopes that Calico lays over them folded in.

use super::rules::Broken;
use crate::model::report::{Fields, Read, Report, Reported};
use crate::model::scalars;
use crate::model::types::{Peer, label};
use crate::model::yaml::Node;
use crate::selector::Selector;

/// A selector over namespaces, asked of what lives in them: `all()` is whatever has a namespace.
pub(super) fn namespaces(selector: &Selector) -> Selector {
    selector
        .with_key_prefix(label::NAMESPACE_PREFIX)
        .replace_all(&Selector::has(label::NAMESPACE))
}

/// A selector over service accounts, asked of what runs under them.
pub(super) fn service_accounts(selector: &Selector) -> Selector {
    selector
        .with_key_prefix(label::SERVICE_ACCOUNT_PREFIX)
        .replace_all(&Selector::has(label::SERVICE_ACCOUNT))
}

/// What is wrong is left out, so that the rest matches more. `namespace` is that of the policy.
pub(super) fn read<'t>(
    report: &mut Report<'t>,
    fields: &Fields<'_, 't>,
    namespace: Option<&str>,
    peer: &mut Peer,
    broken: &mut Broken,
) {
    // An empty selector is none at all.
    let is_there = |key: &str| fields.get(key).is_some_and(|node| node.text() != Some(""));
    let read = |report: &mut Report<'t>, key| -> Read<Option<Selector>> {
        if is_there(key) {
            fields.read(report, key, scalars::selector_without_global)
        } else {
            Ok(None)
        }
    };
    let positive = read(report, "selector");
    let negative = read(report, "notSelector");
    let accounts = fields.read(report, "serviceAccounts", service_account_peer);
    let of_namespaces = if is_there("namespaceSelector") {
        fields.read(report, "namespaceSelector", namespace_peer)
    } else {
        Ok(None)
    };
    // A field that was not understood may have been a namespaceSelector, which would lift the restriction to the own
    // namespace.
    let scope = match (&of_namespaces, namespace) {
        (Ok(Some(namespaces)), _) => Some(namespaces.clone()),
        (Ok(None), Some(own)) if fields.complete => Some(Selector::eq(label::NAMESPACE, own)),
        (Ok(None) | Err(Reported), _) => None,
    };
    broken.0 |= of_namespaces.is_err();
    let all_read = fields.complete && positive.is_ok() && accounts.is_ok() && of_namespaces.is_ok();
    let any = ["selector", "notSelector", "namespaceSelector"]
        .into_iter()
        .any(is_there)
        || fields.get("serviceAccounts").is_some();
    let parts = [
        scope.filter(|_| any),
        broken.or_default(accounts),
        broken.or_default(positive),
    ];
    let positive = parts.into_iter().flatten().reduce(|a, b| a.and(&b));
    match (positive, broken.or_default(negative)) {
        (Some(positive), Some(negative)) => peer.selector = Some(positive.and(&negative.not())),
        (positive, negative) => {
            peer.selector = positive;
            // Beside a selector that is lost it would exclude more than it was meant to.
            peer.not_selector = negative.filter(|_| all_read);
        }
    }
}

fn namespace_peer<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<Selector> {
    let selector = scalars::selector(report, node)?;
    if selector.is_global() {
        return Ok(Selector::not_has(label::NAMESPACE));
    }
    if selector.contains_global() {
        let help = "make two rules: one with global(), one with the rest";
        return Err(report.error_with_help(node.place, "global() cannot be combined with anything", help));
    }
    Ok(namespaces(&selector))
}

fn service_account_peer<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<Selector> {
    let fields = report.strict(node, &["names", "selector"])?;
    let names = fields.read(report, "names", |report, node| report.all(node, scalars::name));
    let selector = fields.read(report, "selector", scalars::selector_without_global);
    let names = names?.filter(|names| !names.is_empty());
    let names = names.map(|names| Selector::in_set(label::SERVICE_ACCOUNT, names));
    // Neither names nor a selector is no criterion of its own; it still restricts the rule to its namespace.
    let selector = selector?.filter(|_| fields.get("selector").is_some_and(|node| node.text() != Some("")));
    let parts = [names, selector.as_ref().map(service_accounts)];
    match parts.into_iter().flatten().reduce(|a, b| a.and(&b)) {
        Some(selector) if fields.complete => Ok(selector),
        None if fields.complete => Ok(Selector::all()),
        _ => Err(Reported),
    }
}
