//! An agent with exactly the rights that the manifests give it, and what it says when one is taken away; its token, which is replaced.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use calico_azure_tests::apiserver::{ApiSpec, Objects};
use calico_azure_tests::kubelab::KubeLab;
use calico_azure_tests::lab::{Agent, AgentSpec, binary};
use serde_json::{Value, json};

use super::{SOON, agree, get, lab, servers, watch};

const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/manifests/udr.yaml");
/// Both the namespace and the account.
pub(super) const AGENT: &str = "calico-azure";
/// Agents ask again ever less often while they are refused.
const LATER: Duration = Duration::from_secs(60);

/// The role of the manifests, after the account and its binding have been made.
pub(super) fn install(lab: &KubeLab) -> Value {
    let text = std::fs::read_to_string(MANIFESTS).unwrap();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let kinds = ["Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding"];
    for kind in kinds {
        let mut found = documents.iter().filter(|document| document["kind"] == kind);
        lab.objects
            .put(found.next().unwrap_or_else(|| panic!("no {kind}")))
            .unwrap();
    }
    let role = documents
        .into_iter()
        .find(|document| document["kind"] == "ClusterRole");
    role.unwrap()
}

/// The role without a verb on a resource.
pub(super) fn without(role: &Value, group: &str, resource: &str, verb: &str) -> Value {
    let mut role = role.clone();
    let mut rules = Vec::new();
    for rule in role["rules"].as_array().unwrap() {
        let has = |list: &str, what: &str| rule[list].as_array().unwrap().contains(&json!(what));
        if !(has("apiGroups", group) && has("resources", resource)) {
            rules.push(rule.clone());
            continue;
        }
        let but = |list: &str, what: &str| -> Vec<Value> {
            let list = rule[list].as_array().unwrap().iter();
            list.filter(|item| **item != json!(what)).cloned().collect()
        };
        let others = but("resources", resource);
        if !others.is_empty() {
            rules.push(json!({"apiGroups": rule["apiGroups"], "resources": others, "verbs": rule["verbs"]}));
        }
        rules.push(
            json!({"apiGroups": rule["apiGroups"], "resources": [resource], "verbs": but("verbs", verb)}),
        );
    }
    role["rules"] = json!(rules);
    role
}

