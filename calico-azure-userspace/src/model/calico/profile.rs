//! Profile: what decides after all tiers.

use super::TOP;
use super::rule::Context;
use super::rules::{Broken, distrust, rules};
use crate::model::metadata::Metadata;
use crate::model::report::Report;
use crate::model::types::Profile;
use crate::model::yaml::Node;

/// What is wrong above the rules takes all Allow rules out. A profile without rules denies.
pub(super) fn profile<'t>(
    report: &mut Report<'t>,
    metadata: &Metadata<'_, 't>,
    object: &Node<'t>,
) -> Profile {
    let mut profile = Profile {
        name: metadata.name.clone(),
        ..Profile::default()
    };
    let mut broken = Broken(report.strict(object, &TOP).is_ok_and(|top| !top.complete));
    let Some(spec) = object.get("spec") else {
        return profile;
    };
    report.within("spec", |report| {
        let Ok(fields) = report.strict(spec, &["ingress", "egress", "labelsToApply"]) else {
            return;
        };
        broken.0 |= !fields.complete;
        for (key, is_ingress, into) in [
            ("ingress", true, &mut profile.ingress),
            ("egress", false, &mut profile.egress),
        ] {
            let context = Context {
                namespace: None,
                is_ingress,
            };
            let read = fields.read(report, key, |report, node| rules(report, node, &context));
            *into = broken.or_default(read).unwrap_or_default();
        }
        let labels = fields.read(report, "labelsToApply", Report::strings);
        profile.labels_to_apply = broken.or_default(labels).unwrap_or_default();
    });
    if broken.0 {
        distrust(&mut profile.ingress);
        distrust(&mut profile.egress);
    }
    profile
}
