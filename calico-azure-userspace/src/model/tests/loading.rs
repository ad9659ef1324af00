//! Files, directories, lists, and everything else that holds several objects.

use super::*;

#[test]
fn lists_of_any_kind() {
    let list = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: a}}
- apiVersion: v1
  kind: NamespaceList
  items:
  - {metadata: {name: b}}
  - {apiVersion: v1, kind: Namespace, metadata: {name: c}}
---
{apiVersion: projectcalico.org/v3, kind: TierList, items: [{metadata: {name: t}}]}
---
{apiVersion: v1, kind: List, items: []}
";
    let keys: Vec<String> = good(list)
        .iter()
        .map(|resource| resource.key().to_string())
        .collect();
    assert_eq!(keys, ["Namespace a", "Namespace b", "Namespace c", "Tier t"]);
    let deep = (0..20).fold(
        "{apiVersion: v1, kind: List, items: []}".to_owned(),
        |inner, _| format!("{{apiVersion: v1, kind: List, items: [{inner}]}}"),
    );
    assert!(load(&deep).problems[0].message.contains("nested more than"));
    assert!(good("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicyList, items: }").is_empty());
    for (list, message) in [
        (
            "{apiVersion: v1, kind: PodList, item: []}",
            "unknown field \"item\"",
        ),
        (
            "{apiVersion: v1, kind: List}",
            "items is missing: expected a list of objects",
        ),
        (
            "{apiVersion: v1, kind: List, items: {}}",
            "expected a list, found a mapping",
        ),
    ] {
        let loaded = load(list);
        assert_eq!(loaded.problems[0].severity, Severity::Error);
        assert!(
            loaded.problems[0].message.contains(message),
            "{}",
            loaded.problems[0]
        );
    }
}

#[test]
fn a_list_names_what_its_items_do_not() {
    let policies = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicyList
metadata: {resourceVersion: ''}
items:
- metadata: {name: a, namespace: b}
  spec: {podSelector: {}, ingress: [{}]}
- metadata: {name: c}
  spec: {podSelector: {}}
";
    let keys: Vec<String> = good(policies)
        .iter()
        .map(|policy| policy.key().to_string())
        .collect();
    assert_eq!(
        keys,
        ["KubernetesNetworkPolicy b/a", "KubernetesNetworkPolicy default/c"]
    );
}

fn names(text: &str) -> Vec<String> {
    good(text).iter().map(|object| object.key().to_string()).collect()
}

