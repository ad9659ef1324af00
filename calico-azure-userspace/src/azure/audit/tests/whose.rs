//! Whose routes are: what is a node's for certain is changed, what may be somebody's is not, and no command says to.

use super::*;
use crate::azure::owner::Names;
use crate::azure::plan::{Change, commands};

#[test]
fn routes_that_nodes_left() {
    let mut snapshot = healthy(1);
    let old = Route {
        name: "gone____1024499024".into(),
        prefix: "10.244.99.0/24".into(),
        ..route(99)
    };
    let person = Route {
        name: "lab".into(),
        prefix: "192.168.7.0/24".into(),
        ..route(99)
    };
    snapshot
        .table
        .as_mut()
        .unwrap()
        .routes
        .extend([old, person.clone()]);
    let finding = only(&snapshot);
    assert_eq!(finding.check, Check::RouteStale);
    assert!(
        finding.evidence.contains("there is no node gone"),
        "{}",
        finding.evidence
    );
    // The prefix is in the name, so it is certain even if nobody says what the cluster's range is.
    snapshot.settings.cluster_cidrs.clear();
    let snapshot = with_body(snapshot);
    assert_eq!(only(&snapshot).check, Check::RouteStale);
    let planned = plan(&snapshot);
    assert_eq!(
        commands(&snapshot.table_id, &planned.changes),
        [
            "az network route-table route delete --subscription s --resource-group g --route-table-name rt --name gone____1024499024"
        ]
    );
    let table = snapshot.table.clone().unwrap();
    let now = RouteTable::read(applied(table.body, &planned.changes)).unwrap();
    assert!(now.routes.contains(&person));
    assert_eq!(now.routes.len(), 3);
}

#[test]
fn a_list_of_nodes_that_is_not_whole_takes_nothing_away() {
    let mut snapshot = healthy(9);
    for route in &mut snapshot.table.as_mut().unwrap().routes[..9] {
        let squeezed = route.prefix.replace(['.', '/'], "");
        route.name = format!("{}____{squeezed}", route.name);
    }
    let mut snapshot = with_body(snapshot);
    snapshot.nodes.truncate(4);
    let planned = plan(&snapshot);
    assert_eq!(planned.changes, []);
    assert!(
        planned.left[0].why.contains("is the list of nodes whole?"),
        "{:?}",
        planned.left
    );
    snapshot.nodes.clear();
    assert_eq!(plan(&snapshot).changes, []);
}

#[test]
fn somebody_elses_route_is_left_alone() {
    let mut snapshot = healthy(1);
    let table = snapshot.table.as_mut().unwrap();
    table.routes[0].name = "hand-made".into();
    table.routes[0].next_hop = Some("10.240.9.9".into());
    let snapshot = with_body(snapshot);
    let planned = plan(&snapshot);
    assert_eq!(planned.changes, []);
    assert!(
        planned.left[0].why.contains("none of ours by its name"),
        "{:?}",
        planned.left
    );
    assert!(others_at_work(&snapshot).is_empty());
}

/// A snapshot with this route beside those of a healthy cluster.
fn with(nodes: u8, name: &str, prefix: &str) -> Snapshot {
    let mut snapshot = healthy(nodes);
    let route = Route {
        name: name.into(),
        prefix: prefix.into(),
        ..route(99)
    };
    snapshot.table.as_mut().unwrap().routes.push(route);
    snapshot
}

#[test]
fn two_new_routes_have_two_names() {
    let mut snapshot = healthy(1);
    snapshot.nodes[0].pod_cidrs = ["10.244.50.0/24", "10.244.51.0/24"]
        .map(|net| net.parse().unwrap())
        .to_vec();
    snapshot.table.as_mut().unwrap().routes.clear();
    let snapshot = with_body(snapshot);
    let planned = plan(&snapshot);
    let names = planned.changes.iter().map(|change| match change {
        Change::Create { name, .. } => name.as_str(),
        other => panic!("{other:?}"),
    });
    let names: Vec<_> = names.collect();
    assert_eq!(names, ["vm-10", "vm-10____1024451024"]);
    let table = snapshot.table.clone().unwrap();
    let now = RouteTable::read(applied(table.body, &planned.changes)).unwrap();
    let names: BTreeSet<_> = now.routes.iter().map(|route| route.name.to_lowercase()).collect();
    assert_eq!(names.len(), now.routes.len());
    // So have the commands that findings print.
    let fixes: Vec<_> = audit(&snapshot)
        .into_iter()
        .flat_map(|finding| finding.fix)
        .collect();
    assert_eq!(fixes, commands(&snapshot.table_id, &planned.changes));
    // Both the short and the long name are taken, and the node's old route is used once only.
    let mut snapshot = with(1, "vm-10____1024450024", "192.168.1.0/24");
    snapshot.nodes[0].pod_cidrs = ["10.244.50.0/24", "10.244.51.0/24"]
        .map(|net| net.parse().unwrap())
        .to_vec();
    let planned = plan(&with_body(snapshot.clone()));
    assert!(
        matches!(&planned.changes[0], Change::Update { name, .. } if name == "vm-10"),
        "{planned:?}"
    );
    assert!(
        matches!(&planned.changes[1], Change::Create { name, .. } if name == "vm-10____1024451024"),
        "{planned:?}"
    );
    let wanted = snapshot.wanted();
    let mut names = Names::of(snapshot.table.as_ref().unwrap());
    assert_eq!(names.take(&wanted[0]), "vm-10____1024450024-2");
}

