//! The analysis against the reference, over generated clusters: every pair, at and beside every edge of a rule.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::analysis::named::{named_nets, rules};
use crate::analysis::notes::Notes;
use crate::analysis::prepare::Prepared;
use crate::analysis::spans::{Family, bounds};
use crate::analysis::{Connections, Options, Place, of_store};
use crate::model::Icmp;
use crate::policy::generate::{self, Features, Rng, Shape};
use crate::policy::reference::{Flow, Oracle};
use crate::policy::{Event, Store};

/// The resources of a generated cluster, as manifests would have them.
pub(super) fn cluster(seed: u64, shape: &Shape) -> Store {
    let mut store = Store::default();
    for event in generate::events(seed, shape) {
        if matches!(event, Event::Upsert(_)) {
            store.apply(event);
        }
    }
    store
}

struct Questions {
    ports: Vec<u16>,
    types: Vec<u16>,
    sources: Vec<u16>,
}

/// Each edge and its neighbours.
fn around(edges: impl IntoIterator<Item = u16>) -> Vec<u16> {
    let edges = edges
        .into_iter()
        .flat_map(|edge| [edge.saturating_sub(1), edge, edge.saturating_add(1)]);
    let all: BTreeSet<u16> = edges.filter(|port| *port > 0).collect();
    all.into_iter().collect()
}

impl Questions {
    fn of(store: &Store) -> Self {
        let (mut ports, mut types, mut sources) = (
            BTreeSet::from([80, 22, 53, 67]),
            BTreeSet::new(),
            BTreeSet::from([80, 4000]),
        );
        for rule in rules(store) {
            let edges = |peer: &crate::model::Peer| {
                let ranges = peer.ports.iter().chain(&peer.not_ports);
                ranges
                    .flat_map(|range| [range.first, range.last])
                    .collect::<Vec<_>>()
            };
            sources.extend(edges(&rule.source));
            ports.extend(edges(&rule.destination));
            for Icmp { kind, code } in [rule.icmp, rule.not_icmp].into_iter().flatten() {
                types.insert(u16::from_be_bytes([kind.unwrap_or(9), code.unwrap_or(0)]));
                types.insert(u16::from_be_bytes([kind.unwrap_or(9), code.unwrap_or(255)]));
            }
        }
        let named: Vec<u16> = store
            .pods()
            .flat_map(|pod| &pod.ports)
            .map(|port| port.port)
            .collect();
        ports.extend(&named);
        sources.extend(&named);
        let subsets = store.backends().flat_map(|backends| &backends.subsets);
        ports.extend(subsets.flat_map(|subset| subset.ports.iter().map(|(_, port)| *port)));
        Self {
            ports: around(ports),
            types: around(types),
            sources: around(sources),
        }
    }

    /// A protocol and a port of it.
    fn pick(&self, rng: &mut Rng) -> (u8, u16) {
        let protocol = rng.one_of([6, 6, 6, 17, 17, 132, 1, 58, 47, 136, 201]);
        let port = match protocol {
            6 | 17 | 132 if rng.chance(80) => rng.pick(&self.ports).copied().unwrap_or(1),
            6 | 17 | 132 => rng.port().max(1),
            1 | 58 if rng.chance(80) => rng.pick(&self.types).copied().unwrap_or(1),
            1 | 58 => rng.port(),
            _ => 0,
        };
        (protocol, port)
    }

    fn expected(
        &self,
        oracle: &Oracle<'_>,
        src: &[IpAddr],
        dst: &[IpAddr],
        protocol: u8,
        dport: u16,
    ) -> bool {
        let sources: &[u16] = if matches!(protocol, 6 | 17 | 132) {
            &self.sources
        } else {
            &[0]
        };
        let ends = src.iter().flat_map(|a| dst.iter().map(|b| (*a, *b)));
        let mut ends = ends.filter(|(a, b)| a.is_ipv4() == b.is_ipv4());
        ends.any(|(src, dst)| {
            sources.iter().any(|sport| {
                let flow = Flow {
                    src,
                    dst,
                    protocol,
                    sport: *sport,
                    dport,
                };
                oracle.passes(&flow)
            })
        })
    }
}

fn addresses(prepared: &Prepared, oracle: &Oracle<'_>) -> BTreeMap<Place, Vec<IpAddr>> {
    let store = &prepared.store;
    let topology = oracle.topology();
    let endpoints = topology.endpoints.iter().map(|x| (x.pod, x.addresses.clone()));
    let isolated = topology.isolated.iter().map(|pod| (*pod, pod.ips.clone()));
    let pods = endpoints.chain(isolated);
    let mut found: BTreeMap<Place, Vec<IpAddr>> = pods
        .map(|(pod, ips)| (prepared.place(&pod.namespace, &pod.name), ips))
        .collect();
    for host in store.host_endpoints() {
        let node = host.node.clone();
        let ips = found.entry(Place::Host { node }).or_default();
        ips.extend(&host.expected_ips);
        ips.extend(
            store
                .nodes()
                .filter(|node| node.name == host.node)
                .flat_map(|node| &node.internal_ips),
        );
        ips.sort_unstable();
        ips.dedup();
    }
    found
}

