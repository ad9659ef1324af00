//! One of the two programs: where it is, its log, its life.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::{ApiError, Result};

/// A program that ends with the value, and with this process.
#[derive(Debug)]
pub(super) struct Program {
    name: &'static str,
    path: PathBuf,
    args: Vec<OsString>,
    log: PathBuf,
    running: Option<Running>,
}

/// A child, and the thread that is its parent for as long as this lives.
#[derive(Debug)]
struct Running {
    child: Child,
    _parent: mpsc::Sender<()>,
}

impl Program {
    pub(super) fn start(
        name: &'static str,
        variable: &'static str,
        args: Vec<OsString>,
        dir: &Path,
    ) -> Result<Self> {
        let mut program = Self {
            name,
            path: find(name, variable)?,
            args,
            log: dir.join(format!("{name}.log")),
            running: None,
        };
        program.spawn()?;
        Ok(program)
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// The process, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.child.id())
    }

    /// Asks until the answer is good, or the program ends, or time is up.
    pub(super) fn wait(
        &mut self,
        timeout: Duration,
        mut ready: impl FnMut() -> Result<(), String>,
    ) -> Result<()> {
        let end = Instant::now() + timeout;
        loop {
            let last = match ready() {
                Ok(()) => return Ok(()),
                Err(last) => last,
            };
            self.check_running()?;
            if Instant::now() >= end {
                return Err(ApiError::NotReady {
                    program: self.name,
                    timeout,
                    last,
                    log: self.log.clone(),
                    tail: self.tail(),
                });
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    pub(super) fn kill(&mut self) -> Result<()> {
        let Some(mut running) = self.running.take() else {
            return Ok(());
        };
        let child = &mut running.child;
        child
            .kill()
            .and_then(|()| child.wait())
            .map(drop)
            .map_err(ApiError::io(format!("cannot end {}", self.name)))
    }

    pub(super) fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.spawn()
    }

    pub(super) fn signal(&self, signal: i32) -> Result<()> {
        let Some(Running { child, .. }) = &self.running else {
            return Err(self.failure("is not running".to_owned()));
        };
        let pid = i32::try_from(child.id()).unwrap_or(0);
        // SAFETY: kill takes no pointers; the child has not been waited for, so its id is still its own.
        if unsafe { libc::kill(pid, signal) } != 0 {
            let error = std::io::Error::last_os_error();
            return Err(ApiError::io(format!("cannot signal {}", self.name))(error));
        }
        Ok(())
    }

    /// A signal that stops is sent, not yet obeyed: threads go on until each has seen it.
    pub(super) fn wait_stopped(&self, timeout: Duration) -> Result<()> {
        let tasks = format!("/proc/{}/task", self.pid().unwrap_or(0));
        let end = Instant::now() + timeout;
        loop {
            let tasks = fs::read_dir(&tasks).map_err(ApiError::io(&tasks))?;
            let running = tasks.flatten().filter(|task| !is_stopped(&task.path())).count();
            if running == 0 {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(self.failure(format!("has {running} threads that do not stop")));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn spawn(&mut self) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.map_err(ApiError::io(self.log.display().to_string()))?;
        let err = log.try_clone().map_err(ApiError::io("a log"))?;
        let mut command = Command::new(&self.path);
        command
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(err)
            // A Ctrl-C is for this process, whose end is theirs.
            .process_group(0);
        // SAFETY: prctl with these arguments is a plain system call, which a child may make between fork and exec.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        // The signal comes when the *thread* ends that started the child, and a test's thread ends before a server that tests share.
        let (started, starting) = mpsc::channel();
        let (alive, until) = mpsc::channel::<()>();
        thread::spawn(move || {
            if started.send(command.spawn()).is_ok() {
                let _dropped = until.recv();
            }
        });
        let what = format!("cannot start {}", self.path.display());
        let child = starting
            .recv()
            .map_err(|_| ApiError::io(&what)(std::io::Error::other("its thread ended")))?
            .map_err(ApiError::io(&what))?;
        self.running = Some(Running {
            child,
            _parent: alive,
        });
        Ok(())
    }

    fn check_running(&mut self) -> Result<()> {
        let Some(Running { child, .. }) = &mut self.running else {
            return Err(self.failure("is not running".to_owned()));
        };
        let what = format!("cannot wait for {}", self.name);
        if let Some(status) = child.try_wait().map_err(ApiError::io(what))? {
            self.running = None;
            if self.tail().contains("address already in use") {
                return Err(ApiError::PortTaken { program: self.name });
            }
            return Err(self.failure(format!("ended ({status})")));
        }
        Ok(())
    }

    fn failure(&self, problem: String) -> ApiError {
        ApiError::Failed {
            program: self.name,
            problem,
            log: self.log.clone(),
            tail: self.tail(),
        }
    }

    fn tail(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = text.lines().collect();
        let last = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default();
        last.join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("warning: {error}");
        }
    }
}

/// Whether the thread is stopped (`T`: proc_pid_stat(5)), or gone.
fn is_stopped(task: &Path) -> bool {
    let status = fs::read_to_string(task.join("status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.is_none_or(|state| state.trim_start().starts_with('T'))
}

/// What the environment names, else what `cargo xtask setup` left in the target directory that this program is in.
fn find(program: &'static str, variable: &'static str) -> Result<PathBuf> {
    let named = std::env::var_os(variable).filter(|path| !path.is_empty());
    let path = match named {
        Some(path) => PathBuf::from(path),
        None => {
            let exe = std::env::current_exe().map_err(ApiError::io("this program's path"))?;
            // target/release/demo, target/x86_64-unknown-linux-gnu/image/deps/apiserver-…
            let candidates: Vec<PathBuf> = exe
                .ancestors()
                .skip(1)
                .take(5)
                .map(|dir| dir.join("tools/apiserver").join(program))
                .collect();
            let found = candidates
                .iter()
                .find(|path| path.is_file())
                .or(candidates.last());
            found.cloned().unwrap_or_default()
        }
    };
    if path.is_file() {
        return Ok(path);
    }
    Err(ApiError::NoProgram {
        program,
        variable,
        searched: path,
    })
}
