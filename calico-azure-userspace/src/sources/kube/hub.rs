//! Where the watches of all kinds meet: what is to be sent, and whether everything has been read. No input or output.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;

use tokio::sync::Notify;

use super::client::Failure;
use super::help;
use crate::model::{Key, Kind, Problem, Resource, Severity};
use crate::sources::Event;

/// Failures in a row from which on somebody ought to know.
const WORTH_TELLING: u32 = 2;

#[derive(Default)]
pub(super) struct Hub {
    /// What each object became since the last message; `None`: it is gone.
    pending: BTreeMap<Key, Option<Resource>>,
    /// Of objects.
    wrong: BTreeMap<(Kind, Box<str>), Vec<Problem>>,
    /// Of kinds: what keeps them from being read.
    refused: BTreeMap<String, Problem>,
    /// What does not answer, and what to say about it.
    away: BTreeSet<String>,
    /// Of whose failures one is told.
    silence: Option<(String, Problem)>,
    problems_changed: bool,
    /// Kinds that are served; `None` while that is not known of all.
    expected: Option<BTreeSet<Kind>>,
    synced: BTreeSet<Kind>,
    in_sync: Sync,
    pub(super) wake: Rc<Notify>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Sync {
    #[default]
    Missing,
    Due,
    Sent,
}

impl Hub {
    pub(super) fn upsert(&mut self, key: Key, resource: Resource) {
        self.pending.insert(key, Some(resource));
        self.wake.notify_one();
    }