fn agree(seeds: std::ops::Range<u64>, shape: &Shape, per_pair: usize) {
    let (mut asked, mut open) = (0, 0);
    for seed in seeds {
        let store = cluster(seed, shape);
        let options = Options {
            pending: false,
            v6: true,
        };
        let analysis = of_store(store.clone(), options).unwrap();
        let prepared = Prepared::new(store, false, true, &mut Notes::default());
        let oracle = Oracle::new(&prepared.store);
        let questions = Questions::of(&prepared.store);
        let mut rng = Rng::new(seed);
        let own = addresses(&prepared, &oracle);
        let listed: BTreeMap<(&Place, &Place), &Connections> = analysis
            .pairs()
            .map(|pair| ((pair.src, pair.dst), pair.connections))
            .collect();
        assert!(listed.keys().all(|(src, dst)| src != dst));
        let nothing = Connections::none();
        let mut check = |rng: &mut Rng, ends: [&Place; 2], ips: [&[IpAddr]; 2], found: &Connections| {
            for _ in 0..per_pair {
                let (protocol, port) = questions.pick(rng);
                let expected = questions.expected(&oracle, ips[0], ips[1], protocol, port);
                let [src, dst] = ends;
                let actual = found.contains(protocol, port);
                assert_eq!(
                    actual, expected,
                    "seed {seed}: {src} to {dst} ({ips:?}), {protocol} {port}: {found}"
                );
                asked += 1;
                open += usize::from(expected);
            }
        };
        for (src, from) in &own {
            for (dst, to) in own.iter().filter(|(dst, _)| *dst != src) {
                let found = listed.get(&(src, dst)).copied().unwrap_or(&nothing);
                check(&mut rng, [src, dst], [from, to], found);
            }
        }
        let strangers = strangers(&prepared, &own, &oracle, &mut rng);
        for (place, ips) in &own {
            for stranger in &strangers {
                for towards in [true, false] {
                    let ranges = listed.iter().filter_map(|((src, dst), found)| {
                        let (own, range) = if towards { (src, dst) } else { (dst, src) };
                        let Place::Cidr(net) = range else { return None };
                        (*own == place && net.contains(stranger)).then_some((*range, *found))
                    });
                    let ranges: Vec<_> = ranges.collect();
                    assert!(
                        ranges.len() < 2,
                        "seed {seed}: {place} and {stranger}: {ranges:?}"
                    );
                    let found = ranges.first().map_or(&nothing, |(_, found)| found);
                    let net = Place::Cidr(IpNet::from(*stranger));
                    let (ends, ips): (_, [&[IpAddr]; 2]) = if towards {
                        ([place, &net], [ips, &[*stranger]])
                    } else {
                        ([&net, place], [&[*stranger], ips])
                    };
                    check(&mut rng, ends, ips, found);
                }
            }
        }
    }
    println!("{asked} asked, {open} open");
    assert!(
        open * 20 > asked && open < asked * 4 / 5,
        "{open} of {asked} open: the test tells too little"
    );
}

/// Addresses at and beside the edges of what is named, that belong to nobody.
fn strangers(
    prepared: &Prepared,
    own: &BTreeMap<Place, Vec<IpAddr>>,
    oracle: &Oracle<'_>,
    rng: &mut Rng,
) -> Vec<IpAddr> {
    let mut found = BTreeSet::new();
    for net in named_nets(&prepared.store) {
        let (first, last) = bounds(&net);
        let family = Family::of(net.network());
        for edge in [
            first.saturating_sub(1),
            first,
            last,
            last.saturating_add(1).min(family.max()),
        ] {
            found.insert(family.address(edge));
        }
    }
    let is_free = |address: &IpAddr| {
        own.values().all(|ips| !ips.contains(address)) && oracle.host_of(*address).is_none()
    };
    let mut found: Vec<IpAddr> = found.into_iter().filter(is_free).collect();
    rng.shuffle(&mut found);
    found.truncate(8);
    found.extend(["203.0.113.77", "2001:db8:77::1"].map(|ip| ip.parse::<IpAddr>().unwrap()));
    found
}

#[test]
fn pods_may_talk_as_the_reference_says() {
    let features = Features {
        host_endpoints: false,
        host_roles: false,
        ..Features::ALL
    };
    let shape = Shape {
        features,
        ..Shape::default()
    };
    agree(0..20, &shape, 3);
}

#[test]
fn hosts_and_what_they_forward_are_as_the_reference_says() {
    let shape = Shape {
        pods: 8,
        policies: 12,
        ..Shape::whole_language()
    };
    agree(100..105, &shape, 2);
}
