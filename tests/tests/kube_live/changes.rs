//! Every change on the API is on the wire.

use std::time::{Duration, Instant};

use calico_azure_tests::apiserver::{ApiSpec, CALICO_KINDS, CLUSTER_KINDS, Custom, Objects, Written};
use calico_azure_tests::kubelab::{KubeLab, Latencies, Wire, namespace};
use calico_azure_tests::lab::PodManifest;
use serde_json::{Value, json};

use super::{CALICO, FREE, PACE, SOON, agree, lab, servers, watch};

/// The kinds of changes that are not one write and one event.
const KIND_COMES: &str = "the first object of a kind that is new";
const KIND_GOES: &str = "a definition goes";

struct Series {
    lab: KubeLab,
    wire: Wire,
    latencies: Latencies,
    count: usize,
}

impl Series {
    /// Writes, and waits until both pairs are as they should be.
    #[track_caller]
    fn then(&mut self, what: &'static str, write: impl Fn(&Objects) -> Written, allowed: bool) {
        self.then_at(what, write, allowed, &["near", "away"]);
    }

    #[track_caller]
    fn then_at(
        &mut self,
        what: &'static str,
        write: impl Fn(&Objects) -> Written,
        allowed: bool,
        pairs: &[&str],
    ) {
        let written = write(&self.lab.objects);
        self.count += 1;
        for pair in pairs {
            let total = self.wire.obeys(pair, allowed, written.sent, SOON);
            let total = total.unwrap_or_else(|error| panic!("{what}: {pair} is not {allowed}: {error}"));
            self.latencies.add(what, written, total);
        }
    }

    fn put(&mut self, what: &'static str, object: &Value, allowed: bool) {
        self.then(what, |objects| objects.put(object).unwrap(), allowed);
    }

    fn delete(&mut self, what: &'static str, object: &Value, allowed: bool) {
        self.then(what, |objects| objects.delete(object).unwrap(), allowed);
    }

    fn label(&mut self, what: &'static str, object: &Value, labels: &Value, allowed: bool) {
        self.then(what, |objects| objects.label(object, labels).unwrap(), allowed);
    }

