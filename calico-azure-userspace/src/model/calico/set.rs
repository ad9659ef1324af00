//! NetworkSet and GlobalNetworkSet.

use super::{Group, fields, labels};
use crate::model::metadata::Metadata;
use crate::model::report::Report;
use crate::model::scalars;
use crate::model::types::{NetworkSet, label};
use crate::model::yaml::Node;

pub(super) fn network_set<'t>(
    report: &mut Report<'t>,
    metadata: &Metadata<'_, 't>,
    object: &Node<'t>,
    namespace: Option<String>,
    group: Group,
) -> NetworkSet {
    let mut labels = labels::labels(report, metadata, group);
    if labels.remove(label::NAMESPACE).is_some() {
        let place = metadata.labels_node().unwrap_or(object).place;
        let message = format!("a network set may not have the label {}", label::NAMESPACE);
        report.within("metadata", |report| {
            report.within("labels", |report| {
                report.error_with_help(place, message, "it is ignored: remove it")
            })
        });
    }
    let nets = fields::of_spec(report, object, &["nets"], |report, spec| {
        fields::each(report, spec, "nets", scalars::net).unwrap_or_default()
    });
    NetworkSet {
        namespace,
        name: metadata.name.clone(),
        labels,
        nets: nets.unwrap_or_default(),
    }
}
