//! The client of Azure Resource Manager against a stand-in that answers as ARM does, well and badly.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::time::{Duration, Instant};

use calico_azure_tests::arm::{FakeArm, Fault, GROUP, NETWORK, PASSWORD, TABLE};
use calico_azure_userspace::azure::arm::{ArmError, Session, SessionError, Timing};
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
        route_created: false,
        route_refused: false,
    }
}

/// A node that is another in each round.
fn moving(number: u8, round: u32) -> NodeState {
    let net = 244 + (round + u32::from(number)) % 2;
    NodeState {
        name: format!("vm-{number:03}"),
        pod_cidrs: vec![format!("10.{net}.{number}.0/24").parse().unwrap()],
        internal_ips: vec![format!("10.240.{}.{number}", round % 250).parse().unwrap()],
        ..node(number)
    }
}

fn snapshot(session: &Session, nodes: impl IntoIterator<Item = u8>) -> Snapshot {
    let settings = Settings {
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        ..Settings::default()
    };
    let nodes = nodes.into_iter().map(node).collect();
    session.gather(nodes, settings, &[]).unwrap().snapshot
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
    let federated = json!({"aadFederatedTokenFile": file, "aadClientId": "app"});
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
    let error = session(&arm, &wrong)
        .gather(Vec::new(), Settings::default(), &[])
        .unwrap_err();
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
    let error = session(&arm, &unknown)
        .gather(Vec::new(), Settings::default(), &[])
        .unwrap_err();
    assert!(error.to_string().contains("Identity not found"), "{error}");
    // After a machine's start its metadata service says 404 and 410 for a while.
    arm.store().read_faults.extend([404, 410, 500]);
    assert!(snapshot(&session(&arm, &managed()), []).table.is_some());
    arm.store().forbidden.push("routeTables".into());
    let error = session(&arm, &managed())
        .gather(Vec::new(), Settings::default(), &[])
        .unwrap_err();
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
    let gathered = session
        .gather(vec![node(10)], Settings::default(), &["vm-10".into()])
        .unwrap();
    assert!(gathered.snapshot.nics.is_none() && gathered.snapshot.networks.is_empty());
    assert_eq!(gathered.unread.len(), 3, "{:?}", gathered.unread);
    arm.store().forbidden.clear();
    arm.store().remove(NETWORK);
    arm.store().remove(TABLE);
    let gathered = session.gather(vec![node(10)], Settings::default(), &[]).unwrap();
    assert!(gathered.snapshot.table.is_none());
    assert_eq!(
        gathered.unread,
        [format!("the virtual network: there is no {NETWORK}")]
    );
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
    let gathered = session
        .gather(vec![node(10)], Settings::default(), &["vm-10".into()])
        .unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(100));
    let routes = gathered.snapshot.effective.values().next().unwrap();
    assert_eq!(routes[0].next_hop_ip_address, ["10.240.0.10"]);
    assert_eq!(gathered.unread, Vec::<String>::new());
}

#[test]
fn questions_are_asked_again_and_not_for_ever() {
    let arm = FakeArm::start().unwrap();
    let session = session(&arm, &managed());
    snapshot(&session, []);
    arm.store().read_faults.extend([503, 500, 408]);
    assert!(snapshot(&session, []).table.is_some());
    arm.store().read_faults.extend([503; 4]);
    let error = refusal(session.gather(Vec::new(), Settings::default(), &[]).unwrap_err());
    assert!(matches!(error, ArmError::Refused { status: 503, .. }), "{error}");
    // ARM says when it wants to be asked again, and is not asked before.
    arm.store().read_faults.push_back(429);
    let begun = Instant::now();
    assert!(snapshot(&session, []).table.is_some());
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}

fn routes(arm: &FakeArm) -> Vec<String> {
    let routes = arm.store().routes(TABLE);
    routes
        .into_iter()
        .map(|(name, prefix, hop)| format!("{name} {prefix} {hop}"))
        .collect()
}

#[test]
fn the_table_is_brought_in_step_whatever_becomes_of_a_write() {
    let wanted = [
        "theirs 0.0.0.0/0 10.9.9.9",
        "vm-10 10.244.10.0/24 10.240.0.10",
        "vm-11 10.244.11.0/24 10.240.0.11",
    ];
    for (faults, writes) in [
        (vec![], 1),
        (vec![Fault::Changed, Fault::Changed], 3),
        (vec![Fault::Throttled(0), Fault::Throttled(1)], 3),
        // Done all the same: it is looked for, and not written again.
        (vec![Fault::DoneWithoutAnswer], 1),
        (vec![Fault::NotDone], 2),
        (vec![Fault::Status(500), Fault::Status(409)], 3),
        // ARM said that it succeeded.
        (vec![Fault::Lost], 2),
    ] {
        let arm = FakeArm::start().unwrap();
        let theirs = json!({"name": "theirs", "properties": {"addressPrefix": "0.0.0.0/0", "nextHopType": "VirtualAppliance",
            "nextHopIpAddress": "10.9.9.9", "hasBgpOverride": false}});
        arm.store()
            .change(TABLE, |table| table["properties"]["routes"] = json!([theirs]))
            .unwrap();
        arm.store().write_faults.extend(faults.clone());
        arm.store().settles = Duration::from_millis(10);
        let session = session(&arm, &managed());
        let snapshot = snapshot(&session, [10, 11]);
        let written = session
            .reconcile(snapshot, true, Duration::from_secs(20))
            .unwrap();
        assert_eq!(routes(&arm), wanted, "{faults:?}");
        assert_eq!(written.left.left, vec![]);
        let puts = arm
            .store()
            .seen
            .iter()
            .filter(|seen| seen.method == "PUT")
            .count();
        assert_eq!(puts, writes, "{faults:?}");
        let store = arm.store();
        let table = store.get(TABLE).unwrap();
        assert_eq!(table["tags"]["owner"], "me");
        assert_eq!(
            table["properties"]["routes"][0]["properties"]["hasBgpOverride"],
            false
        );
    }
}

