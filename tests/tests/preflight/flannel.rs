//! Flannel's annotations, MTUs and files, and host-local's, broken and mended.

use std::time::Duration;

use calico_azure_tests::lab::probe;
use calico_azure_tests::lab::{Cluster, Networking};

use crate::{NEVER, SOON, WEB, as_documented, cluster, mend, run, told};

/// Whether a packet as big as the pod may send arrives, unfragmented.
fn carries(cluster: &Cluster, v6: bool) -> bool {
    let to = cluster.pod("a/far").unwrap().ip(v6).unwrap().to_string();
    let ns = cluster.pod("a/near").unwrap().net.ns().clone();
    let link = ns.ip(&["-o", "link", "show", "eth0"]).unwrap();
    let mut words = link.split_whitespace().skip_while(|word| *word != "mtu");
    let mtu: usize = words.nth(1).unwrap().parse().unwrap();
    let payload = (mtu - if v6 { 48 } else { 28 }).to_string();
    let ping = ["-c", "1", "-W", "1", "-M", "do", "-s", &payload, &to];
    ns.exec("ping", &ping).is_ok()
}

#[test]
fn a_tunnel_that_promises_more_than_it_carries_is_mended() {
    let mut cluster = cluster(Networking::Flannel);
    assert_eq!(told(&cluster), []);
    for v6 in [false, true] {
        assert!(carries(&cluster, v6), "{v6}");
    }
    // The NIC carries less than it did when flannel's daemon made its devices.
    for node in &cluster.nodes {
        node.ns().ip(&["link", "set", "eth0", "mtu", "1400"]).unwrap();
    }
    assert!(!carries(&cluster, true), "what is too big gets through");
    let pod = cluster.pod("a/near").unwrap().net.ifname().to_owned();
    // The plug-in has its new MTU from subnet.env by then.
    for node in &mut cluster.nodes {
        node.mtu = Some(1330);
    }
    let tunnels = cluster.node("node-2").unwrap().ns().clone();
    for (device, mtu) in [("flannel.1", "1350"), ("flannel-v6.1", "1330")] {
        tunnels.ip(&["link", "set", device, "mtu", mtu]).unwrap();
    }
    std::fs::write(
        cluster.node("node-1").unwrap().subnet_env(),
        std::fs::read_to_string(cluster.node("node-1").unwrap().subnet_env())
            .unwrap()
            .replace("MTU=1430", "MTU=1330"),
    )
    .unwrap();
    mend(
        &mut cluster,
        &[
            (
                "network",
                "flannel.1 has MTU 1450, and eth0 carries 1400: what is bigger than 1350",
            ),
            (
                "network",
                "flannel-v6.1 has MTU 1430, and eth0 carries 1400: what is bigger than 1330",
            ),
            (
                "network",
                &format!("{pod} among them, have MTU 1430 or more, and flannel's tunnel carries 1330"),
            ),
        ],
    );
    cluster.wait_endpoints(SOON).unwrap();
    for v6 in [false, true] {
        assert!(carries(&cluster, v6), "{v6}");
    }
}

