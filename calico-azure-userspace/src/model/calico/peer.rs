//! One side of a rule, with the scopes that Calico lays over its selectors folded in.

use ipnet::IpNet;

use super::rule::{Broken, Side};
use crate::model::report::{Fields, Read, Report, Reported};
use crate::model::scalars;
use crate::model::types::{Peer, PortRange, label};
use crate::model::yaml::{Node, Place};
use crate::selector::Selector;

const FIELDS: [&str; 9] = [
    "nets",
    "notNets",
    "ports",
    "notPorts",
    "selector",
    "notSelector",
    "namespaceSelector",
    "serviceAccounts",
    "services",
];
/// What the API takes in one list.
const MAX_NETS: usize = 256;
const MAX_PORTS: usize = 50;

/// A side as far as it was understood, and what the rule around it has to know.
#[derive(Default)]
pub(super) struct ReadPeer {
    pub(super) peer: Peer,
    /// Of `ports` or `notPorts`, whichever comes first.
    pub(super) ports_place: Option<Place>,
    /// Of the first network of each family.
    pub(super) nets_place: [Option<Place>; 2],
}

/// `namespace` is that of the policy. What cannot be understood is left out, so that the rest matches more.
pub(super) fn read<'t>(
    report: &mut Report<'t>,
    node: &Node<'t>,
    side: Side,
    namespace: Option<&str>,
    broken: &mut Broken,
) -> ReadPeer {
    let mut read = ReadPeer::default();
    let Ok(fields) = report.strict(node, &FIELDS) else {
        broken.0 = true;
        return read;
    };
    broken.0 |= !fields.complete;
    nets(report, &fields, &mut read, broken);
    ports(report, &fields, side, &mut read, broken);
    if let Some(node) = fields.get("services") {
        report.within("services", |report| {
            let help = "select the pods behind the service by their labels";
            report.error_with_help(node.place, "rules about services are not supported yet", help)
        });
        broken.0 = true;
    }
    selectors(report, &fields, namespace, &mut read.peer, broken);
    read
}

fn nets<'t>(report: &mut Report<'t>, fields: &Fields<'_, 't>, read: &mut ReadPeer, broken: &mut Broken) {
    for key in ["nets", "notNets"] {
        let mut understood: Vec<IpNet> = Vec::new();
        let result = fields.read(report, key, |report, node| {
            let list = report.list(node)?;
            limit(report, node, list.len(), MAX_NETS);
            let (nets, complete) = report.each(list, |report, node| {
                let net = scalars::net(report, node)?;
                if key == "notNets" && net.prefix_len() == 0 {
                    let message = format!("{net} excludes every address, so the rule would match nothing");
                    return Err(report.error(node.place, message));
                }
                let place = read.nets_place.get_mut(usize::from(matches!(net, IpNet::V6(_))));
                if let Some(place) = place {
                    place.get_or_insert(node.place);
                }
                Ok(net)
            });
            understood = nets;
            complete
        });
        if broken.or_default(result).is_none() && key == "nets" {
            // One network less would match less.
            understood.clear();
        }
        match key {
            "nets" => read.peer.nets = understood,
            _ => read.peer.not_nets = understood,
        }
    }
}

fn ports<'t>(
    report: &mut Report<'t>,
    fields: &Fields<'_, 't>,
    side: Side,
    read: &mut ReadPeer,
    broken: &mut Broken,
) {
    for key in ["ports", "notPorts"] {
        let mut understood: Vec<PortRange> = Vec::new();
        let result = fields.read(report, key, |report, node| {
            let list = report.list(node)?;
            if side == Side::Source && !list.is_empty() {
                let help = "match the destination's ports";
                return Err(report.error_with_help(node.place, "source ports are not supported yet", help));
            }
            limit(report, node, list.len(), MAX_PORTS);
            let (ports, complete) = report.each(list, scalars::port_range);
            read.ports_place.get_or_insert(node.place);
            understood = ports;
            complete
        });
        if broken.or_default(result).is_none() && key == "ports" {
            understood.clear();
        }
        match key {
            "ports" => read.peer.ports = understood,
            _ => read.peer.not_ports = understood,
        }
    }
}

/// More than the API takes is enforced all the same.
fn limit(report: &mut Report<'_>, node: &Node<'_>, length: usize, most: usize) {
    if length > most {
        let message = format!("the list has {length} entries; the API takes {most}");
        report.error_with_help(node.place, message, "split the rule, or use a network set");
    }
}

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

fn selectors<'t>(
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
            peer.not_selector = negative;
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
