//! Who is meant by `--from` and `--to`.

use std::net::IpAddr;

use super::report::End;
use crate::analysis::Inhabited;
use crate::model::closest;
use crate::policy::Store;
use crate::policy::reference::Oracle;
use crate::policy::topology::pod_name;

/// Nobody is meant.
#[derive(Debug, thiserror::Error)]
pub(super) enum EndError {
    #[error(
        "{flag} {who}: there is no such pod, workload or node among the inputs{}; expected namespace/name of a pod or \
         workload, a node's name, or an address",
        .closest.as_ref().map_or_else(String::new, |name| format!(" (did you mean {name}?)"))
    )]
    Nobody {
        flag: &'static str,
        who: String,
        closest: Option<String>,
    },
    #[error("{flag} {who}: it has no address: {why}")]
    Homeless {
        flag: &'static str,
        who: String,
        why: &'static str,
    },
    #[error("--from {from} and --to {to} have no addresses of one family: {from_has} and {to_has}")]
    Families {
        from: String,
        to: String,
        from_has: String,
        to_has: String,
    },
}

/// Addresses that somebody has, and a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) name: Option<String>,
    pub(super) addresses: Vec<IpAddr>,
    /// What the reader should know.
    pub(super) note: Option<String>,
}

/// Finds somebody.
pub(super) fn find(
    flag: &'static str,
    who: &str,
    world: &Inhabited,
    oracle: &Oracle<'_>,
) -> Result<Known, EndError> {
    let known = |name: String, addresses: Vec<IpAddr>| Known {
        name: Some(name),
        addresses,
        note: None,
    };
    if let Ok(address) = who.parse::<IpAddr>() {
        return Ok(Known {
            name: name_of(address, oracle),
            addresses: vec![address],
            note: None,
        });
    }
    if let Some((namespace, name)) = who.split_once('/') {
        if world.store.pod(namespace, name).is_some() {
            return Ok(known(
                who.to_owned(),
                of_pod(flag, who, namespace, name, &world.store, oracle)?,
            ));
        }
        let pods = world.pods_of(namespace, name);
        if let Some(first) = pods.first() {
            let pod = format!("{namespace}/{first}");
            let addresses = of_pod(flag, who, namespace, first, &world.store, oracle)?;
            let others = pods.len() - 1;
            let note = (others > 0).then(|| format!("{who} has {} pods: this is about {pod}", others + 1));
            return Ok(Known {
                name: Some(pod),
                addresses,
                note,
            });
        }
    }
    let node = world.store.nodes().find(|node| node.name == who);
    let hosts = world.store.host_endpoints();
    let hosts: Vec<_> = hosts
        .filter(|host| host.node == who || host.name == who)
        .collect();
    let mut addresses: Vec<IpAddr> = node.map(|node| node.internal_ips.clone()).unwrap_or_default();
    let is_host = node.is_some() || !hosts.is_empty();
    for address in hosts.iter().flat_map(|host| &host.expected_ips) {
        if !addresses.contains(address) {
            addresses.push(*address);
        }
    }
    if !is_host {
        return Err(EndError::Nobody {
            flag,
            who: who.to_owned(),
            closest: nearest(who, &world.store),
        });
    }
    if addresses.is_empty() {
        return Err(EndError::Homeless {
            flag,
            who: who.to_owned(),
            why: "its Node has no InternalIP among status.addresses, and no host endpoint has expectedIPs",
        });
    }
    Ok(known(format!("host {who}"), addresses))
}

fn of_pod(
    flag: &'static str,
    who: &str,
    namespace: &str,
    name: &str,
    store: &Store,
    oracle: &Oracle<'_>,
) -> Result<Vec<IpAddr>, EndError> {
    let homeless = |why| EndError::Homeless {
        flag,
        who: who.to_owned(),
        why,
    };
    let pod = store.pod(namespace, name).ok_or_else(|| homeless("it is gone"))?;
    let mut endpoints = oracle.topology().endpoints.iter();
    let endpoint =
        endpoints.find(|endpoint| endpoint.pod.namespace == namespace && endpoint.pod.name == name);
    let own = endpoint.map_or(&pod.ips, |endpoint| &endpoint.addresses);
    if !own.is_empty() {
        return Ok(own.clone());
    }
    if pod.host_network {
        let node = store.nodes().find(|node| node.name == pod.node);
        let addresses = node.map(|node| node.internal_ips.clone()).unwrap_or_default();
        let found = Some(addresses).filter(|addresses| !addresses.is_empty());
        return found.ok_or_else(|| homeless("it is on its host's network, and the Node has no InternalIP"));
    }
    Err(homeless(if pod.finished {
        "it has run to its end"
    } else {
        "what it claims belongs to another pod"
    }))
}

/// Who has the address.
fn name_of(address: IpAddr, oracle: &Oracle<'_>) -> Option<String> {
    let owner = oracle
        .topology()
        .owner(address)
        .map(|endpoint| pod_name(endpoint.pod));
    owner.or_else(|| oracle.host_of(address).map(|node| format!("host {node}")))
}

fn nearest(who: &str, store: &Store) -> Option<String> {
    let pods = store.pods().map(|pod| pod_name(pod));
    let workloads = store.workloads().map(|workload| {
        let namespace = workload.key.namespace.as_deref().unwrap_or_default();
        format!("{namespace}/{}", workload.key.name)
    });
    let nodes = store.nodes().map(|node| node.name.clone());
    let names: Vec<String> = pods.chain(workloads).chain(nodes).collect();
    // A pod without its namespace is the likeliest slip.
    let without = names
        .iter()
        .find(|name| name.split_once('/').is_some_and(|(_, name)| name == who));
    let near = || closest(who, names.iter().map(String::as_str)).map(str::to_owned);
    without.cloned().or_else(near)
}

/// An address of each, of one family; IPv4 if there is a choice.
pub(super) fn pair(from: &Known, to: &Known) -> Result<(End, End), EndError> {
    let of = |known: &Known, v4: bool| {
        known
            .addresses
            .iter()
            .find(|address| address.is_ipv4() == v4)
            .copied()
    };
    for v4 in [true, false] {
        if let (Some(src), Some(dst)) = (of(from, v4), of(to, v4)) {
            let end = |known: &Known, address| End {
                name: known.name.clone(),
                address,
            };
            return Ok((end(from, src), end(to, dst)));
        }
    }
    let shown = |known: &Known| known.name.clone().unwrap_or_else(|| list(&known.addresses));
    Err(EndError::Families {
        from: shown(from),
        to: shown(to),
        from_has: list(&from.addresses),
        to_has: list(&to.addresses),
    })
}

fn list(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}