#[test]
fn who_is_always_second_steps_back() {
    let arm = FakeArm::start().unwrap();
    arm.store().write_faults.extend(vec![Fault::Changed; 50]);
    let session = session(&arm, &managed());
    let snapshot = snapshot(&session, [10]);
    let error = session
        .reconcile(snapshot, true, Duration::from_secs(20))
        .unwrap_err();
    assert!(matches!(error, SessionError::Contested(_)), "{error}");
    assert_eq!(routes(&arm), Vec::<String>::new());
}

/// Two writers, each for nodes of its own and with routes that only it knows, while ARM throttles, loses and forgets. `CALICO_AZURE_RACE_SECONDS`
/// makes it longer.
#[test]
fn two_writers_lose_no_route_and_touch_none_of_the_others() {
    let seconds = std::env::var("CALICO_AZURE_RACE_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let lasts = Duration::from_secs(seconds.unwrap_or(8));
    let arm = FakeArm::start().unwrap();
    arm.store().settles = Duration::from_millis(3);
    let ends = Instant::now() + lasts;
    let rounds = std::thread::scope(|scope| {
        let arm = &arm;
        // A person with a portal, whose routes come and go.
        scope.spawn(move || {
            let mut number = 0_u32;
            while Instant::now() < ends {
                number += 1;
                let name = format!("portal-{}", number % 5);
                let prefix = format!("192.168.{}.0/24", number % 5);
                let route = json!({"name": name, "properties": {"addressPrefix": prefix, "nextHopType": "VirtualAppliance",
                    "nextHopIpAddress": format!("10.9.0.{}", number % 250)}});
                let change = |table: &mut Value| {
                    let routes = table["properties"]["routes"].as_array_mut().unwrap();
                    routes.retain(|other| other["name"] != name.as_str());
                    routes.push(route);
                };
                arm.store().change(TABLE, change).unwrap();
                // What the person sees afterwards has to be what was written, until the next time.
                let fault = [Fault::Throttled(0), Fault::NotDone, Fault::DoneWithoutAnswer, Fault::Lost, Fault::Status(503)];
                let fault = fault[number as usize % 5].clone();
                arm.store().write_faults.push_back(fault);
                let mine = |arm: &FakeArm| arm.store().routes(TABLE).into_iter().find(|(other, ..)| *other == name);
                let before = mine(arm);
                std::thread::sleep(Duration::from_millis(60));
                assert_eq!(mine(arm), before, "somebody touched {name}");
            }
        });
        let writers: Vec<_> = [0_u8, 100]
            .map(|base| {
                scope.spawn(move || {
                    let session = session(arm, &managed());
                    let mut rounds = 0_u32;
                    while Instant::now() < ends {
                        rounds += 1;
                        // Machines are made again, with other addresses and other prefixes; each writer knows its own ten.
                        let nodes = (1..=10).map(|number| moving(base + number, rounds));
                        let mut snapshot = snapshot(&session, []);
                        snapshot.nodes = nodes.collect();
                        snapshot.settings.cluster_cidrs = vec!["10.244.0.0/15".parse().unwrap()];
                        let wanted: Vec<_> = snapshot
                            .wanted()
                            .into_iter()
                            .map(|one| (one.name, one.prefix.to_string(), one.hop.unwrap().to_string()))
                            .collect();
                        match session.reconcile(snapshot, true, Duration::from_secs(20)) {
                            Ok(_) => {
                                let mut own = arm.store().routes(TABLE);
                                own.retain(|(name, ..)| wanted.iter().any(|(other, ..)| other == name));
                                assert_eq!(own, wanted, "after round {rounds} of {base}");
                            }
                            Err(SessionError::Contested(_)) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    rounds
                })
            })
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect();
        writers
    });
    let puts = arm
        .store()
        .seen
        .iter()
        .filter(|seen| seen.method == "PUT")
        .count();
    let refused = arm.store().seen.iter().filter(|seen| seen.status == 412).count();
    println!("{rounds:?} rounds, {puts} writes, {refused} of them came second");
    assert!(
        rounds.iter().all(|rounds| *rounds > 3) && refused > 0,
        "{rounds:?}, {refused}"
    );
}
