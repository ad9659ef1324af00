//! What CNI plug-ins said when they made pods' interfaces, as container runtimes keep it.
//!
//! containerd and CRI-O leave that to libcni, which writes the answer of each ADD into a file of `/var/lib/cni/results` before the pod's
//! containers start, and removes it after DEL (`cachedInfo` of libcni/api.go, `kind` `cniCacheV1`). It is the only word on
//! whose interface a bridge's port is; our own plug-in in the chain says the same, and earlier. Files survive a restart of the machine, may be empty or half written, and are not ours to judge: what
//! cannot be read says nothing. Only `agent` uses this.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use serde::Deserialize;

use super::notifications::{Notifications, wait};

/// Looks again without being told, should notifications be missed or not be had at all.
const RESCAN: Duration = Duration::from_secs(1);
/// Bytes. An answer has some thousand.
const LONGEST: u64 = 1 << 20;
/// The pod's own name for its interface, in every runtime of Kubernetes'. Others are additional networks'.
pub const IFNAME: &str = "eth0";
const KIND: &str = "cniCacheV1";

/// One pod's interface, says the plug-in that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Namespace and name.
    pub pod: (String, String),
    /// Host-side interfaces with their link-layer addresses (`""`: not said). A bridge may be among them.
    pub interfaces: Vec<(String, String)>,
    pub addresses: Vec<IpAddr>,
    /// When it was written.
    pub since: SystemTime,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cached {
    kind: String,
    if_name: String,
    #[serde(default)]
    cni_args: Vec<(String, String)>,
    result: Answer,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    interfaces: Vec<AnswerInterface>,
    #[serde(default)]
    ips: Vec<AnswerIp>,
}

#[derive(Deserialize)]
struct AnswerInterface {
    name: String,
    #[serde(default)]
    mac: String,
    #[serde(default)]
    sandbox: String,
}

#[derive(Deserialize)]
struct AnswerIp {
    address: IpNet,
}

/// All that a directory holds now; `None` if it cannot be read.
#[must_use]
pub fn held(dir: &Path) -> Option<Vec<Attachment>> {
    fs::read_dir(dir).ok()?;
    Some(Results::new(vec![dir.to_owned()]).scan())
}

/// Sends all that the directories hold at once, and again after each change, from a thread of its own, until the receiver is gone. A
/// directory that does not exist holds nothing.
///
/// # Errors
/// If the thread cannot be started.
pub fn watch<E>(dirs: Vec<PathBuf>, events: Sender<E>) -> io::Result<()>
where
    E: From<Vec<Attachment>> + Send + 'static,
{
    watch_every(RESCAN, dirs, events)
}

fn watch_every<E>(rescan: Duration, dirs: Vec<PathBuf>, events: Sender<E>) -> io::Result<()>
where
    E: From<Vec<Attachment>> + Send + 'static,
{
    let run = move || {
        let (wake, woken) = sync_channel(1);
        let watched = dirs
            .iter()
            .map(|dir| Notifications::new(dir.clone(), wake.clone()));
        let mut watched: Vec<Notifications> = watched.collect();
        let mut results = Results::new(dirs);
        let mut told = None;
        loop {
            // Before looking: what changes from here on wakes us.
            watched.iter_mut().for_each(Notifications::keep_up);
            let found = results.scan();
            if told.as_ref() != Some(&found) {
                told = Some(found.clone());
                if events.send(E::from(found)).is_err() {
                    return;
                }
            }
            wait(&woken, rescan);
        }
    };
    let spawned = thread::Builder::new().name("attachments".into()).spawn(run);
    spawned.map(drop)
}

/// What the files said when they were read last.
struct Results {
    dirs: Vec<PathBuf>,
    /// With when each was written and its length.
    read: BTreeMap<PathBuf, ((SystemTime, u64), Option<Attachment>)>,
}

impl Results {
    fn new(dirs: Vec<PathBuf>) -> Self {
        Self {
            dirs,
            read: BTreeMap::new(),
        }
    }

    fn scan(&mut self) -> Vec<Attachment> {
        let mut before = std::mem::take(&mut self.read);
        let entries = self.dirs.iter().filter_map(|dir| fs::read_dir(dir).ok());
        let entries = entries.flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            let Ok(since) = metadata.modified() else { continue };
            let stamp = (since, metadata.len());
            let found = match before.remove(&path) {
                Some((known, found)) if known == stamp => found,
                _ if metadata.is_file() && metadata.len() <= LONGEST => read(&path, since),
                _ => None,
            };
            self.read.insert(path, (stamp, found));
        }
        let found = self.read.values().filter_map(|(_, found)| found.clone());
        found.collect()
    }
}

fn read(path: &Path, since: SystemTime) -> Option<Attachment> {
    parse(&fs::read(path).ok()?, since)
}

