//! Loads the programs on a thread of its own, while lists are read and tables are filled: the verifier takes as long as that, and nothing but
//! attaching has to wait for it. Only `agent` uses this.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::thread;

use super::links::LinkNames;
use super::protect::{self, Protector, SharedProtector};
use super::{AgentConfig, AgentError, Message};
use crate::dataplane::attach::Mode;
use crate::dataplane::cgroup;
use crate::dataplane::kernel::Kernel;

/// Of the thread, and so of those that it starts.
const NAME: &str = "programs";

/// What is to be done once they are loaded.
pub(super) struct Programs {
    kernel: Kernel,
    /// Whose sockets are judged.
    group: Option<PathBuf>,
    protector: SharedProtector,
    attach: Mode,
    names: LinkNames,
}

impl Programs {
    /// Of a kernel that has the tables.
    pub(super) fn new(
        kernel: Kernel,
        group: Option<PathBuf>,
        config: &AgentConfig,
        names: LinkNames,
    ) -> Self {
        Self {
            kernel,
            group,
            protector: protect::awaited(),
            attach: config.attach,
            names,
        }
    }

    /// Who will put them on interfaces.
    pub(super) fn protector(&self) -> SharedProtector {
        SharedProtector::clone(&self.protector)
    }

    /// Loads them, and says so.
    pub(super) fn start(self, sender: Sender<Message>) -> io::Result<()> {
        let run = move || {
            yield_to_others();
            let _gone = sender.send(Message::Programs(self.load()));
        };
        thread::Builder::new().name(NAME.into()).spawn(run).map(drop)
    }

    fn load(mut self) -> Result<(), AgentError> {
        self.kernel.load_programs()?;
        // Before any packet can be marked.
        if let Some(group) = &self.group {
            cgroup::attach(&mut self.kernel, group)?;
            tracing::info!(path = %group.display(), "attached to_host");
        }
        let protector = Protector::new(self.kernel, self.attach, self.names);
        protect::arrived(&self.protector, protector);
        Ok(())
    }
}

/// Where processors are few, the tables come first: without them nothing can be attached. The threads that this one starts do as it does.
fn yield_to_others() {
    const LOWEST: i32 = 19;
    set_nice(0, LOWEST);
}

/// The tables are filled: nothing comes before the programs any more. Without `CAP_SYS_NICE` they go on as before.
pub(super) fn hurry() {
    let tasks = std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    for task in tasks {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let id = task.file_name().to_str().and_then(|id| id.parse().ok());
        if let Some(id) = id.filter(|_| name.trim_end() == NAME) {
            set_nice(id, 0);
        }
    }
}

/// Of a thread; 0 is the calling one.
fn set_nice(thread: libc::id_t, nice: i32) {
    // SAFETY: takes and returns plain numbers. If it is refused, all take their turns as they did.
    let _refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, thread, nice) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its number.
    const CAP_SYS_NICE: u32 = 23;

    #[test]
    fn threads_that_load_programs_are_found_by_their_name() {
        let (started, is_started) = std::sync::mpsc::channel();
        let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
        let run = move || {
            yield_to_others();
            thread::scope(|scope| {
                let worker = scope.spawn(move || {
                    // SAFETY: plain numbers.
                    let nice = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
                    let before = nice();
                    started.send(()).unwrap();
                    may_go_on.recv().unwrap();
                    (before, nice())
                });
                worker.join().unwrap()
            })
        };
        let programs = thread::Builder::new().name(NAME.into()).spawn(run).unwrap();
        is_started.recv().unwrap();
        hurry();
        go_on.send(()).unwrap();
        let (before, after) = programs.join().unwrap();
        assert_eq!(before, 19);
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let capabilities = u64::from_str_radix(capabilities.unwrap().trim(), 16).unwrap();
        let may_raise = capabilities & 1 << CAP_SYS_NICE != 0;
        assert_eq!(after, if may_raise { 0 } else { 19 });
    }
}
