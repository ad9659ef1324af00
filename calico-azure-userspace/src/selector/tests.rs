//! What the language means, and that printing and parsing agree.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(k, v)| (k.into(), v.into()))
        .collect()
}

#[track_caller]
fn check(selector: &str, yes: &[&str], no: &[&str]) {
    let parsed = Selector::parse(selector).unwrap_or_else(|error| panic!("{selector}: {error}"));
    for text in yes {
        assert!(parsed.matches(&labels(text)), "{selector} must match {text:?}");
    }
    for text in no {
        assert!(
            !parsed.matches(&labels(text)),
            "{selector} must not match {text:?}"
        );
    }
}

#[test]
fn operators() {
    check("a == 'b'", &["a=b", "a=b,c=d"], &["", "a=c", "b=b"]);
    check("a != \"b\"", &["", "a=c"], &["a=b"]);
    check("a in {'b', 'c'}", &["a=b", "a=c"], &["", "a=d"]);
    check("a not in {'b'}", &["", "a=c"], &["a=b"]);
    check("a notin {'b',}", &["", "a=c"], &["a=b"]);
    check("a in {}", &[], &["", "a=b"]);
    check("a contains 'x'", &["a=x", "a=yxy"], &["", "a=y"]);
    check("a starts with 'x'", &["a=xy"], &["", "a=yx"]);
    check("a startswith 'x'", &["a=xy"], &["a=yx"]);
    check("a ends with 'x'", &["a=yx"], &["", "a=xy"]);
    check("a endswith 'x'", &["a=yx"], &["a=xy"]);
    check("has(a)", &["a="], &["", "b="]);
    check("all()", &["", "a=b"], &[]);
    check("", &["", "a=b"], &[]);
    check(" \t", &["a=b"], &[]);
    check("global()", &["", "a=b"], &[]);
}

#[test]
fn not_takes_a_whole_comparison() {
    check("!a == 'b'", &["", "a=c"], &["a=b"]);
    check("!!has(a)", &["a="], &[""]);
    check("!(a == 'b' || has(c))", &["a=c"], &["a=b", "c="]);
}

#[test]
fn and_binds_tighter_than_or() {
    check("has(a) || has(b) && has(c)", &["a=", "b=,c="], &["b=", "c="]);
    check("(has(a) || has(b)) && has(c)", &["a=,c=", "b=,c="], &["a=", "b="]);
}

#[test]
fn words_are_operators_only_after_a_label() {
    check("in in {'in'}", &["in=in"], &["in=out"]);
    check(
        "has == 'x' && contains contains 'c' && all == 'y'",
        &["has=x,contains=c,all=y"],
        &["has=x"],
    );
    check("not notin {'a'}", &["", "not=b"], &["not=a"]);
    check("has(has)", &["has="], &[""]);
}

#[test]
fn every_spelling_of_an_operator_prints_the_same() {
    let canonical = |text: &str| Selector::parse(text).unwrap().canonical().to_owned();
    for (spellings, printed) in [
        (&["a == 'b'", "a=='b'", "\ta ==\t\"b\" "][..], "a == \"b\""),
        (&["a != 'b'", "a!='b'"], "a != \"b\""),
        (
            &["a not in {'b'}", "a notin{'b'}", "a  not\tin { 'b' , }"],
            "a not in {\"b\"}",
        ),
        (&["a in {'c','b','c'}", "a in{'b','c',}"], "a in {\"b\", \"c\"}"),
        (&["a in {}", "a in { }"], "a in {}"),
        (&["a contains 'b'", "(a contains 'b')"], "a contains \"b\""),
        (&["a starts with 'b'", "a startswith 'b'"], "a starts with \"b\""),
        (&["a ends with 'b'", "a endswith 'b'"], "a ends with \"b\""),
        (&["has(a)", "has( a )", "((has(a)))"], "has(a)"),
        (&["", " ", "all()", "all( )"], "all()"),
        (&["!a == 'b'", "! (a == 'b')"], "!a == \"b\""),
        (
            &["has(a)||has(b)&&!has(c)", "has(a) || (has(b) && !has(c))"],
            "(has(a) || (has(b) && !has(c)))",
        ),
    ] {
        for text in spellings {
            assert_eq!(canonical(text), printed, "{text}");
        }
    }
}

#[test]
fn a_label_may_have_512_characters_and_any_of_its_own() {
    let longest = "a".repeat(MAX_LABEL);
    for label in [
        &longest,
        "A0_./-z",
        "projectcalico.org/namespace",
        "0",
        "-",
        "in",
        "not",
        "with",
    ] {
        check(&format!("{label} == 'x'"), &[&format!("{label}=x")], &[""]);
        check(&format!("has({label})"), &[&format!("{label}=x")], &[""]);
    }
    for text in [format!("{longest}a == 'x'"), format!("has(b) && has({longest}a)")] {
        let error = Selector::parse(&text).unwrap_err();
        assert_eq!(
            error.message,
            "a label has at most 512 characters, this one has 513"
        );
    }
}

#[test]
fn quotes_hold_the_other_quote() {
    check("a == \"it's\"", &["a=it's"], &["a=its"]);
    check("a == '\"'", &["a=\""], &["a='"]);
}

#[test]
fn canonical_form_sorts_sets_and_forgets_grouping() {
    let canonical = |text: &str| Selector::parse(text).unwrap().canonical().to_owned();
    assert_eq!(canonical("a in {'c','b','c'}"), "a in {\"b\", \"c\"}");
    assert_eq!(canonical("(((has(a))))"), "has(a)");
    assert_eq!(
        canonical("has(a)&&(has(b)&&has(c))"),
        "(has(a) && has(b) && has(c))"
    );
    assert_eq!(canonical("a == '\"'"), "a == '\"'");
    assert_eq!(
        Selector::parse("has(a)&&has(b)").unwrap(),
        Selector::parse("(has(a) && has(b))").unwrap()
    );
}

