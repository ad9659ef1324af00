//! What makes pods: Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob.

use std::net::IpAddr;

use super::kubernetes::selector;
use super::metadata::Metadata;
use super::pod;
use super::report::{Fields, Read, Report, Reported};
use super::types::{Key, Kind, Labels, Pod, Workload};
use super::yaml::Node;
use crate::selector::Selector;

/// A workload is nothing without its template.
pub(super) fn workload<'t>(
    report: &mut Report<'t>,
    metadata: &Metadata<'_, 't>,
    object: &Node<'t>,
    kind: Kind,
    namespace: String,
) -> Read<Workload> {
    let Some(spec) = object.get("spec") else {
        return Err(report.error(object.place, "spec is missing: expected a template of pods"));
    };
    report.within("spec", |report| {
        let spec = report.lenient(spec)?;
        let pods_of = |report: &mut Report<'t>, spec: &Fields<'_, 't>| {
            template(report, spec, &metadata.name, &namespace)
        };
        let mut suspended = flag(report, &spec, "suspend");
        let (template, selector) = if kind == Kind::CronJob {
            let job = spec.read(report, "jobTemplate", |report, node| match node.get("spec") {
                Some(job) => report.within("spec", |report| {
                    let job = report.lenient(job)?;
                    suspended |= flag(report, &job, "suspend") || is_zero(report, &job, "parallelism");
                    pods_of(report, &job)
                }),
                None => Err(report.error(node.place, "spec is missing: expected a template of pods")),
            })?;
            let Some(template) = job else {
                return Err(report.error(spec.place, "jobTemplate is missing"));
            };
            (template, None)
        } else {
            let template = pods_of(report, &spec)?;
            let selector = match kind {
                Kind::Job => spec.read(report, "selector", selector::labels).ok().flatten(),
                Kind::ReplicationController => by_labels(report, &spec, &template),
                _ => by_selector(report, &spec, &template),
            };
            (template, selector)
        };
        let none = match kind {
            Kind::Job => is_zero(report, &spec, "parallelism"),
            Kind::CronJob | Kind::DaemonSet => false,
            _ => is_zero(report, &spec, "replicas"),
        };
        Ok(Workload {
            key: Key {
                kind,
                namespace: Some(namespace.clone()),
                name: metadata.name.clone(),
            },
            selector,
            template,
            scaled_to_zero: none || suspended && matches!(kind, Kind::Job | Kind::CronJob),
        })
    })
}

/// A pod as it would be made; it has the workload's name.
fn template<'t>(report: &mut Report<'t>, spec: &Fields<'_, 't>, name: &str, namespace: &str) -> Read<Pod> {
    let pod = spec.read(report, "template", |report, node| {
        report.lenient(node)?;
        let metadata = Metadata::of_template(report, node, name.to_owned());
        Ok(pod::pod(report, &metadata, node, namespace.to_owned()))
    })?;
    let Some(pod) = pod else {
        return Err(report.error(spec.place, "template is missing: expected a template of pods"));
    };
    Ok(Pod {
        node: String::new(),
        ips: Vec::<IpAddr>::new(),
        finished: false,
        owner: None,
        ..pod
    })
}

/// Without one, or a usable one, the template's labels tell its pods.
fn by_selector<'t>(report: &mut Report<'t>, spec: &Fields<'_, 't>, template: &Pod) -> Option<Selector> {
    match spec.read(report, "selector", selector::labels) {
        Ok(Some(selector)) => Some(selector),
        Ok(None) | Err(Reported) => all_of(&template.labels),
    }
}

fn by_labels<'t>(report: &mut Report<'t>, spec: &Fields<'_, 't>, template: &Pod) -> Option<Selector> {
    let labels = spec.read(report, "selector", Report::strings).ok().flatten();
    labels
        .as_ref()
        .and_then(all_of)
        .or_else(|| all_of(&template.labels))
}

/// `None` if there are none: no workload selects every pod.
fn all_of(labels: &Labels) -> Option<Selector> {
    let each = labels.iter().map(|(key, value)| Selector::eq(key, value));
    each.reduce(|all, one| all.and(&one))
}

fn flag<'t>(report: &mut Report<'t>, spec: &Fields<'_, 't>, key: &'static str) -> bool {
    let flag = spec.read(report, key, Report::boolean);
    flag.ok().flatten().unwrap_or_default()
}

fn is_zero<'t>(report: &mut Report<'t>, spec: &Fields<'_, 't>, key: &'static str) -> bool {
    let number = spec.read(report, key, |report, node| {
        report.integer::<u32>(node, "a number from 0")
    });
    number.ok().flatten() == Some(0)
}