fn parse(bytes: &[u8], since: SystemTime) -> Option<Attachment> {
    let cached: Cached = serde_json::from_slice(bytes).ok()?;
    let argument = |name| {
        let mut found = cached.cni_args.iter().filter(|(key, _)| key == name);
        let (_, value) = found.next()?;
        (!value.is_empty()).then(|| value.clone())
    };
    if cached.kind != KIND || cached.if_name != IFNAME {
        return None;
    }
    // Azure's plug-in names the pod's own interface only, and not where it is.
    let inner = |i: &AnswerInterface| i.name == cached.if_name;
    let interfaces = cached.result.interfaces.iter();
    let host_side = interfaces.filter(|i| i.sandbox.is_empty() && !inner(i));
    Some(Attachment {
        pod: (argument("K8S_POD_NAMESPACE")?, argument("K8S_POD_NAME")?),
        interfaces: host_side.map(|i| (i.name.clone(), i.mac.clone())).collect(),
        addresses: cached.result.ips.iter().map(|ip| ip.address.addr()).collect(),
        since,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use serde_json::{Value, json};

    use super::*;

    fn answer(pod: &str, veth: &str) -> Value {
        json!({
            "kind": "cniCacheV1", "containerId": "c1", "config": "e30=", "ifName": "eth0", "networkName": "cbr0", "netns": "/run/netns/x",
            "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", pod], ["K8S_POD_INFRA_CONTAINER_ID", "c1"]],
            "capabilityArgs": {"portMappings": []},
            "result": {"cniVersion": "1.0.0", "dns": {}, "routes": [{"dst": "0.0.0.0/0"}],
                "interfaces": [{"mac": "02:00:00:00:00:01", "name": "cni0"}, {"mac": "02:00:00:00:00:02", "name": veth},
                    {"mac": "02:00:00:00:00:03", "name": "eth0", "sandbox": "/run/netns/x"}],
                "ips": [{"address": "10.244.1.7/24", "gateway": "10.244.1.1", "interface": 2}, {"address": "fd00::7/64"}]},
        })
    }

    #[test]
    fn answers_are_read_as_libcni_writes_them() {
        let now = SystemTime::now();
        let found = parse(answer("web", "veth1").to_string().as_bytes(), now).unwrap();
        assert_eq!(found.pod, ("shop".to_owned(), "web".to_owned()));
        let names: Vec<&str> = found.interfaces.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["cni0", "veth1"]);
        let addresses: Vec<String> = found.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.244.1.7", "fd00::7"]);
        for (field, value) in [
            ("kind", json!("other")),
            ("ifName", json!("net1")),
            ("cniArgs", json!([["K8S_POD_NAME", "web"]])),
            (
                "cniArgs",
                json!([["K8S_POD_NAME", "web"], ["K8S_POD_NAMESPACE", ""]]),
            ),
            ("result", json!({"ips": [{"address": "nonsense"}]})),
            ("result", json!(7)),
        ] {
            let mut broken = answer("web", "veth1");
            broken[field] = value;
            assert_eq!(parse(broken.to_string().as_bytes(), now), None, "{broken}");
        }
        // What Azure's plug-in answers names no interface of the host.
        let mut azure = answer("web", "veth1");
        azure["result"] = json!({"cniVersion": "0.3.0", "interfaces": [{"name": "eth0"}], "dns": {},
            "ips": [{"version": "4", "address": "10.240.0.9/16", "gateway": "10.240.0.1"}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.240.0.1"}]});
        let found = parse(azure.to_string().as_bytes(), now).unwrap();
        assert_eq!((found.interfaces.len(), found.addresses.len()), (0, 1));
        assert_eq!(parse(b"", now), None);
        assert_eq!(parse(br#"{"kind":"cniCac"#, now), None);
    }

    struct Said(Vec<Attachment>);

    impl From<Vec<Attachment>> for Said {
        fn from(said: Vec<Attachment>) -> Self {
            Self(said)
        }
    }

    #[test]
    fn what_comes_and_goes_is_told_also_of_a_directory_that_is_made_later() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("results");
        let (events, told) = channel::<Said>();
        // By notifications alone.
        let never = Duration::from_secs(3600);
        watch_every(never, vec![dir.clone(), parent.path().join("nowhere")], events).unwrap();
        assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap().0, []);
        let next = || {
            let Said(said) = told.recv_timeout(Duration::from_secs(10)).unwrap();
            said.into_iter().map(|one| one.pod.1).collect::<Vec<_>>()
        };
        fs::create_dir(&dir).unwrap();
        let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
        write("cbr0-c1-eth0", &answer("web", "veth1").to_string());
        assert_eq!(next(), ["web"]);
        write("cbr0-c2-eth0", "");
        write("cbr0-c3-eth0", &answer("db", "veth3").to_string());
        assert_eq!(next(), ["web", "db"]);
        write("cbr0-c2-eth0", &answer("late", "veth2").to_string());
        assert_eq!(next(), ["web", "late", "db"]);
        fs::remove_file(dir.join("cbr0-c1-eth0")).unwrap();
        assert_eq!(next(), ["late", "db"]);
        fs::remove_dir_all(&dir).unwrap();
        let mut left = next();
        while !left.is_empty() {
            left = next();
        }
    }
}
