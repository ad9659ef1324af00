//! `calico-azure doctor --watch`: looks again and again, tells of what is new and of what is over by events of Kubernetes', and of all by
//! metrics. Of several the one that holds a Lease does so.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use prometheus::{Encoder as _, Gauge, GaugeVec, IntCounter, Opts, Registry, TextEncoder};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::{DoctorArgs, Failed, Round, Surroundings};
use crate::agent::pages::{Pages, serve};
use crate::azure::arm::{Remaining, Session as Azure};
use crate::azure::finding::{Check, Finding, Severity};
use crate::azure::nodes;
use crate::cli::{OK, Outcome};
use crate::sources::kube::{Leading, LeaseName, Notice, Session as Cluster, elect};

/// How to go on for ever.
#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// Look again and again; print nothing, but log, write events and serve metrics. Errors are told and tried again.
    #[arg(long, conflicts_with = "nodes")]
    watch: bool,
    /// Between two looks, in seconds.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", requires = "watch", value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    /// Look only while we hold this Lease of coordination.k8s.io; for when several run.
    #[arg(long, value_name = "NAMESPACE/NAME", requires = "watch", value_parser = lease)]
    lease: Option<(String, String)>,
    /// Who we are, in the Lease and in events; no two have the same.
    #[arg(long, env = "POD_NAME", value_name = "NAME", default_value_t = host_name())]
    identity: String,
    /// Where to serve `/metrics`, `/liveness` and `/readiness`.
    #[arg(
        long,
        env = "CALICO_AZURE_DOCTOR_LISTEN",
        value_name = "HOST:PORT|none",
        default_value = "localhost:9093",
        requires = "watch"
    )]
    listen: String,
}

fn lease(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("expected NAMESPACE/NAME".to_owned()),
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

impl WatchArgs {
    pub(super) fn is_wanted(&self) -> bool {
        self.watch
    }
}

/// What is wrong stays wrong: it is told again after this time, because events are forgotten after an hour.
const REMIND: Duration = Duration::from_secs(3000);
/// How often to see whether to stop, or whether the Lease is ours.
const TICK: Duration = Duration::from_millis(100);
/// So many looks in a row that failed, and we are not ready.
const FAILURES: u32 = 3;
const COMPONENT: &str = "calico-azure-doctor";

/// Until SIGTERM or SIGINT.
pub(super) fn run(args: &DoctorArgs, azure: &Azure) -> Outcome {
    let cluster = Cluster::new(&args.kube())?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let told = Arc::new(Told::new()?);
    if args.watch.listen != "none" {
        serve(&args.watch.listen, Arc::clone(&told) as Arc<dyn Pages>)?;
    }
    let identity = args.watch.identity.clone();
    let elected = args.watch.lease.clone().map(|(namespace, name)| {
        let name = LeaseName {
            namespace,
            name,
            identity: identity.clone(),
        };
        elect(&args.kube(), name)
    });
    let elected = elected.transpose()?;
    let leads = || {
        elected
            .as_ref()
            .is_none_or(|(leading, _): &(Arc<Leading>, _)| leading.is_ours())
    };
    let may_write = || {
        if stop.load(Ordering::Relaxed) {
            return Err("we are told to end".to_owned());
        }
        if leads() {
            Ok(())
        } else {
            Err("the Lease is not ours any more".to_owned())
        }
    };
    let mut watch = Watch {
        args,
        azure,
        cluster,
        may_write: &may_write,
        known: BTreeMap::new(),
        told: &told,
    };
    while !stop.load(Ordering::Relaxed) {
        let ours = leads();
        told.figures().leads.set(f64::from(u8::from(ours)));
        if ours {
            watch.look();
        } else {
            watch.forget();
        }
        let next = Instant::now() + Duration::from_secs(args.watch.interval);
        while Instant::now() < next && !stop.load(Ordering::Relaxed) && leads() == ours {
            std::thread::sleep(TICK);
        }
    }
    if let Some((leading, thread)) = elected {
        leading.stop();
        // It says itself what went wrong.
        let _ended = thread.join();
    }
    Ok(OK)
}

/// Two findings with the same are one that has changed its evidence.
type Key = (Check, String, String);

struct Watch<'a> {
    args: &'a DoctorArgs,
    azure: &'a Azure,
    cluster: Cluster,
    /// Asked before each write, and while one waits.
    may_write: &'a dyn Fn() -> Result<(), String>,
    /// What is wrong, and when that was last told.
    known: BTreeMap<Key, (Finding, Instant)>,
    told: &'a Told,
}

