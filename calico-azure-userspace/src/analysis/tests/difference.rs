//! Differences against the two states that they are of, and staged policies against the reference.

use std::collections::BTreeMap;

use super::oracle::cluster;
use crate::analysis::{Change, Connections, Connectivity, Options, Pair, Place, diff, of_store};
use crate::model::{HostRole, Resource};
use crate::policy::generate::{Features, Rng, Shape};
use crate::policy::{Event, Store};

fn analysed(store: Store) -> Connectivity {
    let options = Options {
        pending: false,
        v6: true,
    };
    of_store(store, options).unwrap()
}

fn shape() -> Shape {
    Shape {
        pods: 8,
        policies: 8,
        features: Features {
            host_endpoints: false,
            host_roles: false,
            ..Features::ALL
        },
        ..Shape::default()
    }
}

/// What the state says about two places, or addresses of two ranges.
fn between(state: &Connectivity, src: &Place, dst: &Place) -> Connections {
    let is = |wanted: &Place, place: &Place| match (wanted, place) {
        (Place::Cidr(wanted), Place::Cidr(net)) => net.contains(wanted),
        _ => wanted == place,
    };
    let mut pairs = state
        .pairs()
        .filter(|pair| is(src, pair.src) && is(dst, pair.dst));
    pairs
        .next()
        .map_or_else(Connections::none, |Pair { connections, .. }| connections.clone())
}

/// Removes some objects and changes some pods.
fn edited(store: &Store, rng: &mut Rng) -> Store {
    let mut edited = store.clone();
    for policy in store.policies() {
        if rng.chance(25) {
            edited.apply(Event::Delete(policy.key.clone()));
        }
    }
    for pod in store.pods() {
        let resource = Resource::Pod(pod.as_ref().clone());
        if rng.chance(15) {
            edited.apply(Event::Delete(resource.key()));
        }
    }
    edited
}

#[test]
fn a_difference_is_what_it_says_and_nothing_else_differs() {
    let mut seen = BTreeMap::new();
    for seed in 0..12 {
        let store = cluster(seed, &shape());
        let changed = edited(&store, &mut Rng::new(seed));
        let (old, new) = (analysed(store), analysed(changed));
        let there = diff(&old, &new);
        for pair in &there.pairs {
            let states = [&old, &new].map(|state| between(state, &pair.src, &pair.dst));
            assert_eq!([&pair.old, &pair.new], states.each_ref(), "seed {seed}: {pair:?}");
            assert_ne!(pair.old, pair.new);
            assert_eq!(pair.opened, pair.new.minus(&pair.old));
            assert_eq!(pair.closed, pair.old.minus(&pair.new));
            *seen.entry(pair.change).or_insert(0) += 1;
        }
        // What is listed in either state and not in the difference is the same.
        for pair in old.pairs().chain(new.pairs()) {
            let overlap = |a: &Place, b: &Place| match (a, b) {
                (Place::Cidr(a), Place::Cidr(b)) => a.contains(b) || b.contains(a),
                _ => a == b,
            };
            let differs = there
                .pairs
                .iter()
                .any(|x| overlap(&x.src, pair.src) && overlap(&x.dst, pair.dst));
            let [before, after] = [&old, &new].map(|state| between(state, pair.src, pair.dst));
            assert!(
                differs || before == after,
                "seed {seed}: {} to {}",
                pair.src,
                pair.dst
            );
        }
        let back = diff(&new, &old);
        assert_eq!(back.pairs.len(), there.pairs.len());
        assert_eq!((back.gone, back.appeared), (there.appeared, there.gone));
        assert!(diff(&old, &old).pairs.is_empty());
    }
    let all = [Change::Added, Change::Removed, Change::Changed];
    assert!(all.iter().all(|change| seen.get(change) > Some(&20)), "{seen:?}");
}

#[test]
fn pending_is_what_the_reference_says_of_staged_policies() {
    use crate::analysis::notes::Notes;
    use crate::analysis::prepare::Prepared;
    use crate::policy::reference::{Flow, Oracle};

    let mut different = 0;
    for seed in 0..30 {
        let store = cluster(seed, &shape());
        let [plain, pending] = [false, true]
            .map(|pending| Prepared::new(store.clone(), pending, true, &mut Notes::default()).store);
        let (oracle, expected, now) = (
            Oracle::new(&pending),
            Oracle::pending(&plain),
            Oracle::new(&plain),
        );
        assert!(plain.policies().all(|policy| policy.host == HostRole::Normal));
        let addresses: Vec<_> = plain.pods().flat_map(|pod| pod.ips.clone()).collect();
        let mut rng = Rng::new(seed);
        for _ in 0..400 {
            let (Some(src), Some(dst)) = (rng.pick(&addresses), rng.pick(&addresses)) else {
                continue;
            };
            let flow = Flow {
                src: *src,
                dst: *dst,
                protocol: rng.one_of([6, 6, 17, 1, 132]),
                sport: 4000,
                dport: rng.one_of([80, 81, 443, 8080, 53]),
            };
            assert_eq!(
                oracle.passes(&flow),
                expected.passes(&flow),
                "seed {seed}: {flow:?}"
            );
            different += usize::from(now.passes(&flow) != expected.passes(&flow));
        }
    }
    assert!(different > 20, "only {different} flows tell the difference");
}
