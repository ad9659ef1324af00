//! The client of Azure Resource Manager against a stand-in that answers as ARM does, well and badly.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod write;

use std::time::{Duration, Instant};

use calico_azure_tests::arm::{FakeArm, Fault, GROUP, NETWORK, PASSWORD, Results, TABLE};
use calico_azure_userspace::azure::arm::{
    ArmError, Gathered, Remaining, Session, SessionError, Timing, Writing, Written,
};
use calico_azure_userspace::azure::config::CloudConfig;
use calico_azure_userspace::azure::nodes::NodeState;
use calico_azure_userspace::azure::snapshot::{Settings, Snapshot};
use serde_json::{Value, json};

const QUICK: Timing = Timing {
    answer: Duration::from_secs(2),
    operation: Duration::from_secs(5),
    pause: Duration::from_millis(20),
};

fn managed() -> Value {
    json!({"useManagedIdentityExtension": true, "userAssignedIdentityID": "me"})
}

fn session(arm: &FakeArm, auth: &Value) -> Session {
    let text = arm.cloud_config(auth).to_string();
    let url = arm.url();
    let env = move |name: &str| name.ends_with("AUTHORITY_HOST").then(|| url.clone());
    Session::new(CloudConfig::parse(&text, |_| None).unwrap(), QUICK, env).unwrap()
}

fn node(number: u8) -> NodeState {
    NodeState {
        name: format!("vm-{number:02}"),
        pod_cidrs: vec![format!("10.244.{number}.0/24").parse().unwrap()],
        internal_ips: vec![format!("10.240.0.{number}").parse().unwrap()],
        managed: true,
        ..NodeState::default()
    }
}

fn snapshot(session: &Session, nodes: impl IntoIterator<Item = u8>) -> Snapshot {
    let settings = Settings {
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        ..Settings::default()
    };
    let nodes = nodes.into_iter().map(node).collect();
    session.gather(|| Ok(nodes), settings, &[]).unwrap().snapshot
}

fn gather(session: &Session, nodes: Vec<NodeState>, effective: &[String]) -> Result<Gathered, SessionError> {
    session.gather(|| Ok(nodes), Settings::default(), effective)
}

/// With the snapshot's nodes, for twenty seconds.
fn reconcile(session: &Session, snapshot: Snapshot) -> Written {
    let nodes = snapshot.nodes.clone();
    let writing = Writing {
        nodes: &|| Ok(nodes.clone()),
        may_write: &|| Ok(()),
        deletions: true,
        beside: false,
        patience: Duration::from_secs(20),
    };
    session.reconcile(snapshot, &writing)
}

