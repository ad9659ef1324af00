//! Manifests: any text → resources and problems that are where they say, quickly, and the same each time.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use calico_azure_userspace::model::load::{Loaded, parse_text};
use calico_azure_userspace::model::{Kind, Problem, Resource};
use calico_azure_userspace::policy::Store;
use calico_azure_userspace::policy::reference::Oracle;

/// Far more than any file of this size may take, on a busy machine and with every check turned on.
const SLOW: Duration = Duration::from_secs(4);

pub(super) fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let started = Instant::now();
    let loaded = parse_text(Path::new("fuzz.yaml"), &text);
    let took = started.elapsed();
    assert!(took < SLOW, "{} bytes took {took:?}", text.len());
    let breaks = text.replace("\r\n", "\n").replace('\r', "\n");
    let lines: Vec<&str> = breaks.split('\n').collect();
    for problem in loaded.problems.iter().chain(&loaded.missing_tiers()) {
        place(problem, &lines);
    }
    described(&loaded);
    let again = parse_text(Path::new("fuzz.yaml"), &text);
    assert_eq!(again.resources, loaded.resources, "read twice");
    assert_eq!(again.problems, loaded.problems, "read twice");
    let mut keys = HashSet::new();
    for resource in &loaded.resources {
        assert!(keys.insert(resource.key()), "{} is there twice", resource.key());
    }
    let store: Store = loaded.resources.into_iter().collect();
    let _all_are_selected_without_panic = Oracle::new(&store);
}

/// The problem's place is in the text.
fn place(problem: &Problem, lines: &[&str]) {
    let shown = problem.to_string();
    assert!(!problem.message.is_empty(), "{shown}: no message");
    let (Some(line), Some(column)) = (problem.line, problem.column) else {
        // Only of duplicates.
        assert!(problem.line.is_some(), "{shown}: no line");
        return;
    };
    let line = usize::try_from(line).unwrap_or(0);
    let text = line.checked_sub(1).and_then(|line| lines.get(line));
    let Some(text) = text else {
        panic!("{shown}: line {line} of {}", lines.len());
    };
    let column = usize::try_from(column).unwrap_or(0);
    let width = text.chars().count();
    assert!(
        (1..=width + 1).contains(&column),
        "{shown}: column {column} of {width}"
    );
    let is_plain = |c: char| !c.is_control() || c == '\n';
    assert!(shown.chars().all(is_plain), "{shown:?} would reach a terminal");
}

/// Origins are parallel to resources, and no policy comes without what it is about.
fn described(loaded: &Loaded) {
    assert_eq!(loaded.resources.len(), loaded.origins.len());
    for resource in &loaded.resources {
        if let Resource::Policy(policy) = resource {
            // Of these kinds one may have no rules, and nothing is denied by default.
            let may_be_empty = matches!(
                policy.key.kind,
                Kind::ClusterNetworkPolicy | Kind::AdminNetworkPolicy | Kind::BaselineAdminNetworkPolicy
            );
            assert!(
                policy.ingress.is_some() || policy.egress.is_some() || may_be_empty,
                "{} governs nothing",
                policy.key
            );
            assert!(policy.key.kind.is_policy(), "{}", policy.key);
        }
    }
}
