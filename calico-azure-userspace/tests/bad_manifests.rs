//! What is wrong with a manifest is reported at its place, and never opens anything.
//!
//! Each case marks the text that must be underlined with `«»`.

use std::path::Path;

use calico_azure_userspace::model::load::parse_text;
use calico_azure_userspace::model::{Action, Policy, Problem, Resource, Severity};

/// What is left of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// It is as written, or as it would be without what is wrong.
    Whole,
    /// A policy without its rule, because that allowed.
    NoRule,
    /// A policy whose rule denies.
    Denies,
    /// Nothing.
    Nothing,
}
use Left::{Denies, NoRule, Nothing, Whole};

struct Case {
    manifest: String,
    severity: Severity,
    field: &'static str,
    /// Found in what is printed.
    says: &'static str,
    left: Left,
}

fn error(manifest: String, field: &'static str, says: &'static str, left: Left) -> Case {
    Case {
        manifest,
        severity: Severity::Error,
        field,
        says,
        left,
    }
}

fn warning(manifest: String, field: &'static str, says: &'static str, left: Left) -> Case {
    Case {
        severity: Severity::Warning,
        ..error(manifest, field, says, left)
    }
}

fn object(api: &str, kind: &str, namespace: &str, spec: &str) -> String {
    let spec = spec.replace('\n', "\n  ");
    format!("apiVersion: {api}\nkind: {kind}\nmetadata:\n  name: p{namespace}\nspec:\n  {spec}\n")
}

fn policy(spec: &str) -> String {
    object("projectcalico.org/v3", "NetworkPolicy", "\n  namespace: ns", spec)
}

/// A policy with one ingress rule.
fn rule(action: &str, rest: &str) -> String {
    policy(&format!(
        "types: [Ingress]\ningress:\n- action: {action}\n  {}",
        rest.replace('\n', "\n  ")
    ))
}

fn global(spec: &str) -> String {
    object("projectcalico.org/v3", "GlobalNetworkPolicy", "", spec)
}

fn kubernetes(spec: &str) -> String {
    object("networking.k8s.io/v1", "NetworkPolicy", "\n  namespace: ns", spec)
}

