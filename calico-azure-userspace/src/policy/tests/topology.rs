//! Which pods are endpoints, behind which interfaces, with which addresses.

use crate::model::{FelixConfiguration, Pod, Resource, WorkloadEndpoint};
use crate::policy::topology::{Topology, interface_name};
use crate::policy::{Event, Interface, Interfaces, NodeFacts, Store};

fn pod(name: &str, ips: &[&str]) -> Pod {
    Pod {
        namespace: "ns".into(),
        name: name.into(),
        node: "n1".into(),
        ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        ..Pod::default()
    }
}

fn store(pods: Vec<Pod>, links: &[(u32, String, &[&str])]) -> Store {
    let mut store: Store = pods.into_iter().map(Resource::Pod).collect();
    let by_ifindex = links.iter().map(|(ifindex, name, routes)| {
        let behind = routes.iter().map(|ip| ip.parse().unwrap()).collect();
        (
            *ifindex,
            Interface {
                name: name.clone(),
                behind,
                ..Interface::default()
            },
        )
    });
    store.apply(Event::Interfaces(Interfaces {
        by_ifindex: by_ifindex.collect(),
    }));
    store.apply(Event::Node(NodeFacts {
        node: "n1".into(),
        interface_prefixes: vec!["cali".into(), "azv".into()],
        ..NodeFacts::default()
    }));
    store
}

/// A pod, its interface and its addresses.
type Row = (String, Option<u32>, Vec<String>);

fn resolve(store: &Store) -> (Vec<Row>, usize) {
    let topology = Topology::of(store);
    let rows = topology.endpoints.iter().map(|e| {
        (
            e.pod.name.clone(),
            e.ifindex,
            e.addresses.iter().map(ToString::to_string).collect(),
        )
    });
    (rows.collect(), topology.problems.len())
}

#[test]
fn the_computed_name_is_the_one_that_calico_computes() {
    // echo -n default.nginx | sha1sum
    let nginx = Pod {
        namespace: "default".into(),
        name: "nginx".into(),
        ..Pod::default()
    };
    assert_eq!(interface_name("azv", &nginx), "azvc440f455693");
}

#[test]
fn a_pod_without_status_takes_its_address_from_the_host_route() {
    let name = interface_name("azv", &pod("a", &[]));
    let store = store(vec![pod("a", &[])], &[(7, name, &["10.0.0.1", "fd00::1"])]);
    let (rows, problems) = resolve(&store);
    assert_eq!(
        rows,
        [("a".into(), Some(7), vec!["10.0.0.1".into(), "fd00::1".into()])]
    );
    assert_eq!(problems, 0);
}

#[test]
fn an_interface_without_a_computed_name_is_found_by_its_host_route() {
    let store = store(
        vec![pod("a", &["10.0.0.1"])],
        &[(7, "veth1".into(), &["10.0.0.1"])],
    );
    assert_eq!(
        resolve(&store).0,
        [("a".into(), Some(7), vec!["10.0.0.1".into()])]
    );
}

#[test]
fn a_stale_pod_takes_neither_interface_nor_address_from_the_pod_that_is_there() {
    // "a" sorts first, but the link and its route are b's.
    let name = interface_name("cali", &pod("b", &[]));
    let pods = vec![pod("a", &["10.0.0.1"]), pod("b", &["10.0.0.1"])];
    let store = store(pods, &[(7, name, &["10.0.0.1"])]);
    let (rows, problems) = resolve(&store);
    assert_eq!(
        rows,
        [
            ("a".into(), None, vec![]),
            ("b".into(), Some(7), vec!["10.0.0.1".into()])
        ]
    );
    assert_eq!(problems, 2, "the interface and the address");
}

#[test]
fn without_evidence_the_first_name_owns_a_contested_address() {
    let mut remote = [pod("a", &["10.0.0.1"]), pod("b", &["10.0.0.1"])];
    remote.iter_mut().for_each(|pod| pod.node = "n2".into());
    let store = store(remote.to_vec(), &[]);
    let topology = Topology::of(&store);
    assert!(topology.endpoints.iter().all(|endpoint| !endpoint.local));
    assert_eq!(topology.owner("10.0.0.1".parse().unwrap()).unwrap().pod.name, "a");
    assert_eq!(topology.problems.len(), 1);
}

#[test]
fn host_networked_finished_and_unscheduled_pods_are_no_endpoints() {
    let mut pods = [
        pod("a", &["10.0.0.1"]),
        pod("b", &["10.0.0.2"]),
        pod("c", &["10.0.0.3"]),
    ];
    pods[0].host_network = true;
    pods[1].finished = true;
    pods[2].node.clear();
    pods[2].ips.clear();
    assert_eq!(resolve(&store(pods.to_vec(), &[])), (vec![], 0));
}

#[test]
fn a_pod_that_asks_for_source_prefixes_is_no_endpoint_unless_spoofing_is_granted() {
    let asking = Pod {
        allowed_sources: vec!["192.0.2.0/24".parse().unwrap()],
        ..pod("a", &["10.0.0.1"])
    };
    let mut store = store(vec![asking, pod("b", &["10.0.0.1"])], &[]);
    let address = "10.0.0.1".parse().unwrap();
    let topology = Topology::of(&store);
    assert_eq!(topology.problems.len(), 1, "{:?}", topology.problems);
    assert_eq!(
        topology.owner(address).unwrap().pod.name,
        "b",
        "it claims no address"
    );
    let isolated: Vec<_> = topology.isolated.iter().map(|pod| pod.name.as_str()).collect();
    assert_eq!(isolated, ["a"]);
    assert!(topology.isolated_at(address).is_none(), "b's");
    for (name, any, endpoints) in [("default", true, 2), ("node.n2", false, 2), ("node.n1", false, 1)] {
        store.apply(Event::Upsert(Resource::FelixConfiguration(FelixConfiguration {
            name: name.into(),
            source_spoofing: Some(any),
            ..FelixConfiguration::default()
        })));
        assert_eq!(Topology::of(&store).endpoints.len(), endpoints, "{name}: {any}");
    }
}

#[test]
fn a_workload_endpoint_without_a_pod_is_an_endpoint_and_names_its_interface() {
    let mut store = store(
        vec![pod("z", &["10.0.0.2"])],
        &[(7, "eth7".into(), &["10.0.0.1"])],
    );
    let described = pod("a", &["10.0.0.1"]);
    store.apply(Event::Upsert(Resource::WorkloadEndpoint(WorkloadEndpoint {
        name: "w".into(),
        interface: "eth7".into(),
        pod: described,
    })));
    let (rows, problems) = resolve(&store);
    let expected = [
        ("a".to_owned(), Some(7), vec!["10.0.0.1".to_owned()]),
        ("z".to_owned(), None, vec!["10.0.0.2".to_owned()]),
    ];
    assert_eq!((rows, problems), (expected.into(), 0));
}
