//! The chained CNI plug-in: what it says to a container runtime, how it comes into a node's configuration and out of it, and that a pod
//! whose start it holds can speak, and only as policy has it, from its first packet on.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use calico_azure_tests::lab::probe;
use calico_azure_tests::lab::{AgentSpec, Cluster, ClusterSpec, Hold, Plugin, PodManifest, Port, binary};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
/// Less than a second, after which TCP sends a lost SYN again.
const AT_ONCE: Duration = Duration::from_millis(900);
const NEVER: Duration = Duration::from_millis(300);
/// Pods of each plug-in, one after the other.
const HELD: usize = 110;
const WEB: u16 = 8080;
const OTHER: u16 = 8081;

/// The product by the plug-in's name.
fn program(dir: &Path) -> PathBuf {
    let path = dir.join("calico-azure-cni");
    if !path.exists() {
        symlink(binary().unwrap(), &path).unwrap();
    }
    path
}

fn call(dir: &Path, env: &[(&str, &str)], configuration: &str) -> (i32, Value) {
    let mut child = Command::new(program(dir))
        .env_clear()
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), configuration.as_bytes()).unwrap();
    let Output { status, stdout, .. } = child.wait_with_output().unwrap();
    let said = serde_json::from_slice(&stdout).unwrap_or_default();
    (status.code().unwrap(), said)
}

fn configuration(run: &Path, changes: &Value) -> String {
    let mut base = json!({"cniVersion": "0.4.0", "name": "net", "type": "calico-azure-cni", "node": "n1", "runDir": run, "timeout": 0.2,
        "prevResult": {"cniVersion": "0.4.0", "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00"}],
            "ips": [{"version": "4", "address": "10.0.0.9/24"}]}});
    base.as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    base.to_string()
}

const POD: [(&str, &str); 4] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "c-1"),
    ("CNI_IFNAME", "eth0"),
    (
        "CNI_ARGS",
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web",
    ),
];

fn as_command(command: &'static str) -> [(&'static str, &'static str); 4] {
    let mut env = POD;
    env[0].1 = command;
    env
}

#[test]
fn a_runtime_is_answered_as_the_specification_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path();
    let told = |changes: &Value| configuration(run, changes);
    let nothing = json!({});
    let (code, said) = call(run, &[("CNI_COMMAND", "VERSION")], "");
    assert_eq!(
        (code, said["supportedVersions"].as_array().unwrap().len()),
        (0, 5),
        "{said}"
    );

    // Nobody enforces anything.
    let begun = Instant::now();
    let (code, said) = call(run, &POD, &told(&nothing));
    assert_eq!((code, &said["code"]), (1, &json!(11)), "{said}");
    assert!(begun.elapsed() >= Duration::from_millis(200));
    let message = said["msg"].as_str().unwrap();
    assert!(
        message.contains("no policy for shop/web") && message.contains("does an agent run"),
        "{message}"
    );
    let attachment = run.join("attachments/c-1-eth0");
    assert!(attachment.exists());
    let (code, said) = call(run, &POD, &told(&json!({"onTimeout": "start"})));
    assert_eq!(
        (code, &said["ips"][0]["address"]),
        (0, &json!("10.0.0.9/24")),
        "{said}"
    );
    // Other networks, and runtimes that are none of Kubernetes'.
    let mut other = POD;
    other[2].1 = "net1";
    assert_eq!(call(run, &other, &told(&nothing)).0, 0);
    other = POD;
    other[3].1 = "";
    assert_eq!(call(run, &other, &told(&nothing)).0, 0);

    // An agent that enforces: the pod, at this interface, with programs both ways.
    let status = |pod: &str, ifindex: u32, hooks: &[&str], ready: bool| {
        let attached: Vec<Value> = hooks
            .iter()
            .map(|hook| json!({"ifindex": ifindex, "hook": hook}))
            .collect();
        let text =
            json!({"ready": ready, "endpoints": [{"pod": pod, "ifindex": ifindex}], "attached": attached});
        fs::write(run.join("n1.status.json"), text.to_string()).unwrap();
    };
    let both = ["ingress", "egress"];
    for (pod, ifindex, hooks, ready, enforced) in [
        ("shop/web", 1, &both[..], true, true),
        ("shop/web", 1, &both[..], false, true),
        ("shop/web", 2, &both, true, false),
        ("shop/other", 1, &both, true, false),
        ("shop/web", 1, &both[..1], true, false),
    ] {
        status(pod, ifindex, hooks, ready);
        let (code, said) = call(run, &POD, &told(&nothing));
        assert_eq!(code == 0, enforced, "{pod} {ifindex} {hooks:?}: {said}");
        let (code, said) = call(run, &as_command("CHECK"), &told(&nothing));
        assert_eq!(code == 0, enforced, "{pod} {ifindex} {hooks:?}: {said}");
        let (code, _) = call(run, &as_command("STATUS"), &told(&nothing));
        assert_eq!(code == 0, ready);
    }
    fs::remove_file(run.join("n1.status.json")).unwrap();
    let (code, said) = call(run, &as_command("STATUS"), &told(&nothing));
    assert_eq!((code, &said["code"]), (1, &json!(50)), "{said}");

    // What is not there any more is forgotten; what is, is kept.
    fs::write(run.join("attachments/gone-eth0"), "{}").unwrap();
    let valid = json!({"cni.dev/valid-attachments": [{"containerID": "c-1", "ifname": "eth0"}]});
    assert_eq!(call(run, &[("CNI_COMMAND", "GC")], &told(&valid)).0, 0);
    assert!(attachment.exists() && !run.join("attachments/gone-eth0").exists());
    for _ in 0..2 {
        assert_eq!(
            call(run, &as_command("DEL"), &told(&json!({"prevResult": null}))).0,
            0
        );
        assert!(!attachment.exists());
    }

    let mut outside = POD;
    outside[1].1 = "../../etc/x";
    let missing = [POD[0], POD[2]];
    for (env, configuration, code) in [
        (&POD[..], told(&json!({"prevResult": null})), 7),
        (&POD, told(&json!({"cniVersion": "0.2.0"})), 1),
        (&POD, told(&json!({"timeout": -1})), 7),
        (&POD, told(&json!({"node": 7})), 7),
        (&POD, told(&json!({"onTimeout": "maybe"})), 7),
        (&POD, "nonsense".to_owned(), 6),
        (&outside, told(&nothing), 4),
        (&missing, told(&nothing), 4),
        (&[("CNI_COMMAND", "DANCE")], told(&nothing), 4),
        (&[], String::new(), 4),
    ] {
        let (exit, said) = call(run, env, &configuration);
        assert_eq!(
            (exit, &said["code"]),
            (1, &json!(code)),
            "{configuration}: {said}"
        );
        assert!(
            said["msg"].as_str().unwrap().starts_with("calico-azure-cni: "),
            "{said}"
        );
    }
}