/// Until the agent of node-1 names these problems and no others.
#[track_caller]
fn problems(cluster: &Cluster, parts: &[&str]) {
    let agent = cluster
        .agents
        .iter()
        .find(|agent| agent.node() == "node-1")
        .unwrap();
    let end = std::time::Instant::now() + SOON;
    loop {
        let problems = agent.status().unwrap().unwrap().problems;
        let all = parts
            .iter()
            .all(|part| problems.iter().any(|problem| problem.contains(part)));
        if all && problems.len() == parts.len() {
            return;
        }
        assert!(std::time::Instant::now() < end, "{parts:?}: {problems:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Pods of node-2 to those of node-1, whose annotations lead there.
fn answers(cluster: &Cluster, v6: bool) -> bool {
    let to = cluster.pod("a/near").unwrap().ip(v6).unwrap();
    let ns = cluster.pod("a/far").unwrap().net.ns().clone();
    probe::tcp(&ns, to, WEB, NEVER).unwrap().reached()
}

#[test]
fn annotations_of_flannels_lead_packets_and_wrong_ones_are_mended() {
    const PREFIX: &str = "flannel.alpha.coreos.com/";
    let mut cluster = cluster(Networking::Flannel);
    let right = cluster.objects().unwrap();
    problems(&cluster, &[]);
    let mac = r#"{"VNI":1,"VtepMAC":"02:00:00:00:00:99"}"#;
    for (key, value, v6, evidence) in [
        (
            "public-ip",
            "10.240.0.99",
            false,
            "ends at 10.240.0.99, which is no address",
        ),
        (
            "public-ipv6",
            "fd00:10:240::99",
            true,
            "ends at fd00:10:240::99, which is no address",
        ),
        (
            "backend-data",
            mac,
            false,
            "the address 02:00:00:00:00:99, and no flannel.* has it",
        ),
        (
            "backend-v6-data",
            mac,
            true,
            "the address 02:00:00:00:00:99, and no flannel.* has it",
        ),
    ] {
        assert!(answers(&cluster, v6), "{key}");
        let mut wrong = right.clone();
        wrong[0]["metadata"]["annotations"][format!("{PREFIX}{key}")] = value.into();
        cluster.write_objects(&wrong).unwrap();
        assert!(!answers(&cluster, v6), "{key}");
        problems(&cluster, &[evidence]);
        if key == "public-ip" {
            as_documented(&cluster);
        }
        mend(&mut cluster, &[("network", evidence)]);
        assert!(answers(&cluster, v6), "{key}");
        problems(&cluster, &[]);
        assert_eq!(cluster.objects().unwrap(), right, "{key}");
    }
    let mut wrong = right.clone();
    wrong[0]["metadata"]["annotations"] = serde_json::json!({});
    cluster.write_objects(&wrong).unwrap();
    assert!(!answers(&cluster, false) && !answers(&cluster, true));
    let evidence = "has not flannel's annotations flannel.alpha.coreos.com/backend-type, public-ip, public-ipv6, backend-data or backend-v6-data";
    problems(&cluster, &[evidence]);
    mend(&mut cluster, &[("network", evidence)]);
    assert!(answers(&cluster, false) && answers(&cluster, true));
    problems(&cluster, &[]);
}

#[test]
fn files_of_flannels_and_host_locals_that_are_wrong_are_found() {
    let mut cluster = cluster(Networking::Flannel);
    assert_eq!(told(&cluster), []);
    let node = cluster.node("node-1").unwrap();
    let (env, networks) = (node.subnet_env(), node.networks().join("lab"));
    let text = std::fs::read_to_string(&env).unwrap();
    for (from, to, evidence) in [
        (
            "10.244.1.1/24",
            "10.244.9.1/24",
            "FLANNEL_SUBNET=10.244.9.1/24; expected the node's podCIDR 10.244.1.0/24",
        ),
        (
            "MTU=1430",
            "MTU=1500",
            "FLANNEL_MTU=1500, and flannel-v6.1 carries 1430",
        ),
    ] {
        std::fs::write(&env, text.replace(from, to)).unwrap();
        mend(&mut cluster, &[("subnet-env", evidence)]);
    }
    std::fs::remove_file(&env).unwrap();
    mend(
        &mut cluster,
        &[(
            "subnet-env",
            "subnet.env is missing, and flannel's device is there",
        )],
    );
    // A container that nobody took down in order. Its address is not given out again.
    let leak = networks.join("10.244.1.77");
    std::fs::write(&leak, "0123456789abcdef\r\neth0").unwrap();
    assert_eq!(told(&cluster), [], "a plug-in may be at work");
    run(
        &mut cluster,
        &format!("touch -d '-10 minutes' {}", leak.display()),
    );
    as_documented(&cluster);
    mend(
        &mut cluster,
        &[(
            "address-leaks",
            "1 of 3 addresses for containers that are gone: 10.244.1.77 (container 0123456789abc)",
        )],
    );
    assert!(!leak.exists());
    let conf = cluster.node("node-1").unwrap().networks().with_file_name("net.d");
    std::fs::create_dir_all(&conf).unwrap();
    let range =
        r#"{"name": "lab", "type": "ptp", "ipam": {"type": "host-local", "subnet": "10.244.0.0/16"}}"#;
    std::fs::write(conf.join("10-lab.conf"), range).unwrap();
    let findings = told(&cluster);
    assert!(
        findings.len() == 1
            && findings[0]
                .1
                .contains("10-lab.conf: host-local of network lab gives out 10.244.0.0/16"),
        "{findings:#?}"
    );
    std::fs::remove_dir_all(&conf).unwrap();
    // The node's object was made anew, with another podCIDR.
    let right = cluster.objects().unwrap();
    let mut moved = right.clone();
    moved[0]["spec"]["podCIDRs"][0] = "10.244.7.0/24".into();
    cluster.write_objects(&moved).unwrap();
    let evidence: Vec<String> = told(&cluster).into_iter().map(|(_, evidence)| evidence).collect();
    for part in [
        "(pod a/near) among them, are outside",
        "gave out 1 addresses",
        "expected the node's podCIDR 10.244.7.0/24",
    ] {
        assert!(
            evidence.iter().any(|evidence| evidence.contains(part)),
            "{part}: {evidence:#?}"
        );
    }
    assert_eq!(evidence.len(), 3, "{evidence:#?}");
}