fn cases() -> Vec<Case> {
    let deny_rule = "ingress: [{action: Deny}]";
    let allow_rule = "ingress: [{action: Allow}]";
    vec![
        // Fields that nobody knows.
        error(
            policy(&format!("«selectr»: a == 'b'\n{allow_rule}")),
            "spec",
            "did you mean \"selector\"?",
            NoRule,
        ),
        error(
            policy(&format!("«selectr»: a == 'b'\n{deny_rule}")),
            "spec",
            "unknown field \"selectr\"",
            Denies,
        ),
        error(
            policy(&format!("«namespaceSelector»: all()\n{allow_rule}")),
            "spec",
            "unknown field",
            NoRule,
        ),
        error(
            rule("Allow", "«sorce»: {}"),
            "spec.ingress[0]",
            "did you mean \"source\"?",
            NoRule,
        ),
        error(
            rule("Pass", "«sorce»: {}"),
            "spec.ingress[0]",
            "unknown field \"sorce\"",
            Denies,
        ),
        error(
            rule("Allow", "source: {«net»: [10.0.0.0/8]}"),
            "spec.ingress[0].source",
            "did you mean \"nets\"?",
            NoRule,
        ),
        error(
            object("projectcalico.org/v3", "Tier", "", "«oder»: 5"),
            "spec",
            "did you mean \"order\"?",
            Whole,
        ),
        error(
            object("projectcalico.org/v3", "GlobalNetworkSet", "", "«net»: []"),
            "spec",
            "did you mean \"nets\"?",
            Whole,
        ),
        error(
            format!("«speck»: {{}}\n{}", policy(deny_rule)),
            "",
            "unknown field \"speck\"",
            Denies,
        ),
        // Wrong types and words.
        error(
            rule("Allow", "protocol: TCP\ndestination: {ports: «80»}"),
            "spec.ingress[0].destination.ports",
            "expected a list",
            NoRule,
        ),
        error(
            policy(&format!("selector: «{{}}»\n{allow_rule}")),
            "spec.selector",
            "expected a string",
            NoRule,
        ),
        error(
            policy(&format!("order: «first»\n{deny_rule}")),
            "spec.order",
            "expected a number",
            Denies,
        ),
        error(
            policy(&format!("types: [«ingress»]\n{allow_rule}")),
            "spec.types[0]",
            "did you mean Ingress?",
            NoRule,
        ),
        error(
            rule("«allow»", "protocol: TCP"),
            "spec.ingress[0].action",
            "did you mean Allow?",
            Denies,
        ),
        error(
            rule("Allow", "ipVersion: «5»"),
            "spec.ingress[0].ipVersion",
            "expected 4 or 6",
            NoRule,
        ),
        error(
            rule("Deny", "protocol: «TPC»"),
            "spec.ingress[0].protocol",
            "did you mean TCP?",
            Denies,
        ),
        error(
            rule("Allow", "protocol: «0»"),
            "spec.ingress[0].protocol",
            "from 1 to 255",
            NoRule,
        ),
        // Selectors.
        error(
            policy(&format!("selector: a «= 'b'»\n{allow_rule}")),
            "spec.selector",
            "this is no selector",
            NoRule,
        ),
        error(
            rule("Allow", "source: {selector: \"a == «b»\"}"),
            "spec.ingress[0].source.selector",
            "this is no selector",
            NoRule,
        ),
        error(
            rule("Deny", "source: {selector: \"a == «b»\"}"),
            "spec.ingress[0].source.selector",
            "this is no selector",
            Denies,
        ),
        error(
            rule("Allow", "source: {namespaceSelector: «global() && has(x)»}"),
            "spec.ingress[0].source.namespaceSelector",
            "global()",
            NoRule,
        ),
        error(
            global(&format!("namespaceSelector: «global()»\n{allow_rule}")),
            "spec.namespaceSelector",
            "only in a rule's",
            NoRule,
        ),
        // Networks.
        error(
            rule("Allow", "source:\n  nets:\n  - 10.0.0.0/8\n  - «10.0.0/8»"),
            "spec.ingress[0].source.nets[1]",
            "did you mean 10.0.0.0/8?",
            NoRule,
        ),
        error(
            rule("Deny", "source:\n  nets:\n  - «10.0.0.0/33»"),
            "spec.ingress[0].source.nets[0]",
            "is not a network",
            Denies,
        ),
        error(
            rule("Deny", "source: {notNets: [«0.0.0.0/0»]}"),
            "spec.ingress[0].source.notNets[0]",
            "excludes every address",
            Denies,
        ),
        error(
            rule("Allow", "source: {nets: [10.0.0.0/8, «fd00::/8»]}"),
            "spec.ingress[0]",
            "both IPv4 and IPv6",
            NoRule,
        ),
        warning(
            rule("Deny", "source: {nets: [«10.1.2.3/8»]}"),
            "spec.ingress[0].source.nets[0]",
            "taken as 10.0.0.0/8",
            Whole,
        ),
        // Ports.
        error(
            rule("Allow", "protocol: TCP\ndestination: {ports: [80, «70000»]}"),
            "spec.ingress[0].destination.ports[1]",
            "from 1 to 65535",
            NoRule,
        ),
        error(
            rule("Allow", "protocol: TCP\ndestination: {ports: [«90:80»]}"),
            "spec.ingress[0].destination.ports[0]",
            "80:90",
            NoRule,
        ),
        error(
            rule("Allow", "protocol: TCP\ndestination: {ports: [«http»]}"),
            "spec.ingress[0].destination.ports[0]",
            "not supported yet",
            NoRule,
        ),
        error(
            rule("Deny", "protocol: TCP\nsource: {ports: «[80]»}"),
            "spec.ingress[0].source.ports",
            "not supported yet",
            Denies,
        ),
        error(
            rule("Allow", "destination: {ports: «[80]»}"),
            "spec.ingress[0].destination",
            "need the rule's protocol",
            NoRule,
        ),
        error(
            rule("Allow", "protocol: ICMP\ndestination: {ports: «[80]»}"),
            "spec.ingress[0].destination",
            "TCP, UDP or SCTP",
            NoRule,
        ),
        // ICMP.
        error(
            rule("Allow", "protocol: TCP\nicmp: «{type: 8}»"),
            "spec.ingress[0].icmp",
            "to be ICMP or ICMPv6",
            NoRule,
        ),
        error(
            rule("Allow", "protocol: ICMP\nicmp: {type: «255»}"),
            "spec.ingress[0].icmp.type",
            "from 0 to 254",
            NoRule,
        ),
        error(
            rule("Allow", "protocol: ICMP\nicmp: «{code: 1}»"),
            "spec.ingress[0].icmp",
            "without a type",
            NoRule,
        ),
        error(
            rule("Deny", "protocol: ICMPv6\nipVersion: «4»"),
            "spec.ingress[0].ipVersion",
            "other IP version",
            Denies,
        ),
        // Not supported yet.
        error(
            rule("Allow", "http: «{methods: [GET]}»"),
            "spec.ingress[0].http",
            "not supported yet",
            NoRule,
        ),
        error(
            rule("Deny", "source: {services: «{name: s}»}"),
            "spec.ingress[0].source.services",
            "not supported yet",
            Denies,
        ),
        error(
            global(&format!("applyOnForward: «true»\n{deny_rule}")),
            "spec.applyOnForward",
            "not supported yet",
            Denies,
        ),
        // Kubernetes policies only allow: what is not understood is left out.
        error(
            kubernetes("podSelector: {}\ningress:\n- «form»: []"),
            "spec.ingress[0]",
            "did you mean \"from\"?",
            NoRule,
        ),
        error(
            kubernetes("podSelector: {}\ningress:\n- ports: [{port: «web»}]"),
            "spec.ingress[0].ports[0].port",
            "not supported yet",
            NoRule,
        ),
        error(
            kubernetes("podSelector: {}\ningress:\n- from: [{ipBlock: {cidr: «10.0.0/8»}}]"),
            "spec.ingress[0].from[0].ipBlock.cidr",
            "is not a network",
            NoRule,
        ),
        error(
            kubernetes("podSelector: {}\ningress:\n- ports: [«{port: 90, endPort: 80}»]"),
            "spec.ingress[0].ports[0]",
            "80",
            NoRule,
        ),
        error(
            kubernetes("podSelector: {«matchLabel»: {a: b}}\ningress: [{}]"),
            "spec.podSelector",
            "did you mean \"matchLabels\"?",
            NoRule,
        ),
        error(
            kubernetes("podSelector: {}\npolicyTypes: [«Ingres»]\ningress: [{}]"),
            "spec.policyTypes[0]",
            "did you mean Ingress?",
            NoRule,
        ),
        // Text that is no manifest.
        error("kind: {Namespace\n".into(), "", "", Nothing),
    ]
}

