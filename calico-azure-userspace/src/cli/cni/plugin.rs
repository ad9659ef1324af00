//! The plug-in itself. It makes nothing: it tells the agent whose interface the plug-ins before it have made, and holds the pod's start
//! until policy for it is in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};

use super::protocol::{Call, Configuration, Failure, VERSIONS, code};
use crate::agent::cni::OnTimeout;
use crate::agent::{attachments_path, status_path};
use crate::model::Pod;
use crate::policy::topology::interface_name;
use crate::sources::attachments::IFNAME;
use crate::sources::links::{Link, LinkKind, Snapshot, snapshot};

/// How often the agent's status is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Answers a container runtime. Everything is in the environment and on standard input; exit code 1 goes with an error on standard output.
#[must_use]
pub fn main() -> ExitCode {
    let env: BTreeMap<String, String> = std::env::vars().collect();
    let mut input = String::new();
    let answer = match std::io::stdin().read_to_string(&mut input) {
        Ok(_) => answer(&env, &input),
        Err(error) => Err(Failure::new(code::IO, format!("standard input: {error}"))),
    };
    let mut out = std::io::stdout().lock();
    let (text, exit) = match answer {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(answer)) => (answer, ExitCode::SUCCESS),
        Err(failure) => {
            let version = serde_json::from_str(&input).ok();
            let version = version.and_then(|value: Value| value["cniVersion"].as_str().map(str::to_owned));
            (
                failure.json(version.as_deref().unwrap_or("0.4.0")),
                ExitCode::FAILURE,
            )
        }
    };
    let _closed = writeln!(out, "{text}");
    exit
}

fn answer(env: &BTreeMap<String, String>, input: &str) -> Result<Option<Value>, Failure> {
    let command = env.get("CNI_COMMAND").map(String::as_str).unwrap_or_default();
    if command == "VERSION" {
        return Ok(Some(
            json!({"cniVersion": "1.1.0", "supportedVersions": VERSIONS}),
        ));
    }
    if !matches!(command, "ADD" | "CHECK" | "DEL" | "GC" | "STATUS") {
        let message = format!(
            "CNI_COMMAND is {command:?}, expected ADD, DEL, CHECK, GC, STATUS or VERSION; this is a CNI plug-in"
        );
        return Err(Failure::new(code::ENVIRONMENT, message));
    }
    let configuration = Configuration::parse(input)?;
    let node = Node::of(&configuration);
    match command {
        "ADD" => add(&configuration, &node, &Call::read(env)?).map(Some),
        "CHECK" => check(&configuration, &node, &Call::read(env)?).map(|()| None),
        "DEL" => {
            // What is not there any more is as it should be.
            let _gone = fs::remove_file(node.attachment(&Call::read(env)?));
            Ok(None)
        }
        "GC" => collect(&configuration, &node).map(|()| None),
        _ => node.status().map_or_else(
            || Err(Failure::new(code::UNAVAILABLE, node.silence())),
            |status| {
                let message = || {
                    Failure::new(
                        code::UNAVAILABLE,
                        "the agent is not ready: see `calico-azure status`",
                    )
                };
                status.ready.then_some(None).ok_or_else(message)
            },
        ),
    }
}

