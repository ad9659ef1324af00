//! Whether the agent lives, and whether it is ready: a verdict and a table that says why, like Felix's.

use std::fmt::Write as _;
use std::time::Duration;

use super::vitals::{Seen, Vitals};

/// A batch that takes longer is stuck. Even a whole cluster is through in seconds.
const STUCK: Duration = Duration::from_secs(90);
/// An API server that says nothing for so long, not even in bookmarks, is away.
const SILENT: f64 = 240.0;

/// An answer: whether it is a good one, and what each part says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) good: bool,
    pub(super) text: String,
}

/// Whether restarting the agent would help.
pub(super) fn liveness(vitals: &Vitals) -> Health {
    let mut table = Table::default();
    let busy = vitals.busy();
    let stuck = busy.filter(|busy| *busy > STUCK);
    table.row(
        "policy",
        stuck.is_none(),
        &match (stuck, busy) {
            (Some(busy), _) => format!("at the same batch for {} s", busy.as_secs()),
            (None, Some(_)) => "at work".to_owned(),
            (None, None) => "waiting for changes".to_owned(),
        },
    );
    table.into()
}

/// Whether what the sources said is in the kernel. A source that is away for a while does not make the agent unready: what it said
/// last is enforced. It is named.
pub(super) fn readiness(vitals: &Vitals) -> Health {
    let Seen { status, in_sync, .. } = vitals.seen();
    let mut table = Table::default();
    table.row(
        "sources",
        in_sync,
        if in_sync {
            "every one has been read"
        } else {
            "not everything has been read yet; nothing new is enforced before that"
        },
    );
    let applied = format!("epoch {}, {} applies", status.epoch, status.applies);
    table.row("kernel", status.ready, &applied);
    if let Some(kube) = vitals.kube() {
        for kind in kube.kinds_at(vitals.now()) {
            let silent = kind.seconds_since_heard.unwrap_or_default();
            let text = match &kind.last_error {
                Some(error) if !kind.synced || silent > SILENT => format!("{}: {error}", kind.api),
                _ if !kind.synced => format!("{}: being read", kind.api),
                _ if silent > SILENT => format!("{}: stale, nothing heard for {silent:.0} s", kind.api),
                _ => format!("{}: {} objects", kind.api, kind.objects),
            };
            table.row(kind.kind, kind.synced, &text);
        }
    }
    for problem in &status.problems {
        table.note(problem);
    }
    table.into()
}

struct Table {
    good: bool,
    text: String,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            good: true,
            text: format!("{:<24} {:<6} DETAIL\n", "COMPONENT", "OK"),
        }
    }
}

impl Table {
    fn row(&mut self, component: &str, good: bool, detail: &str) {
        self.good &= good;
        let _infallible = writeln!(
            self.text,
            "{component:<24} {:<6} {detail}",
            if good { "yes" } else { "NO" }
        );
    }

    fn note(&mut self, text: &str) {
        let _infallible = writeln!(self.text, "note: {text}");
    }
}

impl From<Table> for Health {
    fn from(Table { good, text }: Table) -> Self {
        Self { good, text }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::agent::vitals::tests::by_hand;
    use crate::model::Kind;
    use crate::sources::kube::KubeStatus;

    #[test]
    fn an_agent_is_ready_once_everything_is_read_and_in_the_kernel() {
        let vitals = Vitals::default();
        let before = readiness(&vitals);
        assert!(!before.good && before.text.contains("sources") && before.text.contains("NO"));
        vitals.publish(|seen| seen.in_sync = true);
        assert!(!readiness(&vitals).good);
        vitals.publish(|seen| {
            seen.status.ready = true;
            seen.status.epoch = 7;
            seen.status.problems = vec!["pod a/b: something".into()];
        });
        let after = readiness(&vitals);
        assert!(after.good, "{}", after.text);
        assert!(after.text.contains("epoch 7") && after.text.contains("note: pod a/b: something"));
    }

    #[test]
    fn an_agent_that_is_stuck_is_to_be_restarted() {
        let (clock, vitals) = by_hand();
        vitals.begin();
        clock.store(90, Ordering::Relaxed);
        assert!(liveness(&vitals).good);
        clock.store(91, Ordering::Relaxed);
        let stuck = liveness(&vitals);
        assert!(
            !stuck.good && stuck.text.contains("at the same batch for 91 s"),
            "{}",
            stuck.text
        );
        vitals.end();
        assert!(liveness(&vitals).good);
    }

    #[test]
    fn an_api_that_is_silent_is_stale_and_the_agent_ready_all_the_same() {
        let (clock, vitals) = by_hand();
        vitals.publish(|seen| {
            seen.in_sync = true;
            seen.status.ready = true;
        });
        let kube = Arc::new(KubeStatus::default());
        kube.pretend(Kind::Pod, "v1", Some(vitals.now()));
        vitals.follows(Arc::clone(&kube));
        let line = |kind: &str| {
            let Health { good, text } = readiness(&vitals);
            assert!(good, "{text}");
            let line = text.lines().find(|line| line.starts_with(kind));
            line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line("Pod"), "Pod yes v1: 0 objects");
        clock.store(240, Ordering::Relaxed);
        assert_eq!(line("Pod"), "Pod yes v1: 0 objects");
        clock.store(300, Ordering::Relaxed);
        assert_eq!(line("Pod"), "Pod yes v1: stale, nothing heard for 300 s");
        kube.pretend(Kind::Pod, "v1", Some(vitals.now()));
        assert_eq!(line("Pod"), "Pod yes v1: 0 objects");
    }

    #[test]
    fn an_agent_lives_while_it_works_or_waits() {
        let vitals = Vitals::default();
        assert!(liveness(&vitals).good);
        vitals.begin();
        assert!(liveness(&vitals).good && vitals.busy().is_some());
        vitals.end();
        assert_eq!(vitals.busy(), None);
    }
}