impl Watch<'_> {
    fn look(&mut self) {
        match self.round() {
            Ok(round) => {
                for change in round.written.iter().flatten() {
                    tracing::info!(?change, "written to the route table");
                }
                for what in &round.unread {
                    tracing::warn!("not looked at: {what}");
                }
                if let Some(why) = &round.unwritten {
                    tracing::warn!("not written to the route table: {why}");
                }
                let remaining = self.azure.remaining();
                self.told.figures().look(&round, &remaining);
                self.compare(round.findings);
            }
            Err(error) => {
                tracing::error!("cannot look: {error}");
                self.told.figures().fail(&error.to_string());
            }
        }
    }

    fn round(&self) -> Result<Round, Failed> {
        let nodes = || {
            let objects = self.cluster.nodes().map_err(|error| error.to_string())?;
            let nodes: Result<Vec<_>, _> = objects.iter().map(nodes::node).collect();
            nodes.map_err(|error| error.to_string())
        };
        let around = Surroundings {
            nodes: &nodes,
            may_write: self.may_write,
        };
        self.args.round(self.azure, &around)
    }

    /// Tells of what is new, and of what is over.
    fn compare(&mut self, findings: Vec<Finding>) {
        let mut now: BTreeMap<Key, Finding> = BTreeMap::new();
        for finding in findings {
            now.entry((finding.check, finding.object.clone(), finding.part.clone()))
                .or_insert(finding);
        }
        let before = std::mem::take(&mut self.known);
        for (key, (finding, _)) in &before {
            if !now.contains_key(key) {
                tracing::info!(check = finding.check.name(), object = finding.object, "mended");
                self.tell(finding, true);
            }
        }
        for (key, finding) in now {
            let told = before
                .get(&key)
                .map(|(_, told)| *told)
                .filter(|told| told.elapsed() < REMIND);
            let told = told.unwrap_or_else(|| {
                tracing::warn!(check = finding.check.name(), object = finding.object, fix = ?finding.fix, "{}", finding.evidence);
                self.tell(&finding, false);
                Instant::now()
            });
            self.known.insert(key, (finding, told));
        }
    }

    fn tell(&self, finding: &Finding, is_over: bool) {
        if finding.severity == Severity::Info {
            return;
        }
        let notice = notice(finding, is_over);
        let who = (COMPONENT, self.args.watch.identity.as_str());
        if let Err(error) = self.cluster.tell(&notice, who) {
            tracing::warn!("cannot write an event: {error}");
        }
    }

    /// Somebody else looks now.
    fn forget(&mut self) {
        self.known.clear();
        self.told.figures().forget();
    }
}

fn notice(finding: &Finding, is_over: bool) -> Notice {
    let Finding {
        check,
        object,
        evidence,
        consequence,
        fix,
        ..
    } = finding;
    let words = check.name().split('-').map(|word| {
        let mut letters = word.chars();
        letters
            .next()
            .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
    });
    let reason: String = words.collect();
    let message = if is_over {
        format!("{object}: mended: it was said that {evidence}")
    } else {
        let fix = if fix.is_empty() {
            String::new()
        } else {
            format!("; mend it with: {}", fix.join("; "))
        };
        format!("{object}: {evidence}: {consequence}{fix}")
    };
    Notice {
        node: object.strip_prefix("node/").map(str::to_owned),
        reason,
        message,
        warning: !is_over,
    }
}

/// What is served.
struct Told {
    registry: Registry,
    figures: Mutex<Figures>,
}

struct Figures {
    findings: GaugeVec,
    leads: Gauge,
    last: Gauge,
    routes: Gauge,
    nodes: Gauge,
    looks: IntCounter,
    failures: IntCounter,
    writes: IntCounter,
    unwritten: Gauge,
    remaining: GaugeVec,
    /// In a row.
    failed: u32,
    error: String,
}