#[test]
fn errors_say_where_and_what() {
    for (text, offset, message) in [
        ("a = 'b'", 2, "single '='"),
        ("a == b", 5, "quotes"),
        ("a == 'b", 5, "closing"),
        ("a ==", 4, "found the end"),
        ("a", 1, "after a label"),
        ("has(a", 5, "')'"),
        ("has()", 4, "a label"),
        ("foo(a)", 0, "no function foo()"),
        ("a == 'b' c == 'd'", 9, "'&&'"),
        ("a in {'b' 'c'}", 10, "',' or '}'"),
        ("a &| b", 2, "'&&'"),
        ("a == 'b'\n", 8, "one line"),
        ("a == 'b' && §", 12, "unexpected character"),
        ("(a == 'b'", 9, "')'"),
        ("a == 'b')", 8, "the end"),
        ("a == 'b'\r\n&& has(c)", 8, "one line"),
        ("a in {,}", 6, "quotes"),
        ("a in {'b',,}", 10, "quotes"),
        ("a in {b}", 6, "quotes"),
        ("a in 'b'", 5, "'{'"),
        ("a not {'b'}", 2, "after a label"),
        ("a starts 'b'", 2, "after a label"),
        ("a == 'it\\'s'", 11, "no closing '"),
        ("all(a)", 4, "')'"),
        ("has('a')", 4, "a label"),
        ("!", 1, "a label"),
        ("has(a) &&", 9, "found the end"),
    ] {
        let error = Selector::parse(text).unwrap_err();
        assert_eq!(error.offset, offset, "{text}: {error}");
        assert!(error.to_string().contains(message), "{text}: {error}");
    }
    let long = format!("has({})", "a".repeat(MAX_LABEL + 1));
    assert_eq!(Selector::parse(&long).unwrap_err().offset, 4);
}

#[test]
fn deep_nesting_is_an_error_and_no_overflow() {
    for text in [
        "(".repeat(100_000),
        "!".repeat(100_000),
        format!("{}has(a)", "!(".repeat(50_000)),
    ] {
        assert!(Selector::parse(&text).unwrap_err().message.contains("deep"));
    }
    let wide = vec!["has(a)"; 10_000].join(" && ");
    assert!(Selector::parse(&wide).unwrap().matches(&labels("a=")));
}

#[test]
fn prefixes_go_on_every_key() {
    let selector = Selector::parse("a == 'b' && !(has(c) || d in {'e'})")
        .unwrap()
        .with_key_prefix("pcns.");
    assert_eq!(
        selector.canonical(),
        "(pcns.a == \"b\" && !(has(pcns.c) || pcns.d in {\"e\"}))"
    );
    let all = Selector::parse("!all() || all() && has(a)")
        .unwrap()
        .replace_all(&Selector::has("b"));
    assert_eq!(all.canonical(), "(!has(b) || (has(b) && has(a)))");
    assert!(Selector::parse("global()").unwrap().is_global());
    assert!(Selector::parse("has(a) && !global()").unwrap().contains_global());
    assert_eq!(
        Selector::parse("has(x) && a == 'b'").unwrap().required_equals(),
        Some(("a", "b"))
    );
    assert_eq!(
        Selector::parse("has(x) || a == 'b'").unwrap().required_equals(),
        None
    );
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("a".to_owned()),
        Just("in".to_owned()),
        Just("x.y/z-1".to_owned()),
        Just("not".to_owned())
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("b".into()),
        Just("it's".into()),
        Just("\"".into()),
        Just("é b".into())
    ]
}

fn selector() -> impl Strategy<Value = Selector> {
    let op = prop_oneof![
        Just(Op::Eq),
        Just(Op::Ne),
        Just(Op::Contains),
        Just(Op::StartsWith),
        Just(Op::EndsWith)
    ];
    let leaf = prop_oneof![
        Just(Selector::all()),
        Just(Selector::from_node(Node::Global)),
        key().prop_map(|key| Selector::has(&key)),
        (key(), op, value()).prop_map(|(key, op, value)| Selector::from_node(Node::Compare {
            key,
            op,
            value
        })),
        (key(), proptest::collection::vec(value(), 0..4), any::<bool>()).prop_map(
            |(key, values, negated)| {
                if negated {
                    Selector::not_in_set(&key, values)
                } else {
                    Selector::in_set(&key, values)
                }
            }
        ),
    ];
    leaf.prop_recursive(5, 32, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|a| a.not()),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a.and(&b)),
            (inner.clone(), inner).prop_map(|(a, b)| a.or(&b)),
        ]
    })
}

proptest! {
    #[test]
    fn printing_round_trips(selector in selector()) {
        let parsed = Selector::parse(selector.canonical()).unwrap();
        prop_assert_eq!(parsed.canonical(), selector.canonical());
        prop_assert_eq!(&parsed.inner.root, &selector.inner.root);
    }

    #[test]
    fn negation_is_complement(a in selector(), b in selector(), value in value(), key in key()) {
        let labels: BTreeMap<String, String> = [(key, value)].into();
        prop_assert_ne!(a.matches(&labels), a.not().matches(&labels));
        prop_assert_eq!(a.and(&b).matches(&labels), a.matches(&labels) && b.matches(&labels));
        prop_assert_eq!(a.or(&b).matches(&labels), a.matches(&labels) || b.matches(&labels));
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC{0,60}") {
        if let Ok(selector) = Selector::parse(&text) {
            prop_assert_eq!(Selector::parse(selector.canonical()).unwrap(), selector);
        }
    }
}