    /// Puts the first object of a kind whose definition has only just been written.
    fn first(&mut self, definition: &Custom, object: &Value, allowed: bool) {
        self.lab.objects.put(&definition.definition()).unwrap();
        let end = Instant::now() + SOON;
        let write = |objects: &Objects| loop {
            match objects.put(object) {
                Ok(written) => return written,
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        self.then(KIND_COMES, write, allowed);
    }
}

fn kind(name: &str) -> &'static Custom {
    let mut kinds = CALICO_KINDS.iter().chain(&CLUSTER_KINDS);
    kinds.find(|custom| custom.kind == name).unwrap()
}

/// What Kubernetes has of its own. Begins and ends with both pairs allowed.
fn kubernetes(series: &mut Series) {
    let (changes, pods, namespaces) = ("a policy changes", "a pod's labels", "a namespace's labels");
    let shop = namespace("shop");
    let client = series.lab.cluster.pod("shop/client").unwrap().manifest.bound();
    let address = series.lab.address("shop/client", false, 0).unwrap().ip();
    let role = |role: &str| json!({"role": role});
    series.put("a policy comes", &servers(json!([])), false);
    let buyers = json!([{"from": [{"podSelector": {"matchLabels": {"role": "buyer"}}}]}]);
    series.put(changes, &servers(buyers), true);
    series.label(pods, &client, &role("none"), false);
    series.label(pods, &client, &role("buyer"), true);
    let blue = json!([{"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}]}]);
    series.put(changes, &servers(blue), false);
    series.label(namespaces, &shop, &json!({"team": "blue"}), true);
    series.label(namespaces, &shop, &json!({"team": null}), false);
    let block =
        |except: &[String]| json!([{"from": [{"ipBlock": {"cidr": "10.244.0.0/16", "except": except}}]}]);
    series.put(changes, &servers(block(&[])), true);
    series.put(changes, &servers(block(&[format!("{address}/32")])), false);
    series.delete("a policy goes", &servers(json!([])), true);
}

fn calico(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": CALICO, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn global(tier: &str, name: &str, ingress: Value) -> Value {
    calico(
        "GlobalNetworkPolicy",
        name,
        json!({"tier": tier, "order": 10, "selector": "app == 'server'", "types": ["Ingress"], "ingress": ingress}),
    )
}

/// Calico's kinds, which nobody has defined yet. Begins and ends with both pairs allowed.
fn calico_kinds(series: &mut Series) {
    let changes = "a policy of Calico changes";
    let servers = |ingress: Value| global("default", "servers", ingress);
    let from = |action: &str, source: Value| json!({"action": action, "source": source});
    let all = || json!([{"action": "Allow"}]);
    let buyers = || json!({"selector": "role == 'buyer'"});
    let deny_buyers = servers(json!([from("Deny", buyers()), {"action": "Allow"}]));
    series.first(kind("GlobalNetworkPolicy"), &deny_buyers, false);
    series.put(
        changes,
        &servers(json!([from("Allow", buyers()), {"action": "Deny"}])),
        true,
    );

    // Accounts.
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "shop"}});
    series.lab.objects.put(&account).unwrap();
    let ranked = from(
        "Allow",
        json!({"serviceAccounts": {"selector": "rank == 'high'"}}),
    );
    series.put(changes, &servers(json!([ranked])), false);
    let accounts = "a service account's labels";
    series.label(accounts, &account, &json!({"rank": "high"}), true);
    series.label(accounts, &account, &json!({"rank": "low"}), false);

    // Sets.
    let address = series.lab.address("shop/client", false, 0).unwrap().ip();
    let set = |net: &str| {
        json!({"apiVersion": CALICO, "kind": "GlobalNetworkSet", "metadata": {"name": "trusted",
        "labels": {"net": "trusted"}}, "spec": {"nets": [net]}})
    };
    let trusted = from("Allow", json!({"selector": "net == 'trusted'"}));
    series.lab.objects.put(&servers(json!([trusted]))).unwrap();
    series.first(kind("GlobalNetworkSet"), &set(&format!("{address}/32")), true);
    let sets = "a network set's nets";
    series.put(sets, &set("192.0.2.0/24"), false);
    series.put(sets, &set("10.244.0.0/16"), true);
    series.delete("a network set goes", &set(""), false);
    series.put(changes, &servers(all()), true);

    // Tiers: what denies by its order is there before what it denies.
    let tier = |order: u32| calico("Tier", "early", json!({"order": order}));
    series.lab.objects.put(&kind("Tier").definition()).unwrap();
    let early = |ingress: Value| global("early", "early.servers", ingress);
    // Of no effect without its tier.
    let denies = early(json!([from("Deny", buyers())]));
    series.lab.objects.put(&denies).unwrap();
    let end = Instant::now() + SOON;
    let write = |objects: &Objects| loop {
        match objects.put(&tier(5)) {
            Ok(written) => return written,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
    };
    series.then(KIND_COMES, write, false);
    let in_tier = "a policy of another tier changes";
    series.put(in_tier, &early(json!([from("Pass", buyers())])), true);
    series.put(in_tier, &early(json!([from("Deny", buyers())])), false);
    series.delete("a policy of another tier goes", &early(all()), true);
    series.put(changes, &servers(json!([])), false);
    series.delete("a policy of Calico goes", &servers(all()), true);
}

/// Policy that names a service, whose backends the server tells in the version that it has. Begins and ends with both pairs allowed.
fn services(series: &mut Series) {
    let metadata = |name: &str| json!({"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": "api"}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata("api"),
        "spec": {"ports": [{"name": "free", "protocol": "UDP", "port": FREE}]}});
    let slice = |pods: &[&str]| {
        let address = |pod: &&str| series.lab.address(pod, false, 0).unwrap().ip().to_string();
        let endpoints: Vec<Value> = pods
            .iter()
            .map(|pod| json!({"addresses": [address(pod)]}))
            .collect();
        json!({"apiVersion": "discovery.k8s.io/v1beta1", "kind": "EndpointSlice", "metadata": metadata("api-1"),
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "free", "protocol": "UDP", "port": FREE}]})
    };
    let (both, other) = (slice(&["shop/near", "shop/away"]), slice(&["far/visitor"]));
    series.lab.objects.put(&service).unwrap();
    series.lab.objects.put(&other).unwrap();
    let to_service = json!({"services": {"name": "api", "namespace": "shop"}});
    let policy = json!({"apiVersion": CALICO, "kind": "NetworkPolicy", "metadata": {"name": "to-api", "namespace": "shop"},
    "spec": {"selector": "app == 'client'", "types": ["Egress"], "egress": [
        {"action": "Allow", "destination": to_service},
        {"action": "Deny", "destination": {"selector": "app == 'server'"}},
        {"action": "Allow"},
    ]}});
    series.first(kind("NetworkPolicy"), &policy, false);
    let slices = "a service's backends";
    series.put(slices, &both, true);
    series.put(slices, &other, false);
    series.put(slices, &both, true);
    series.put(slices, &other, false);
    series.delete("a policy of Calico goes", &policy, true);
}

