//! What breaks between the API server and an agent changes no verdict, and loses no update.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use calico_azure_tests::apiserver::{ApiSpec, CALICO_KINDS, Objects, collection};
use calico_azure_tests::kubelab::KubeLab;
use calico_azure_tests::lab::Agent;
use serde_json::json;

use super::rights::{AGENT, install, without};
use super::{CALICO, FREE, SOON, agree, lab, policy, servers, watch};

/// Agents ask ever less often while nobody answers.
const LATER: Duration = Duration::from_secs(60);
/// A connection that is silent is pinged after 20 s, and given up 10 s later.
const SILENCE: Duration = Duration::from_secs(45);
/// The agent asks for 500 at a time.
const CROWD: u32 = 520;

fn nothing() -> serde_json::Value {
    servers(json!([]))
}

fn all() -> serde_json::Value {
    servers(json!([{}]))
}

/// Changes policies and labels until told to stop, each until the server has taken it. How many were made, and how often one
/// was refused.
fn scribble(objects: &Objects, client: &serde_json::Value, stop: &AtomicBool) -> (usize, usize) {
    let (mut made, mut refused) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let turn = made % 6;
        let write = || match turn {
            0 => objects.put(&nothing()),
            1 => objects.label(client, &json!({"role": "other"})),
            2 => objects.put(&servers(
                json!([{"from": [{"podSelector": {"matchLabels": {"role": "buyer"}}}]}]),
            )),
            3 => objects.label(client, &json!({"role": "buyer"})),
            4 => objects.put(&policy("visitors", "client", json!([]))),
            _ => objects.delete(&policy("visitors", "client", json!([]))),
        };
        // A write whose answer was lost may have been made all the same, and a second time finds nothing to delete.
        while let Err(error) = write() {
            refused += 1;
            if error.to_string().contains("not found") || stop.load(Ordering::Relaxed) {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        made += 1;
        thread::sleep(Duration::from_millis(15));
    }
    (made, refused)
}

/// The sum of the samples of the first node's agent whose names begin like this.
fn sum(lab: &KubeLab, name: &str) -> f64 {
    let node = lab.cluster.nodes[0].ns();
    let text = node.run(|| super::get(9091, "/metrics")).unwrap();
    let samples = text.lines().filter(|line| line.starts_with(name));
    samples
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Lists that the agent needed after the first ones.
fn relists(lab: &KubeLab) -> f64 {
    sum(lab, "calico_azure_api_relists_total")
}

/// What is always denied is denied by a custom kind alone, which a server that has just started does not know for a moment.
fn deny_by_custom_kind(lab: &KubeLab) {
    for custom in &CALICO_KINDS {
        lab.objects.put(&custom.definition()).unwrap();
    }
    let path = collection(CALICO, "GlobalNetworkPolicy", None);
    wait(|| lab.objects.list(&path).unwrap().is_some(), "Calico's kinds");
    let deny = json!({"action": "Deny", "protocol": "UDP", "destination": {"ports": [FREE]}});
    let never = json!({
        "apiVersion": CALICO, "kind": "GlobalNetworkPolicy", "metadata": {"name": "never"},
        "spec": {"order": 10, "selector": "app == 'stranger'", "types": ["Ingress"], "ingress": [deny]},
    });
    wait(|| lab.objects.put(&never).is_ok(), "a policy of Calico");
    lab.objects
        .put(&policy("stranger", "stranger", json!([{}])))
        .unwrap();
}

/// Objects of a kind of which there are more than fit on one page of a list.
fn crowd(objects: &Objects) {
    for number in 0..CROWD {
        let name = format!("account-{number:04}");
        let metadata = json!({"name": name, "namespace": "far"});
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
        objects.put(&account).unwrap();
    }
}

/// Objects of the kind that the agent of the first node knows.
fn known(lab: &KubeLab, kind: &str) -> f64 {
    sum(lab, &format!("calico_azure_api_objects{{kind=\"{kind}\"}}"))
}

#[test]
fn no_update_is_lost_whatever_breaks() {
    let mut lab = lab(
        1,
        &ApiSpec {
            // So that what etcd forgot cannot be watched from there.
            watch_cache: false,
            ..ApiSpec::default()
        },
    );
    deny_by_custom_kind(&lab);
    crowd(&lab.objects);
    let kubeconfig = lab.server.kubeconfig().to_owned();
    lab.start_agents(&kubeconfig, &["--metrics"]).unwrap();
    assert!(known(&lab, "ServiceAccount") >= f64::from(CROWD));
    let mut wire = watch(&lab);
    let client = lab.cluster.pod("shop/client").unwrap().manifest.bound();
    let objects = Objects::connect(&kubeconfig).unwrap();
    let stop = AtomicBool::new(false);
    let mut pids = Vec::new();
    let (made, refused) = thread::scope(|scope| {
        let scribbling = scope.spawn(|| scribble(&objects, &client, &stop));
        let pause = |seconds: f64| thread::sleep(Duration::from_secs_f64(seconds));
        pause(1.0);
        lab.server.kill().unwrap();
        pause(0.5);
        // Comes back to a server that is away, and waits.
        lab.agents[0].kill9().unwrap();
        lab.agents[0].restart().unwrap();
        pause(1.0);
        lab.server.restart().unwrap();
        lab.wait_agents().unwrap();
        pids = lab.agents.iter().map(Agent::pid).collect();
        let before = relists(&lab);
        let relay = &lab.relays[0];
        relay.refuse();
        pause(0.7);
        // Changes that were made meanwhile are nowhere but in what a list says.
        lab.server.compact().unwrap();
        relay.admit();
        wait(|| relists(&lab) > before, "a list after what was forgotten");
        relay.slow(Duration::from_millis(80));
        pause(1.0);
        for _ in 0..5 {
            relay.cut();
            pause(0.2);
        }
        relay.slow(Duration::ZERO);
        lab.server.freeze().unwrap();
        pause(1.0);
        lab.server.thaw().unwrap();
        lab.server.kill().unwrap();
        lab.server.restart().unwrap();
        lab.server.kill_etcd().unwrap();
        pause(0.5);
        lab.server.restart_etcd().unwrap();
        pause(1.0);
        stop.store(true, Ordering::Relaxed);
        scribbling.join().unwrap()
    });
    // The last words count, whatever was heard before.
    for (change, allowed) in [(nothing(), false), (all(), true), (nothing(), false)] {
        let written = lab.objects.put(&change).unwrap();
        for pair in ["near", "away"] {
            wire.obeys(pair, allowed, written.sent, LATER).unwrap();
        }
    }
    let compared = agree(&lab, SOON);
    for (pair, allowed) in [("always", true), ("never", false)] {
        println!("{}", wire.end_constant(pair, allowed).unwrap());
    }
    assert!(known(&lab, "ServiceAccount") >= f64::from(CROWD));
    println!(
        "{made} changes, {refused} times not at once, {} lists more, {} connections; {compared} packets agree",
        relists(&lab),
        lab.relays[0].connections()
    );
    assert!(made > 100 && refused > 0, "{made} changes, {refused} refused");
    let now: Vec<_> = lab.agents.iter().map(Agent::pid).collect();
    assert_eq!(now, pids, "an agent was started again");
}

#[test]
fn servers_that_start_do_not_end_kinds_whose_definitions_are_hidden() {
    let mut lab = lab(1, &ApiSpec::default());
    deny_by_custom_kind(&lab);
    let role = install(&lab);
    let hidden = without(&role, "apiextensions.k8s.io", "customresourcedefinitions", "list");
    lab.objects.put(&hidden).unwrap();
    let kubeconfig = lab.server.service_account(AGENT, AGENT).unwrap();
    lab.start_agents(&kubeconfig, &["--metrics"]).unwrap();
    let mut wire = watch(&lab);
    for begins_anew in [false, true, false, true] {
        lab.server.kill().unwrap();
        if begins_anew {
            lab.agents[0].kill9().unwrap();
            lab.agents[0].restart().unwrap();
        }
        thread::sleep(Duration::from_millis(500));
        lab.server.restart().unwrap();
        lab.wait_agents().unwrap();
        let written = lab.objects.put(&nothing()).unwrap();
        wire.obeys("near", false, written.sent, LATER).unwrap();
        let written = lab.objects.put(&all()).unwrap();
        wire.obeys("near", true, written.sent, LATER).unwrap();
        wait(|| known(&lab, "GlobalNetworkPolicy") > 0.5, "Calico's kinds");
    }
    agree(&lab, SOON);
    for (pair, allowed) in [("always", true), ("never", false)] {
        println!("{}", wire.end_constant(pair, allowed).unwrap());
    }
}

#[test]
fn a_connection_that_went_silent_is_given_up() {
    let mut lab = lab(1, &ApiSpec::default());
    let kubeconfig = lab.server.kubeconfig().to_owned();
    lab.start_agents(&kubeconfig, &[]).unwrap();
    let mut wire = watch(&lab);
    lab.relays[0].mute();
    let written = lab.objects.put(&nothing()).unwrap();
    for pair in ["near", "away"] {
        let after = wire.obeys(pair, false, written.sent, SILENCE).unwrap();
        println!("{pair}: {:.1} s after the change", after.as_secs_f64());
    }
    // And at once from then on.
    let written = lab.objects.put(&all()).unwrap();
    wire.obeys("near", true, written.sent, Duration::from_secs(2))
        .unwrap();
    agree(&lab, SOON);
    for (pair, allowed) in [("always", true), ("never", false)] {
        println!("{}", wire.end_constant(pair, allowed).unwrap());
    }
}

#[track_caller]
fn wait(mut condition: impl FnMut() -> bool, what: &str) {
    let end = Instant::now() + LATER;
    while !condition() {
        assert!(Instant::now() < end, "{what} did not come within {LATER:?}");
        thread::sleep(Duration::from_millis(50));
    }
}
