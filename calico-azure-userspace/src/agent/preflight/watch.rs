//! Looks at the node again and again while the agent runs: others change sysctls, rules and files at any time. Only `agent` uses this.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::{Finding, Options, Paths, Place, Seen, gather};
use crate::azure::finding::Severity;
use crate::sources::links::LinksError;

/// What the last look came to, in the agent's status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Look {
    pub findings: Vec<Finding>,
    /// What could not be looked at, and why.
    pub unread: Vec<String>,
}

/// Where to look, and how often.
#[derive(Clone, Debug)]
pub(in crate::agent) struct Watch {
    pub(in crate::agent) bpffs: PathBuf,
    pub(in crate::agent) paths: Paths,
    pub(in crate::agent) options: Options,
    pub(in crate::agent) every: Duration,
}

/// Sends what is seen, at once and then at intervals, from a thread of its own, until the receiver is gone.
///
/// # Errors
/// If the thread cannot be started.
pub(in crate::agent) fn start<E>(watch: Watch, events: Sender<E>) -> io::Result<()>
where
    E: From<Result<Box<Seen>, LinksError>> + Send + 'static,
{
    let run = move || {
        let place = Place {
            bpffs: &watch.bpffs,
            paths: &watch.paths,
        };
        while events
            .send(E::from(gather(&place, &watch.options).map(Box::new)))
            .is_ok()
        {
            thread::sleep(watch.every);
        }
    };
    let spawned = thread::Builder::new().name("preflight".into()).spawn(run);
    spawned.map(drop)
}

impl Look {
    /// Puts a later look in its place; the log says what is new, and what is over.
    pub(in crate::agent) fn renew(&mut self, findings: Vec<Finding>, unread: &[String]) {
        let grave = |finding: &&Finding| finding.severity != Severity::Info;
        for Finding {
            check,
            evidence,
            consequence,
            fix,
            ..
        } in findings
            .iter()
            .filter(|new| !self.findings.contains(new))
            .filter(grave)
        {
            tracing::warn!(check = check.name(), ?fix, "{evidence}: {consequence}");
        }
        for over in self
            .findings
            .iter()
            .filter(|old| !findings.contains(old))
            .filter(grave)
        {
            tracing::info!(check = over.check.name(), "no longer so: {}", over.evidence);
        }
        for what in unread.iter().filter(|what| !self.unread.contains(what)) {
            tracing::warn!("not looked at: {what}");
        }
        self.findings = findings;
        self.unread = unread.to_vec();
    }
}
