//! A server that goes, falls silent, forgets or refuses after everything was read.

use std::time::Duration;

use calico_azure_tests::apistand::ApiStand;
use calico_azure_userspace::policy::generate::Rng;

use super::{CRD, Watched, expected, namespace, pod, policy};

#[test]
fn what_happened_while_nobody_looked_is_found_by_a_new_list() {
    let stand = ApiStand::start().unwrap();
    for name in ["a", "b", "c"] {
        stand.put(&namespace(name, "1"));
    }
    let mut watched = Watched::in_sync(&stand);
    let (lists, changes) = (stand.lists(), watched.changes);
    // First without a difference: nothing is sent.
    stand.compact();
    watched.until("listed again", |_| stand.lists() >= lists + 8);
    watched.rest(Duration::from_millis(300));
    assert_eq!(watched.changes, changes);

    stand.set_away(true);
    stand.put(&namespace("a", "2"));
    stand.delete(&namespace("b", "1"));
    stand.put(&namespace("d", "1"));
    stand.compact();
    stand.set_away(false);
    watched.until_equal(&stand);
    assert_eq!(watched.changes, changes + 3);
    let relists: u64 = watched.status.kinds().iter().map(|kind| kind.relists).sum();
    assert!(relists >= 8, "{relists}");
}

#[test]
fn a_connection_that_falls_silent_is_given_up() {
    let stand = ApiStand::start().unwrap();
    stand.put(&namespace("a", "1"));
    let mut watched = Watched::in_sync(&stand);
    let changes = watched.changes;
    stand.silence();
    stand.put(&namespace("a", "2"));
    watched.until("heard of the change", |watched| watched.label("a") == Some("2"));
    assert_eq!(watched.changes, changes + 1);
}

#[test]
fn nothing_goes_while_the_server_is_away() {
    let stand = ApiStand::start().unwrap();
    stand.put(&namespace("a", "1"));
    stand.put(&pod("p", "Running", 1));
    let mut watched = Watched::in_sync(&stand);
    let changes = watched.changes;
    stand.set_away(true);
    watched.until("told", |watched| watched.problems.len() == 1);
    let problem = watched.problems.join("");
    assert!(problem.contains("does not answer"), "{problem}");
    watched.rest(Duration::from_secs(1));
    assert_eq!((watched.changes, watched.problems.len()), (changes, 1));
    stand.set_away(false);
    watched.until("back", |watched| watched.problems.is_empty());
    watched.rest(Duration::from_millis(300));
    assert_eq!(watched.changes, changes);

    // Answers, but not with what was asked for.
    let all: Vec<String> = ["namespaces", "pods"]
        .map(|name| format!("/api/v1/{name}"))
        .into();
    for status in [429, 500, 503] {
        stand.faults(|faults| faults.status = Some((status, all.clone())));
        stand.close();
        watched.until("told", |watched| watched.problems.len() == 1);
        stand.put(&namespace("a", &status.to_string()));
        stand.faults(|faults| faults.status = None);
        watched.until("back", |watched| {
            watched.problems.is_empty() && watched.label("a") == Some(&status.to_string())
        });
    }
}

#[test]
fn a_missing_permission_is_named_and_waited_for() {
    let stand = ApiStand::start().unwrap();
    stand.put(&pod("p", "Running", 1));
    stand.faults(|faults| faults.forbidden = vec!["/api/v1/pods".into()]);
    let mut watched = Watched::new(&stand);
    watched.until("told", |watched| !watched.problems.is_empty());
    watched.rest(Duration::from_millis(500));
    assert_eq!(watched.in_sync, 0);
    let [problem] = watched.problems.as_slice() else {
        panic!("{:?}", watched.problems)
    };
    for part in [
        "Pod on the API server",
        "cannot watch resource \"pods\"",
        "resources: [\"pods\"]",
        "ServiceAccount kube-system/calico-azure",
    ] {
        assert!(problem.contains(part), "{part}: {problem}");
    }
    let pods = || -> u64 {
        let kinds = watched.status.kinds().into_iter();
        kinds
            .filter(|kind| kind.kind == "Pod")
            .map(|kind| kind.errors)
            .sum()
    };
    assert!(pods() > 0);
    stand.faults(|faults| faults.forbidden.clear());
    watched.until("in sync", |watched| {
        watched.in_sync == 1 && watched.problems.is_empty()
    });
    assert_eq!(watched.known, expected(&stand));
}

/// Whatever happens, in the end the source knows what the server has.
#[test]
fn random_changes_and_failures_end_alike() {
    let mut rng = Rng::new(0x6b75_6265);
    let stand = ApiStand::start().unwrap();
    let mut watched = Watched::in_sync(&stand);
    for round in 0..40 {
        for _ in 0..rng.below(40) {
            let name = format!("o{}", rng.below(12));
            let stage = rng.below(3).to_string();
            match rng.below(8) {
                0 | 1 => stand.put(&namespace(&name, &stage)),
                2 => stand.delete(&namespace(&name, &stage)),
                3 | 4 => {
                    let phase = if rng.chance(25) { "Failed" } else { "Running" };
                    stand.put(&pod(&name, phase, 7));
                }
                5 => stand.delete(&pod(&name, "", 7)),
                6 => stand.put(&policy(CRD, "GlobalNetworkPolicy", &name, 3)),
                _ => stand.delete(&policy(CRD, "GlobalNetworkPolicy", &name, 3)),
            }
        }
        match rng.below(10) {
            0 => stand.compact(),
            1 => stand.close(),
            2 => stand.silence(),
            3 => stand.define(CRD, "GlobalNetworkPolicy"),
            4 => stand.undefine(CRD, "GlobalNetworkPolicy"),
            5 => {
                let no_streams = rng.chance(50);
                let no_protobuf = rng.chance(50);
                stand.faults(|faults| (faults.no_streams, faults.no_protobuf) = (no_streams, no_protobuf));
                stand.compact();
            }
            6 => {
                stand.set_away(true);
                watched.rest(Duration::from_millis(100));
                stand.set_away(false);
            }
            7 => {
                stand.faults(|faults| faults.status = Some((500, vec!["/api/v1/pods".into()])));
                stand.compact();
                watched.rest(Duration::from_millis(50));
                stand.faults(|faults| faults.status = None);
            }
            _ => {}
        }
        if round % 4 == 3 {
            watched.until_equal(&stand);
        }
    }
    watched.until_equal(&stand);
    assert_eq!(watched.in_sync, 1);
}
