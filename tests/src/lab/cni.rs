//! Calls the real CNI plugins the way a container runtime does.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::Deserialize;

use super::{LabError, NetNs, Result, exec, patience};

/// Which plug-in makes pods' interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plugin {
    /// Routed veths.
    #[default]
    Ptp,
    /// Ports of the bridge `cni0`, as kubenet and kube-flannel have them.
    Bridge,
}

impl Plugin {
    const fn program(self) -> &'static str {
        match self {
            Self::Ptp => "ptp",
            Self::Bridge => "bridge",
        }
    }
}

/// The chained plug-in that holds pods' starts.
#[derive(Clone, Debug)]
pub struct Hold {
    /// The product's binary by the plug-in's name.
    pub program: PathBuf,
    /// The agents' `--run-dir`.
    pub run_dir: PathBuf,
    /// Seconds.
    pub timeout: f64,
    /// `fail` or `start`.
    pub on_timeout: &'static str,
}

/// Where distributions put the plugins; `CNI_PATH` overrides it.
const PLUGIN_DIRS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// One pod's network: its namespace, made and undone by the plugin.
#[derive(Debug)]
pub struct PodNet {
    ns: NetNs,
    ips: Vec<IpAddr>,
    ifname: String,
    pod: String,
    made: Made,
}

/// By whom, and so how it is undone.
#[derive(Debug)]
enum Made {
    Plugin(Attachment),
    /// In this node's namespace, by us.
    Here(NetNs),
}

/// What ADD and DEL have in common.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) node: NetNs,
    pub(super) pod: String,
    pub(super) container: String,
    pub(super) plugin: Plugin,
    pub(super) config: String,
    /// With the node's name.
    pub(super) hold: Option<(String, Hold)>,
    /// Where answers are kept, as libcni does for a container runtime.
    pub(super) results: PathBuf,
}

impl Attachment {
    /// libcni's name for the file.
    fn kept(&self) -> PathBuf {
        self.results.join(format!("lab-{}-eth0", self.container))
    }

    /// Keeps the plug-in's answer as libcni does.
    fn keep(&self, answer: &str) -> Result<()> {
        let (namespace, name) = self.pod.split_once('/').unwrap_or(("", &self.pod));
        let answer: serde_json::Value = serde_json::from_str(answer)
            .map_err(|e| problem("ADD", self, format!("unexpected result {answer}: {e}")))?;
        let text = serde_json::json!({
            "kind": "cniCacheV1", "containerId": self.container, "config": "e30=", "ifName": "eth0", "networkName": "lab",
            "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", namespace], ["K8S_POD_NAME", name],
                ["K8S_POD_INFRA_CONTAINER_ID", self.container]],
            "result": answer,
        });
        fs::create_dir_all(&self.results).map_err(LabError::file(&self.results))?;
        fs::write(self.kept(), text.to_string()).map_err(LabError::file(self.kept()))
    }
}

impl PodNet {
    /// The pod's namespace.
    #[must_use]
    pub fn ns(&self) -> &NetNs {
        &self.ns
    }

    /// IPv4 first.
    #[must_use]
    pub fn ips(&self) -> &[IpAddr] {
        &self.ips
    }

    /// The host-side interface, in the node's namespace.
    #[must_use]
    pub fn ifname(&self) -> &str {
        &self.ifname
    }

    /// `namespace/name`.
    #[must_use]
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// One that no plugin made.
    pub(super) fn transparent(ns: NetNs, ips: [IpAddr; 2], ifname: String, pod: String, node: NetNs) -> Self {
        Self {
            ns,
            ips: ips.into(),
            ifname,
            pod,
            made: Made::Here(node),
        }
    }
}

impl Drop for PodNet {
    fn drop(&mut self) {
        let undone = match &self.made {
            Made::Plugin(attachment) => {
                let freed = hold("DEL", attachment, &self.ns, "");
                let undone = call("DEL", attachment, &self.ns);
                let _never_kept = fs::remove_file(attachment.kept());
                freed.and(undone)
            }
            Made::Here(node) => node.ip(&["link", "del", &self.ifname]),
        };
        if let Err(error) = undone {
            eprintln!("warning: {error}");
        }
    }
}

/// The network configuration: one range per family, state kept in `ipam`.
pub(super) fn config(plugin: Plugin, ipam: &Path, ranges: &[IpNet], mtu: u32) -> String {
    let any = |net: &IpNet| if net.addr().is_ipv6() { "::/0" } else { "0.0.0.0/0" };
    serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "lab",
        "type": plugin.program(),
        "mtu": mtu,
        // Of the bridge plug-in.
        "isGateway": true,
        "hairpinMode": true,
        "ipam": {
            "type": "host-local",
            "dataDir": ipam,
            "ranges": ranges.iter().map(|net| serde_json::json!([{"subnet": net.to_string()}])).collect::<Vec<_>>(),
            "routes": ranges.iter().map(|net| serde_json::json!({"dst": any(net)})).collect::<Vec<_>>(),
        },
    })
    .to_string()
}

