//! What flannel's daemon and CNI's plug-ins keep in files of a node. Reads only; what cannot be read is named. Only `gather` uses this.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use ipnet::IpNet;
use serde_json::Value;

/// Where a node keeps them; in a container, where the host's directories are mounted.
#[derive(Args, Clone, Debug)]
pub struct Paths {
    /// Where the container runtime keeps what CNI plug-ins answered: whose interface is whose, where names and routes do not tell.
    #[arg(
        long,
        env = "CALICO_AZURE_CNI_RESULTS",
        default_value = "/var/lib/cni/results",
        value_name = "DIR"
    )]
    pub cni_results: PathBuf,
    /// Where host-local keeps which addresses it gave out.
    #[arg(
        long,
        env = "CALICO_AZURE_CNI_NETWORKS",
        default_value = "/var/lib/cni/networks",
        value_name = "DIR"
    )]
    pub cni_networks: PathBuf,
    /// The node's directory of network configurations, which the chained plug-in is kept in, too.
    #[arg(
        long = "cni-conf-dir",
        env = "CALICO_AZURE_CNI_CONF_DIR",
        default_value = "/etc/cni/net.d",
        value_name = "DIR",
        overrides_with = "cni_conf"
    )]
    pub cni_conf: PathBuf,
    /// What flannel's daemon tells its plug-in.
    #[arg(
        long,
        env = "CALICO_AZURE_FLANNEL_ENV",
        default_value = "/run/flannel/subnet.env",
        value_name = "FILE"
    )]
    pub flannel_env: PathBuf,
}

/// `subnet.env`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubnetEnv {
    pub path: String,
    /// By name; `None`: there is no such file, though there is its directory.
    pub said: Option<BTreeMap<String, String>>,
}

/// What host-local has given out for one network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    pub name: String,
    pub dir: String,
    pub reserved: Vec<Reservation>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    pub address: IpAddr,
    /// The container that it was for.
    pub container: String,
    /// For how long it has been.
    pub age: Duration,
}

/// From which host-local is told to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub file: String,
    pub network: String,
    pub net: IpNet,
}

/// `Err`: not even its directory can be looked at.
pub(super) fn subnet_env(path: &Path) -> Result<SubnetEnv, String> {
    let shown = path.display().to_string();
    let said = match fs::read_to_string(path) {
        Ok(text) => {
            let lines = text.lines().filter_map(|line| line.trim().split_once('='));
            Some(
                lines
                    .map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()))
                    .collect(),
            )
        }
        Err(error) if error.kind() == ErrorKind::NotFound && path.parent().is_some_and(Path::is_dir) => None,
        Err(error) => {
            return Err(format!(
                "{shown}: {error}; flannel's daemon writes it (in a container the host's directory must be mounted)"
            ));
        }
    };
    Ok(SubnetEnv { path: shown, said })
}

/// None where host-local has never been.
pub(super) fn pools(dir: &Path, unread: &mut Vec<String>) -> Vec<Pool> {
    let now = SystemTime::now();
    let mut pools = Vec::new();
    for network in entries(dir, unread) {
        if !network.is_dir() {
            continue;
        }
        let mut pool = Pool {
            name: name(&network),
            dir: network.display().to_string(),
            reserved: Vec::new(),
        };
        for file in entries(&network, unread) {
            // Beside a lock, and the last address of each range.
            let Ok(address) = name(&file).parse() else {
                continue;
            };
            let content = fs::read_to_string(&file).unwrap_or_default();
            let since = fs::metadata(&file).and_then(|metadata| metadata.modified()).ok();
            pool.reserved.push(Reservation {
                address,
                container: content.lines().next().unwrap_or_default().trim().to_owned(),
                age: since
                    .and_then(|since| now.duration_since(since).ok())
                    .unwrap_or_default(),
            });
        }
        pool.reserved.sort_by_key(|reservation| reservation.address);
        pools.push(pool);
    }
    pools
}

