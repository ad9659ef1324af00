//! The tree: values, places and errors of YAML and JSON.

use super::*;

/// All documents, and the error that ended them, if one did.
fn documents(text: &str) -> (Vec<Node<'_>>, Option<YamlError>) {
    let mut documents = Vec::new();
    let end = super::documents(Part::whole(text), &mut |document| documents.push(document));
    (documents, end.err())
}

/// The tree as compact text.
fn show(node: &Node<'_>) -> String {
    match &node.value {
        Value::Scalar(scalar) => match scalar.resolve() {
            Resolved::Text => format!("{:?}", scalar.text),
            Resolved::Null => "null".into(),
            Resolved::Bool(value) => value.to_string(),
            Resolved::Integer(value) => value.to_string(),
            Resolved::Number(value) => format!("{value:?}"),
        },
        Value::List(list) => format!("[{}]", list.iter().map(show).collect::<Vec<_>>().join(",")),
        Value::Map(entries) => {
            let entries = entries
                .iter()
                .map(|entry| format!("{}:{}", entry.key, show(&entry.node)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
    }
}

fn shown(text: &str) -> Vec<String> {
    let (documents, error) = documents(text);
    assert_eq!(error, None, "{text}");
    documents.iter().map(show).collect()
}

#[track_caller]
fn fails(text: &str, line: u32, message: &str) {
    let (_, error) = documents(text);
    let Some(error) = error else {
        panic!("{text} is YAML")
    };
    assert!(
        error.message.contains(message) && error.place.line == line,
        "{error:?}"
    );
}

#[test]
fn scalars_are_what_kubernetes_takes_them_for() {
    for (text, expected) in [
        ("80", "80"),
        ("-1", "-1"),
        ("0x10", "16"),
        ("0o17", "15"),
        ("010", "\"010\""),
        ("'80'", "\"80\""),
        ("!!str 80", "\"80\""),
        ("1.5", "1.5"),
        ("1e3", "1000.0"),
        (".inf", "\".inf\""),
        ("1e999", "\"1e999\""),
        ("1.2.3.4", "\"1.2.3.4\""),
        ("22:30", "\"22:30\""),
        ("yes", "true"),
        ("Off", "false"),
        ("\"on\"", "\"on\""),
        ("-", "[null]"),
        ("+", "\"+\""),
        ("9999999999999999999999999999999999999999999", "1e43"),
        (">-\n  a\n  b\n", "\"a b\""),
    ] {
        assert_eq!(shown(text), [expected], "{text}");
    }
}

#[test]
fn documents_are_apart_and_empty_ones_left_out() {
    assert_eq!(
        shown("---\na: 1\n---\n# nothing\n---\nb: [1, {c: d}]\n...\n"),
        ["{a:1}", "{b:[1,{c:\"d\"}]}"]
    );
    assert_eq!(shown(""), [""; 0]);
    assert_eq!(shown("# only words\n"), [""; 0]);
    assert_eq!(shown("\u{feff}a: 1\r\nb: 2\r\n"), ["{a:1,b:2}"]);
}

#[test]
fn json_is_yaml() {
    assert_eq!(
        shown("{\n\t\"a\": [1, true, null],\n\t\"b\": \"\\u00e9\\/\"\n}\n"),
        ["{a:[1,true,null],b:\"é/\"}"]
    );
}

#[test]
fn places_count_lines_and_characters() {
    let text = "é: [ü, 'a b']\n---\nb:\n  c: word # said\n";
    let (documents, error) = documents(text);
    assert_eq!(error, None);
    let Value::List(list) = &documents[0].get("é").unwrap().value else {
        panic!("no list")
    };
    let place = |node: &Node<'_>| (node.place.line, node.place.column, node.place.length);
    assert_eq!(list.iter().map(place).collect::<Vec<_>>(), [(1, 5, 1), (1, 8, 5)]);
    let word = documents[1].get("b").unwrap().get("c").unwrap();
    assert_eq!(place(word), (4, 6, 4));
    assert_eq!(text.get(word.place.byte..), Some("word # said\n"));
}

#[test]
fn aliases_and_merges_are_resolved() {
    assert_eq!(shown("a: &x {b: 1}\nc: *x\n"), ["{a:{b:1},c:{b:1}}"]);
    assert_eq!(
        shown("a: &x {b: 1, c: 2}\nd: {b: 3, <<: *x}\n"),
        ["{a:{b:1,c:2},d:{b:3,c:2}}"]
    );
    assert_eq!(shown("a: &x {b: 1}\nd: {<<: *x, b: 3}\n"), ["{a:{b:1},d:{b:3}}"]);
    assert_eq!(
        shown("a: &x {b: 1}\nb: &y {c: 2}\nd: {<<: [*x, *y]}\n"),
        ["{a:{b:1},b:{c:2},d:{b:1,c:2}}"]
    );
    fails("a: {<<: 1}", 1, "'<<' takes a mapping");
    fails("a: *x", 1, "anchor");
    fails("a: &x [*x]", 1, "refers to itself");
}

#[test]
fn documents_that_multiply_or_nest_themselves_are_refused() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let all = vec![format!("*a{}", i - 1); 10].join(", ");
        laughs.push_str(&format!("a{i}: &a{i} [{all}]\n"));
    }
    let (_, error) = documents(&laughs);
    assert!(error.unwrap().message.contains("aliases add more than"));
    let (_, error) = documents(&"[".repeat(100_000));
    assert!(error.is_some());
    let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(documents(&nested(MAX_DEPTH)).1, None);
    fails(&nested(MAX_DEPTH + 1), 1, "deep");
    let deep = nested(60);
    fails(
        &format!("a: &a {deep}\nb: &b {}*a{}\n", "[".repeat(60), "]".repeat(60)),
        2,
        "deep",
    );
}

#[test]
fn what_is_no_yaml_is_said_with_its_line() {
    fails("a: b\nc: [d\ne: f\n", 3, "");
    fails("a: b\n  c: d\n", 2, "");
    fails("a: !secret b\n", 1, "!secret has no meaning");
    fails("? [a]\n: b\n", 1, "plain name");
    // What came before is there.
    let (documents, error) = documents("a: b\n---\n[");
    assert!(documents.len() == 1 && error.is_some());
}
