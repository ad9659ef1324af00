//! The event reader's thread: ring buffer to flow log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use super::staged::StagedTables;
use super::{AgentConfig, AgentError};
use crate::dataplane::ring::{DebugLog, Events};
use crate::observe::{FlowContext, FlowRecord};

/// Names for ids, written after each apply, read for each event.
pub(super) type SharedContext = Arc<RwLock<FlowContext>>;

pub(super) fn start(
    events: Events,
    config: &AgentConfig,
    staged: StagedTables,
) -> Result<SharedContext, AgentError> {
    let context = FlowContext {
        node: config.node.clone(),
        clock_offset: clock_offset(),
        ..FlowContext::default()
    };
    let context = Arc::new(RwLock::new(context));
    let log = config.flow_log.as_deref().map(open).transpose()?;
    let shared = Arc::clone(&context);
    let run = move || read(events, &shared, &staged, log);
    thread::Builder::new()
        .name("events".into())
        .spawn(run)
        .map_err(AgentError::Start)?;
    Ok(context)
}

/// Only with programs that were built to talk.
pub(super) fn forward(mut debug: DebugLog) -> Result<(), AgentError> {
    let run = move || {
        loop {
            debug.forward();
            thread::sleep(Duration::from_millis(100));
        }
    };
    thread::Builder::new()
        .name("bpf-log".into())
        .spawn(run)
        .map(drop)
        .map_err(AgentError::Start)
}

enum Log {
    File(File),
    Stdout,
}

fn open(path: &Path) -> Result<Log, AgentError> {
    if path == Path::new("-") {
        return Ok(Log::Stdout);
    }
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map(Log::File).map_err(|source| AgentError::Io {
        path: path.to_owned(),
        source,
    })
}

fn read(mut events: Events, context: &SharedContext, staged: &StagedTables, mut log: Option<Log>) {
    loop {
        if let Err(error) = events.wait(Duration::from_secs(60)) {
            tracing::error!(%error, "cannot wait for events; there will be no more flow records");
            return;
        }
        let mut lines = Vec::new();
        while let Some(event) = events.next_event() {
            let mut record = context
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .record(&event);
            record.staged = staged.judge(&event, &record);
            trace(&record);
            if log.is_some() && serde_json::to_writer(&mut lines, &record).is_ok() {
                lines.push(b'\n');
            }
        }
        let written = match &mut log {
            _ if lines.is_empty() => Ok(()),
            Some(Log::File(file)) => file.write_all(&lines),
            Some(Log::Stdout) => io::stdout().lock().write_all(&lines),
            None => Ok(()),
        };
        if let Err(error) = written {
            tracing::error!(%error, "cannot write flow records");
        }
    }
}

fn trace(record: &FlowRecord) {
    let FlowRecord {
        verdict,
        reason,
        hook,
        interface,
        endpoint,
        src,
        dst,
        dport,
        rule,
        log,
        ..
    } = record;
    let (endpoint, rule) = (endpoint.as_deref().unwrap_or("-"), rule.as_deref().unwrap_or("-"));
    if *log {
        tracing::info!(
            verdict,
            reason,
            hook,
            interface,
            endpoint,
            ?src,
            ?dst,
            dport,
            rule,
            "packet matched a Log rule"
        );
    } else {
        tracing::trace!(
            verdict,
            reason,
            hook,
            interface,
            endpoint,
            ?src,
            ?dst,
            dport,
            rule,
            "packet"
        );
    }
}

/// Events carry the monotonic clock.
fn clock_offset() -> u64 {
    let read = |clock| {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: writes one timespec.
        let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
        let nanos = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
        if result == 0 { nanos } else { 0 }
    };
    u64::try_from(read(libc::CLOCK_REALTIME) - read(libc::CLOCK_MONOTONIC)).unwrap_or(0)
}