/// Of the configuration that a container runtime takes: the first, in the order of names.
pub(super) fn ranges(dir: &Path, unread: &mut Vec<String>) -> Vec<Range> {
    let ends = |path: &PathBuf| {
        let end = path.extension().and_then(|end| end.to_str());
        matches!(end, Some("conf" | "conflist" | "json"))
    };
    let Some(file) = entries(dir, unread).into_iter().find(ends) else {
        return Vec::new();
    };
    let shown = file.display().to_string();
    let read = fs::read_to_string(&file).map_err(|error| error.to_string());
    let config: Value =
        match read.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string())) {
            Ok(config) => config,
            Err(error) => {
                unread.push(format!("{shown}: {error}"));
                return Vec::new();
            }
        };
    let network = config["name"].as_str().unwrap_or_default();
    let plugins = config["plugins"].as_array();
    let plugins = plugins.map_or(std::slice::from_ref(&config), Vec::as_slice);
    let mut found = Vec::new();
    for ipam in plugins.iter().map(|plugin| &plugin["ipam"]) {
        if ipam["type"] != "host-local" {
            continue;
        }
        let sets = ipam["ranges"].as_array().into_iter().flatten();
        let of_sets = sets.flat_map(|set| set.as_array().into_iter().flatten());
        let subnets = of_sets.chain([ipam]).filter_map(|range| range["subnet"].as_str());
        // Not `usePodCidr`, which becomes the node's own.
        for net in subnets.filter_map(|subnet| subnet.parse::<IpNet>().ok()) {
            found.push(Range {
                file: shown.clone(),
                network: network.to_owned(),
                net: net.trunc(),
            });
        }
    }
    found
}

/// Sorted; none of a directory that is not there.
fn entries(dir: &Path, unread: &mut Vec<String>) -> Vec<PathBuf> {
    match fs::read_dir(dir) {
        Ok(found) => {
            let mut found: Vec<PathBuf> = found.flatten().map(|entry| entry.path()).collect();
            found.sort();
            found
        }
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                unread.push(format!("{}: {error}", dir.display()));
            }
            Vec::new()
        }
    }
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_flannel_and_host_local_write_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("subnet.env");
        let mut unread = Vec::new();
        assert_eq!(subnet_env(&path).unwrap().said, None);
        assert!(
            subnet_env(Path::new("/nowhere/subnet.env"))
                .unwrap_err()
                .contains("/nowhere")
        );
        fs::write(&path, "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_MTU=1450\n").unwrap();
        let said = subnet_env(&path).unwrap().said.unwrap();
        assert_eq!(
            (said["FLANNEL_NETWORK"].as_str(), said.len()),
            ("10.244.0.0/16", 2)
        );

        let cbr0 = dir.path().join("networks/cbr0");
        fs::create_dir_all(&cbr0).unwrap();
        for (name, content) in [
            ("10.244.1.9", "c1\r\neth0"),
            ("lock", ""),
            ("last_reserved_ip.0", "10.244.1.9"),
        ] {
            fs::write(cbr0.join(name), content).unwrap();
        }
        let pools = pools(&dir.path().join("networks"), &mut unread);
        assert_eq!((pools.len(), pools[0].name.as_str()), (1, "cbr0"));
        let [only] = pools[0].reserved.as_slice() else {
            panic!("{pools:?}");
        };
        assert_eq!(
            (only.address.to_string().as_str(), only.container.as_str()),
            ("10.244.1.9", "c1")
        );

        let conf = dir.path().join("net.d");
        fs::create_dir(&conf).unwrap();
        let text = r#"{"name": "cbr0", "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "subnet": "usePodCidr",
            "ranges": [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00::/64"}]]}}, {"type": "portmap"}]}"#;
        fs::write(conf.join("10-a.conflist"), text).unwrap();
        fs::write(
            conf.join("20-b.conf"),
            r#"{"ipam": {"type": "host-local", "subnet": "10.9.0.0/24"}}"#,
        )
        .unwrap();
        let nets = |unread: &mut Vec<String>| -> Vec<String> {
            ranges(&conf, unread)
                .iter()
                .map(|range| range.net.to_string())
                .collect()
        };
        assert_eq!(nets(&mut unread), ["10.244.1.0/24", "fd00::/64"]);
        fs::remove_file(conf.join("10-a.conflist")).unwrap();
        assert_eq!(nets(&mut unread), ["10.9.0.0/24"]);
        assert_eq!(unread, Vec::<String>::new());
        fs::write(conf.join("00.conf"), "{").unwrap();
        assert_eq!(nets(&mut unread), Vec::<String>::new());
        assert!(unread[0].contains("00.conf"));
    }
}
