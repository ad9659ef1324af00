//! Selectors: text → what it prints, parses back to and selects.

use std::collections::BTreeMap;

use calico_azure_userspace::policy::generate::Rng;
use calico_azure_userspace::selector::Selector;

type Labels = BTreeMap<String, String>;

/// Sets of labels that each selector is asked about.
const ROUNDS: usize = 24;

pub(super) fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let selector = match Selector::parse(&text) {
        Ok(selector) => selector,
        Err(error) => {
            assert!(
                text.is_char_boundary(error.offset),
                "{error} is not a place in {text:?}"
            );
            assert!(!error.message.is_empty(), "{text:?}: no message");
            return;
        }
    };
    let printed = selector.canonical();
    let again =
        Selector::parse(printed).unwrap_or_else(|error| panic!("{printed:?} does not parse: {error}"));
    assert_eq!(again.canonical(), printed, "prints differently the second time");
    assert_eq!(again, selector);
    let (vocabulary, mut rng) = (words(&text), Rng::new(u64::try_from(data.len()).unwrap_or(0)));
    for _ in 0..ROUNDS {
        evaluate(&selector, &again, &labels(&mut rng, &vocabulary));
    }
}

/// What the text calls things: a selector is only interesting for labels that it names.
fn words(text: &str) -> Vec<String> {
    let is_edge = |c: char| c.is_whitespace() || "'\"(){},!=&|".contains(c);
    let quoted = text.split(['\'', '"']);
    let mut words: Vec<String> = quoted.chain(text.split(is_edge)).map(str::to_owned).collect();
    // Inside and beyond what `contains`, `starts with` and `ends with` ask for.
    let longer: Vec<String> = words.iter().map(|word| format!("a{word}z")).collect();
    words.extend(longer);
    words.truncate(400);
    words
}

fn labels(rng: &mut Rng, vocabulary: &[String]) -> Labels {
    let mut labels = Labels::new();
    for _ in 0..rng.below(6) {
        let word = |rng: &mut Rng| rng.pick(vocabulary).cloned().unwrap_or_default();
        labels.insert(word(rng), word(rng));
    }
    labels
}

fn evaluate(selector: &Selector, again: &Selector, labels: &Labels) {
    let holds = selector.matches(labels);
    assert_eq!(again.matches(labels), holds, "{selector} as printed: {labels:?}");
    assert_ne!(
        selector.not().matches(labels),
        holds,
        "not {selector}: {labels:?}"
    );
    assert_eq!(selector.not().not().matches(labels), holds);
    assert!(selector.or(&selector.not()).matches(labels));
    assert!(!selector.and(&selector.not()).matches(labels));
    assert_eq!(selector.and(&Selector::all()).matches(labels), holds);
    assert_eq!(
        selector.replace_all(&Selector::all()),
        *selector,
        "all() in the place of all()"
    );
    let below: Labels = labels
        .iter()
        .map(|(key, value)| (format!("pcns.{key}"), value.clone()))
        .collect();
    assert_eq!(
        selector.with_key_prefix("pcns.").matches(&below),
        holds,
        "{selector} of a namespace: {labels:?}"
    );
    if let Some((key, value)) = selector.required_equals()
        && holds
    {
        assert_eq!(
            labels.get(key).map(String::as_str),
            Some(value),
            "{selector}: {labels:?}"
        );
    }
}
