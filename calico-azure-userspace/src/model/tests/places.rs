//! Every problem is at its place: a table of wrong manifests.

use super::*;

/// `«…»` marks what must be underlined, in a manifest in which nothing else is wrong.
#[track_caller]
pub(super) fn check(marked: &str, field: &str, message: &str) {
    let text: String = marked.replace(['«', '»'], "");
    let before = marked.split('«').next().unwrap_or_default();
    let inside = marked.split(['«', '»']).nth(1).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let loaded = load(&text);
    let shown: String = loaded
        .problems
        .iter()
        .map(|problem| format!("{problem}\n"))
        .collect();
    let [problem] = loaded.problems.as_slice() else {
        panic!("expected one problem, found:\n{shown}")
    };
    assert!(shown.contains(message), "expected {message:?} in:\n{shown}");
    let place = (problem.line, problem.column);
    assert_eq!(
        place,
        (u32::try_from(line).ok(), u32::try_from(column).ok()),
        "{shown}"
    );
    assert_eq!(problem.field.as_deref().unwrap_or_default(), field, "{shown}");
    let Some(Excerpt { text, skip, length }) = &problem.excerpt else {
        panic!("no excerpt: {shown}")
    };
    let underlined: String = text.chars().skip(*skip).take(*length).collect();
    assert_eq!(underlined, inside, "{shown}");
}

#[test]
fn unknown_fields() {
    check(&np("«selectr»: all()"), "spec", "did you mean \"selector\"?");
    check(&np("«namespaceSelector»: all()"), "spec", "unknown field");
    check(
        &np("ingress:\n- action: Allow\n  «sorce»: {}"),
        "spec.ingress[0]",
        "did you mean \"source\"?",
    );
    check(
        &np("egress:\n- {action: Deny, destination: {«net»: []}}"),
        "spec.egress[0].destination",
        "\"nets\"",
    );
    check(&np("order: 1\n«order»: 2"), "spec", "given twice");
    check(
        &knp("podSelector: {«matchlabels»: {}}"),
        "spec.podSelector",
        "\"matchLabels\"",
    );
    check(
        &knp("ingress:\n- from:\n  - «podselector»: {}"),
        "spec.ingress[0].from[0]",
        "\"podSelector\"",
    );
    check(
        &calico("Tier", "name: t", "«defaultaction»: Pass"),
        "spec",
        "\"defaultAction\"",
    );
    check(
        &calico("GlobalNetworkSet", "name: t", "nets: []\n«net»: []"),
        "spec",
        "\"nets\"",
    );
    check(
        &format!("{}«specs»: {{}}\n", np("order: 1")),
        "",
        "did you mean \"spec\"?",
    );
}

#[test]
fn wrong_types() {
    check(
        &np("order: «'10'»"),
        "spec.order",
        "expected a number, found \"10\"",
    );
    check(
        &np("selector: «true»"),
        "spec.selector",
        "expected a string, found the boolean true",
    );
    check(
        &np("types: «Ingress»"),
        "spec.types",
        "expected a list, found \"Ingress\"",
    );
    check(
        &np("ingress:\n  «action: Allow»"),
        "spec.ingress",
        "expected a list, found a mapping",
    );
    check(
        &np("ingress:\n- «Allow»"),
        "spec.ingress[0]",
        "expected a mapping, found \"Allow\"",
    );
    check(
        &np("ingress: [{action: Allow, ipVersion: «'4'»}]"),
        "spec.ingress[0].ipVersion",
        "expected 4 or 6",
    );
    check(&gnp("preDNAT: «1»"), "spec.preDNAT", "expected true or false");
    check(
        &knp("ingress: [{ports: [{port: «99999»}]}]"),
        "spec.ingress[0].ports[0].port",
        "from 1 to 65535",
    );
}

#[test]
fn selectors_are_marked_inside() {
    check(
        &np("selector: app == «db»"),
        "spec.selector",
        "expected a string in single or double quotes",
    );
    check(
        &np("selector: \"app == 'é' «&» has(a)\""),
        "spec.selector",
        "expected '&&'",
    );
    check(&np("selector: 'has(a) «=» b'"), "spec.selector", "expected '=='");
    check(
        &gnp("namespaceSelector: «global()»"),
        "spec.namespaceSelector",
        "only in a rule's namespaceSelector",
    );
    let rule = "ingress:\n- action: Deny\n  source:\n    namespaceSelector: «has(a) && global()»";
    check(
        &np(rule),
        "spec.ingress[0].source.namespaceSelector",
        "cannot be combined",
    );
}

