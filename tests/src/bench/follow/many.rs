//! A real API server that many agents follow: what each costs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use calico_azure_userspace::model::{Pod, Resource};
use calico_azure_userspace::sources::Event;
use calico_azure_userspace::sources::kube::{KubeConfig, watch_until};
use serde_json::json;

use super::super::Scope;
use super::super::report::{Report, Table};
use super::objects::{self, Life};
use crate::apiserver::{ApiServer, Objects};
use crate::process;

const SOON: Duration = Duration::from_secs(180);
/// What figures are carried to.
const NODES: f64 = 5_000.0;
const EVENTS: f64 = 100.0;

/// Followers that are not agents: they read and keep what an agent reads and keeps, and nothing more.
struct Followers {
    sender: mpsc::Sender<Vec<Event>>,
    in_sync: Arc<AtomicUsize>,
    /// Followers that know the last change.
    told: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    count: usize,
}

/// The server while so many follow it.
struct Row {
    followers: usize,
    /// Processor time of the server for each that began, seconds.
    start: Option<f64>,
    resident: u64,
    /// Processor time of the server for each change, seconds.
    change: f64,
    changes: usize,
}

pub(super) fn run(scope: &Scope, report: &mut Report) -> Result<()> {
    let (pods, steps, seconds) = if scope.quick {
        (20, &[0, 2][..], 1)
    } else {
        (2_000, &[0, 10, 50, 100][..], 15)
    };
    let server = ApiServer::start()?;
    let writer = Objects::connect(server.kubeconfig())?;
    objects::namespaces().try_for_each(|namespace| writer.put(&namespace).map(drop))?;
    for i in 0..pods {
        let pod = objects::pod(i, 100, Life::Runs);
        writer.put(&pod)?;
        writer.put_status(&pod)?;
    }
    let mut followers = Followers::new();
    let mut rows = Vec::new();
    for step in steps {
        rows.push(measure(&server, &writer, &mut followers, *step, pods, seconds)?);
    }
    tell(&rows, pods, report);
    Ok(())
}

fn measure(
    server: &ApiServer,
    writer: &Objects,
    followers: &mut Followers,
    count: usize,
    pods: u32,
    seconds: u64,
) -> Result<Row> {
    let pid = server.pid().context("the API server has ended")?;
    let more = count - followers.count;
    let before = process::processor_time(pid)?;
    followers.grow(server, count)?;
    let start = (more > 0).then_some((process::processor_time(pid)? - before) / more as f64);
    // The garbage of that is none of the changes'.
    thread::sleep(Duration::from_secs(seconds.min(5)));
    let before = process::processor_time(pid)?;
    let (begun, mut changes) = (Instant::now(), 0);
    followers.told.store(0, Ordering::Relaxed);
    while begun.elapsed() < Duration::from_secs(seconds) {
        let number = u32::try_from(changes)?;
        let pod = objects::pod(number % pods, 100, Life::Runs);
        writer.label(&pod, &json!({"version": format!("v{changes}")}))?;
        changes += 1;
    }
    // Changes come in order, and several of one object in a row may come as one.
    writer.label(
        &objects::pod(0, 100, Life::Runs),
        &json!({"version": format!("{LAST}{count}")}),
    )?;
    wait(&followers.told, count, "followers know the last change")?;
    Ok(Row {
        followers: count,
        start,
        resident: process::memory(&pid.to_string(), "VmRSS")?,
        change: (process::processor_time(pid)? - before) / changes as f64,
        changes,
    })
}

impl Followers {
    fn new() -> Self {
        let (sender, receiver) = mpsc::channel::<Vec<Event>>();
        let (in_sync, told) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (synced, heard) = (Arc::clone(&in_sync), Arc::clone(&told));
        // Ends with the last sender.
        thread::spawn(move || {
            for event in receiver.into_iter().flatten() {
                match event {
                    Event::InSync => {
                        synced.fetch_add(1, Ordering::Relaxed);
                    }
                    Event::Upsert(Resource::Pod(pod)) if is_last(&pod) => {
                        heard.fetch_add(1, Ordering::Relaxed);
                    }
                    _ => {}
                }
            }
        });
        Self {
            sender,
            in_sync,
            told,
            stop: Arc::default(),
            count: 0,
        }
    }

    /// Until there are so many, and all know everything.
    fn grow(&mut self, server: &ApiServer, count: usize) -> Result<()> {
        let config = KubeConfig {
            kubeconfig: Some(server.kubeconfig().to_owned()),
            ..KubeConfig::default()
        };
        while self.count < count {
            watch_until(&config, self.sender.clone(), Arc::clone(&self.stop))?;
            self.count += 1;
        }
        wait(&self.in_sync, count, "followers know everything")
    }
}

/// What the label of the last change begins with.
const LAST: &str = "last-";

fn is_last(pod: &Pod) -> bool {
    pod.labels
        .get("version")
        .is_some_and(|version| version.starts_with(LAST))
}

impl Drop for Followers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn wait(counter: &AtomicUsize, until: usize, what: &str) -> Result<()> {
    let end = Instant::now() + SOON;
    loop {
        let now = counter.load(Ordering::Relaxed);
        if now >= until {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{now} {what} in {SOON:?}, expected {until}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn tell(rows: &[Row], pods: u32, report: &mut Report) {
    let mut table = Table::new(
        format!("An API server with {pods} pods"),
        [
            "followers",
            "its processor time for each that begins, ms",
            "resident, MiB",
            "changes",
            "processor time for a change, µs",
            "of it, for each follower, µs",
        ],
    );
    let alone = rows.first().map_or(0.0, |row| row.change);
    let mut each = f64::NAN;
    for row in rows {
        let dash = || "—".into();
        if row.followers > 0 {
            each = (row.change - alone) / row.followers as f64 * 1e6;
        }
        table.row([
            (row.followers as f64).into(),
            row.start.map_or_else(dash, |seconds| (seconds * 1e3).into()),
            (row.resident as f64 / 1_048_576.0).into(),
            (row.changes as f64).into(),
            (row.change * 1e6).into(),
            if row.followers > 0 { each.into() } else { dash() },
        ]);
    }
    report.tables.push(table);
    report.notes.push(format!(
        "Carried on in proportion, not measured: {NODES:.0} followers of {EVENTS:.0} changes a second would keep {:.1} processors of API \
         servers busy. Followers share the processors with the server and are not counted; changes come one after the other.",
        each * NODES * EVENTS / 1e6
    ));
}
