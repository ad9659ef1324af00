//! FelixConfiguration: the few of its hundreds of settings that change what policy means, and the text of all.

use std::collections::BTreeMap;

use super::fields;
use crate::model::metadata::Metadata;
use crate::model::port;
use crate::model::report::{Fields, Read, Report, Reported, quote};
use crate::model::scalars;
use crate::model::types::{EndpointToHost, Failsafe, FelixConfiguration};
use crate::model::yaml::{Node, Value};

/// A setting that is not understood is the stricter one. Of a list of failsafe ports the good entries count.
pub(super) fn felix_configuration<'t>(
    report: &mut Report<'t>,
    metadata: &Metadata<'_, 't>,
    object: &Node<'t>,
) -> FelixConfiguration {
    let mut settings = FelixConfiguration {
        name: metadata.name.clone(),
        ..FelixConfiguration::default()
    };
    if settings.name != "default" && !settings.name.starts_with("node.") {
        let place = object
            .get("metadata")
            .and_then(|metadata| metadata.get("name"))
            .unwrap_or(object)
            .place;
        let message = format!("no node reads the settings of {}", quote(&settings.name));
        report.within("metadata", |report| {
            report.within("name", |report| {
                report.warning(place, message, "name it default, or node.<name of the node>");
            });
        });
    }
    let Some(spec) = object.get("spec") else {
        return settings;
    };
    report.within("spec", |report| {
        let Ok(spec) = report.lenient(spec) else {
            settings.endpoint_to_host = Some(EndpointToHost::Drop);
            settings.source_spoofing = Some(false);
            return;
        };
        let actions = [
            ("Drop", EndpointToHost::Drop),
            ("Accept", EndpointToHost::Accept),
            ("Return", EndpointToHost::Return),
        ];
        let action = word(report, &spec, "defaultEndpointToHostAction", &actions);
        settings.endpoint_to_host = action.unwrap_or(Some(EndpointToHost::Drop));
        let spoofing = word(
            report,
            &spec,
            "workloadSourceSpoofing",
            &[("Any", true), ("Disabled", false)],
        );
        settings.source_spoofing = spoofing.unwrap_or(Some(false));
        settings.interface_prefixes = fields::one(report, &spec, "interfacePrefix", prefixes);
        settings.failsafe_inbound = fields::each(report, &spec, "failsafeInboundHostPorts", failsafe);
        settings.all = all(&spec);
        settings.failsafe_outbound = fields::each(report, &spec, "failsafeOutboundHostPorts", failsafe);
    });
    settings
}

/// Every setting as text, for the agent, which knows what else it can do with them.
fn all(spec: &Fields<'_, '_>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut put = |key: String, node: &Node<'_>| {
        let text = node.text().unwrap_or_default().to_owned();
        all.insert(key, text);
    };
    for entry in spec.entries {
        let key = entry.key.to_ascii_lowercase();
        match &entry.node.value {
            Value::Map(inner) => {
                for entry in inner {
                    put(format!("{key}.{}", entry.key.to_ascii_lowercase()), &entry.node);
                }
            }
            Value::Scalar(_) | Value::List(_) => put(key, &entry.node),
        }
    }
    all
}

/// Empty is not set.
fn word<'t, T: Copy>(
    report: &mut Report<'t>,
    spec: &Fields<'_, 't>,
    key: &'static str,
    words: &[(&'static str, T)],
) -> Read<Option<T>> {
    if spec.get(key).is_some_and(|node| node.text() == Some("")) {
        return Ok(None);
    }
    spec.read(report, key, |report, node| {
        scalars::word_in_any_case(report, node, words)
    })
}

fn prefixes<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<Vec<String>> {
    let text = report.string(node)?;
    let prefixes: Vec<String> = text
        .split(',')
        .map(str::trim)
        .filter(|prefix| !prefix.is_empty())
        .map(str::to_owned)
        .collect();
    if prefixes.is_empty() {
        let message = "expected prefixes of interface names, like \"cali,azv\"";
        return Err(report.error(node.place, message));
    }
    Ok(prefixes)
}

fn failsafe<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<Failsafe> {
    let fields = report.strict(node, &["protocol", "port", "net"])?;
    let protocol = fields.read(report, "protocol", |report, node| {
        let protocol = scalars::protocol(report, node)?.number;
        if port::WITH_PORTS.contains(&protocol) {
            return Ok(protocol);
        }
        Err(report.error(node.place, "a failsafe port's protocol is TCP, UDP or SCTP"))
    });
    let port = fields.read(report, "port", port::number);
    let net = match fields.get("net") {
        Some(node) if node.text() == Some("") => Ok(None),
        _ => fields.read(report, "net", scalars::net),
    };
    let (protocol, port, net) = (protocol?, port?, net?);
    match (protocol, port) {
        (Some(protocol), Some(port)) if fields.complete => Ok(Failsafe { protocol, port, net }),
        (Some(_), Some(_)) => Err(Reported),
        _ => Err(report.error(fields.place, "expected protocol and port")),
    }
}
