//! Addresses for endpoints that have none: in no CIDR that the inputs name, so that only selectors tell whose they are.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::analysis::named::named_nets;
use crate::analysis::notes::{Notes, some};
use crate::analysis::spans::{Family, bounds, number};
use crate::model::{Node, Pod, Resource};
use crate::policy::store::{Event, Store};
use crate::policy::topology::pod_name;

/// Where nobody lives, then everywhere else. Both ends are in it.
const V4: [(u128, u128); 2] = [(0xf000_0001, 0xffff_fffe), (0x0100_0000, 0xdfff_ffff)];
const V6: [(u128, u128); 2] = [
    (0x4000 << 112 | 1, (0x6000 << 112) - 1),
    (1 << 112, (0xff00 << 112) - 1),
];

/// Whether IPv6 is in play: a pod has such an address, or something names such a CIDR.
pub(in crate::analysis) fn names_v6(store: &Store) -> bool {
    let pods = store.pods().any(|pod| pod.ips.iter().any(IpAddr::is_ipv6));
    pods || named_nets(store).iter().any(|net| matches!(net, IpNet::V6(_)))
}

pub(super) fn add(store: &mut Store, v6: bool, notes: &mut Notes) {
    let homeless = |pod: &&Arc<Pod>| pod.ips.is_empty() && !pod.host_network && !pod.finished;
    let pods: Vec<Arc<Pod>> = store.pods().filter(homeless).cloned().collect();
    let of_hosts = |node: &str| store.host_endpoints().any(|host| host.node == node);
    let nodes: Vec<Node> = store
        .nodes()
        .filter(|node| node.internal_ips.is_empty() && of_hosts(&node.name))
        .cloned()
        .collect();
    if !pods.is_empty() {
        let names: Vec<String> = pods.iter().map(|pod| pod_name(pod)).collect();
        notes.note(format!(
            "{} without an address: taken to have one that lies in no CIDR of the inputs: {}",
            if names.len() == 1 {
                "a pod".to_owned()
            } else {
                format!("{} pods", names.len())
            },
            some(&names)
        ));
    }
    let count = pods.len() + nodes.len();
    let mut taken = named_nets(store);
    taken.extend(owned(store).map(IpNet::from));
    let mut v4 = free(Family::V4, &taken, count).into_iter();
    let mut v6 = if v6 {
        free(Family::V6, &taken, count)
    } else {
        Vec::new()
    }
    .into_iter();
    let mut next = || v4.next().into_iter().chain(v6.next()).collect::<Vec<IpAddr>>();
    for pod in pods {
        let pod = Pod {
            ips: next(),
            ..Pod::clone(&pod)
        };
        store.apply(Event::Upsert(Resource::Pod(pod)));
    }
    for node in nodes {
        let node = Node {
            internal_ips: next(),
            ..node
        };
        store.apply(Event::Upsert(Resource::Node(node)));
    }
}

/// Addresses that are somebody's, and are not to be somebody else's.
fn owned(store: &Store) -> impl Iterator<Item = IpAddr> {
    let pods = store.pods().flat_map(|pod| pod.ips.iter().copied());
    let nodes = store.nodes().flat_map(|node| node.internal_ips.iter().copied());
    pods.chain(nodes)
}

/// So many addresses outside the prefixes. If those leave no room, the widest of them do not count (as if they were
/// the whole family, which they all but are).
fn free(family: Family, taken: &[IpNet], count: usize) -> Vec<IpAddr> {
    let of_family = |net: &&IpNet| Family::of(net.network()) == family;
    let mut taken: Vec<&IpNet> = taken.iter().filter(of_family).collect();
    taken.sort_unstable_by_key(|net| number(net.network()));
    let regions = if family == Family::V4 { V4 } else { V6 };
    for widest in 1..=u8::MAX {
        let narrow = taken.iter().filter(|net| net.prefix_len() >= widest);
        let taken: Vec<(u128, u128)> = narrow.map(|net| bounds(net)).collect();
        let found: Vec<IpAddr> = regions
            .iter()
            .flat_map(|(first, last)| outside(*first, *last, &taken))
            .take(count)
            .map(|number| family.address(number))
            .collect();
        if found.len() == count {
            return found;
        }
    }
    Vec::new()
}

/// The numbers from `first` to `last` that are in none of the sorted ranges.
fn outside(first: u128, last: u128, taken: &[(u128, u128)]) -> impl Iterator<Item = u128> {
    let mut next = first;
    let mut taken = taken.iter().peekable();
    std::iter::from_fn(move || {
        while let Some((_, end)) = taken.next_if(|(start, _)| *start <= next) {
            next = next.max(end.checked_add(1)?);
        }
        let found = (next <= last).then_some(next)?;
        next = next.checked_add(1)?;
        Some(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(family: Family, taken: &[&str], count: usize) -> Vec<String> {
        let taken: Vec<IpNet> = taken.iter().map(|net| net.parse().unwrap()).collect();
        free(family, &taken, count)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn addresses_lie_outside_what_is_named() {
        let taken = [
            "240.0.0.2/31",
            "240.0.0.0/30",
            "240.0.0.5/32",
            "0.0.0.0/0",
            "10.0.0.0/8",
            "::/0",
        ];
        assert_eq!(
            found(Family::V4, &taken, 3),
            ["240.0.0.4", "240.0.0.6", "240.0.0.7"]
        );
        assert_eq!(found(Family::V4, &["128.0.0.0/1"], 2), ["1.0.0.0", "1.0.0.1"]);
        assert_eq!(found(Family::V6, &["4000::/120"], 1), ["4000::100"]);
        assert_eq!(found(Family::V6, &["255.0.0.0/8"], 1), ["4000::1"]);
    }

    #[test]
    fn halves_that_leave_no_room_count_as_the_whole() {
        let taken = ["0.0.0.0/1", "128.0.0.0/1", "240.0.0.0/24"];
        assert_eq!(found(Family::V4, &taken, 1), ["240.0.1.0"]);
    }
}