#[test]
fn a_prefix_that_another_node_got_gets_its_route() {
    let mut snapshot = healthy(2);
    let route = &mut snapshot.table.as_mut().unwrap().routes[1];
    route.name = "gone____1024411024".into();
    route.next_hop = Some("10.240.0.99".into());
    let snapshot = with_body(snapshot);
    let finding = only(&snapshot);
    assert_eq!(
        (finding.check, finding.object.as_str()),
        (Check::RouteNextHop, "node/vm-11")
    );
    let planned = plan(&snapshot);
    let replaced = Change::Replace {
        old: "gone____1024411024".into(),
        name: "vm-11".into(),
        prefix: "10.244.11.0/24".into(),
        next_hop: "10.240.0.11".into(),
    };
    assert_eq!(planned.changes, [replaced]);
    assert_eq!(finding.fix, commands(&snapshot.table_id, &planned.changes));
    assert!(
        finding.fix[0].contains("route delete") && finding.fix[1].contains("route create"),
        "{finding:?}"
    );
    let table = snapshot.table.clone().unwrap();
    let mut now = RouteTable::read(applied(table.body, &planned.changes)).unwrap();
    now.routes
        .iter_mut()
        .for_each(|route| route.state = SUCCEEDED.into());
    let mended = Snapshot {
        table: Some(now),
        ..snapshot.clone()
    };
    assert_eq!((audit(&mended), plan(&mended).changes), (vec![], vec![]));
    // Where not all nodes may be known, the other one may be there.
    let beside = planned.without_deletions();
    assert_eq!(
        (beside.changes, beside.left[0].object.as_str()),
        (vec![], "route/gone____1024411024")
    );
    // Its name does not say for certain that it was a node's: nothing is changed, and no command says to.
    let mut snapshot = snapshot;
    snapshot.table.as_mut().unwrap().routes[1].name = "gone".into();
    let finding = only(&snapshot);
    assert!(
        finding.fix.is_empty() && finding.evidence.contains("no command is given"),
        "{finding:?}"
    );
    assert_eq!(plan(&with_body(snapshot)).changes, []);
}

#[test]
fn what_may_be_somebodys_comes_without_a_command() {
    // All pods by an appliance, by a gateway, or by nobody; a half of them; a part, named by a person or as a node is.
    let quiet = [
        ("all", "10.244.0.0/16"),
        ("vm-10", "10.244.0.0/16"),
        ("half", "10.244.128.0/17"),
        ("more", "10.0.0.0/8"),
    ];
    for (name, prefix) in quiet {
        let snapshot = with_body(with(2, name, prefix));
        assert_eq!(audit(&snapshot), [], "{name} {prefix}");
        assert_eq!(plan(&snapshot), Default::default(), "{name} {prefix}");
    }
    for kind in ["None", "VirtualNetworkGateway", "VnetLocal", "Internet"] {
        let mut snapshot = with(2, "blocked", "10.244.77.0/24");
        let route = snapshot.table.as_mut().unwrap().routes.last_mut().unwrap();
        (route.kind, route.next_hop) = (kind.into(), None);
        assert_eq!(audit(&with_body(snapshot)), [], "{kind}");
    }
    for (name, command) in [
        ("hand-made", false),
        ("gone____1024477024", true),
        ("vm-11", true),
    ] {
        let mut snapshot = with(1, name, "10.244.77.0/24");
        snapshot.nodes.push(NodeState {
            pod_cidrs: vec![],
            managed: false,
            ..node(11)
        });
        let findings = audit(&snapshot);
        let finding = findings
            .iter()
            .find(|finding| finding.check == Check::RouteStale)
            .unwrap();
        assert_eq!(!finding.fix.is_empty(), command, "{finding:?}");
        assert_eq!(
            finding.evidence.contains("no command is given"),
            !command,
            "{finding:?}"
        );
    }
    let finding = audit(&with(1, "lab", "10.244.10.0/25")).remove(0);
    assert!(
        finding.check == Check::RouteOverlap && finding.fix.is_empty(),
        "{finding:?}"
    );
    let finding = audit(&with(1, "gone____102441025", "10.244.1.0/25"));
    assert!(
        finding.iter().all(|finding| finding.fix.len() == 1),
        "{finding:?}"
    );
}
