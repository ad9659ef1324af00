//! What makes pods.

use super::places::check;
use super::*;

fn manifest(version: &str, kind: &str, spec: &str) -> String {
    let spec: String = spec
        .trim_matches('\n')
        .lines()
        .map(|line| format!("  {line}\n"))
        .collect();
    format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: web, namespace: shop}}\nspec:\n{spec}")
}

#[track_caller]
fn workload(version: &str, kind: &str, spec: &str) -> Workload {
    let resources = good(&manifest(version, kind, spec));
    let [Resource::Workload(workload)] = resources.as_slice() else {
        panic!("{resources:?}")
    };
    workload.clone()
}

const TEMPLATE: &str = "
template:
  metadata: {labels: {app: web}}
  spec:
    nodeName: node
    serviceAccountName: s
    hostNetwork: true
    containers: [{name: c, ports: [{name: http, containerPort: 80}]}]
";

fn selector(workload: &Workload) -> Option<&str> {
    workload
        .selector
        .as_ref()
        .map(crate::selector::Selector::canonical)
}

#[test]
fn templates_are_pods_without_node_or_address() {
    let pod = Pod {
        namespace: "shop".into(),
        name: "web".into(),
        labels: Labels::from([("app".to_owned(), "web".to_owned())]).into(),
        service_account: "s".into(),
        host_network: true,
        ports: vec![NamedPort {
            name: "http".into(),
            protocol: 6,
            port: 80,
        }],
        ..Pod::default()
    };
    let spec = format!("selector: {{matchLabels: {{app: web}}}}{TEMPLATE}");
    for (version, kind) in [
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "ReplicaSet"),
        ("apps/v1beta1", "Deployment"),
        ("apps/v1beta2", "ReplicaSet"),
        ("extensions/v1beta1", "DaemonSet"),
        ("batch/v1", "Job"),
    ] {
        let found = workload(version, kind, &spec);
        assert_eq!(found.key.to_string(), format!("{kind} shop/web"));
        assert_eq!(found.template, pod, "{kind}");
        assert_eq!(selector(&found), Some("app == \"web\""), "{kind}");
        assert!(!found.scaled_to_zero, "{kind}");
    }
    let controller = workload(
        "v1",
        "ReplicationController",
        &format!("selector: {{app: web}}{TEMPLATE}"),
    );
    assert_eq!(
        (&controller.template, selector(&controller)),
        (&pod, Some("app == \"web\""))
    );
    let nested = TEMPLATE.replace('\n', "\n    ");
    for version in ["batch/v1", "batch/v1beta1"] {
        let cron = workload(version, "CronJob", &format!("jobTemplate:\n  spec:{nested}"));
        assert_eq!((&cron.template, selector(&cron)), (&pod, None));
    }
    let bare = workload("apps/v1", "Deployment", "template: {}");
    assert_eq!(
        (bare.template.service_account.as_str(), selector(&bare)),
        ("default", None)
    );
}

#[test]
fn selectors_are_those_of_kubernetes() {
    let find = |selector: &str| workload("apps/v1", "Deployment", &format!("{selector}{TEMPLATE}"));
    assert_eq!(
        selector(&find(
            "selector: {matchExpressions: [{key: a, operator: NotIn, values: [b]}]}"
        )),
        Some("a not in {\"b\"}")
    );
    // Older versions take the template's labels.
    assert_eq!(selector(&find("replicas: 1")), Some("app == \"web\""));
    assert_eq!(selector(&workload("batch/v1", "Job", TEMPLATE)), None);
}

#[test]
fn scaled_to_zero() {
    let zero = |version: &str, kind: &str, spec: &str| {
        workload(version, kind, &format!("{spec}{TEMPLATE}")).scaled_to_zero
    };
    assert!(zero("apps/v1", "Deployment", "replicas: 0"));
    assert!(zero("apps/v1", "StatefulSet", "replicas: 0"));
    assert!(zero("v1", "ReplicationController", "replicas: 0"));
    assert!(!zero("apps/v1", "Deployment", "replicas: 2"));
    assert!(!zero("apps/v1", "Deployment", "suspend: true"));
    assert!(zero("batch/v1", "Job", "suspend: true"));
    assert!(zero("batch/v1", "Job", "parallelism: 0"));
    assert!(!zero("batch/v1", "Job", "suspend: false"));
    let nested = TEMPLATE.replace('\n', "\n    ");
    let cron = |spec: &str, job: &str| {
        workload(
            "batch/v1",
            "CronJob",
            &format!("{spec}\njobTemplate:\n  spec:\n    {job}{nested}"),
        )
        .scaled_to_zero
    };
    assert!(cron("suspend: true", "parallelism: 1"));
    assert!(cron("suspend: false", "parallelism: 0"));
    assert!(cron("suspend: false", "suspend: true"));
    assert!(!cron("suspend: false", "parallelism: 1"));
}

#[test]
fn a_workload_without_a_template_is_nothing() {
    for (kind, spec, field, message) in [
        (
            "Deployment",
            "«replicas: 1»",
            "spec",
            "template is missing: expected a template of pods",
        ),
        (
            "Deployment",
            "template: «[]»",
            "spec.template",
            "expected a mapping",
        ),
        ("CronJob", "«suspend: true»", "spec", "jobTemplate is missing"),
        (
            "CronJob",
            "jobTemplate: «{}»",
            "spec.jobTemplate",
            "spec is missing: expected a template of pods",
        ),
        (
            "CronJob",
            "jobTemplate: {spec: «{}»}",
            "spec.jobTemplate.spec",
            "template is missing",
        ),
    ] {
        let version = if kind == "CronJob" { "batch/v1" } else { "apps/v1" };
        let text = manifest(version, kind, spec);
        check(&text, field, message);
        assert!(load(&text.replace(['«', '»'], "")).resources.is_empty());
    }
    check(
        "«apiVersion: apps/v1»\nkind: Deployment\nmetadata: {name: web}\n",
        "",
        "spec is missing: expected a template of pods",
    );
}

#[test]
fn what_is_wrong_with_one_field_does_not_concern_the_others() {
    let deployment = |spec: &str| manifest("apps/v1", "Deployment", spec);
    for (spec, field, message) in [
        (
            "replicas: «many»\ntemplate: {}",
            "spec.replicas",
            "expected a number from 0",
        ),
        (
            "selector: {«matchLabel»: {}}\ntemplate: {}",
            "spec.selector",
            "did you mean \"matchLabels\"?",
        ),
        (
            "template: {spec: {hostNetwork: «maybe»}}",
            "spec.template.spec.hostNetwork",
            "expected true or false",
        ),
        (
            "template: {metadata: {labels: {a: «1»}}}",
            "spec.template.metadata.labels",
            "put it in quotes",
        ),
    ] {
        check(&deployment(spec), field, message);
        let loaded = load(&deployment(spec).replace(['«', '»'], ""));
        assert_eq!(loaded.resources.len(), 1, "{spec}");
    }
}
