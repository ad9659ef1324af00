//! The agent keeps the chained CNI plug-in in the node's network configuration: also if that comes after it, is written anew by others, or
//! cannot be read. None of it keeps the agent from enforcing.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use calico_azure_tests::lab::{AgentSpec, Cluster, ClusterSpec, PodManifest};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
const METRIC: &str = "calico_azure_cni_plugin_installed";

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn plugins(path: &Path) -> Vec<String> {
    let text = fs::read(path).unwrap_or_default();
    let list: Value = serde_json::from_slice(&text).unwrap_or_default();
    let plugins = list["plugins"].as_array().into_iter().flatten();
    plugins
        .filter_map(|plugin| plugin["type"].as_str().map(str::to_owned))
        .collect()
}

#[test]
fn a_network_that_comes_late_and_is_written_anew_has_the_plug_in() {
    let dir = tempfile::tempdir().unwrap();
    let (bin, conf) = (dir.path().join("bin"), dir.path().join("net.d"));
    fs::create_dir(&bin).unwrap();
    let spec = AgentSpec::new()
        .unwrap()
        .args(["--cni-plugin", "--metrics"])
        .args(["--cni-bin-dir".as_ref(), bin.as_os_str()])
        .args(["--cni-conf-dir".as_ref(), conf.as_os_str()]);
    let mut cluster = Cluster::start(&ClusterSpec {
        nodes: 1,
        agents: Some(spec),
        ..ClusterSpec::default()
    })
    .unwrap();
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
    cluster.source.write("namespaces.yaml", namespace).unwrap();
    // There is no network configuration, not even a directory, and the agent enforces.
    cluster
        .add_pod(PodManifest::new("a", "one", "node-1", &[], &[]))
        .unwrap();
    cluster.wait_endpoints(SOON).unwrap();
    let node = cluster.node("node-1").unwrap().ns().clone();
    let status = |cluster: &Cluster| -> Value {
        let path = cluster.agents[0].run_dir().join("node-1.status.json");
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let metric = |name: &str| -> String {
        let connected = node.run(|| TcpStream::connect(("127.0.0.1", 9091))).unwrap();
        let mut stream = connected.unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_default().to_owned()
    };
    until("it is told", || metric(METRIC) == format!("{METRIC} 0"));
    assert_eq!(status(&cluster)["cni_plugin"]["configuration"], "");

    // The network comes.
    fs::create_dir(&conf).unwrap();
    let path = conf.join("10-azure.conflist");
    let list = json!({"cniVersion": "0.3.0", "name": "azure", "plugins": [{"type": "azure-vnet"}, {"type": "portmap"}]}).to_string();
    let with = ["azure-vnet", "portmap", "calico-azure-cni"];
    fs::write(&path, &list).unwrap();
    until("it is added", || plugins(&path) == with);
    assert!(bin.join("calico-azure-cni").exists());
    until("that is told", || metric(METRIC) == format!("{METRIC} 1"));
    let told = status(&cluster);
    assert_eq!(told["cni_plugin"], json!({"configuration": path, "installs": 1}));

    // Its owner writes it anew.
    fs::write(&path, &list).unwrap();
    until("it is added again", || plugins(&path) == with);
    until("that is counted", || {
        metric("calico_azure_cni_plugin_installs_total") == "calico_azure_cni_plugin_installs_total 2"
    });
    // Somebody removes the program.
    fs::remove_file(bin.join("calico-azure-cni")).unwrap();
    until("it is back", || bin.join("calico-azure-cni").exists());

    // What cannot be read is said, and nothing else happens.
    fs::write(&path, "{").unwrap();
    let problem = |cluster: &Cluster| status(cluster)["problems"].to_string();
    until("it is a problem", || {
        let problem = problem(&cluster);
        problem.contains("pods' starts are not held") && problem.contains("is no JSON")
    });
    assert_eq!(status(&cluster)["ready"], true);
    until("that is told", || metric(METRIC) == format!("{METRIC} 0"));
    fs::write(&path, &list).unwrap();
    until("all is well", || !problem(&cluster).contains("not held"));
    assert_eq!(plugins(&path), with);
}