/// Takes the marks out. Returns the text, line, column and what was marked.
fn unmark(manifest: &str) -> (String, Option<(u32, u32, String)>) {
    let text = manifest.replace(['«', '»'], "");
    let place = manifest.split_once('«').and_then(|(before, rest)| {
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let marked = rest.split('»').next()?.to_owned();
        Some((line.try_into().ok()?, column.try_into().ok()?, marked))
    });
    (text, place)
}

fn underlined(problem: &Problem) -> String {
    let Some(excerpt) = &problem.excerpt else {
        return String::new();
    };
    excerpt
        .text
        .chars()
        .skip(excerpt.skip)
        .take(excerpt.length)
        .collect()
}

/// Why the case fails.
fn judge(case: &Case) -> Result<(), String> {
    let (text, place) = unmark(&case.manifest);
    let loaded = parse_text(Path::new("dir/file.yaml"), &text);
    let shown: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    let [problem] = loaded.problems.as_slice() else {
        return Err(format!(
            "expected one problem, found {}:\n{}",
            shown.len(),
            shown.join("\n")
        ));
    };
    let shown = shown.join("");
    let expect = |what: &str, found: String, expected: String| {
        if found == expected {
            Ok(())
        } else {
            Err(format!("{what} {found}, expected {expected}\n{shown}"))
        }
    };
    expect(
        "severity",
        problem.severity.to_string(),
        case.severity.to_string(),
    )?;
    expect(
        "field",
        problem.field.clone().unwrap_or_default(),
        case.field.into(),
    )?;
    if let Some((line, column, marked)) = place {
        expect("line", format!("{:?}", problem.line), format!("{:?}", Some(line)))?;
        expect(
            "column",
            format!("{:?}", problem.column),
            format!("{:?}", Some(column)),
        )?;
        let found = underlined(problem);
        if found.is_empty() || !marked.starts_with(&found) && !found.starts_with(&marked) {
            return Err(format!("underlined {found:?}, expected {marked:?}\n{shown}"));
        }
    }
    if !shown.contains(case.says) {
        return Err(format!("it does not say {:?}\n{shown}", case.says));
    }
    let policy = loaded.resources.iter().find_map(|resource| match resource {
        Resource::Policy(policy) => Some(policy),
        _ => None,
    });
    match (case.left, loaded.resources.len(), policy) {
        (Nothing, 0, _) | (Whole, 1, _) => Ok(()),
        (NoRule, 1, Some(policy)) if actions(policy) == [] && policy.ingress.is_some() => Ok(()),
        (Denies, 1, Some(policy)) if actions(policy) == [Action::Deny] => Ok(()),
        (left, ..) => Err(format!("expected {left:?}, found {:?}", loaded.resources)),
    }
}

