//! Metrics in Prometheus' text format: Felix's names where they mean the same, and what Felix does not tell. Counters are the kernel's own,
//! read when somebody asks.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use prometheus::core::Collector as _;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder as _, GaugeVec, IntCounterVec, Opts, TextEncoder};

use super::events::SharedContext;
use super::vitals::{Conntrack, Seen, Vitals};
use crate::dataplane::counters::Counters;
use crate::sources::kube::KubeStatus;

/// What is asked.
pub(super) struct Metrics {
    vitals: Arc<Vitals>,
    counters: Counters,
    context: SharedContext,
    /// Of each table.
    limits: BTreeMap<&'static str, u32>,
}

/// Metrics cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum MetricsError {
    #[error("reading the kernel's counters: {0}")]
    Counters(#[from] std::io::Error),
    #[error("{0}")]
    Format(#[from] prometheus::Error),
}

type Result<T> = std::result::Result<T, MetricsError>;

impl Metrics {
    pub(super) fn new(
        vitals: Arc<Vitals>,
        counters: Counters,
        context: SharedContext,
        limits: BTreeMap<&'static str, u32>,
    ) -> Self {
        Self {
            vitals,
            counters,
            context,
            limits,
        }
    }

    /// All of them.
    pub(super) fn text(&self) -> Result<String> {
        let mut families = Families::default();
        let seen = self.vitals.seen();
        of_felix(&mut families, &seen, self.vitals.conntrack())?;
        self.packets(&mut families)?;
        self.tables(&mut families, &seen)?;
        own(&mut families, &seen)?;
        if let Some(kube) = self.vitals.kube() {
            of_api(&mut families, kube, self.vitals.now())?;
        }
        process(&mut families)?;
        let mut text = Vec::new();
        TextEncoder::new().encode(&families.0, &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn packets(&self, families: &mut Families) -> Result<()> {
        let totals = self.counters.totals()?;
        let rows = |value: fn(&calico_azure_ebpf::abi::CounterValue) -> u64| {
            let row = move |((hook, reason), counter): (&(_, _), &_)| {
                let (hook, reason): (calico_azure_ebpf::abi::Hook, calico_azure_ebpf::abi::Reason) =
                    (*hook, *reason);
                let verdict = if reason.passes() { "pass" } else { "drop" };
                (
                    vec![
                        hook.as_str().to_owned(),
                        reason.as_str().to_owned(),
                        verdict.to_owned(),
                    ],
                    value(counter),
                )
            };
            totals.iter().map(row).collect::<Vec<_>>()
        };
        let labels = ["hook", "reason", "verdict"];
        families.counters(
            "calico_azure_packets_total",
            "Packets by where they were judged, why, and what became of them.",
            &labels,
            rows(|counter| counter.packets),
        )?;
        families.counters(
            "calico_azure_bytes_total",
            "Bytes of those packets.",
            &labels,
            rows(|counter| counter.bytes),
        )?;
        families.counters(
            "calico_azure_flow_records_lost_total",
            "Flow records that were not written: the ring was full, or the limit on them was reached.",
            &[],
            [(Vec::new(), self.counters.lost_records()?)],
        )?;
        let drops = self.counters.drops()?;
        let context = self.context.read().unwrap_or_else(PoisonError::into_inner);
        let mut by_endpoint: BTreeMap<Vec<String>, u64> = BTreeMap::new();
        for (key, counter) in drops {
            let reason = u8::try_from(key.reason).unwrap_or(0);
            let (Ok(hook), Ok(reason)) = (
                calico_azure_ebpf::abi::Hook::try_from(u8::try_from(key.hook).unwrap_or(0)),
                calico_azure_ebpf::abi::Reason::try_from(reason),
            ) else {
                continue;
            };
            // Interfaces that are gone keep their counters in the kernel, and have no name any more.
            let Some(interface) = context.interfaces.get(&key.ifindex) else {
                continue;
            };
            let endpoint = context.endpoints.get(&key.ifindex).cloned().unwrap_or_default();
            let labels = vec![
                interface.clone(),
                endpoint,
                hook.as_str().to_owned(),
                reason.as_str().to_owned(),
            ];
            *by_endpoint.entry(labels).or_default() += counter.packets;
        }
        families.counters(
            "calico_azure_endpoint_drops_total",
            "Packets that were dropped at an interface; endpoint is the pod behind it, if there is one.",
            &["interface", "endpoint", "hook", "reason"],
            by_endpoint,
        )
    }

    fn tables(&self, families: &mut Families, seen: &Seen) -> Result<()> {
        let entries = seen
            .tables
            .iter()
            .map(|(table, entries)| (vec![(*table).to_owned()], *entries as f64));
        families.gauges(
            "calico_azure_table_entries",
            "Entries of the tables that hold policy.",
            &["table"],
            entries,
        )?;
        let limits = self
            .limits
            .iter()
            .map(|(table, limit)| (vec![(*table).to_owned()], f64::from(*limit)));
        families.gauges(
            "calico_azure_table_limit",
            "Entries that a table can hold.",
            &["table"],
            limits,
        )
    }
}

fn of_felix(families: &mut Families, seen: &Seen, conntrack: Conntrack) -> Result<()> {
    let Seen { status, cluster, .. } = seen;
    let endpoints = status.endpoints.len() as f64;
    let dirty = seen.failed_endpoints as f64;
    for (name, help, value) in [
        (
            "felix_active_local_endpoints",
            "Pods on this node that policy applies to.",
            endpoints,
        ),
        (
            "felix_active_local_policies",
            "Policies that decide something on this node.",
            seen.active_policies as f64,
        ),
        (
            "felix_cluster_num_hosts",
            "Nodes in the cluster.",
            cluster[0] as f64,
        ),
        (
            "felix_cluster_num_workload_endpoints",
            "Pods in the cluster.",
            cluster[1] as f64,
        ),
        (
            "felix_cluster_num_host_endpoints",
            "Host endpoints in the cluster.",
            cluster[2] as f64,
        ),
        (
            "felix_cluster_num_policies",
            "Policies in the cluster.",
            cluster[3] as f64,
        ),
        (
            "felix_cluster_num_profiles",
            "Profile objects in the cluster.",
            cluster[4] as f64,
        ),
        (
            "felix_cluster_num_tiers",
            "Tier objects in the cluster.",
            cluster[5] as f64,
        ),
        (
            "felix_resync_state",
            "1: waiting for the sources; 2: everything is read but not yet in the kernel; 3: in sync.",
            match (seen.in_sync, status.ready) {
                (false, _) => 1.0,
                (true, false) => 2.0,
                (true, true) => 3.0,
            },
        ),
        (
            "felix_bpf_dataplane_endpoints",
            "Pods' interfaces with programs.",
            endpoints,
        ),
        (
            "felix_bpf_happy_dataplane_endpoints",
            "Of those, the ones with current programs.",
            (endpoints - dirty).max(0.0),
        ),
        (
            "felix_bpf_dirty_dataplane_endpoints",
            "Interfaces that programs could not be attached to.",
            dirty,
        ),
        (
            "felix_bpf_conntrack_used",
            "Conntrack entries after the last sweep.",
            conntrack.entries as f64,
        ),
        (
            "felix_bpf_conntrack_sweep_duration_seconds",
            "What the last sweep took.",
            conntrack.last.as_secs_f64(),
        ),
        (
            "felix_int_dataplane_apply_time_seconds",
            "What the last apply took.",
            seen.apply_seconds,
        ),
    ] {
        families.gauges(name, help, &[], [(Vec::new(), value)])?;
    }
    for (name, help, value) in [
        (
            "felix_int_dataplane_failures",
            "Applies that failed and were tried again.",
            seen.failures,
        ),
        (
            "felix_int_dataplane_messages",
            "Messages of sources.",
            status.inputs_seen,
        ),
        (
            "felix_bpf_conntrack_sweeps",
            "Sweeps of conntrack.",
            conntrack.sweeps,
        ),
        (
            "felix_bpf_conntrack_cleaned_total",
            "Conntrack entries that sweeps removed.",
            conntrack.removed,
        ),
    ] {
        families.counters(name, help, &[], [(Vec::new(), value)])?;
    }
    Ok(())
}

fn own(families: &mut Families, seen: &Seen) -> Result<()> {
    let Seen { status, .. } = seen;
    for (name, help, value) in [
        (
            "calico_azure_epoch",
            "Changes of policy that the kernel has seen.",
            f64::from(status.epoch),
        ),
        (
            "calico_azure_problems",
            "What is wrong with the inputs, with policy or on this node; the status says what.",
            status.problems.len() as f64,
        ),
        (
            "calico_azure_last_change_seconds",
            "From the last change's arrival to the moment every packet obeyed it.",
            status.last_change_us as f64 / 1e6,
        ),
        (
            "calico_azure_cold_start_seconds",
            "From the agent's start to the moment everything was in the kernel and in force; 0 until it is.",
            status.cold_start_us as f64 / 1e6,
        ),
        (
            "calico_azure_last_operations",
            "Map operations of the last apply.",
            status.last_operations as f64,
        ),
    ] {
        families.gauges(name, help, &[], [(Vec::new(), value)])?;
    }
    if let Some(plugin) = &status.cni_plugin {
        families.gauges(
            "calico_azure_cni_plugin_installed",
            "1 while the chained CNI plug-in is in the network configuration that the container runtime uses.",
            &[],
            [(Vec::new(), f64::from(u8::from(!plugin.configuration.is_empty())))],
        )?;
        families.counters(
            "calico_azure_cni_plugin_installs_total",
            "How often it was put there.",
            &[],
            [(Vec::new(), plugin.installs)],
        )?;
    }
    families.counters(
        "calico_azure_applies_total",
        "Applies that got through.",
        &[],
        [(Vec::new(), status.applies)],
    )
}

fn of_api(families: &mut Families, kube: &KubeStatus, now: Instant) -> Result<()> {
    let kinds = kube.kinds_at(now);
    let label = |kind: &crate::sources::kube::KindStatus| vec![kind.kind.to_owned()];
    let labels = ["kind"];
    families.gauges(
        "calico_azure_api_synced",
        "1 once a kind has been read to its end.",
        &labels,
        kinds
            .iter()
            .map(|kind| (label(kind), f64::from(u8::from(kind.synced)))),
    )?;
    families.gauges(
        "calico_azure_api_objects",
        "Objects of a kind.",
        &labels,
        kinds.iter().map(|kind| (label(kind), kind.objects as f64)),
    )?;
    families.gauges(
        "calico_azure_api_silence_seconds",
        "Since the API server last said anything about a kind, bookmarks included.",
        &labels,
        kinds
            .iter()
            .filter_map(|kind| Some((label(kind), kind.seconds_since_heard?))),
    )?;
    families.counters(
        "calico_azure_api_relists_total",
        "Lists that were needed after the first one.",
        &labels,
        kinds.iter().map(|kind| (label(kind), kind.relists)),
    )?;
    families.counters(
        "calico_azure_api_errors_total",
        "Requests that failed.",
        &labels,
        kinds.iter().map(|kind| (label(kind), kind.errors)),
    )
}

/// Under the names that client libraries use.
fn process(families: &mut Families) -> Result<()> {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u32>().ok());
    // SAFETY: sysconf has no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    if let Some(pages) = pages {
        families.gauges(
            "process_resident_memory_bytes",
            "Resident memory.",
            &[],
            [(Vec::new(), f64::from(pages) * page as f64)],
        )?;
    }
    let open = std::fs::read_dir("/proc/self/fd")
        .map(Iterator::count)
        .unwrap_or(0);
    families.gauges(
        "process_open_fds",
        "Open file descriptors.",
        &[],
        [(Vec::new(), open as f64)],
    )
}

#[derive(Default)]
struct Families(Vec<MetricFamily>);

impl Families {
    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
        rows: impl IntoIterator<Item = (Vec<String>, f64)>,
    ) -> Result<()> {
        let gauges = GaugeVec::new(Opts::new(name, help), labels)?;
        for (values, value) in rows {
            gauges.get_metric_with_label_values(&values)?.set(value);
        }
        self.0.extend(
            gauges
                .collect()
                .into_iter()
                .filter(|family| !family.get_metric().is_empty()),
        );
        Ok(())
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
        rows: impl IntoIterator<Item = (Vec<String>, u64)>,
    ) -> Result<()> {
        let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
        for (values, value) in rows {
            counters.get_metric_with_label_values(&values)?.inc_by(value);
        }
        self.0.extend(
            counters
                .collect()
                .into_iter()
                .filter(|family| !family.get_metric().is_empty()),
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::Kind;

    #[test]
    fn silence_of_an_api_is_a_metric_for_each_kind() {
        let (kube, then) = (KubeStatus::default(), Instant::now());
        kube.pretend(Kind::Pod, "v1", Some(then));
        kube.pretend(
            Kind::Tier,
            "crd.projectcalico.org/v1",
            Some(then + Duration::from_secs(290)),
        );
        kube.pretend(Kind::Node, "v1", None);
        let mut families = Families::default();
        of_api(&mut families, &kube, then + Duration::from_secs(300)).unwrap();
        let mut text = Vec::new();
        TextEncoder::new().encode(&families.0, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let silence = text
            .lines()
            .filter_map(|line| line.strip_prefix("calico_azure_api_silence_seconds"));
        let silence: Vec<&str> = silence.collect();
        assert_eq!(silence, ["{kind=\"Pod\"} 300", "{kind=\"Tier\"} 10"]);
    }
}