impl Told {
    fn new() -> Result<Self, prometheus::Error> {
        const NAME: &str = "calico_azure_doctor";
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| -> Result<Gauge, prometheus::Error> {
            let gauge = Gauge::with_opts(Opts::new(format!("{NAME}_{name}"), help))?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::with_opts(Opts::new(format!("{NAME}_{name}"), help))?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let findings = GaugeVec::new(
            Opts::new(format!("{NAME}_findings"), "What is wrong, at the last look."),
            &["check", "severity"],
        )?;
        registry.register(Box::new(findings.clone()))?;
        let remaining = GaugeVec::new(
            Opts::new(
                format!("{NAME}_arm_requests_remaining"),
                "Requests that Azure Resource Manager will still take, by its last answer.",
            ),
            &["kind"],
        )?;
        registry.register(Box::new(remaining.clone()))?;
        let figures = Figures {
            findings,
            leads: gauge("leader", "1 if this one looks.")?,
            last: gauge(
                "last_look_timestamp_seconds",
                "When the last look that succeeded ended.",
            )?,
            routes: gauge("routes", "Routes of the table.")?,
            nodes: gauge("nodes", "Nodes of the cluster.")?,
            looks: counter("looks_total", "Looks that succeeded.")?,
            failures: counter("failures_total", "Looks that failed.")?,
            writes: counter("changes_total", "Changes of the route table.")?,
            unwritten: gauge("unwritten", "1 if the last look could not write what it was to.")?,
            remaining,
            failed: 0,
            error: String::new(),
        };
        Ok(Self {
            registry,
            figures: Mutex::new(figures),
        })
    }

    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Figures {
    fn look(&mut self, round: &Round, remaining: &Remaining) {
        self.findings.reset();
        for finding in &round.findings {
            let severity = finding.severity.to_string();
            self.findings
                .with_label_values(&[finding.check.name(), &severity])
                .inc();
        }
        let table = round.snapshot.table.as_ref();
        self.routes
            .set(table.map_or(0, |table| table.routes.len()) as f64);
        self.nodes.set(round.snapshot.nodes.len() as f64);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        self.last.set(since.unwrap_or_default().as_secs_f64());
        self.looks.inc();
        self.writes
            .inc_by(round.written.as_ref().map_or(0, Vec::len) as u64);
        self.unwritten.set(f64::from(u8::from(round.unwritten.is_some())));
        for (kind, left) in [("read", remaining.reads), ("write", remaining.writes)] {
            if let Some(left) = left {
                self.remaining.with_label_values(&[kind]).set(left as f64);
            }
        }
        self.failed = 0;
    }

    fn fail(&mut self, error: &str) {
        self.failures.inc();
        self.failed += 1;
        error.clone_into(&mut self.error);
    }

    fn forget(&mut self) {
        self.findings.reset();
        self.unwritten.set(0.0);
        self.failed = 0;
    }
}

impl Pages for Told {
    fn ready(&self) -> Result<String, String> {
        let figures = self.figures();
        if figures.failed >= FAILURES {
            return Err(format!(
                "{} looks in a row failed: {}\n",
                figures.failed, figures.error
            ));
        }
        Ok("ready\n".to_owned())
    }

    fn metrics(&self) -> Result<String, String> {
        let mut text = Vec::new();
        let encoded = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        encoded.map_err(|error| error.to_string())?;
        String::from_utf8(text).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_becomes_an_event_about_its_node() {
        let finding = Finding::new(Check::RouteMissing, "node/vm1", "no route to 10.244.1.0/24")
            .fix(["az network route-table route create …".to_owned()]);
        let told = notice(&finding, false);
        assert_eq!(
            (told.node.as_deref(), told.reason.as_str()),
            (Some("vm1"), "RouteMissing")
        );
        assert!(
            told.warning && told.message.contains("mend it with: az network"),
            "{told:?}"
        );
        let over = notice(&finding, true);
        assert!(!over.warning && over.message.contains("mended"), "{over:?}");
        assert_eq!(
            notice(
                &Finding::new(Check::TableMissing, "route-table/rt", "gone"),
                false
            )
            .node,
            None
        );
    }

    #[test]
    fn leases_are_named_with_their_namespace() {
        assert_eq!(lease("a/b"), Ok(("a".to_owned(), "b".to_owned())));
        for bad in ["", "a", "/b", "a/", "a/b/c"] {
            assert!(lease(bad).is_err(), "{bad}");
        }
    }
}