#[test]
fn networks_ports_and_protocols() {
    let rule = |peer: &str| {
        np(&format!(
            "ingress:\n- action: Deny\n  protocol: TCP\n  source:\n{peer}"
        ))
    };
    check(
        &rule("    nets:\n    - 10.0.0.0/8\n    - «10.0.0/8»"),
        "spec.ingress[0].source.nets[1]",
        "did you mean 10.0.0.0/8?",
    );
    check(
        &rule("    nets: [«10.0.0.1/8»]"),
        "spec.ingress[0].source.nets[0]",
        "it is taken as 10.0.0.0/8",
    );
    check(
        &rule("    notNets: [«'::/0'»]"),
        "spec.ingress[0].source.notNets[0]",
        "excludes every address",
    );
    check(
        &rule("    ports: [80, «99999»]"),
        "spec.ingress[0].source.ports[1]",
        "expected a port from 1 to 65535",
    );
    let ports = |ports: &str| {
        np(&format!(
            "ingress:\n- action: Deny\n  protocol: TCP\n  destination: {{ports: {ports}}}"
        ))
    };
    check(
        &ports("[80, «'web server'»]"),
        "spec.ingress[0].destination.ports[1]",
        "or the name of a port",
    );
    check(
        &ports("[«90:80»]"),
        "spec.ingress[0].destination.ports[0]",
        "ends before it begins",
    );
    check(
        &np("ingress: [{action: Deny, destination: {ports: «[80]»}}]"),
        "spec.ingress[0].destination.ports",
        "need the rule's protocol",
    );
    check(
        &np("ingress: [{action: Deny, protocol: «TPC»}]"),
        "spec.ingress[0].protocol",
        "did you mean TCP?",
    );
    check(
        &np("ingress: [{action: Deny, protocol: ICMP, ipVersion: «6»}]"),
        "spec.ingress[0].ipVersion",
        "other IP version",
    );
    check(
        &np("ingress: [{action: Deny, icmp: «{type: 8}»}]"),
        "spec.ingress[0].icmp",
        "to be ICMP or ICMPv6",
    );
    check(
        &np("ingress: [{action: «allow»}]"),
        "spec.ingress[0].action",
        "did you mean Allow?",
    );
    check(
        &np("ingress: [«{protocol: TCP}»]"),
        "spec.ingress[0]",
        "action is missing",
    );
}

#[test]
fn mixed_families_name_the_second() {
    let rule =
        "ingress:\n- action: Deny\n  source: {nets: [10.0.0.0/8]}\n  destination: {notNets: [«'fd00::/8'»]}";
    check(&np(rule), "spec.ingress[0]", "both IPv4 and IPv6");
    for fields in ["protocol: ICMPv6", "ipVersion: 6"] {
        let rule = format!("ingress:\n- {{action: Deny, {fields}, source: {{notNets: [«10.0.0.0/8»]}}}}");
        check(&np(&rule), "spec.ingress[0]", "the rule matches nothing");
    }
}

#[test]
fn names_of_ports_in_kubernetes_policies() {
    let port = |port: &str| knp(&format!("ingress: [{{ports: [{port}]}}]"));
    for (entry, message) in [
        ("{port: «'80'»}", "for the number write 80, not in quotes"),
        ("{port: «Http»}", "no name of a port"),
        ("{port: «a-very-long-name»}", "at most 15 lower-case letters"),
        ("{port: «a--b»}", "no name of a port"),
        ("{port: «a-»}", "no name of a port"),
        ("{port: «'1'»}", "a letter among them"),
        ("{port: «0»}", "expected a port number from 1 to 65535, found 0"),
        ("{port: «70000»}", "a port number from 1 to 65535"),
        ("{port: «[]»}", "found a list"),
    ] {
        check(&port(entry), "spec.ingress[0].ports[0].port", message);
    }
    for (entry, message) in [
        ("«{port: http, endPort: 90}»", "endPort beside the name of a port"),
        ("«{endPort: 90}»", "endPort without port"),
        ("«{port: 91, endPort: 90}»", "endPort 90 is below port 91"),
    ] {
        check(&port(entry), "spec.ingress[0].ports[0]", message);
    }
    check(
        &port("{protocol: «Tcp»}"),
        "spec.ingress[0].ports[0].protocol",
        "did you mean TCP?",
    );
}

#[test]
fn later_documents_and_list_items_count_their_lines() {
    let first = np("order: 1");
    check(
        &format!("{first}---\n# words\n---\n{}", gnp("«odrer»: 1")),
        "spec",
        "\"order\"",
    );
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: projectcalico.org/v3\n  kind: Tier\n  metadata: {name: t}\n  \
                spec: {order: «x»}\n";
    check(list, "spec.order", "Tier t: ");
    let json = "{\n \"apiVersion\": \"projectcalico.org/v3\",\n \"kind\": \"Tier\",\n \"metadata\": {\"name\": \"t\"},\n \
                \"spec\": {\"order\": «\"x\"»}\n}\n";
    check(json, "spec.order", "expected a number");
    check(
        &format!("{first}\r\n---\r\n{}", gnp("order: «x»").replace('\n', "\r\n")),
        "spec.order",
        "expected a number",
    );
}

#[test]
fn metadata() {
    let object = |metadata: &str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {metadata}\n");
    check(
        &object("{name: «17»}"),
        "metadata.name",
        "put it in quotes: \"17\"",
    );
    check(&object("{name: «a b»}"), "metadata.name", "is no name");
    check(
        &object("{name: a, labels: {b: «true»}}"),
        "metadata.labels",
        "put it in quotes",
    );
    check(
        &object("{name: a, namespace: «b»}"),
        "metadata.namespace",
        "belongs to no namespace",
    );
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {«pcns.b»: c}}\n",
        "",
        "label pcns.b is ignored",
    );
    let set = |labels: &str| calico("NetworkSet", &format!("name: a, labels: {labels}"), "nets: []");
    check(
        &set("«{projectcalico.org/namespace: x}»"),
        "metadata.labels",
        "may not have the label",
    );
}
