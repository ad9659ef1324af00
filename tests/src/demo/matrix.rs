//! Every pair of endpoints, probed in parallel, each compared with what the policies say.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Findings;
use super::expect::{Expected, Policies, expected};
use super::screen::Screen;
use crate::lab::probe::{self, Kind, Outcome};
use crate::lab::{Cluster, LabError, NetNs, Port, plan};

/// How long silence must last to be a denial.
const TIMEOUT: Duration = Duration::from_millis(300);
/// For the second try of what must be answered, should this machine be busy.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Probes at once from one namespace.
const WORKERS: usize = 8;

/// Where the world outside is reached.
pub(super) const OUTSIDE: [(&str, IpAddr); 4] = [
    ("outside", IpAddr::V4(plan::OUTSIDE_V4)),
    ("outside", IpAddr::V6(plan::OUTSIDE_V6)),
    ("threat", IpAddr::V4(plan::THREAT_V4)),
    ("threat", IpAddr::V6(plan::THREAT_V6)),
];

/// One probe and what must come of it.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) src: String,
    pub(super) dst: String,
    pub(super) dst_ip: IpAddr,
    pub(super) kind: Kind,
    pub(super) expected: Expected,
    ns: NetNs,
}

/// One probe and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub(super) case: Case,
    pub(super) outcome: Outcome,
    /// The answer came at the second try only.
    pub(super) retried: bool,
}

impl Checked {
    /// Every pod serves every port that is probed, so an allowed probe is one that is answered.
    pub(super) fn ok(&self) -> bool {
        if self.case.expected.allow {
            self.outcome.reached()
        } else {
            !self.outcome.passed()
        }
    }
}

/// Probes of a cluster's ports, and ICMP.
pub(super) fn kinds(cluster: &Cluster) -> Vec<Kind> {
    let ports = cluster.ports().iter().map(|port| match *port {
        Port::Tcp(port) => Kind::Tcp(port),
        Port::Udp(port) => Kind::Udp(port),
    });
    ports.chain([Kind::Icmp]).collect()
}

/// Pods to pods, pods to the outside, nodes to their own pods.
pub(super) fn all(cluster: &Cluster) -> anyhow::Result<Vec<Case>> {
    let policies = Policies::load(cluster.source.dir())?;
    let oracle = policies.oracle();
    let mut cases = Vec::new();
    for (src, from) in &cluster.pods {
        let mut add = |dst: &str, dst_ip: IpAddr, kinds: &[Kind]| {
            let Some(src_ip) = from.ip(dst_ip.is_ipv6()) else {
                return;
            };
            for kind in kinds {
                let expected = expected(&oracle, src_ip, dst_ip, *kind);
                let ns = from.net.ns().clone();
                cases.push(Case {
                    src: src.clone(),
                    dst: dst.to_owned(),
                    dst_ip,
                    kind: *kind,
                    expected,
                    ns,
                });
            }
        };
        let kinds = kinds(cluster);
        for (dst, to) in cluster.pods.iter().filter(|(dst, _)| *dst != src) {
            for ip in to.net.ips() {
                add(dst, *ip, &kinds);
            }
        }
        for (name, ip) in OUTSIDE {
            add(name, ip, &[Kind::Tcp(443), Kind::Icmp]);
        }
    }
    // Kubelet must reach the pods of its own node whatever the policies say.
    for pod in cluster.pods.values() {
        let node = cluster.node(&pod.manifest.node)?;
        for ip in pod.net.ips() {
            for kind in kinds(cluster) {
                let rule = "a node reaches its own pods".to_owned();
                let expected = Expected {
                    allow: true,
                    by: None,
                    rule,
                };
                let (src, dst) = (node.name().to_owned(), pod.manifest.key());
                cases.push(Case {
                    src,
                    dst,
                    dst_ip: *ip,
                    kind,
                    expected,
                    ns: node.ns().clone(),
                });
            }
        }
    }
    Ok(cases)
}