fn refusal(error: SessionError) -> ArmError {
    match error {
        SessionError::Arm(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn each_way_to_prove_who_we_are() {
    let arm = FakeArm::start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "assertion\n").unwrap();
    let federated = json!({"useFederatedWorkloadIdentityExtension": true, "aadFederatedTokenFile": file, "aadClientId": "app"});
    let secret = json!({"aadClientId": "app", "aadClientSecret": PASSWORD});
    for auth in [managed(), federated.clone(), secret] {
        let before = arm.store().granted;
        let session = session(&arm, &auth);
        assert!(snapshot(&session, []).table.is_some());
        assert!(snapshot(&session, []).table.is_some());
        assert_eq!(
            arm.store().granted,
            before + 1,
            "a token is asked for once: {auth}"
        );
    }
    // The cluster's token is rotated; the file is read for each exchange.
    let session = session(&arm, &federated);
    snapshot(&session, []);
    arm.store().assertion = "second".into();
    std::fs::write(&file, "second").unwrap();
    arm.store().remove_tokens();
    assert!(
        snapshot(&session, []).table.is_some(),
        "a refused token is asked for anew"
    );
}

#[test]
fn who_may_not_is_told_so_and_no_secret_is() {
    let arm = FakeArm::start().unwrap();
    let wrong = json!({"aadClientId": "app", "aadClientSecret": "wrong-secret-value"});
    let error = gather(&session(&arm, &wrong), Vec::new(), &[]).unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(
        text.contains("AADSTS7000215: Invalid client secret provided."),
        "{text}"
    );
    assert!(
        !text.contains("wrong-secret-value") && !text.contains("Trace ID"),
        "{text}"
    );
    let unknown = json!({"useManagedIdentityExtension": true, "userAssignedIdentityID": "unknown"});
    let error = gather(&session(&arm, &unknown), Vec::new(), &[]).unwrap_err();
    assert!(error.to_string().contains("Identity not found"), "{error}");
    // After a machine's start its metadata service says 404 and 410 for a while.
    arm.store().read_faults.extend([404, 410, 500]);
    assert!(snapshot(&session(&arm, &managed()), []).table.is_some());
    arm.store().forbidden.push("routeTables".into());
    let error = gather(&session(&arm, &managed()), Vec::new(), &[]).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("403 AuthorizationFailed") && text.contains("GET /subscriptions/s1/"),
        "{text}"
    );
    assert!(!text.contains("secret-token"), "{text}");
}

#[test]
fn what_may_not_be_read_is_named_and_the_rest_is_read() {
    let arm = FakeArm::start().unwrap();
    arm.add_nic("vm-10", "10.240.0.10");
    let session = session(&arm, &managed());
    arm.store()
        .forbidden
        .extend(["virtualNetworks".into(), "networkInterfaces".into()]);
    let gathered = gather(&session, vec![node(10)], &["vm-10".into()]).unwrap();
    assert!(gathered.snapshot.nics.is_none() && gathered.snapshot.networks.is_empty());
    assert_eq!(gathered.unread.len(), 3, "{:?}", gathered.unread);
    arm.store().forbidden.clear();
    arm.store().remove(NETWORK);
    arm.store().remove(TABLE);
    let gathered = gather(&session, vec![node(10)], &[]).unwrap();
    assert!(gathered.snapshot.table.is_none());
    assert_eq!(
        gathered.unread,
        [format!("the virtual network: there is no {NETWORK}")]
    );
}

#[test]
fn security_groups_are_read_where_tunnels_are() {
    let arm = FakeArm::start().unwrap();
    let group = |name: &str| format!("{GROUP}/Microsoft.Network/networkSecurityGroups/{name}");
    for (name, node) in [("vm-10", 10), ("vm-11", 11)] {
        arm.add_nic(name, &format!("10.240.0.{node}"));
    }
    let nic = format!("{GROUP}/Microsoft.Network/networkInterfaces/nic-vm-10");
    let mut store = arm.store();
    store.put(&group("of-nic"), json!({"properties": {"securityRules": []}}));
    store
        .change(&nic, |nic| {
            nic["properties"]["networkSecurityGroup"] = json!({"id": group("OF-NIC")});
        })
        .unwrap();
    store
        .change(NETWORK, |network| {
            network["properties"]["subnets"][0]["properties"]["networkSecurityGroup"] =
                json!({"id": group("of-subnet")});
        })
        .unwrap();
    drop(store);
    let session = session(&arm, &managed());
    let look = |flannel| {
        let nodes = [10, 11].map(|number| NodeState {
            flannel,
            ..node(number)
        });
        let gathered = gather(&session, nodes.to_vec(), &[]).unwrap();
        (gathered.snapshot.security.len(), gathered.unread)
    };
    assert_eq!(look(false), (0, vec![]));
    assert_eq!(
        look(true),
        (1, vec!["security group of-subnet: there is none".to_owned()])
    );
    arm.store()
        .put(&group("of-subnet"), json!({"properties": {"securityRules": []}}));
    assert_eq!(look(true), (2, vec![]));
    arm.store().forbidden.push("networkSecurityGroups".into());
    let (number, unread) = look(true);
    assert!(
        number == 0 && unread.iter().all(|what| what.contains("403 AuthorizationFailed")),
        "{unread:?}"
    );
    assert_eq!(unread.len(), 2);
}

#[test]
fn every_page_and_scale_sets_interfaces() {
    let arm = FakeArm::start().unwrap();
    for number in 10..25 {
        arm.add_nic(&format!("vm-{number}"), &format!("10.240.0.{number}"));
    }
    let set = format!("{GROUP}/Microsoft.Compute/virtualMachineScaleSets/pool");
    arm.store().put(&set, json!({"properties": {}}));
    arm.store().put(
        &format!("{set}/virtualMachines/3/networkInterfaces/n"),
        json!({"properties": {"enableIPForwarding": false, "ipConfigurations": [
            {"properties": {"privateIPAddress": "10.240.1.16/28"}}]}}),
    );
    // One that goes between being listed and being asked for its interfaces, and pages of both kinds.
    for name in ["a", "b", "c", "d", "e"] {
        let set = format!("{GROUP}/Microsoft.Compute/virtualMachineScaleSets/{name}");
        arm.store().put(&set, json!({"properties": {}}));
    }
    arm.store().page = 4;
    let session = session(&arm, &managed());
    let nics = snapshot(&session, []).nics.unwrap();
    assert_eq!(nics.len(), 16);
    let last = nics.last().unwrap();
    assert!(last.has("10.240.1.16".parse().unwrap()) && !last.forwarding);
    assert_eq!(last.id.part("virtualMachineScaleSets"), Some("pool"));
}

#[test]
fn what_the_fabric_does_comes_when_its_operation_is_over() {
    let arm = FakeArm::start().unwrap();
    arm.add_nic("vm-10", "10.240.0.10");
    let nic = format!("{GROUP}/Microsoft.Network/networkInterfaces/nic-vm-10");
    let route = json!({"source": "User", "state": "Active", "addressPrefix": ["10.244.10.0/24"],
        "nextHopType": "VirtualAppliance", "nextHopIpAddress": ["10.240.0.10"]});
    arm.store().effective.insert(nic, json!([route]));
    arm.store().settles = Duration::from_millis(100);
    let session = session(&arm, &managed());
    let begun = Instant::now();
    let gathered = gather(&session, vec![node(10)], &["vm-10".into()]).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(100));
    let routes = gathered.snapshot.effective.values().next().unwrap();
    assert_eq!(routes[0].next_hop_ip_address, ["10.240.0.10"]);
    assert_eq!(gathered.unread, Vec::<String>::new());
}