#[track_caller]
fn until<T>(what: &str, mut find: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + LATER;
    loop {
        let seen = match find() {
            Ok(found) => return found,
            Err(seen) => seen,
        };
        assert!(Instant::now() < end, "{what}; last seen: {seen}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn readiness(lab: &KubeLab) -> String {
    lab.cluster.nodes[0].ns().run(|| get(9099, "/readiness")).unwrap()
}

fn complete(problems: &[String]) -> Result<(), String> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(problems.join("\n"))
}

fn all() -> Value {
    servers(json!([{}]))
}

fn nothing() -> Value {
    servers(json!([]))
}

#[test]
fn a_right_that_is_missing_is_named_and_taken_up_when_it_is_given_back() {
    let mut lab = lab(
        1,
        &ApiSpec {
            watch_cache: false,
            ..ApiSpec::default()
        },
    );
    let role = install(&lab);
    let kubeconfig = lab.server.service_account(AGENT, AGENT).unwrap();
    let problems = |lab: &KubeLab| lab.agents[0].status().unwrap().unwrap_or_default().problems;
    // Without a right from the start, nothing is enforced that may be only half of what is meant.
    lab.objects
        .put(&without(&role, "", "namespaces", "list"))
        .unwrap();
    lab.spawn_agents(&kubeconfig, &["--health"]).unwrap();
    let pid = lab.agents[0].pid();
    until("the right to list namespaces", || {
        let log = std::fs::read_to_string(lab.agents[0].log_path()).unwrap_or_default();
        if log.contains("cannot list resource \"namespaces\"") {
            Ok(())
        } else {
            Err(log)
        }
    });
    let ready = readiness(&lab);
    assert!(
        ready.starts_with("HTTP/1.1 503") && ready.contains("Namespace"),
        "{ready}"
    );
    lab.objects.put(&role).unwrap();
    lab.wait_agents().unwrap();
    let mut wire = watch(&lab);
    until("nothing is missing", || complete(&problems(&lab)));
    let written = lab.objects.put(&nothing()).unwrap();
    wire.obeys("near", false, written.sent, SOON).unwrap();

    // A watch that is open goes on without the right to open one; a list is not needed before what is known is forgotten.
    let less = without(&role, "networking.k8s.io", "networkpolicies", "watch");
    let less = without(&less, "", "pods", "list");
    lab.objects.put(&less).unwrap();
    let agent = Objects::connect(&kubeconfig).unwrap();
    until("the server knows the role", || match agent.list("/api/v1/pods") {
        Ok(_) => Err("pods may be listed".to_owned()),
        Err(_) => Ok(()),
    });
    lab.relays[0].refuse();
    lab.server.compact().unwrap();
    lab.relays[0].admit();
    let missing = [
        (
            "cannot list resource \"pods\"",
            "add {apiGroups: [\"\"], resources: [\"pods\"]",
        ),
        (
            "cannot watch resource \"networkpolicies\" in API group \"networking.k8s.io\"",
            "add {apiGroups: [\"networking.k8s.io\"], resources: [\"networkpolicies\"]",
        ),
    ];
    for (problem, help) in missing {
        until(problem, || {
            let status = problems(&lab).join("\n");
            let ready = readiness(&lab);
            let log = std::fs::read_to_string(lab.agents[0].log_path()).unwrap();
            let told = [&status, &ready, &log];
            if told
                .iter()
                .all(|text| text.contains(problem) && text.contains(help))
            {
                return Ok(());
            }
            Err(format!("status:\n{status}\nreadiness:\n{ready}"))
        });
    }
    // What was read before stays in force, and the agent ready; what is not heard of is not obeyed.
    assert!(readiness(&lab).starts_with("HTTP/1.1 200"), "{}", readiness(&lab));
    let written = lab.objects.put(&all()).unwrap();
    wire.is("near", false, SOON).unwrap();

    lab.objects.put(&role).unwrap();
    for pair in ["near", "away"] {
        wire.obeys(pair, true, written.sent, LATER).unwrap();
    }
    until("nothing is missing", || complete(&problems(&lab)));
    agree(&lab, SOON);
    for (pair, allowed) in [("always", true), ("never", false)] {
        println!("{}", wire.end_constant(pair, allowed).unwrap());
    }
    assert_eq!(
        lab.agents.iter().map(Agent::pid).next(),
        Some(pid),
        "the agent was started again"
    );
}

/// A token that is good for as long as a secret is there.
fn token(objects: &Objects, secret: &Value) -> String {
    objects.put(secret).unwrap();
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": [], "expirationSeconds": 3600,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": secret["metadata"]["name"]}},
    });
    let path = format!("/api/v1/namespaces/{AGENT}/serviceaccounts/{AGENT}/token");
    let answer = objects.post(&path, &request).unwrap();
    answer["status"]["token"].as_str().unwrap().to_owned()
}