#[derive(Deserialize)]
struct Added {
    interfaces: Vec<AddedInterface>,
    ips: Vec<AddedIp>,
}

#[derive(Deserialize)]
struct AddedInterface {
    name: String,
    #[serde(default)]
    sandbox: String,
}

#[derive(Deserialize)]
struct AddedIp {
    address: IpNet,
}

/// Creates the pod's namespace and calls ADD.
pub(super) fn add(attachment: Attachment) -> Result<PodNet> {
    let ns = NetNs::create(&attachment.container)?;
    // Addresses are unique by construction; a pod must be able to speak at once.
    ns.sysctl(&[
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
    ])?;
    let output = call("ADD", &attachment, &ns)?;
    let held = hold("ADD", &attachment, &ns, &output).and_then(|_| attachment.keep(&output));
    if let Err(error) = held {
        // As a runtime does: the whole chain, from its end.
        hold("DEL", &attachment, &ns, &output)?;
        call("DEL", &attachment, &ns)?;
        return Err(error);
    }
    let added: Added = serde_json::from_str(&output)
        .map_err(|e| problem("ADD", &attachment, format!("unexpected result {output}: {e}")))?;
    let ifname = added
        .interfaces
        .into_iter()
        // A bridge comes before its port.
        .rfind(|i| i.sandbox.is_empty())
        .map(|i| i.name);
    let Some(ifname) = ifname else {
        return Err(problem(
            "ADD",
            &attachment,
            format!("no host interface in {output}"),
        ));
    };
    let mut ips: Vec<_> = added.ips.iter().map(|ip| ip.address.addr()).collect();
    ips.sort();
    let pod = PodNet {
        ns,
        ips,
        ifname,
        pod: attachment.pod.clone(),
        made: Made::Plugin(attachment),
    };
    wait_usable(&pod)?;
    Ok(pod)
}

/// Waits until no address is tentative: the host side may still run duplicate address detection.
fn wait_usable(pod: &PodNet) -> Result<()> {
    let timeout = patience(Duration::from_secs(5));
    let end = Instant::now() + timeout;
    loop {
        let tentative = pod.ns.ip(&["-6", "-o", "addr", "show", "tentative"])?;
        if tentative.trim().is_empty() {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(LabError::Timeout {
                what: format!("usable addresses of pod {}", pod.pod()),
                timeout,
            });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The plug-in that makes the interface.
fn call(command: &'static str, attachment: &Attachment, ns: &NetNs) -> Result<String> {
    let dir = std::env::var("CNI_PATH").ok().or_else(|| {
        let found = PLUGIN_DIRS.iter().find(|dir| Path::new(dir).join("ptp").exists());
        found.map(|dir| (*dir).to_owned())
    });
    let Some(dir) = dir else {
        let text = format!(
            "not found in {}; install containernetworking-plugins or set CNI_PATH",
            PLUGIN_DIRS.join(" or ")
        );
        return Err(problem(command, attachment, text));
    };
    let program = Path::new(&dir).join(attachment.plugin.program());
    run(command, attachment, ns, (&program, &dir), &attachment.config)
}

/// The one behind it, if there is one.
fn hold(command: &'static str, attachment: &Attachment, ns: &NetNs, result: &str) -> Result<String> {
    let Some((node, hold)) = &attachment.hold else {
        return Ok(String::new());
    };
    let result: serde_json::Value = serde_json::from_str(result).unwrap_or_default();
    let config = serde_json::json!({
        "cniVersion": "0.4.0", "name": "lab", "type": "calico-azure-cni", "node": node, "runDir": hold.run_dir,
        "timeout": hold.timeout, "onTimeout": hold.on_timeout, "prevResult": result,
    });
    run(command, attachment, ns, (&hold.program, ""), &config.to_string())
}

fn run(
    command: &'static str,
    attachment: &Attachment,
    ns: &NetNs,
    (program, path): (&Path, &str),
    config: &str,
) -> Result<String> {
    let (namespace, name) = attachment.pod.split_once('/').unwrap_or(("", &attachment.pod));
    let args = format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={}",
        attachment.container
    );
    let mut plugin = attachment.node.command(program);
    plugin
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", &attachment.container)
        .env("CNI_NETNS", ns.path())
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", path)
        .env("CNI_ARGS", args);
    let output = exec::output(&mut plugin, config.as_bytes())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    // Plugins report errors as JSON on stdout.
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    Err(problem(command, attachment, text.join(" ")))
}

fn problem(command: &'static str, attachment: &Attachment, problem: String) -> LabError {
    LabError::Cni {
        command,
        pod: attachment.pod.clone(),
        plugin: attachment.plugin.program().to_owned(),
        problem,
    }
}
