//! Writing the table, whatever ARM, others and we ourselves do meanwhile.

use super::*;

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

fn routes(arm: &FakeArm) -> Vec<String> {
    let routes = arm.store().routes(TABLE);
    routes
        .into_iter()
        .map(|(name, prefix, hop)| format!("{name} {prefix} {hop}"))
        .collect()
}

fn old_route(number: u8) -> Value {
    json!({"name": format!("vm-{number}____10244{number}024"), "properties": {"addressPrefix": format!("10.244.{number}.0/24"),
        "nextHopType": "VirtualAppliance", "nextHopIpAddress": format!("10.240.0.{number}")}})
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
        let written = reconcile(&session, snapshot);
        assert!(written.stopped.is_none(), "{written:?}");
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
    let written = reconcile(&session, snapshot);
    assert!(
        matches!(written.stopped, Some(SessionError::Contested(_))),
        "{written:?}"
    );
    assert_eq!(routes(&arm), Vec::<String>::new());
}

#[test]
fn a_node_that_comes_between_the_two_readings_keeps_its_route() {
    let arm = FakeArm::start().unwrap();
    let session = session(&arm, &managed());
    let add = |route: Value| {
        let change = |table: &mut Value| table["properties"]["routes"].as_array_mut().unwrap().push(route);
        arm.store().change(TABLE, change).unwrap();
    };
    // It comes while nodes are listed, and somebody makes its route at once.
    let nodes = || {
        add(old_route(11));
        Ok(vec![node(10)])
    };
    let gathered = session.gather(nodes, Settings::default(), &[]).unwrap();
    let planned = calico_azure_userspace::azure::plan::plan(&gathered.snapshot);
    assert_eq!(planned.changes.len(), 1, "{planned:?}");
    // The same while writing: ARM holds us up, and meanwhile a node comes back that had a route before it went.
    add(old_route(12));
    arm.store().write_faults.push_back(Fault::Throttled(1));
    let asked = std::cell::Cell::new(0);
    let writing = Writing {
        nodes: &|| {
            asked.set(asked.get() + 1);
            let mut nodes = vec![node(10), node(11)];
            nodes.extend((asked.get() > 1).then(|| node(12)));
            Ok(nodes)
        },
        may_write: &|| Ok(()),
        deletions: true,
        beside: false,
        patience: Duration::from_secs(20),
    };
    let written = session.reconcile(snapshot(&session, [10, 11]), &writing);
    assert!(written.stopped.is_none() && asked.get() > 1, "{written:?}");
    let names: Vec<_> = arm
        .store()
        .routes(TABLE)
        .into_iter()
        .map(|(name, ..)| name)
        .collect();
    assert_eq!(names, ["vm-10", "vm-11____1024411024", "vm-12____1024412024"]);
}

#[test]
fn who_may_not_write_any_more_does_not() {
    let arm = FakeArm::start().unwrap();
    let session = session(&arm, &managed());
    let first = snapshot(&session, [10]);
    let try_it = |may_write: &dyn Fn() -> Result<(), String>, node: NodeState, patience: u64| {
        let begun = Instant::now();
        let writing = Writing {
            nodes: &|| Ok(vec![node.clone()]),
            may_write,
            deletions: true,
            beside: false,
            patience: Duration::from_secs(patience),
        };
        let stopped = session
            .reconcile(first.clone(), &writing)
            .stopped
            .unwrap()
            .to_string();
        assert_eq!(routes(&arm), Vec::<String>::new());
        (stopped, begun.elapsed())
    };
    let (why, _) = try_it(&|| Err("the Lease is gone".into()), node(10), 20);
    assert_eq!(why, "stopped: the Lease is gone");
    // Between the reading and the writing, and while ARM is waited for.
    let asked = std::cell::Cell::new(0);
    let later = || {
        asked.set(asked.get() + 1);
        if asked.get() < 3 {
            Ok(())
        } else {
            Err("too late".to_owned())
        }
    };
    arm.store().write_faults.push_back(Fault::Throttled(600));
    let (why, took) = try_it(&later, node(10), 3600);
    assert!(
        why == "stopped: too late" && took < Duration::from_secs(5),
        "{why} {took:?}"
    );
    // ARM asks to come again in a day, and there is no such time.
    arm.store().write_faults.clear();
    let session_of_its_own = self::session(&arm, &managed());
    arm.store().write_faults.push_back(Fault::Throttled(86_400));
    let begun = Instant::now();
    let written = reconcile(&session_of_its_own, snapshot(&session_of_its_own, [10]));
    let why = written.stopped.unwrap().to_string();
    assert!(why.contains("ARM asks to wait 86400 s"), "{why}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // A cloud controller has begun its work meanwhile.
    let minded = NodeState {
        route_created: true,
        ..node(10)
    };
    let (why, _) = try_it(&|| Ok(()), minded, 20);
    assert!(
        why.contains("a cloud controller makes this cluster's routes: node vm-10"),
        "{why}"
    );
}

#[test]
fn a_write_with_an_old_token_begins_anew_with_a_new_one() {
    let arm = FakeArm::start().unwrap();
    let session = session(&arm, &managed());
    let first = snapshot(&session, [10]);
    let asked = std::cell::Cell::new(0);
    let writing = Writing {
        nodes: &|| {
            asked.set(asked.get() + 1);
            if asked.get() == 1 {
                arm.store().remove_tokens();
            }
            Ok(vec![node(10)])
        },
        may_write: &|| Ok(()),
        deletions: true,
        beside: false,
        patience: Duration::from_secs(20),
    };
    let written = session.reconcile(first.clone(), &writing);
    assert!(written.stopped.is_none() && written.failures == 1, "{written:?}");
    // The nodes were asked for again before the next write, and after it.
    assert_eq!(asked.get(), 3);
    let always = Writing {
        nodes: &|| {
            arm.store().remove_tokens();
            Ok(vec![NodeState {
                internal_ips: vec!["10.240.0.77".parse().unwrap()],
                ..node(10)
            }])
        },
        ..writing
    };
    let written = session.reconcile(first, &always);
    let why = written.stopped.unwrap().to_string();
    assert!(why.contains("does not know the token any more"), "{why}");
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
                        match reconcile(&session, snapshot).stopped {
                            None => {
                                let mut own = arm.store().routes(TABLE);
                                own.retain(|(name, ..)| wanted.iter().any(|(other, ..)| other == name));
                                assert_eq!(own, wanted, "after round {rounds} of {base}");
                            }
                            Some(SessionError::Contested(_)) => {}
                            Some(error) => panic!("{error}"),
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
