//! Each network by what it leaves on a node, and what contradicts it.

use super::*;

fn link(name: &str, kind: LinkKind, mtu: u32) -> Link {
    Link {
        name: name.into(),
        kind,
        mtu,
        mac: "02:00:00:00:00:01".into(),
        ..Link::default()
    }
}

fn vxlan(parent: u32) -> LinkKind {
    LinkKind::Vxlan {
        port: 8472,
        parent,
        v6: false,
    }
}

fn snapshot(links: Vec<Link>) -> Snapshot {
    Snapshot {
        links: (1..).zip(links).collect(),
        host_ips: ["10.240.0.4".parse().unwrap()].into(),
        ..Snapshot::default()
    }
}

fn names(fabric: &str) -> LinkNames {
    LinkNames {
        prefixes: vec!["cali".into()],
        fabric: fabric.parse().unwrap(),
        bridges: LinkNames::BRIDGES.map(str::to_owned).into(),
    }
}

fn auto(snapshot: &Snapshot, node: Option<&Node>) -> Found {
    find(&Choice::default(), &names("auto"), snapshot, node)
}

fn azure(cidr: Option<&str>) -> Node {
    Node {
        name: "n".into(),
        provider_id: "azure:///subscriptions/s/…".into(),
        pod_cidrs: cidr.map(|cidr| cidr.parse().unwrap()).into_iter().collect(),
        ..Node::default()
    }
}

/// As flannel's daemon leaves it.
fn annotated(node: Node) -> Node {
    Node {
        flannel_backend: "vxlan".into(),
        tunnel_ips: vec!["10.240.0.4".parse().unwrap()],
        tunnel_macs: vec!["02:00:00:00:00:01".into()],
        ..node
    }
}

#[test]
fn each_network_is_known_by_what_it_leaves_on_a_node() {
    let nic = || link("eth0", LinkKind::Other, 1500);
    let bare = snapshot(vec![nic()]);
    let flannel = snapshot(vec![nic(), link("flannel.1", vxlan(1), 1450)]);
    let azv = snapshot(vec![nic(), link("azv01234567890", LinkKind::Other, 1500)]);
    for (snapshot, node, expected) in [
        (&bare, Some(azure(Some("10.244.1.0/24"))), Networking::Udr),
        (&bare, Some(azure(None)), Networking::AzureCni),
        (&bare, Some(Node::default()), Networking::HostLocal),
        (&bare, None, Networking::HostLocal),
        (&azv, Some(azure(Some("10.244.1.0/24"))), Networking::AzureCni),
        (&azv, None, Networking::AzureCni),
        (
            &flannel,
            Some(annotated(azure(Some("10.244.1.0/24")))),
            Networking::Flannel,
        ),
    ] {
        let found = auto(snapshot, node.as_ref());
        assert_eq!(found.networking, expected, "{found:?}");
        assert!(
            !found.evidence.is_empty() && found.problems.is_empty(),
            "{found:?}"
        );
        assert_eq!(found.ignores_pod_cidrs, expected == Networking::AzureCni);
        assert_eq!(
            found.tunnel_port,
            if expected == Networking::Flannel { 8472 } else { 0 }
        );
    }
}

#[test]
fn what_contradicts_a_choice_is_said() {
    let flannel = snapshot(vec![
        link("eth0", LinkKind::Other, 1500),
        link("flannel.1", vxlan(1), 1480),
        link("cali1", LinkKind::Other, 1500),
    ]);
    let node = Node {
        flannel_backend: "host-gw".into(),
        tunnel_ips: vec!["10.240.0.9".parse().unwrap()],
        tunnel_macs: vec!["02:00:00:00:00:09".into()],
        ..azure(None)
    };
    let told = |choice: &Choice, fabric: &str, snapshot: &Snapshot, node: &Node| {
        find(choice, &names(fabric), snapshot, Some(node)).problems
    };
    let problems = told(&Choice::default(), "eth0", &flannel, &node);
    for part in [
        "not among --fabric-interface eth0",
        "backend is host-gw",
        "10.240.0.9, which is no address",
        "02:00:00:00:00:09",
        "MTU 1480, and eth0 carries 1500: what is bigger than 1450",
        "cali1 among them, have MTU 1500",
    ] {
        assert!(
            problems.iter().any(|problem| problem.text.contains(part)),
            "{part}: {problems:#?}"
        );
    }
    assert_eq!(problems.len(), 6, "{problems:#?}");
    let choice = Choice {
        networking: Some(Networking::Udr),
        use_pod_cidr: Some(false),
        backend: Some("bird".into()),
    };
    let problems = told(&choice, "auto", &flannel, &node);
    for part in [
        "CALICO_NETWORKING_BACKEND=bird",
        "--networking says udr: what comes",
        "no podCIDR",
    ] {
        assert!(
            problems.iter().any(|problem| problem.text.contains(part)),
            "{part}: {problems:#?}"
        );
    }
    let found = find(&choice, &names("auto"), &flannel, None);
    assert!(found.ignores_pod_cidrs && found.named && found.tunnel_port == 0);
    let bridged = |bridge| {
        let bridged = snapshot(vec![link(bridge, LinkKind::Bridge, 1450)]);
        told(&Choice::default(), "auto", &bridged, &azure(None))
    };
    assert_eq!(bridged("cni0"), []);
    assert!(bridged("azure0")[0].text.contains("bridge azure0"));
}