#[test]
fn the_result_is_where_location_says_and_has_to_be_one() {
    let arm = FakeArm::start().unwrap();
    arm.add_nic("vm-10", "10.240.0.10");
    let set = format!("{GROUP}/Microsoft.Compute/virtualMachineScaleSets/pool");
    arm.store().put(&set, json!({"properties": {}}));
    let of_set = format!("{set}/virtualMachines/3/networkInterfaces/n");
    arm.store().put(
        &of_set,
        json!({"properties": {"ipConfigurations": [{"properties": {"privateIPAddress": "10.240.0.11"}}]}}),
    );
    let route = json!({"source": "User", "state": "Active", "addressPrefix": ["10.244.10.0/24"],
        "nextHopType": "VirtualAppliance", "nextHopIpAddress": ["10.240.0.10"]});
    let nic = format!("{GROUP}/Microsoft.Network/networkInterfaces/nic-vm-10");
    for nic in [&nic, &of_set] {
        arm.store().effective.insert(nic.clone(), json!([route]));
    }
    arm.store().settles = Duration::from_millis(30);
    let session = session(&arm, &managed());
    let asked = ["vm-10".to_owned(), "vm-11".to_owned()];
    let ask = |operation, location, whole| {
        arm.store().results = Results {
            operation,
            location,
            whole,
        };
        let gathered = gather(&session, vec![node(10), node(11)], &asked).unwrap();
        (gathered.snapshot.effective.len(), gathered.unread)
    };
    // A scale set's interface is asked in its own provider's version.
    for (operation, location) in [(true, true), (false, true)] {
        assert_eq!(
            ask(operation, location, true),
            (2, vec![]),
            "{operation} {location}"
        );
    }
    // The status of an operation is no list of routes; an empty one would be a finding at each node.
    for (operation, location, whole, said) in [
        (true, true, false, "missing field `value`"),
        (false, true, false, "missing field `value`"),
        (true, false, true, "by Location"),
    ] {
        let (number, unread) = ask(operation, location, whole);
        assert_eq!((number, unread.len()), (0, 2), "{unread:?}");
        assert!(unread.iter().all(|what| what.contains(said)), "{unread:?}");
    }
}