fn cni(args: &[&str], dir: &Path) -> (i32, String) {
    let output = Command::new(binary().unwrap())
        .arg("cni")
        .args(args)
        .arg("--bin-dir")
        .arg(dir.join("bin"))
        .arg("--conf-dir")
        .arg(dir.join("net.d"))
        .arg("--run-dir")
        .arg(dir.join("run"))
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code().unwrap(), text.concat())
}

#[test]
fn it_comes_into_the_configuration_that_is_used_and_leaves_it_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for sub in ["bin", "net.d"] {
        fs::create_dir(dir.join(sub)).unwrap();
    }
    let read = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(dir.join("net.d").join(name)).unwrap()).unwrap()
    };
    let (code, text) = cni(&["install", "--node", "n1", "--wait", "0"], dir);
    assert!(
        code == 2 && text.contains("no network configuration after 0 s"),
        "{text}"
    );
    assert!(!dir.join("bin/calico-azure-cni").exists());

    let list = json!({"cniVersion": "0.3.1", "name": "azure", "plugins": [{"type": "azure-vnet"}, {"type": "portmap", "capabilities": {"portMappings": true}}]});
    let path = dir.join("net.d/10-azure.conflist");
    fs::write(&path, list.to_string()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    fs::write(
        dir.join("net.d/99-loopback.conflist"),
        json!({"name": "lo", "plugins": [{"type": "loopback"}]}).to_string(),
    )
    .unwrap();
    let (code, text) = cni(&["install", "--node", "n1", "--timeout", "7"], dir);
    assert_eq!(code, 0, "{text}");
    let ours = json!({"type": "calico-azure-cni", "node": "n1", "runDir": dir.join("run"), "timeout": 7, "onTimeout": "fail"});
    assert_eq!(read("10-azure.conflist")["plugins"][2], ours);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(
        read("99-loopback.conflist")["plugins"].as_array().unwrap().len(),
        1
    );
    let program = dir.join("bin/calico-azure-cni");
    assert_eq!(
        fs::metadata(&program).unwrap().permissions().mode() & 0o777,
        0o755
    );
    assert_eq!(
        Command::new(&program)
            .env("CNI_COMMAND", "VERSION")
            .output()
            .unwrap()
            .status
            .code(),
        Some(0)
    );
    let (_, text) = cni(&["install", "--node", "n1", "--timeout", "7"], dir);
    assert!(text.contains("has it already"), "{text}");

    // A pod that was made with it is still there.
    fs::create_dir_all(dir.join("run/attachments")).unwrap();
    fs::write(dir.join("run/attachments/c-eth0"), "{}").unwrap();
    let (code, text) = cni(&["remove"], dir);
    assert!(code == 0 && program.exists() && text.contains("left "), "{text}");
    assert_eq!(read("10-azure.conflist"), list);
    fs::remove_file(dir.join("run/attachments/c-eth0")).unwrap();
    assert_eq!(cni(&["remove"], dir).0, 0);
    assert!(!program.exists());

    // The old way: one plug-in in a file.
    let single = r#"{"cniVersion":"0.4.0","name":"old","type":"bridge"}"#;
    fs::write(dir.join("net.d/05-old.conf"), single).unwrap();
    let (code, text) = cni(&["install", "--node", "n1"], dir);
    assert_eq!(code, 0, "{text}");
    assert!(!dir.join("net.d/05-old.conf").exists());
    assert_eq!(read("05-old.conflist")["plugins"][1]["type"], "calico-azure-cni");
    let (code, text) = cni(&["remove"], dir);
    assert_eq!(code, 0, "{text}");
    assert_eq!(fs::read_to_string(dir.join("net.d/05-old.conf")).unwrap(), single);
    assert!(!dir.join("net.d/05-old.conflist").exists());

    // What is no configuration stays as it is, and nothing is installed.
    fs::write(dir.join("net.d/00-broken.conflist"), "{").unwrap();
    let (code, text) = cni(&["install", "--node", "n1"], dir);
    assert!(
        code == 2 && text.contains("00-broken.conflist: is no JSON"),
        "{text}"
    );
    assert!(!program.exists());
    let left: Vec<_> = fs::read_dir(dir.join("net.d"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 4, "{left:?}");
}

const POLICIES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: a}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}]
    ports: [{port: 8080}]
