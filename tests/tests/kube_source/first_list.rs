//! The first list of all: from servers that come late, or break off in the middle of it.

use std::time::Duration;

use calico_azure_tests::apistand::ApiStand;
use calico_azure_userspace::policy::generate::Rng;

use super::{Watched, expected, namespace, pod};

/// As many as are read ahead of what is entered, and more.
const PODS: u32 = 2_000;

#[test]
fn a_server_that_comes_late_is_waited_for() {
    let stand = ApiStand::start().unwrap();
    stand.put(&namespace("a", "1"));
    stand.faults(|faults| faults.slow = Duration::from_millis(300));
    stand.set_away(true);
    let mut watched = Watched::new(&stand);
    watched.rest(Duration::from_millis(500));
    assert_eq!((watched.in_sync, watched.changes), (0, 0));
    stand.set_away(false);
    watched.until("in sync", |watched| watched.in_sync == 1);
    assert_eq!(watched.known, expected(&stand));
}

#[test]
fn a_long_list_that_breaks_off_is_no_list_and_changes_meanwhile_are_not_lost() {
    let mut rng = Rng::new(0x6c69_7374);
    let stand = ApiStand::start().unwrap();
    for index in 0..PODS {
        stand.put(&pod(&format!("p{index}"), "Running", index));
    }
    stand.put(&namespace("shop", "1"));
    let mut unfinished = 0;
    for round in 0..18 {
        stand.faults(|faults| faults.no_streams = round % 6 == 5);
        let mut watched = Watched::new(&stand);
        for _ in 0..rng.below(4) {
            watched.rest(Duration::from_millis(rng.below(40) as u64));
            unfinished += u32::from(watched.in_sync == 0);
            for _ in 0..rng.below(20) {
                let index = rng.below(PODS as usize);
                let name = format!("p{index}");
                let phase = if rng.chance(20) { "Failed" } else { "Running" };
                match rng.below(3) {
                    0 => stand.delete(&pod(&name, "", 7)),
                    _ => stand.put(&pod(&name, phase, PODS + round)),
                }
            }
            match rng.below(4) {
                0 => stand.close(),
                1 => stand.compact(),
                2 => stand.silence(),
                _ => {}
            }
        }
        watched.until("in sync", |watched| watched.in_sync == 1);
        // Whatever came, a list of which half is missing is none.
        let pods = watched.known.len();
        assert!(
            pods > PODS as usize / 2,
            "round {round}: in sync with {pods} objects"
        );
        watched.until_equal(&stand);
        watched.rest(Duration::from_millis(50));
        watched.until_equal(&stand);
        assert_eq!(watched.in_sync, 1, "round {round}");
    }
    assert!(
        unfinished > 8,
        "{unfinished} disturbances of lists that were under way"
    );
}
