//! A cluster that outlives its demo: servers in processes of their own, instructions, removal.

use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use anyhow::{Context as _, bail};

use super::screen::{Colour, Screen};
use crate::lab::probe::Server;
use crate::lab::{self, Cluster, NetNs, Port};

/// Leaves the cluster up, served by processes of its own, and says how to look around.
pub(super) fn keep(mut cluster: Cluster, screen: &Screen) -> anyhow::Result<()> {
    let (outside, ports) = (cluster.internet.ns.clone(), cluster.outside_ports().to_vec());
    cluster.stop_servers();
    for pod in cluster.pods.values() {
        spawn(pod.net.ns(), pod.net.ips(), pod.serves())?;
    }
    let addresses: Vec<_> = super::matrix::OUTSIDE.iter().map(|(_, ip)| *ip).collect();
    spawn(&outside, &addresses, &ports)?;

    let db = cluster
        .pod("data/db")?
        .ip(false)
        .context("data/db has no IPv4 address")?;
    let manifests = cluster.source.dir().to_owned();
    let logs = cluster.dir.log();
    let id = cluster.keep();
    screen.text("");
    screen.text(&screen.paint(Colour::Bold, &format!("Kept as {id}.")));
    let connect = |pod: &str| {
        format!("ip netns exec {id}-{pod} timeout 1 bash -c '</dev/tcp/{db}/5432' && echo reached")
    };
    let (manifests, logs) = (manifests.display(), logs.display());
    for (what, how) in [
        (
            "namespaces of nodes, pods, fabric, internet",
            format!("ip netns list | grep {id}-"),
        ),
        (
            "a node's interfaces and routes",
            format!("ip -n {id}-node-1 address; ip -n {id}-node-1 route"),
        ),
        ("a connection that the policies allow", connect("shop-api-1")),
        ("and one that they deny", connect("shop-frontend-1")),
        (
            "manifests: edit them, the agents watch",
            format!("ls {manifests}"),
        ),
        (
            "what was denied and why",
            format!("tail -f {logs}/node-1.flows.jsonl"),
        ),
        (
            "what the fabric discarded",
            format!("ip netns exec {id}-fabric nft list counters"),
        ),
        ("remove all of it", format!("cargo xtask demo --remove {id}")),
    ] {
        screen.text(&format!("{what}:"));
        screen.text(&format!("    {how}"));
    }
    Ok(())
}

/// Removes one lab, or all whose process has ended.
pub(super) fn remove(screen: &Screen, lab: Option<&str>) -> anyhow::Result<()> {
    let ids: Vec<_> = match lab {
        Some(id) => vec![id.to_owned()],
        None => lab::labs()
            .into_iter()
            .filter(|(_, alive)| !alive)
            .map(|(id, _)| id)
            .collect(),
    };
    if ids.is_empty() {
        screen.text("there is no lab to remove");
    }
    for id in ids {
        lab::remove(&id)?;
        screen.good(&format!("removed {id}"));
    }
    Ok(())
}

/// Serves until killed.
pub(super) fn serve(addresses: &str, ports: &str) -> anyhow::Result<()> {
    let addresses: Result<Vec<IpAddr>, _> = addresses.split(',').map(str::parse).collect();
    let addresses = addresses.context("addresses: expected IP addresses with commas between them")?;
    let ports = ports.split(',').map(port).collect::<anyhow::Result<Vec<_>>>()?;
    let _server = Server::start_here(&addresses, &ports)?;
    loop {
        std::thread::park();
    }
}

fn spawn(ns: &NetNs, addresses: &[IpAddr], ports: &[Port]) -> anyhow::Result<()> {
    let join = |words: Vec<String>| words.join(",");
    let ports = ports.iter().map(|port| match port {
        Port::Tcp(port) => format!("tcp/{port}"),
        Port::Udp(port) => format!("udp/{port}"),
    });
    let exe = std::env::current_exe().context("cannot find the running executable")?;
    ns.command(exe)
        .arg("serve")
        .arg(join(addresses.iter().map(ToString::to_string).collect()))
        .arg(join(ports.collect()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A Ctrl-C in this terminal is no longer meant for it.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot serve in {}", ns.name()))?;
    Ok(())
}

fn port(text: &str) -> anyhow::Result<Port> {
    let number = |text: &str| text.parse().with_context(|| format!("{text}: expected a port"));
    match text.split_once('/') {
        Some(("tcp", port)) => Ok(Port::Tcp(number(port)?)),
        Some(("udp", port)) => Ok(Port::Udp(number(port)?)),
        _ => bail!("{text}: expected tcp/PORT or udp/PORT"),
    }
}
