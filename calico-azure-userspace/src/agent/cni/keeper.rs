//! Keeps the plug-in where it was put, from a thread of its own: a node's network may come later than its agent, and whoever brings it may
//! write its configuration anew at any time. No agent waits for that, or fails with it.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{Installed, Plugin, Unfit, install};
use crate::agent::Message;
use crate::agent::status::StatusPlugin;
use crate::sources::notifications::{Notifications, wait};

/// Looks again without being told, should notifications be missed or not be had at all.
const RESCAN: Duration = Duration::from_secs(10);
/// Between two looks at least: somebody may write each time we do.
const PAUSE: Duration = Duration::from_secs(1);
/// A network may take as long as this to come before that is a problem.
const NETWORK: Duration = Duration::from_secs(60);

/// Begins.
///
/// # Errors
/// If the thread cannot be started.
pub(in crate::agent) fn start(plugin: Plugin, events: Sender<Message>) -> io::Result<()> {
    let run = move || {
        let (wake, woken) = sync_channel(1);
        let mut watched: Vec<Notifications> = [&plugin.dirs.conf, &plugin.dirs.bin]
            .map(|dir: &PathBuf| Notifications::new(dir.clone(), wake.clone()))
            .into();
        let mut keeper = Keeper::default();
        let mut told = None;
        let begun = Instant::now();
        loop {
            watched.iter_mut().for_each(Notifications::keep_up);
            let now = keeper.see(install(&plugin.dirs, &plugin.ours), begun.elapsed());
            if told.as_ref() != Some(&now) {
                told = Some(now.clone());
                if events.send(Message::Plugin(now)).is_err() {
                    return;
                }
            }
            thread::sleep(PAUSE);
            wait(&woken, RESCAN);
        }
    };
    let spawned = thread::Builder::new().name("cni-plugin".into()).spawn(run);
    spawned.map(drop)
}

#[derive(Default)]
struct Keeper {
    /// How often it was added.
    installs: u64,
}

impl Keeper {
    /// What is to be told, some time after the start.
    fn see(&mut self, found: Result<Installed, Unfit>, since: Duration) -> StatusPlugin {
        let (configuration, problem) = match found {
            Ok(installed) => {
                if installed.added {
                    self.installs += 1;
                }
                if installed.added && self.installs > 1 {
                    let configuration = installed.configuration.display();
                    tracing::warn!(%configuration, "somebody has written it without the plug-in; pods that started meanwhile were not held");
                }
                for done in &installed.done {
                    tracing::info!("{done}");
                }
                (installed.configuration.display().to_string(), None)
            }
            Err(Unfit::NoNetwork(_)) if since < NETWORK => (String::new(), None),
            Err(unfit) => {
                let problem = format!("pods' starts are not held: {unfit}");
                (String::new(), Some(problem))
            }
        };
        StatusPlugin {
            configuration,
            installs: self.installs,
            problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_may_come_late_and_be_written_anew() {
        let mut keeper = Keeper::default();
        let none = || Err(Unfit::NoNetwork("/etc/cni/net.d".into()));
        let soon = keeper.see(none(), Duration::from_secs(1));
        assert_eq!((soon.problem, soon.installs), (None, 0));
        let late = keeper.see(none(), NETWORK).problem.unwrap();
        assert!(late.contains("not held: /etc/cni/net.d: no network"), "{late}");
        let found = |added| {
            Ok(Installed {
                configuration: "/etc/cni/net.d/10-x.conflist".into(),
                added,
                ..Installed::default()
            })
        };
        for (added, installs) in [(true, 1), (false, 1), (true, 2)] {
            let seen = keeper.see(found(added), NETWORK);
            assert_eq!((seen.problem, seen.installs), (None, installs));
            assert_eq!(seen.configuration, "/etc/cni/net.d/10-x.conflist");
        }
        let broken = keeper.see(Err(Unfit::Broken("x is no JSON".into())), NETWORK);
        assert!(broken.problem.unwrap().contains("x is no JSON") && broken.configuration.is_empty());
    }
}