fn add(configuration: &Configuration, node: &Node, call: &Call) -> Result<Value, Failure> {
    let Some(result) = &configuration.prev_result else {
        let message =
            "there is no prevResult: calico-azure-cni goes behind the plug-in that makes the interface";
        return Err(Failure::new(code::CONFIGURATION, message));
    };
    // Additional networks have no policy, and others than Kubernetes no pods.
    let Some(pod) = call.pod().filter(|_| call.ifname == IFNAME) else {
        return Ok(result.clone());
    };
    node.tell(configuration, call, result)?;
    let ends = Instant::now() + configuration.timeout();
    let links = links()?;
    loop {
        let status = node.status();
        if status
            .as_ref()
            .is_some_and(|status| status.enforces(&links, call, result, &pod))
        {
            return Ok(result.clone());
        }
        if Instant::now() >= ends {
            if configuration.on_timeout == OnTimeout::Start {
                return Ok(result.clone());
            }
            // DEL follows, and forgets what was told.
            let why = match status {
                None => node.silence(),
                Some(status) if !status.ready => {
                    "the agent is not ready: see `calico-azure status`".to_owned()
                }
                Some(status) if host_side(&links, call, result, &pod, &status).is_empty() => format!(
                    "which interface is its? The plug-ins before name none of this node's, none has a name computed from the pod's ({}), and \
                     no route leads to its address: set the agent's --interface-prefix",
                    status.interface_prefixes.join(", ")
                ),
                Some(_) => {
                    "the agent does not know the pod or its interface yet: is the API server reachable?"
                        .to_owned()
                }
            };
            let seconds = configuration.timeout().as_secs_f64();
            let message = format!("no policy for {pod} in the kernel after {seconds} s: {why}");
            return Err(Failure::new(code::LATER, message));
        }
        std::thread::sleep(LOOK);
    }
}

fn check(configuration: &Configuration, node: &Node, call: &Call) -> Result<(), Failure> {
    let Some(pod) = call.pod().filter(|_| call.ifname == IFNAME) else {
        return Ok(());
    };
    let nothing = Value::Null;
    let result = configuration.prev_result.as_ref().unwrap_or(&nothing);
    let links = links()?;
    let status = node
        .status()
        .ok_or_else(|| Failure::new(code::NOT_AS_MADE, node.silence()))?;
    if status.enforces(&links, call, result, &pod) {
        Ok(())
    } else {
        let message = format!("no policy for {pod} in the kernel");
        Err(Failure::new(code::NOT_AS_MADE, message))
    }
}