/// As kubelets do.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// The agent as a pod of the node has it: told nothing but the service's address, and with the files of a service account where kubelets put
/// them, in a mount namespace of its own.
fn in_a_pod(dir: &Path) -> PathBuf {
    const SCRIPT: &str = r#"#!/bin/sh
left=$#
while [ "$left" -gt 0 ]; do
    word=$1; shift; left=$((left - 1))
    if [ "$word" = --kubeconfig ]; then shift; left=$((left - 1)); else set -- "$@" "$word"; fi
done
exec unshare --mount sh -c '
    files=/run/secrets/kubernetes.io/serviceaccount
    mount -t tmpfs tmpfs /run && mkdir -p $files && mount --bind "$0" $files && exec "$@"' DIR BINARY "$@"
"#;
    let script = SCRIPT.replace("DIR", &dir.display().to_string());
    let script = script.replace("BINARY", &binary().unwrap().display().to_string());
    let path = dir.join("agent");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn in_a_pod_its_service_account_is_all_that_an_agent_is_told() {
    // Before the lab, which in the end runs what is in it to clean up.
    let dir = tempfile::tempdir().unwrap();
    let mut lab = lab(1, &ApiSpec::default());
    install(&lab);
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "own", "namespace": AGENT}});
    for (file, text) in [
        ("token", token(&lab.objects, &secret)),
        ("ca.crt", lab.server.authority().to_owned()),
        ("namespace", AGENT.to_owned()),
    ] {
        std::fs::write(dir.path().join(file), text).unwrap();
    }
    let node = &lab.cluster.nodes[0];
    let spec = AgentSpec {
        binary: in_a_pod(dir.path()),
        // Left out again by the script.
        kubeconfig: Some("/nowhere".into()),
        ..AgentSpec::new().unwrap()
    };
    let spec = spec
        .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        .env("KUBERNETES_SERVICE_PORT", lab.server.port().to_string());
    lab.agents
        .push(Agent::start(&lab.cluster.dir, node, spec).unwrap());
    lab.wait_agents().unwrap();
    let status = lab.agents[0].status().unwrap().unwrap();
    assert!(status.problems.is_empty(), "{:?}", status.problems);
    let wire = watch(&lab);
    let written = lab.objects.put(&nothing()).unwrap();
    for pair in ["near", "away"] {
        wire.obeys(pair, false, written.sent, SOON).unwrap();
    }
    agree(&lab, SOON);
}

#[test]
fn tokens_and_authorities_that_are_replaced_are_read_again() {
    let mut lab = lab(1, &ApiSpec::default());
    install(&lab);
    let dir = tempfile::tempdir().unwrap();
    let (file, authority) = (dir.path().join("token"), dir.path().join("ca.crt"));
    let secret = |name: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": AGENT}});
    let old = token(&lab.objects, &secret("old"));
    replace(&file, &old);
    replace(&authority, lab.server.authority());
    let fixed = lab.server.service_account(AGENT, AGENT).unwrap();
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(fixed).unwrap()).unwrap();
    let mut write = |pointer: &str, value: Value, name: &str| {
        *config.pointer_mut(pointer).unwrap() = value;
        let path = dir.path().join(name);
        std::fs::write(&path, config.to_string()).unwrap();
        path
    };
    let of_old = write("/users/0/user", json!({"token": old}), "old");
    write("/users/0/user", json!({"tokenFile": file}), "rotating");
    let cluster = json!({"server": lab.server.url(), "certificate-authority": authority});
    let rotating = write("/clusters/0/cluster", cluster, "rotating");
    lab.start_agents(&rotating, &["--health"]).unwrap();
    let mut wire = watch(&lab);

    replace(&file, &token(&lab.objects, &secret("new")));
    lab.objects.delete(&secret("old")).unwrap();
    let outdated = Objects::connect(&of_old).unwrap();
    // The server remembers for some seconds that a token is good.
    until("the old token is refused", || {
        match outdated.list("/api/v1/pods") {
            Err(error) if error.to_string().contains("401") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    lab.relays[0].cut();
    let written = lab.objects.put(&nothing()).unwrap();
    for pair in ["near", "away"] {
        let after = wire.obeys(pair, false, written.sent, SOON).unwrap();
        println!("{pair}: {:.2} s after the change", after.as_secs_f64());
    }

    lab.server.renew_authority().unwrap();
    lab.objects = Objects::connect(lab.server.kubeconfig()).unwrap();
    let log = lab.agents[0].log_path().to_owned();
    until("the agent does not trust the server", || {
        let log = std::fs::read_to_string(&log).unwrap();
        if log.contains("certificate") {
            Ok(())
        } else {
            Err(log)
        }
    });
    let written = lab.objects.put(&all()).unwrap();
    wire.is("near", false, SOON).unwrap();
    replace(&authority, lab.server.authority());
    let replaced = Instant::now();
    for pair in ["near", "away"] {
        wire.obeys(pair, true, written.sent, LATER).unwrap();
    }
    println!("trusted again after {:.1} s", replaced.elapsed().as_secs_f64());
    agree(&lab, SOON);
    for (pair, allowed) in [("always", true), ("never", false)] {
        println!("{}", wire.end_constant(pair, allowed).unwrap());
    }
}