/// The only problem of a node of flannel's with this object.
fn only(node: &Node) -> Problem {
    let mut nic = link("eth0", LinkKind::Other, 1500);
    nic.addresses = vec!["10.240.0.4".parse().unwrap()];
    let snapshot = snapshot(vec![nic, link("flannel.1", vxlan(1), 1450)]);
    let problems = auto(&snapshot, Some(node)).problems;
    let [only] = problems.as_slice() else {
        panic!("{problems:#?}");
    };
    only.clone()
}

#[test]
fn missing_annotations_of_flannels_are_named() {
    let restart = "kubectl -n kube-flannel delete pod -l app=flannel --field-selector spec.nodeName=n";
    let all = "flannel.alpha.coreos.com/backend-type, public-ip, backend-data:";
    let right = || annotated(azure(None));
    for (node, told) in [
        (azure(None), all),
        (
            Node {
                tunnel_ips: vec![],
                ..right()
            },
            "flannel.alpha.coreos.com/public-ip:",
        ),
        (
            Node {
                tunnel_macs: vec![],
                ..right()
            },
            "flannel.alpha.coreos.com/backend-data:",
        ),
        (
            Node {
                flannel_backend: String::new(),
                ..right()
            },
            "flannel.alpha.coreos.com/backend-type:",
        ),
    ] {
        let problem = only(&node);
        assert!(problem.text.contains(told), "{told}: {problem:?}");
        assert_eq!(problem.fix, [restart]);
    }
}

#[test]
fn wrong_annotations_of_flannels_come_with_the_command_that_rights_them() {
    let wrong = Node {
        tunnel_ips: vec!["10.240.0.9".parse().unwrap()],
        ..annotated(azure(None))
    };
    let command = "kubectl annotate node n --overwrite 'flannel.alpha.coreos.com/";
    assert_eq!(only(&wrong).fix, [format!("{command}public-ip=10.240.0.4'")]);
    let wrong = Node {
        tunnel_macs: vec!["02:00:00:00:00:09".into()],
        ..annotated(azure(None))
    };
    let data = r#"backend-data={"VNI":1,"VtepMAC":"02:00:00:00:00:01"}'"#;
    assert_eq!(only(&wrong).fix, [format!("{command}{data}")]);
}

#[test]
fn what_is_too_big_comes_with_commands_and_with_the_pods_to_make_anew() {
    let links = |nic, tunnel, pod| {
        snapshot(vec![
            link("eth0", LinkKind::Other, nic),
            link("flannel.1", vxlan(1), tunnel),
            link("cali1", LinkKind::Other, pod),
        ])
    };
    let node = annotated(azure(None));
    let problems = auto(&links(1400, 1450, 1400), Some(&node)).problems;
    assert_eq!(
        problems[0].fix,
        ["ip link set dev flannel.1 mtu 1350"],
        "{problems:#?}"
    );
    // What the tunnel will carry counts.
    assert_eq!(problems[1].anew, ["cali1"]);
    assert!(problems[1].text.contains("carries 1350"), "{problems:#?}");
    assert_eq!(problems.len(), 2);
    assert_eq!(auto(&links(1500, 1450, 1450), Some(&node)).problems, []);
}