fn collect(configuration: &Configuration, node: &Node) -> Result<(), Failure> {
    let valid: BTreeSet<String> = configuration
        .valid
        .iter()
        .map(|valid| file_name(&valid.container, &valid.ifname))
        .collect();
    let entries = match fs::read_dir(&node.attachments) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let message = format!("{}: {error}", node.attachments.display());
            return Err(Failure::new(code::IO, message));
        }
    };
    for entry in entries.flatten() {
        if !valid.contains(&entry.file_name().to_string_lossy().into_owned()) {
            let _gone = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// This network namespace's.
fn links() -> Result<Snapshot, Failure> {
    snapshot().map_err(|error| Failure::new(code::IO, error.to_string()))
}

/// Indexes of the interfaces that may be the host's end of the pod's: those that the plug-ins before say that they have made here, and
/// those with a name computed from the pod's, as Azure's plug-in makes them, which names the pod's end only and not where that is. Without
/// any, those that a route to the pod's address points to.
fn host_side(links: &Snapshot, call: &Call, result: &Value, pod: &str, status: &Status) -> BTreeSet<u32> {
    let made = result["interfaces"].as_array().into_iter().flatten();
    let here = made.filter(|made| made["sandbox"].as_str().is_none_or(str::is_empty));
    let names = here.filter_map(|made| made["name"].as_str()).map(str::to_owned);
    let mut names: BTreeSet<String> = names.filter(|name| *name != call.ifname).collect();
    let (namespace, name) = pod.split_once('/').unwrap_or_default();
    let computed = Pod {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..Pod::default()
    };
    let prefixes = status.interface_prefixes.iter();
    names.extend(prefixes.map(|prefix| interface_name(prefix, &computed)));
    let that = |wanted: &dyn Fn(&Link) -> bool| -> BTreeSet<u32> {
        let found = links.links.iter().filter(|(_, link)| wanted(link));
        found.map(|(ifindex, _)| *ifindex).collect()
    };
    let named = that(&|link| link.kind != LinkKind::Bridge && names.contains(&link.name));
    if !named.is_empty() {
        return named;
    }
    let addresses = addresses(result);
    that(&|link| link.host_routes.iter().any(|ip| addresses.contains(ip)))
}

/// The pod's, as the plug-ins before say.
fn addresses(result: &Value) -> BTreeSet<IpAddr> {
    let addresses = result["ips"].as_array().into_iter().flatten();
    let addresses = addresses.filter_map(|ip| ip["address"].as_str()?.parse::<IpNet>().ok());
    addresses.map(|net| net.addr()).collect()
}

fn file_name(container: &str, ifname: &str) -> String {
    format!("{container}-{ifname}")
}

/// Where the node's agent is to be found.
struct Node {
    status: PathBuf,
    attachments: PathBuf,
}

/// What is read of the agent's status.
#[derive(Deserialize)]
struct Status {
    ready: bool,
    #[serde(default)]
    interface_prefixes: Vec<String>,
    endpoints: Vec<StatusEndpoint>,
    attached: Vec<StatusAttached>,
}

#[derive(Deserialize)]
struct StatusEndpoint {
    pod: String,
    ifindex: u32,
    #[serde(default)]
    addresses: BTreeSet<IpAddr>,
}

#[derive(Deserialize)]
struct StatusAttached {
    ifindex: u32,
    hook: String,
}

impl Status {
    /// The pod's policy is in the kernel for all of its addresses, and programs are on its interface. (What else is said of the pod is
    /// about an earlier one of its name, perhaps by an agent that is gone.)
    fn enforces(&self, links: &Snapshot, call: &Call, result: &Value, pod: &str) -> bool {
        let interfaces = host_side(links, call, result, pod, self);
        let addresses = addresses(result);
        let attached = |ifindex: u32, hook: &str| {
            let mut here = self
                .attached
                .iter()
                .filter(|attached| attached.ifindex == ifindex);
            here.any(|attached| attached.hook == hook)
        };
        self.endpoints.iter().any(|endpoint| {
            endpoint.pod == pod
                && interfaces.contains(&endpoint.ifindex)
                // A pod without any is kept from having traffic, and agents of earlier versions do not tell.
                && (endpoint.addresses.is_empty() || endpoint.addresses.is_superset(&addresses))
                && ["ingress", "egress"]
                    .iter()
                    .all(|hook| attached(endpoint.ifindex, hook))
        })
    }
}

impl Node {
    fn of(configuration: &Configuration) -> Self {
        Self {
            status: status_path(&configuration.run_dir, &configuration.node),
            attachments: attachments_path(&configuration.run_dir),
        }
    }

    fn status(&self) -> Option<Status> {
        serde_json::from_slice(&fs::read(&self.status).ok()?).ok()
    }

    fn silence(&self) -> String {
        format!(
            "{} cannot be read: does an agent run on this node?",
            self.status.display()
        )
    }

    fn attachment(&self, call: &Call) -> PathBuf {
        self.attachments.join(file_name(&call.container, &call.ifname))
    }

    /// Tells the agent whose interface it is, as libcni keeps it when all plug-ins are through.
    fn tell(&self, configuration: &Configuration, call: &Call, result: &Value) -> Result<(), Failure> {
        let said = json!({
            "kind": "cniCacheV1", "containerId": call.container, "ifName": call.ifname, "networkName": configuration.name,
            "cniArgs": call.arguments, "result": result,
        });
        let path = self.attachment(call);
        let io = |path: &Path| {
            let path = path.display().to_string();
            move |error| Failure::new(code::IO, format!("{path}: {error}"))
        };
        fs::create_dir_all(&self.attachments).map_err(io(&self.attachments))?;
        // Beside the directory that is watched, so that nothing is seen half written.
        let temporary = self
            .attachments
            .with_extension(file_name(&call.container, &call.ifname));
        fs::write(&temporary, said.to_string()).map_err(io(&temporary))?;
        fs::rename(&temporary, &path).map_err(io(&path))
    }
}
