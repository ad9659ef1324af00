//! What is in `deploy/manifests`: a real API server takes it, and an agent runs with exactly what it gives.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use calico_azure_tests::apiserver::ApiServer;
use calico_azure_tests::lab::{AgentSpec, Cluster, ClusterSpec, PodManifest, Port, binary, probe};
use serde_json::{Value, json};

const NETWORKS: [&str; 4] = ["azure-cni", "udr", "flannel", "host-local"];
/// Pods' starts are held.
const HELD: &str = "azure-cni-held";
const SOON: Duration = Duration::from_secs(60);

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/manifests")
}

fn manifest(name: &str) -> String {
    let path = manifests().join(format!("{name}.yaml"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}

fn of_kind(text: &str, kind: &str) -> Value {
    let found = documents(text)
        .into_iter()
        .find(|document| document["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind}"))
}

/// The container of a DaemonSet or a Job.
fn container(object: &Value) -> &Value {
    &object["spec"]["template"]["spec"]["containers"][0]
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|item| item.as_str().unwrap())
        .collect()
}

/// A pod as the controller makes it of a template.
fn pod(object: &Value) -> Value {
    let template = &object["spec"]["template"];
    json!({
        "apiVersion": "v1", "kind": "Pod", "spec": template["spec"],
        "metadata": {"name": "made-of-a-template", "namespace": "calico-azure", "labels": template["metadata"]["labels"]},
    })
}

#[test]
fn an_api_server_takes_every_manifest() {
    let server = ApiServer::start().unwrap();
    for network in NETWORKS.into_iter().chain([HELD]) {
        let text = manifest(network);
        // What is in a namespace is only judged if the namespace is there.
        server
            .apply(&of_kind(&text, "Namespace").to_string(), false)
            .unwrap();
        let taken = server
            .apply(&text, true)
            .unwrap_or_else(|error| panic!("{network}: {error}"));
        assert_eq!(
            taken,
            [
                "Namespace/calico-azure",
                "ServiceAccount/calico-azure",
                "ClusterRole/calico-azure",
                "ClusterRoleBinding/calico-azure",
                "DaemonSet/calico-azure"
            ]
        );
        server
            .apply(&pod(&of_kind(&text, "DaemonSet")).to_string(), true)
            .unwrap();
    }
    let text = manifest("doctor");
    server.apply(&text, true).unwrap();
    server
        .apply(&pod(&of_kind(&text, "Deployment")).to_string(), true)
        .unwrap();
    let text = manifest("cleanup").replace("NODE", "node-1");
    assert_eq!(
        server.apply(&text, true).unwrap(),
        ["Job/calico-azure-cleanup-node-1"]
    );
    server
        .apply(&pod(&of_kind(&text, "Job")).to_string(), true)
        .unwrap();
}

#[test]
fn networks_differ_in_their_name_and_in_interfaces_only() {
    let of = |network: &str| -> Vec<(String, Value)> {
        let daemon_set = of_kind(&manifest(network), "DaemonSet");
        let env = container(&daemon_set)["env"].as_array().unwrap().clone();
        env.into_iter()
            .map(|item| (item["name"].as_str().unwrap().to_owned(), item["value"].clone()))
            .collect()
    };
    let differing = ["FELIX_INTERFACEPREFIX", "CALICO_AZURE_NETWORKING"];
    let flannels = |name: &str| name == "CALICO_AZURE_FLANNEL_ENV";
    let first = of("azure-cni");
    for network in NETWORKS {
        let others = of(network);
        assert_eq!(
            others.iter().any(|(name, _)| flannels(name)),
            network == "flannel",
            "{network}"
        );
        let others: Vec<_> = others.into_iter().filter(|(name, _)| !flannels(name)).collect();
        assert_eq!(first.len(), others.len(), "{network}");
        for (one, other) in first.iter().zip(others) {
            assert!(
                differing.contains(&one.0.as_str()) || *one == other,
                "{network}: {other:?}"
            );
        }
    }
    let prefix = |network: &str| {
        of(network)
            .into_iter()
            .find(|(name, _)| name == differing[0])
            .unwrap()
            .1
    };
    assert_eq!(NETWORKS.map(prefix), ["azv", "cali,veth", "cali", "veth"]);
}

#[test]
fn the_agent_knows_every_variable_and_flag_of_its_container() {
    knows_all(&of_kind(&manifest("flannel"), "DaemonSet"));
    knows_all(&of_kind(&manifest(HELD), "DaemonSet"));
    knows_all(&of_kind(&manifest("doctor"), "Deployment"));
}

/// Runs what an init container of ours runs, with the mounts that it has, which here are below a directory.
fn run_init(object: &Value, dir: &Path) -> std::process::Output {
    let first = &object["spec"]["template"]["spec"]["initContainers"][0];
    let args = strings(&first["args"]);
    assert_eq!(args[..2], ["cni", "remove"]);
    let mounts = first["volumeMounts"].as_array().unwrap();
    for path in mounts.iter().map(|mount| mount["mountPath"].as_str().unwrap()) {
        fs::create_dir_all(mounted(dir, path)).unwrap();
    }
    let mut command = std::process::Command::new(binary().unwrap());
    for arg in &args {
        match arg.split_once("=/") {
            Some((flag, path)) => command.arg(format!("{flag}={}", mounted(dir, path).display())),
            None => command.arg(arg),
        };
    }
    command.output().unwrap()
}

fn mounted(dir: &Path, path: &str) -> PathBuf {
    dir.join(path.trim_start_matches('/'))
}

const CONFLIST: &str = "host-cni-conf/10-n.conflist";

#[test]
fn the_plug_in_is_taken_out_by_the_cleanup_and_where_it_is_not_enabled() {
    let with = r#"{"name": "n", "plugins": [{"type": "ptp"}, {"type": "calico-azure-cni"}]}"#;
    for object in [
        of_kind(&manifest("cleanup"), "Job"),
        of_kind(&manifest("udr"), "DaemonSet"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("host-cni-conf")).unwrap();
        fs::write(dir.path().join(CONFLIST), with).unwrap();
        // Again and again, and there is nothing to do the second time.
        for _ in 0..2 {
            let output = run_init(&object, dir.path());
            assert!(output.status.success(), "{output:?}");
            let left: Value = serde_json::from_slice(&fs::read(dir.path().join(CONFLIST)).unwrap()).unwrap();
            assert_eq!(left, json!({"name": "n", "plugins": [{"type": "ptp"}]}));
        }
    }
}

#[test]
fn no_agent_waits_for_a_network_configuration() {
    // What cannot be removed is said, and the agent's container starts.
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("host-cni-bin/calico-azure-cni")).unwrap();
    let output = run_init(&of_kind(&manifest("udr"), "DaemonSet"), dir.path());
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("not removed"),
        "{output:?}"
    );
    // Where the plug-in is enabled, the agent itself puts it there, and nothing comes before it.
    let spec = &of_kind(&manifest(HELD), "DaemonSet")["spec"]["template"]["spec"];
    assert_eq!(spec["initContainers"], Value::Null);
    let container = &spec["containers"][0];
    let variable = |name: &str| {
        let mut all = container["env"].as_array().unwrap().iter();
        all.find(|one| one["name"] == name).unwrap()["value"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(variable("CALICO_AZURE_CNI_PLUGIN"), "true");
    for dir in [
        variable("CALICO_AZURE_CNI_BIN_DIR"),
        variable("CALICO_AZURE_CNI_CONF_DIR"),
    ] {
        let mut mounts = container["volumeMounts"].as_array().unwrap().iter();
        let mount = mounts.find(|mount| mount["mountPath"] == dir.as_str()).unwrap();
        assert_ne!(mount["readOnly"], true, "{dir}");
    }
}

fn knows_all(object: &Value) {
    let container = container(object);
    let args = strings(&container["args"]);
    let help = std::process::Command::new(binary().unwrap())
        .args([args[0], "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for flag in args.iter().skip(1) {
        let flag = flag.split('=').next().unwrap();
        let known = [" <", " [<", "\n", "  "].map(|end| format!("{flag}{end}"));
        assert!(known.iter().any(|known| help.contains(known)), "{flag}");
    }
    for variable in container["env"].as_array().unwrap() {
        let name = variable["name"].as_str().unwrap();
        assert!(help.contains(&format!("[env: {name}=")), "{name}");
    }
    // The same ports for probes as for the program.
    let value = |name: &str| {
        let mut all = container["env"].as_array().unwrap().iter();
        let variable = all.find(|variable| variable["name"] == name)?;
        Some(variable["value"].as_str().unwrap().to_owned())
    };
    let listens = value("CALICO_AZURE_DOCTOR_LISTEN").unwrap_or_else(|| {
        let [host, port] = ["FELIX_HEALTHHOST", "FELIX_HEALTHPORT"].map(|name| value(name).unwrap());
        format!("{host}:{port}")
    });
    for probe in ["livenessProbe", "readinessProbe"] {
        let get = &container[probe]["httpGet"];
        assert_eq!(
            format!("{}:{}", get["host"].as_str().unwrap(), get["port"]),
            listens
        );
    }
}

/// A program that runs the agent with these capabilities, as a container runtime does for root.
fn confined(dir: &Path, capabilities: &[&str]) -> PathBuf {
    let path = dir.join("confined");
    let set: Vec<String> = capabilities
        .iter()
        .map(|name| format!("+{}", name.to_lowercase()))
        .collect();
    let script = format!(
        "#!/bin/sh\nexec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,{} {} \"$@\"\n",
        set.join(","),
        binary().unwrap().display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn effective(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

#[test]
fn the_capabilities_of_the_container_are_enough() {
    let daemon_set = of_kind(&manifest("host-local"), "DaemonSet");
    let context = &container(&daemon_set)["securityContext"];
    assert_eq!(context["privileged"], false);
    assert_eq!(strings(&context["capabilities"]["drop"]), ["ALL"]);
    let capabilities = strings(&context["capabilities"]["add"]);
    let dir = tempfile::tempdir().unwrap();
    let spec = AgentSpec {
        binary: confined(dir.path(), &capabilities),
        ..AgentSpec::new().unwrap()
    };
    let mut cluster = Cluster::start(&ClusterSpec {
        nodes: 1,
        agents: Some(spec),
        ..ClusterSpec::default()
    })
    .unwrap();
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
    cluster.source.write("namespaces.yaml", namespace).unwrap();
    for name in ["one", "two"] {
        let pod = PodManifest::new("a", name, "node-1", &[("app", name)], &[Port::Tcp(8080)]);
        cluster.add_pod(pod).unwrap();
    }
    cluster.wait_endpoints(SOON).unwrap();
    let agent = cluster.agent("node-1").unwrap();
    // BPF, PERFMON, SYS_RESOURCE, NET_ADMIN: those of them that root has on this machine.
    let wanted = 1 << 39 | 1 << 38 | 1 << 24 | 1 << 12;
    let own = effective(std::process::id());
    assert_eq!(effective(agent.pid().unwrap()), wanted & own);
    let status = agent.wait_ready(SOON).unwrap();
    assert!(status.problems.is_empty(), "{:?}", status.problems);
    // What is there of an earlier one is taken over, and cleanup removes it, confined as well.
    agent.restart().unwrap();
    agent.wait_endpoint("a/two", SOON).unwrap();
    let to = cluster.pod("a/two").unwrap().ip(false).unwrap();
    let ns = cluster.pod("a/one").unwrap().net.ns().clone();
    assert!(probe::tcp(&ns, to, 8080, SOON).unwrap().reached());
    let agent = cluster.agent("node-1").unwrap();
    agent.terminate().unwrap();
    let said = agent.cleanup().unwrap();
    assert!(said.contains("1 pin director"), "{said}");
}