/// Kubernetes' own policies for clusters.
fn cluster_kinds(series: &mut Series) {
    let policy = |tier: &str, role: &str, action: &str| {
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "servers"},
            "spec": {
                "tier": tier, "priority": 10,
                "subject": {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "server"}}}},
                "ingress": [{"name": "all", "action": action, "from": [
                    {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"role": role}}}},
                ]}],
            },
        })
    };
    let changes = "a policy for the cluster changes";
    series.first(
        kind("ClusterNetworkPolicy"),
        &policy("Admin", "buyer", "Deny"),
        false,
    );
    series.put(changes, &policy("Admin", "other", "Deny"), true);
    series.put(changes, &policy("Baseline", "buyer", "Deny"), false);
    series.put(changes, &policy("Admin", "buyer", "Accept"), true);
    series.put(changes, &policy("Admin", "buyer", "Deny"), false);
    series.delete(
        "a policy for the cluster goes",
        &policy("Admin", "buyer", "Deny"),
        true,
    );
}

/// A pod that policy allows to reach the servers comes, and goes: by and by it is deleted, or has run to its end.
fn pod(series: &mut Series, number: u32) {
    let name = format!("late-{number}");
    let key = format!("shop/{name}");
    let manifest = PodManifest::new("shop", &name, "node-1", &[("role", "late")], &[]);
    let late = json!([{"from": [{"podSelector": {"matchLabels": {"role": "late"}}}]}]);
    series.put("a policy comes", &servers(late), false);
    let objects = &series.lab.objects;
    objects.put(&manifest.bound()).unwrap();
    series.lab.cluster.add_pod(manifest.clone()).unwrap();
    for (pair, to) in [("late-near", "shop/near"), ("late-away", "shop/away")] {
        series
            .wire
            .watch(pair, &series.lab, &key, to, FREE, PACE)
            .unwrap();
    }
    let ips = series.lab.cluster.pod(&key).unwrap().net.ips().to_vec();
    let running = manifest.running(&ips);
    // Its own node need not wait for this.
    let write = |objects: &Objects| objects.put_status(&running).unwrap();
    series.then_at("a pod has addresses", write, true, &["late-away"]);
    series.wire.is("late-near", true, SOON).unwrap();
    let pods = "a pod's labels";
    let label = |role: &'static str| {
        let running = running.clone();
        move |objects: &Objects| objects.label(&running, &json!({"role": role})).unwrap()
    };
    let pairs = ["late-near", "late-away"];
    series.then_at(pods, label("other"), false, &pairs);
    series.then_at(pods, label("late"), true, &pairs);
    let mut ended = running.clone();
    ended["status"] = json!({"phase": "Succeeded"});
    if number.is_multiple_of(2) {
        let write = |objects: &Objects| objects.put_status(&ended).unwrap();
        series.then_at("a pod has run to its end", write, false, &pairs);
        series.lab.objects.delete(&running).unwrap();
    } else {
        let write = |objects: &Objects| objects.delete(&running).unwrap();
        series.then_at("a pod goes", write, false, &pairs);
    }
    for pair in pairs {
        series.wire.forget(pair);
    }
    series.lab.cluster.delete_pod(&key).unwrap();
    series.delete("a policy goes", &servers(json!([])), true);
}

#[test]
fn every_change_on_the_api_is_on_the_wire() {
    let mut lab = lab(2, &ApiSpec::default());
    let kubeconfig = lab.server.kubeconfig().to_owned();
    lab.start_agents(&kubeconfig, &[]).unwrap();
    let wire = watch(&lab);
    let begun = Instant::now();
    let mut series = Series {
        lab,
        wire,
        latencies: Latencies::default(),
        count: 0,
    };
    for number in 1..=3 {
        kubernetes(&mut series);
        pod(&mut series, number);
    }
    calico_kinds(&mut series);
    services(&mut series);
    cluster_kinds(&mut series);
    // With kinds that were not there at the start.
    kubernetes(&mut series);
    // A definition takes its objects with it.
    let deny = global("default", "servers", json!([{"action": "Deny"}]));
    series.put("a policy of Calico comes", &deny, false);
    assert!(agree(&series.lab, SOON) >= 80);
    let definition = kind("GlobalNetworkPolicy").definition();
    series.delete(KIND_GOES, &definition, true);

    let Series {
        lab,
        mut wire,
        latencies,
        count,
    } = series;
    for (pair, allowed) in [("always", true), ("never", false)] {
        println!("{}", wire.end_constant(pair, allowed).unwrap());
    }
    drop(wire);
    let compared = agree(&lab, SOON);
    println!(
        "{count} changes in {:.1} s; {compared} packets agree\n{latencies}",
        begun.elapsed().as_secs_f64()
    );
    let [p50, p99] = [0.5, 0.99].map(|share| latencies.percentile(share, &[KIND_COMES, KIND_GOES]));
    println!("but for kinds that come or go: p50 {p50:.1?}, p99 {p99:.1?}");
    assert!(count >= 60, "only {count} changes");
    assert!(p50 < Duration::from_millis(500), "{latencies}");
}