#[test]
fn text_of_any_make() {
    let yaml = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n";
    assert_eq!(names(yaml), ["Namespace a", "Namespace b"]);
    assert_eq!(names(&yaml.replace('\n', "\r\n")), ["Namespace a", "Namespace b"]);
    assert_eq!(names(&format!("\u{feff}{yaml}")), ["Namespace a", "Namespace b"]);
    assert_eq!(
        names(&format!("---\n---\n{yaml}...\n---\n# end\n")),
        ["Namespace a", "Namespace b"]
    );
    let anchors = "
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Namespace
  metadata: &m {name: a, labels: &l {x: v}}
- {apiVersion: v1, kind: Namespace, metadata: {<<: *m, name: b, labels: {<<: *l, z: w}}}
";
    let loaded = good(anchors);
    let labels = |pairs: &[(&str, &str)]| -> Labels {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    let namespace = |name: &str, labels| {
        Resource::Namespace(Namespace {
            name: name.into(),
            labels,
        })
    };
    assert_eq!(
        loaded,
        [
            namespace("a", labels(&[("x", "v")])),
            namespace("b", labels(&[("x", "v"), ("z", "w")]))
        ]
    );
}

#[test]
fn json_values_one_after_the_other() {
    let namespace = |name: &str| {
        format!("{{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {{\"name\": {name}}}}}")
    };
    let (a, b, c) = (namespace("\"a\""), namespace("\"b\""), namespace("17"));
    assert_eq!(names(&format!("{a}\n{b}\n")), ["Namespace a", "Namespace b"]);
    assert_eq!(names(&format!("{a}{b}")), ["Namespace a", "Namespace b"]);
    assert_eq!(names(&a.replace(' ', "\n\t")), ["Namespace a"]);
    assert_eq!(names(&format!("{a}\n---\n{b}\n")), ["Namespace a", "Namespace b"]);
    let escapes = namespace("\"\\u0061\", \"labels\": {\"x\": \"\\ud83d\\ude00\\/\"}");
    let [Resource::Namespace(escaped)] = &good(&escapes)[..] else {
        panic!("no namespace")
    };
    assert_eq!(
        (escaped.name.as_str(), escaped.labels["x"].as_str()),
        ("a", "\u{1f600}/")
    );
    let column = |text: &str| text.find("17").and_then(|at| u32::try_from(at + 1).ok());
    for (text, line, column) in [
        (format!("{a}\n{c}\n{b}"), 2, column(&c)),
        (format!("{a}{c}{b}"), 1, column(&format!("{a}{c}"))),
    ] {
        let loaded = load(&text);
        assert_eq!(loaded.resources.len(), 3);
        let [problem] = &loaded.problems[..] else {
            panic!("{:?}", loaded.problems)
        };
        assert_eq!((problem.line, problem.column), (Some(line), column), "{problem}");
        assert!(problem.to_string().contains("^^\n"), "{problem}");
    }
    let half = load(&format!("{a}\n{}", &b[..20]));
    assert!(half.unreadable && half.problems[0].line.is_some_and(|line| line >= 2));
}

#[test]
fn templates_are_not_yaml_and_help_says_so() {
    for template in [
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: {{ .Values.name }}}\n",
        "{{- if .Values.on }}\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n{{- end }}\n",
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  labels:\n    {{- include \"x\" . | nindent 4 }}\n",
    ] {
        let loaded = load(template);
        assert!(loaded.unreadable && loaded.resources.is_empty(), "{template}");
        let shown = loaded.problems[0].to_string();
        assert!(
            shown.contains("this is not YAML: ") && shown.contains("= help: this looks like a template"),
            "{shown}"
        );
    }
    assert_eq!(load("a: {").problems[0].help, None);
}

#[test]
fn repeated_fields_are_reported_and_the_last_counts() {
    use super::places::check;
    let head = "apiVersion: v1\nkind: Pod\n";
    for (rest, field) in [
        ("metadata: {name: a, «name»: b}\n", "metadata"),
        ("metadata: {name: b, labels: {x: v, «x»: z}}\n", "metadata.labels"),
        ("metadata: {name: a}\n«metadata»: {name: b}\n", ""),
        (
            "metadata: {name: b}\nspec: {nodeName: a, «nodeName»: b}\n",
            "spec",
        ),
    ] {
        check(&format!("{head}{rest}"), field, "is given twice");
        let loaded = load(&format!("{head}{rest}").replace(['«', '»'], ""));
        assert_eq!(loaded.resources[0].key().name, "b");
    }
    let labels: String = (0..40).map(|i| format!("l{i}: v, ")).collect();
    check(
        &format!("{head}metadata: {{name: b, labels: {{{labels}«l7»: w}}}}\n"),
        "metadata.labels",
        "field \"l7\" is given twice",
    );
}

#[test]
fn of_duplicates_the_first_counts_and_both_places_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let namespace = |label: &str| {
        format!("\n{{apiVersion: v1, kind: Namespace, metadata: {{name: a, labels: {{x: {label}}}}}}}\n")
    };
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("1.yaml", &namespace("first"));
    std::fs::create_dir(dir.path().join("2")).unwrap();
    write(
        "2/b.yml",
        &format!("---\n{}---\n{}", namespace("second"), namespace("third")),
    );
    write("2/ignored.txt", "not: [yaml");
    let paths = [dir.path().to_owned(), dir.path().join("1.yaml")];
    let loaded = load::load_paths(&paths);
    let [Resource::Namespace(found)] = loaded.resources.as_slice() else {
        panic!("{:?}", loaded.resources)
    };
    assert_eq!(found.labels.get("x").map(String::as_str), Some("first"));
    let messages: Vec<_> = loaded.problems.iter().map(ToString::to_string).collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
    for (message, line) in messages.iter().zip([3, 6]) {
        let places = message.contains("1.yaml:2 as well") && message.contains(&format!("b.yml:{line}"));
        assert!(places, "{message}");
    }
    // A Kubernetes policy and a Calico one may share a name.
    assert_eq!(
        good(&format!("{}---\n{}", np("order: 1"), knp("podSelector: {}"))).len(),
        2
    );
}

#[test]
fn paths_that_hold_nothing_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    for path in [dir.path().to_owned(), missing] {
        let loaded = load::load_paths(std::slice::from_ref(&path));
        assert!(
            loaded.unreadable && loaded.problems.len() == 1,
            "{}",
            path.display()
        );
    }
    std::fs::write(dir.path().join("a.yaml"), b"a: \xff").unwrap();
    let loaded = load::load_paths(&[dir.path().to_owned()]);
    assert!(
        loaded.unreadable && loaded.problems[0].message.contains("line 1 is not"),
        "{}",
        loaded.problems[0]
    );
}

