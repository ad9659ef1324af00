//! NetworkSet and GlobalNetworkSet.

use super::{Group, TOP};
use crate::model::metadata::Metadata;
use crate::model::report::{Report, quote};
use crate::model::scalars;
use crate::model::types::{Labels, NetworkSet, label};
use crate::model::yaml::Node;

/// Where Calico's API server keeps the labels of what it stores in the older group.
const STORED_METADATA: &str = "projectcalico.org/metadata";

pub(in crate::model) fn network_set<'t>(
    report: &mut Report<'t>,
    metadata: &Metadata<'_, 't>,
    object: &Node<'t>,
    namespace: Option<String>,
    group: Group,
) -> NetworkSet {
    let mut labels = metadata.labels(report);
    if group == Group::Crd
        && let Some(node) = metadata.annotation(STORED_METADATA)
    {
        match stored_labels(node.text().unwrap_or_default()) {
            Some(stored) => labels.extend(stored),
            None => {
                let message = format!(
                    "annotation {STORED_METADATA} is not the JSON that Calico writes: {}",
                    quote(node.text().unwrap_or_default())
                );
                report.error(node.place, message);
            }
        }
    }
    if labels.remove(label::NAMESPACE).is_some() {
        let place = metadata.labels_node().unwrap_or(object).place;
        let message = format!("a network set may not have the label {}", label::NAMESPACE);
        report.error_with_help(place, message, "it is ignored: remove it");
    }
    let _reported = report.strict(object, &TOP);
    let mut nets = Vec::new();
    if let Some(spec) = object.get("spec") {
        report.within("spec", |report| {
            let Ok(spec) = report.strict(spec, &["nets"]) else {
                return;
            };
            let read = spec.read(report, "nets", |report, node| {
                let list = report.list(node)?;
                Ok(report.each(list, scalars::net).0)
            });
            nets = read.ok().flatten().unwrap_or_default();
        });
    }
    NetworkSet {
        namespace,
        name: metadata.name.clone(),
        labels,
        nets,
    }
}

fn stored_labels(json: &str) -> Option<Labels> {
    #[derive(serde::Deserialize)]
    struct Stored {
        #[serde(default)]
        labels: Option<Labels>,
    }
    serde_json::from_str::<Stored>(json)
        .ok()
        .map(|stored| stored.labels.unwrap_or_default())
}
