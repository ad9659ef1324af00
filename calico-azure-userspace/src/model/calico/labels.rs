//! Labels of Calico's objects, wherever they are kept.

use super::Group;
use crate::model::metadata::Metadata;
use crate::model::report::{Report, quote};
use crate::model::types::Labels;

/// Where Calico's API server keeps the labels of what it stores in the older group.
const STORED_METADATA: &str = "projectcalico.org/metadata";

pub(super) fn labels<'t>(report: &mut Report<'t>, metadata: &Metadata<'_, 't>, group: Group) -> Labels {
    let mut labels = metadata.labels(report);
    if group == Group::Crd
        && let Some(node) = metadata.annotation(STORED_METADATA)
    {
        match stored(node.text().unwrap_or_default()) {
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
    labels
}

fn stored(json: &str) -> Option<Labels> {
    #[derive(serde::Deserialize)]
    struct Stored {
        #[serde(default)]
        labels: Option<Labels>,
    }
    serde_json::from_str::<Stored>(json)
        .ok()
        .map(|stored| stored.labels.unwrap_or_default())
}