#[test]
fn directories_are_read_in_order_through_links_and_without_hidden_entries() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["..2026", "sub", ".git"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    for name in [
        "..2026/c.yaml",
        "b.json",
        "sub/a.yml",
        ".git/d.yaml",
        ".e.yaml",
        "f.yaml~",
    ] {
        std::fs::write(at(name), "").unwrap();
    }
    symlink("..2026", at("..data")).unwrap();
    symlink("..data/c.yaml", at("c.yaml")).unwrap();
    symlink(".", at("sub/loop")).unwrap();
    symlink("..", at("up")).unwrap();
    symlink("nowhere", at("g.yaml")).unwrap();
    let found = load::manifests(&at("sub")).unwrap();
    assert_eq!(found, [at("sub/a.yml")]);
    std::fs::remove_file(at("up")).unwrap();
    let found = load::manifests(dir.path()).unwrap();
    assert_eq!(found, ["b.json", "c.yaml", "g.yaml", "sub/a.yml"].map(at));
    assert!(load::load_file(&at("g.yaml")).unreadable);
    assert!(load::manifests(&at("missing")).is_err());
}

#[test]
fn a_long_text_is_read_in_parts_as_if_it_were_one() {
    let words = format!("# {}\n", "x".repeat(78)).repeat(600);
    let name = |i: usize| format!("n{}", i % 90);
    let object = |i: usize| {
        format!(
            "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {}}}\n{words}",
            name(i)
        )
    };
    let text: String = (0..100).map(object).collect();
    let loaded = load(&text);
    let names: Vec<String> = loaded
        .resources
        .iter()
        .map(|resource| resource.key().name)
        .collect();
    assert_eq!(names, (0..90).map(name).collect::<Vec<_>>());
    let lines: Vec<u32> = loaded.origins.iter().map(|origin| origin.line).collect();
    assert_eq!(lines, (0..90).map(|i| 2 + 604 * i).collect::<Vec<_>>());
    let duplicates: Vec<_> = loaded.problems.iter().map(|problem| problem.line).collect();
    assert_eq!(
        duplicates,
        (90..100).map(|i| Some(2 + 604 * i)).collect::<Vec<_>>()
    );
    // What is not YAML ends it, wherever that is.
    for broken in [5, 50, 99] {
        let at = text.match_indices("metadata").nth(broken).unwrap().0;
        let loaded = load(&format!("{}{{{}", &text[..at], &text[at..]));
        assert!(loaded.unreadable);
        assert_eq!(loaded.resources.len(), broken.min(90));
    }
}