fn actions(policy: &Policy) -> Vec<Action> {
    policy.ingress.iter().flatten().map(|rule| rule.action).collect()
}

#[test]
fn every_problem_is_reported_at_its_place_and_opens_nothing() {
    let cases = cases();
    let failed: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            judge(case)
                .err()
                .map(|why| format!("--- {}\n{why}", case.manifest))
        })
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {} cases failed:\n{}",
        failed.len(),
        cases.len(),
        failed.join("\n")
    );
}

#[test]
fn places_count_from_the_start_of_the_file_in_every_document() {
    let text = format!(
        "# first\n---\n{}---\n{}",
        policy("selector: all()"),
        policy("selectr: all()").replace("name: p", "name: q")
    );
    let loaded = parse_text(Path::new("x"), &text);
    let lines: Vec<_> = loaded.problems.iter().map(|problem| problem.line).collect();
    let expected = text
        .lines()
        .position(|line| line.contains("selectr"))
        .and_then(|at| u32::try_from(at + 1).ok());
    assert_eq!(lines, [expected]);
    assert_eq!(loaded.resources.len(), 2);
    let object = loaded.problems.first().and_then(|problem| problem.object.clone());
    assert_eq!(object.as_deref(), Some("NetworkPolicy ns/q"));
}

#[test]
fn several_problems_of_one_object_are_all_reported() {
    let text = policy("selector: a =\nfoo: 1\ningress:\n- action: Allow\n  protocol: X\n- action: Alow");
    let loaded = parse_text(Path::new("x"), &text);
    let mut lines: Vec<_> = loaded
        .problems
        .iter()
        .filter_map(|problem| problem.line)
        .collect();
    lines.sort_unstable();
    assert_eq!(lines, [7, 8, 11, 12], "{:?}", loaded.problems);
}