/// All that is allowed and every `nth` of the rest: enough to notice a change, in a second.
pub(super) fn sample(cluster: &Cluster, nth: usize) -> anyhow::Result<Vec<Case>> {
    let mut cases = all(cluster)?;
    let mut denied = 0;
    cases.retain(|case| {
        denied += usize::from(!case.expected.allow);
        case.expected.allow || denied % nth == 0
    });
    Ok(cases)
}

/// Runs the probes.
pub(super) fn check(cluster: &Cluster, screen: &Screen, cases: Vec<Case>) -> anyhow::Result<Vec<Checked>> {
    let total = cases.len();
    let mut queues: BTreeMap<String, (NetNs, VecDeque<Case>)> = BTreeMap::new();
    for case in cases {
        let queue = queues
            .entry(case.src.clone())
            .or_insert_with(|| (case.ns.clone(), VecDeque::new()));
        queue.1.push_back(case);
    }
    debug_assert!(
        queues
            .keys()
            .all(|src| cluster.pod(src).is_ok() || cluster.node(src).is_ok())
    );
    let done = AtomicUsize::new(0);
    let queues: Vec<_> = queues
        .into_values()
        .map(|(ns, queue)| (ns, Mutex::new(queue)))
        .collect();
    let results: Result<Vec<Vec<Checked>>, LabError> = std::thread::scope(|scope| {
        let workers: Vec<_> = queues
            .iter()
            .flat_map(|queue| std::iter::repeat_n(queue, WORKERS))
            .map(|(ns, queue)| scope.spawn(|| work(ns, queue, &done)))
            .collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            screen.progress(&format!("{} of {total} probes", done.load(Ordering::Relaxed)));
            std::thread::sleep(Duration::from_millis(50));
        }
        let panicked = || LabError::Panicked {
            place: "a probe".to_owned(),
        };
        workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| panicked())?)
            .collect()
    });
    let mut results: Vec<_> = results?.into_iter().flatten().collect();
    results.sort_by(|a, b| {
        let key = |c: &Checked| (c.case.src.clone(), c.case.dst.clone(), c.case.dst_ip, c.case.kind);
        key(a).cmp(&key(b))
    });
    for checked in &results {
        screen.detail(|| line(checked));
    }
    Ok(results)
}

fn work(ns: &NetNs, queue: &Mutex<VecDeque<Case>>, done: &AtomicUsize) -> Result<Vec<Checked>, LabError> {
    ns.enter()?;
    let mut results = Vec::new();
    loop {
        // The guard must be gone before the probe, or the workers would wait for each other.
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(case) = next else { return Ok(results) };
        let mut outcome = probe::here(case.kind, case.dst_ip, TIMEOUT)?;
        // Only ever for what must pass: a second try must not turn a wrong allow into a denial.
        let retried = case.expected.allow && !outcome.reached();
        if retried {
            outcome = probe::here(case.kind, case.dst_ip, PATIENCE)?;
        }
        results.push(Checked {
            case,
            outcome,
            retried,
        });
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Reports what is not as expected. Returns whether everything is.
pub(super) fn judge(screen: &Screen, findings: &mut Findings, checked: &[Checked]) -> bool {
    let wrong: Vec<_> = checked.iter().filter(|checked| !checked.ok()).collect();
    for checked in &wrong {
        findings.add(screen, line(checked));
    }
    let slow = checked
        .iter()
        .filter(|checked| checked.retried && checked.ok())
        .count();
    if slow > 0 {
        screen.warn(&format!(
            "{slow} allowed probes were answered at the second try only (a busy machine?)"
        ));
    }
    let allowed = checked
        .iter()
        .filter(|checked| checked.case.expected.allow)
        .count();
    if wrong.is_empty() {
        let denied = checked.len() - allowed;
        screen.good(&format!(
            "{} probes, {allowed} allowed and {denied} denied, as the policies say",
            checked.len()
        ));
    }
    wrong.is_empty()
}

fn line(checked: &Checked) -> String {
    let Checked { case, outcome, .. } = checked;
    let must = if case.expected.allow { "allow" } else { "deny" };
    format!(
        "{} -> {} ({}) {}: {outcome}; must {must}: {}",
        case.src, case.dst, case.dst_ip, case.kind, case.expected.rule
    )
}