";

#[test]
fn a_pod_that_is_held_speaks_from_its_first_packet_and_as_policy_has_it() {
    for plugin in [Plugin::Ptp, Plugin::Bridge] {
        held(plugin);
    }
}

fn held(plugin: Plugin) {
    let mut cluster = Cluster::start(&ClusterSpec {
        nodes: 1,
        plugin,
        hold: true,
        agents: Some(AgentSpec::new().unwrap()),
        ..ClusterSpec::default()
    })
    .unwrap();
    cluster.source.write("policies.yaml", POLICIES).unwrap();
    let ports = [Port::Tcp(WEB), Port::Tcp(OTHER)];
    let server = PodManifest::new("a", "server", "node-1", &[("app", "server")], &ports);
    cluster.add_pod(server).unwrap();
    cluster.wait_endpoints(SOON).unwrap();
    let to = [false, true].map(|v6| cluster.pod("a/server").unwrap().ip(v6).unwrap());
    let mut took = Vec::new();
    let start = |cluster: &Cluster, name: &str| {
        let manifest = PodManifest::new("a", name, "node-1", &[("app", "client")], &[]);
        cluster
            .source
            .write_objects(&manifest.file(), &[manifest.bound()])
            .unwrap();
        let begun = Instant::now();
        (
            cluster.node("node-1").unwrap().add_pod("a", name),
            begun.elapsed(),
        )
    };
    for number in 0..HELD {
        let (net, time) = start(&cluster, &format!("client-{number}"));
        let net = net.unwrap();
        for to in to {
            let reaches = |port, patience| probe::tcp(net.ns(), to, port, patience).unwrap().reached();
            assert!(reaches(WEB, AT_ONCE), "client-{number} to {to}");
            assert!(number > 0 || !reaches(OTHER, NEVER), "client-{number} to {to}");
        }
        took.push(time);
    }
    took.sort_unstable();
    println!(
        "{plugin:?}: {HELD} pods, from CNI ADD to enforced, p50 {:?}, p99 {:?}, longest {:?}",
        took[HELD / 2],
        took[HELD * 99 / 100],
        took[HELD - 1]
    );

    // Nobody is there to enforce anything.
    cluster.agent("node-1").unwrap().kill9().unwrap();
    let hold = |cluster: &mut Cluster, on_timeout| {
        let held: &mut Hold = cluster.nodes[0].hold.as_mut().unwrap();
        (held.timeout, held.on_timeout) = (0.5, on_timeout);
    };
    hold(&mut cluster, "fail");
    let (refused, time) = start(&cluster, "late");
    let text = refused.unwrap_err().to_string();
    assert!(
        text.contains("no policy for a/late") && text.contains("\"code\":11"),
        "{text}"
    );
    assert!(time >= Duration::from_secs_f64(0.5), "{time:?}");
    hold(&mut cluster, "start");
    let (net, _) = start(&cluster, "late");
    drop(net.unwrap());
    hold(&mut cluster, "fail");
    let agent = cluster.agent("node-1").unwrap();
    agent.restart().unwrap();
    agent.wait_ready(SOON).unwrap();
    cluster.nodes[0].hold.as_mut().unwrap().timeout = 10.0;
    let (net, _) = start(&cluster, "late");
    assert!(
        probe::tcp(net.unwrap().ns(), to[0], WEB, AT_ONCE)
            .unwrap()
            .reached()
    );
}