#[test]
fn a_resource_group_that_is_not_there_is_no_empty_one() {
    let arm = FakeArm::start().unwrap();
    let mut config = arm.cloud_config(&managed());
    config["resourceGroup"] = json!("clutser");
    config["routeTableResourceGroup"] = json!("cluster");
    config["vnetResourceGroup"] = json!("clutser");
    let ask = |config: &Value| {
        let url = arm.url();
        let env = move |name: &str| name.ends_with("AUTHORITY_HOST").then(|| url.clone());
        let config = CloudConfig::parse(&config.to_string(), |_| None).unwrap();
        gather(&Session::new(config, QUICK, env).unwrap(), vec![node(10)], &[])
    };
    let gathered = ask(&config).unwrap();
    assert!(gathered.snapshot.nics.is_none());
    assert_eq!(gathered.unread.len(), 2, "{:?}", gathered.unread);
    assert!(
        gathered
            .unread
            .iter()
            .all(|what| what.contains("404 ResourceGroupNotFound")),
        "{:?}",
        gathered.unread
    );
    config["routeTableResourceGroup"] = json!("clutser");
    let error = ask(&config).unwrap_err().to_string();
    assert!(error.contains("404 ResourceGroupNotFound"), "{error}");
}

#[test]
fn an_identity_is_named_by_its_client_or_its_resource() {
    let arm = FakeArm::start().unwrap();
    let of = "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i";
    for (id, asked) in [
        ("me", "&client_id=me"),
        (of, "&msi_res_id=%2Fsubscriptions%2Fs%2F"),
    ] {
        let auth = json!({"useManagedIdentityExtension": true, "userAssignedIdentityID": id});
        snapshot(&session(&arm, &auth), []);
        let last = arm.store().identities.pop().unwrap();
        assert!(
            last.contains(asked) && last.matches("_id=").count() == 1,
            "{last}"
        );
    }
}

#[test]
fn requests_that_are_left_are_known_and_spared() {
    let arm = FakeArm::start().unwrap();
    let session = session(&arm, &managed());
    snapshot(&session, []);
    assert_eq!(session.remaining(), Remaining::default());
    arm.store().remaining = Some(11_000);
    snapshot(&session, []);
    assert_eq!(session.remaining().reads, Some(11_000));
    arm.store().remaining = Some(9);
    snapshot(&session, []);
    let begun = Instant::now();
    snapshot(&session, []);
    // Four questions: the table, the network, the machines' interfaces, the scale sets.
    assert!(begun.elapsed() >= QUICK.pause * 4, "{:?}", begun.elapsed());
    let written = reconcile(&session, snapshot(&session, [10]));
    assert!(written.stopped.is_none(), "{written:?}");
    assert_eq!(session.remaining().writes, Some(9));
}

#[test]
fn questions_are_asked_again_and_not_for_ever() {
    let arm = FakeArm::start().unwrap();
    let session = session(&arm, &managed());
    snapshot(&session, []);
    arm.store().read_faults.extend([503, 500, 408]);
    assert!(snapshot(&session, []).table.is_some());
    arm.store().read_faults.extend([503; 4]);
    let error = refusal(gather(&session, Vec::new(), &[]).unwrap_err());
    assert!(matches!(error, ArmError::Refused { status: 503, .. }), "{error}");
    // ARM says when it wants to be asked again, and is not asked before.
    arm.store().read_faults.push_back(429);
    let begun = Instant::now();
    assert!(snapshot(&session, []).table.is_some());
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}
