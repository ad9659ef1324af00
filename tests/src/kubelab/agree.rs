//! Whether the wire and the kernel's tables say what follows from the objects that the API server holds.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use calico_azure_userspace::model::api::watched;
use serde::Deserialize;
use serde_json::{Value, json};

use super::KubeLab;
use crate::apiserver::{Objects, collection};
use crate::lab::{Agent, Port, binary, probe};

/// How long a datagram's echo may take before it counts as denied.
const NEVER: Duration = Duration::from_millis(150);

/// The first packet of a flow between two pods.
#[derive(Clone, Debug)]
pub struct Expected {
    pub from: String,
    pub to: String,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub port: u16,
    /// What policy says.
    pub allow: bool,
}

#[derive(Deserialize)]
struct Line {
    verdict: Option<String>,
    error: Option<String>,
}

/// Datagrams from every pod to every other one on all UDP ports of the cluster, over both families.
#[must_use]
pub fn packets(lab: &KubeLab) -> Vec<Expected> {
    let mut all = Vec::new();
    for from in lab.cluster.pods.values() {
        for to in lab.cluster.pods.values() {
            if from.manifest.key() == to.manifest.key() {
                continue;
            }
            for v6 in [false, true] {
                let (Some(src), Some(dst)) = (from.ip(v6), to.ip(v6)) else {
                    continue;
                };
                for port in lab.cluster.ports() {
                    let Port::Udp(port) = *port else { continue };
                    let (from, to) = (from.manifest.key(), to.manifest.key());
                    all.push(Expected {
                        from,
                        to,
                        src,
                        dst,
                        port,
                        allow: false,
                    });
                }
            }
        }
    }
    all
}

/// Compares what the reference and the compiled tables say of the objects, what each agent's tables in the kernel say, and what comes
/// of real packets. The differences, and how many packets were compared.
pub fn disagreements(lab: &KubeLab) -> Result<(Vec<String>, Vec<Expected>)> {
    let dump = tempfile::tempdir()?;
    dump_objects(&lab.objects, dump.path())?;
    let mut packets = packets(lab);
    let dir = dump.path().display().to_string();
    let said = judged(&packets, &["--engine", "reference", &dir])?;
    let mut findings = Vec::new();
    for (packet, said) in packets.iter_mut().zip(&said) {
        let verdict = said
            .verdict
            .as_deref()
            .with_context(|| said.error.clone().unwrap_or_default())?;
        packet.allow = verdict == "allow";
    }
    let compiled = judged(&packets, &["--engine", "compiled", &dir])?;
    differences("the compiled tables", &packets, &compiled, &mut findings);
    for agent in &lab.agents {
        let args = live_args(agent);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mine: Vec<Expected> = of_node(lab, &packets, agent.node());
        let live = judged(&mine, &args)?;
        differences(
            &format!("the tables of {}", agent.node()),
            &mine,
            &live,
            &mut findings,
        );
    }
    findings.extend(sent(lab, &packets)?);
    Ok((findings, packets))
}

fn live_args(agent: &Agent) -> [String; 7] {
    let run = agent.run_dir().display().to_string();
    [
        "--live".to_owned(),
        "--node".to_owned(),
        agent.node().to_owned(),
        "--pin-name".to_owned(),
        agent.pin_name(),
        "--run-dir".to_owned(),
        run,
    ]
}

/// A node's tables know of its own pods what they may send and receive: all of what goes between two of them, and whether
/// a packet that is allowed as a whole is allowed by its end.
fn of_node(lab: &KubeLab, packets: &[Expected], node: &str) -> Vec<Expected> {
    let is_here = |pod: &str| lab.cluster.pod(pod).is_ok_and(|pod| pod.manifest.node == node);
    let mine = |packet: &&Expected| {
        let here = [&packet.from, &packet.to].map(|pod| is_here(pod));
        here == [true, true] || (here.contains(&true) && packet.allow)
    };
    packets.iter().filter(mine).cloned().collect()
}

fn differences(who: &str, packets: &[Expected], said: &[Line], findings: &mut Vec<String>) {
    for (packet, line) in packets.iter().zip(said) {
        let allow = line.verdict.as_deref() == Some("allow");
        if allow != packet.allow || line.error.is_some() {
            let Expected {
                from, to, dst, port, ..
            } = packet;
            let said = line.error.as_ref().or(line.verdict.as_ref());
            findings.push(format!(
                "{from} to {to} ({dst}, {port}): {who} say {}, policy says allow: {}",
                said.map_or("nothing", String::as_str),
                packet.allow
            ));
        }
    }
}

/// Real packets.
fn sent(lab: &KubeLab, packets: &[Expected]) -> Result<Vec<String>> {
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (name, pod) in &lab.cluster.pods {
            threads.push(scope.spawn(move || -> Result<Vec<String>> {
                let mut findings = Vec::new();
                for packet in packets.iter().filter(|packet| packet.from == *name) {
                    let outcome = probe::udp(pod.net.ns(), packet.dst, packet.port, NEVER)?;
                    if outcome.reached() != packet.allow {
                        let Expected {
                            from,
                            to,
                            dst,
                            port,
                            allow,
                            ..
                        } = packet;
                        findings.push(format!(
                            "{from} to {to} ({dst}, {port}): {outcome}, policy says allow: {allow}"
                        ));
                    }
                }
                Ok(findings)
            }));
        }
        let mut findings = Vec::new();
        for thread in threads {
            let found = thread.join().map_err(|_| anyhow::anyhow!("a probe panicked"))??;
            findings.extend(found);
        }
        Ok(findings)
    })
}

/// Asks `verdict`.
fn judged(packets: &[Expected], args: &[&str]) -> Result<Vec<Line>> {
    let mut command = Command::new(binary()?);
    command.args(["verdict", "--packets", "-"]).args(args);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut lines = Vec::new();
    for (id, packet) in packets.iter().enumerate() {
        let Expected { src, dst, port, .. } = packet;
        let line =
            json!({"id": id, "src": src, "dst": dst, "protocol": "udp", "sport": 40_000, "dport": port});
        writeln!(lines, "{line}")?;
    }
    let mut input = child.stdin.take().context("stdin was piped")?;
    let writer = std::thread::spawn(move || input.write_all(&lines));
    let output = child.wait_with_output()?;
    let _written = writer.join();
    let told = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<Line> = told
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .context("an answer of `verdict`")?;
    ensure!(
        lines.len() == packets.len(),
        "`verdict {}` answered {} of {} packets: {}",
        args.join(" "),
        lines.len(),
        packets.len(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(lines)
}

/// Everything that policy depends on, as manifests.
fn dump_objects(objects: &Objects, dir: &Path) -> Result<()> {
    for (kind, versions) in watched() {
        for api_version in versions {
            let path = collection(api_version, kind.written(), None);
            let Some(items) = objects.list(&path)? else {
                continue;
            };
            let list = json!({"apiVersion": "v1", "kind": "List", "items": items.into_iter().map(stripped).collect::<Vec<_>>()});
            let file = format!("{}.{}.json", kind.as_str(), api_version.replace('/', "-"));
            std::fs::write(dir.join(file), list.to_string())?;
            break;
        }
    }
    Ok(())
}

/// Without what the server keeps for itself.
fn stripped(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    object
}