    pub(super) fn delete(&mut self, key: Key) {
        self.pending.insert(key, None);
        self.wake.notify_one();
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Replaces what is wrong with an object.
    pub(super) fn wrong(&mut self, kind: Kind, id: &str, problems: Vec<Problem>) {
        if problems.is_empty() && self.wrong.is_empty() {
            return;
        }
        let key = (kind, Box::from(id));
        let before = if problems.is_empty() {
            self.wrong.remove(&key)
        } else {
            self.wrong.insert(key, problems.clone())
        };
        if before.unwrap_or_default() != problems {
            self.told();
        }
    }

    /// Replaces what keeps something from being read. `what` names it.
    pub(super) fn refuse(&mut self, what: &str, problem: Option<Problem>) {
        let before = match problem.clone() {
            Some(problem) => self.refused.insert(what.to_owned(), problem),
            None => self.refused.remove(what),
        };
        if before != problem {
            self.told();
        }
    }

    /// A request failed, so many times in a row.
    pub(super) fn failed(&mut self, what: &str, path: &str, failure: &Failure, times: u32) {
        let (code, message) = match failure {
            Failure::Refused(status) => (status.code, status.message.as_str()),
            Failure::Lost(_) | Failure::Silent(_) | Failure::Garbled(_) => (0, ""),
        };
        if matches!(code, 401 | 403) {
            let help = if code == 403 {
                help::forbidden(message, path)
            } else {
                "the API server does not accept the agent's credentials: check its token, or the user of the kubeconfig"
                    .to_owned()
            };
            self.refuse(what, Some(problem(what, failure.to_string(), help)));
            self.back(what);
            return;
        }
        if times < WORTH_TELLING {
            return;
        }
        self.away.insert(what.to_owned());
        let message = format!("the API server does not answer as it should: {failure}");
        let help = "what was read before stays in force, and it is asked again and again".to_owned();
        let problem = problem("reading", message, help);
        // All fail for the same reason: one speaks for all, so that a new reason is told once.
        let is_news = self.silence.as_ref().is_none_or(|(speaker, told)| {
            (speaker == what || !self.away.contains(speaker)) && *told != problem
        });
        if is_news {
            self.silence = Some((what.to_owned(), problem));
            self.told();
        }
    }

    /// A request got what it asked for.
    pub(super) fn succeeded(&mut self, what: &str) {
        self.refuse(what, None);
        self.back(what);
    }

    fn back(&mut self, what: &str) {
        if self.away.remove(what) && self.away.is_empty() {
            tracing::info!("the API server answers again");
            self.silence = None;
            self.told();
        }
    }

    fn told(&mut self) {
        self.problems_changed = true;
        self.wake.notify_one();
    }

    /// Which kinds are served.
    pub(super) fn expect(&mut self, kinds: Option<BTreeSet<Kind>>) {
        self.expected = kinds;
        self.check_sync();
    }

    /// A kind has been read to its end.
    pub(super) fn synced(&mut self, kind: Kind) {
        self.synced.insert(kind);
        self.check_sync();
    }

    /// A kind is served no longer.
    pub(super) fn forget(&mut self, kind: Kind, what: &str) {
        self.synced.remove(&kind);
        self.succeeded(what);
        let known = self.wrong.len();
        self.wrong.retain(|(of, _), _| *of != kind);
        if self.wrong.len() != known {
            self.told();
        }
    }

    fn check_sync(&mut self) {
        let complete = self
            .expected
            .as_ref()
            .is_some_and(|expected| expected.is_subset(&self.synced));
        if complete && self.in_sync == Sync::Missing {
            self.in_sync = Sync::Due;
            self.wake.notify_one();
        }
    }

    pub(super) fn is_in_sync(&self) -> bool {
        self.in_sync == Sync::Sent
    }

    /// What happened since the last call: new and changed objects before those that are gone, so that a policy's
    /// successor is there before it goes.
    pub(super) fn take(&mut self) -> Vec<Event> {
        let mut events = Vec::with_capacity(self.pending.len() + 2);
        let mut gone = Vec::new();
        for (key, resource) in std::mem::take(&mut self.pending) {
            match resource {
                Some(resource) => events.push(Event::Upsert(resource)),
                None => gone.push(Event::Delete(key)),
            }
        }
        events.append(&mut gone);
        if std::mem::take(&mut self.problems_changed) {
            let of_objects = self.wrong.values().flatten();
            let silence = self.silence.iter().map(|(_, problem)| problem);
            let problems = silence.chain(self.refused.values()).chain(of_objects);
            events.push(Event::Problems(problems.cloned().collect()));
        }
        if self.in_sync == Sync::Due {
            self.in_sync = Sync::Sent;
            events.push(Event::InSync);
        }
        events
    }
}

/// Of the API server as a whole, or of a kind.
pub(super) fn problem(what: &str, message: String, help: String) -> Problem {
    Problem {
        severity: Severity::Error,
        file: PathBuf::from(format!("{what} on the API server")),
        line: None,
        column: None,
        object: None,
        field: None,
        message,
        help: Some(help),
        excerpt: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_speaks_for_all_who_are_away_and_tells_a_new_reason_once() {
        let mut hub = Hub::default();
        let mut told = |what: &str, reason: Option<&str>| -> Option<Vec<String>> {
            match reason {
                Some(reason) => hub.failed(what, "/api", &Failure::Lost(reason.to_owned()), WORTH_TELLING),
                None => hub.succeeded(what),
            }
            hub.take().into_iter().find_map(|event| match event {
                Event::Problems(problems) => {
                    Some(problems.into_iter().map(|problem| problem.message).collect())
                }
                _ => None,
            })
        };
        let says = |reason: &str| {
            Some(vec![format!(
                "the API server does not answer as it should: {reason}"
            )])
        };
        assert_eq!(told("Pod", Some("refused")), says("refused"));
        assert_eq!(told("Pod", Some("refused")), None);
        assert_eq!(told("Node", Some("reset")), None);
        assert_eq!(told("Pod", Some("unknown issuer")), says("unknown issuer"));
        assert_eq!(told("Pod", None), None);
        assert_eq!(told("Node", Some("reset")), says("reset"));
        assert_eq!(told("Node", None), Some(Vec::new()));
    }
}
