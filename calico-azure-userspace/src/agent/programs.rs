//! Loads the programs on a thread of its own, while lists are read and tables are filled: the verifier takes as long as that, and nothing but
//! attaching has to wait for it. Only `agent` uses this.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::thread;

use super::links::LinkNames;
use super::protect::{self, Protector, SharedProtector};
use super::{AgentConfig, AgentError, Message};
use crate::dataplane::cgroup;
use crate::dataplane::kernel::Kernel;

/// What is to be done once they are loaded.
pub(super) struct Programs {
    kernel: Kernel,
    /// Whose sockets are judged.
    group: Option<PathBuf>,
    protector: SharedProtector,
    make: Box<dyn FnOnce(Kernel) -> Protector + Send>,
}

impl Programs {
    /// Of a kernel that has the tables.
    pub(super) fn new(
        kernel: Kernel,
        group: Option<PathBuf>,
        config: &AgentConfig,
        names: LinkNames,
    ) -> Self {
        let attach = config.attach;
        Self {
            kernel,
            group,
            protector: protect::awaited(),
            make: Box::new(move |kernel| Protector::new(kernel, attach, names)),
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
        thread::Builder::new()
            .name("programs".into())
            .spawn(run)
            .map(drop)
    }

    fn load(mut self) -> Result<(), AgentError> {
        self.kernel.load_programs()?;
        // Before any packet can be marked.
        if let Some(group) = &self.group {
            cgroup::attach(&mut self.kernel, group)?;
            tracing::info!(path = %group.display(), "attached to_host");
        }
        protect::arrived(&self.protector, (self.make)(self.kernel));
        Ok(())
    }
}

/// Where processors are few, the tables come first: without them nothing can be attached. The threads that this one starts do as it does.
fn yield_to_others() {
    const LOWEST: i32 = 19;
    // SAFETY: takes and returns plain numbers; 0 is the calling thread. Without it all take their turns.
    let _refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LOWEST) };
}
