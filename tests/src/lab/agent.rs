//! Runs the product's agent in a node's namespace.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use calico_azure_userspace::dataplane::attach::{How, Mode};
use serde::Deserialize;

use super::{FlowLog, LabDir, LabError, NetNs, Node, Result, exec, patience};

const BPFFS: &str = "/sys/fs/bpf";

/// How to start an agent.
#[derive(Clone, Debug)]
pub struct AgentSpec {
    /// The binary; see [`binary`].
    pub binary: PathBuf,
    /// `--fabric-interface`.
    pub fabric: String,
    /// Appended to the lab's own flags.
    pub args: Vec<OsString>,
    /// Added to the environment.
    pub env: Vec<(OsString, OsString)>,
    /// A node whose agent also has the sockets of a control group; the nodes of a lab share one kernel, so one of them at most.
    pub host: Option<(String, PathBuf)>,
    /// Follow the API server that this file names, instead of the lab's directory.
    pub kubeconfig: Option<PathBuf>,
}

impl AgentSpec {
    /// The built binary. Pods may reach their hosts, as with the manifest that Calico has for networks like these.
    pub fn new() -> Result<Self> {
        Ok(Self {
            binary: binary()?,
            fabric: "eth0".to_owned(),
            args: Vec::new(),
            env: vec![("FELIX_DEFAULTENDPOINTTOHOSTACTION".into(), "Accept".into())],
            host: None,
            kubeconfig: None,
        })
    }

    /// Adds flags.
    #[must_use]
    pub fn args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// Gives the agent of `node` the sockets of `group`.
    #[must_use]
    pub fn host(mut self, node: &str, group: &Path) -> Self {
        self.host = Some((node.to_owned(), group.to_owned()));
        self
    }
}

/// Values of `--attach` that this kernel takes.
#[must_use]
pub fn attachments() -> &'static [&'static str] {
    match Mode::Auto.resolve() {
        How::Tcx => &["tcx", "clsact"],
        _ => {
            eprintln!("not run: tcx, this kernel has none");
            &["clsact"]
        }
    }
}

/// `CALICO_AZURE_BIN`, else the release build beside the running executable, else a build of its own profile.
pub fn binary() -> Result<PathBuf> {
    const NAME: &str = "calico-azure";
    if let Some(path) = std::env::var_os("CALICO_AZURE_BIN").map(PathBuf::from) {
        return path
            .canonicalize()
            .map_err(LabError::io(format!("CALICO_AZURE_BIN={}", path.display())));
    }
    let exe =
        std::env::current_exe().map_err(LabError::io("cannot find out the running executable's path"))?;
    // target/release/demo, target/debug/deps/lab-…
    let dirs: Vec<_> = exe.ancestors().skip(1).take(3).collect();
    let candidates = dirs
        .iter()
        .map(|d| d.join("release"))
        .chain(dirs.iter().map(|d| d.to_path_buf()));
    let found = candidates.map(|dir| dir.join(NAME)).find(|path| path.is_file());
    found.ok_or_else(|| LabError::NoBinary {
        searched: exe.parent().unwrap_or(&exe).to_owned(),
    })
}

/// The agent's status file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AgentStatus {
    pub ready: bool,
    pub networking: StatusNetworking,
    pub epoch: u64,
    pub applies: u64,
    pub inputs_seen: u64,
    pub last_apply_us: u64,
    pub last_change_us: u64,
    pub cold_start_us: u64,
    pub endpoints: Vec<StatusEndpoint>,
    pub attached: Vec<Attachment>,
    pub preflight: StatusPreflight,
    pub problems: Vec<String>,
}

/// What the agent's last look at its node found.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct StatusPreflight {
    pub findings: Vec<serde_json::Value>,
    pub unread: Vec<String>,
}

/// Which network the agent finds itself on.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct StatusNetworking {
    pub networking: String,
    pub named: bool,
    pub evidence: Vec<String>,
}

/// A pod that the agent enforces policy for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct StatusEndpoint {
    pub pod: String,
    pub interface: String,
    pub ifindex: u32,
}

/// A program on an interface.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Attachment {
    pub interface: String,
    pub ifindex: u32,
    pub program: String,
    pub hook: String,
    /// `tcx`, `clsact` or `xdp`.
    pub how: String,
}

/// A running agent. Dropping it ends it and removes what it left in the kernel.
#[derive(Debug)]
pub struct Agent {
    node: String,
    ns: NetNs,
    lab: String,
    spec: AgentSpec,
    source: PathBuf,
    run: PathBuf,
    log: PathBuf,
    flow_log: PathBuf,
    /// Where CNI's plug-ins and flannel's daemon keep things.
    paths: Vec<OsString>,
    child: Option<Child>,
}

impl Agent {
    /// Starts the agent of `node`; see [`Self::wait_ready`].
    pub fn start(dir: &LabDir, node: &Node, spec: AgentSpec) -> Result<Self> {
        let name = node.name();
        let mut agent = Self {
            node: name.to_owned(),
            ns: node.ns().clone(),
            lab: dir.id().to_owned(),
            spec,
            source: dir.manifests(),
            run: dir.run(),
            log: dir.log().join(format!("{name}.agent.log")),
            flow_log: dir.log().join(format!("{name}.flows.jsonl")),
            paths: node.paths(),
            child: None,
        };
        agent.spawn()?;
        Ok(agent)
    }

    /// The node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The agent's process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// What the agent logged, stderr included.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The agent's flow log.
    #[must_use]
    pub fn flows(&self) -> FlowLog {
        FlowLog::new(&self.flow_log)
    }

    /// The name of the agent's directory of pins; labs do not share one.
    #[must_use]
    pub fn pin_name(&self) -> String {
        pin_name(&self.lab, &self.node)
    }

    /// Waits for the first complete apply.
    pub fn wait_ready(&mut self, timeout: Duration) -> Result<AgentStatus> {
        self.wait_for("becomes ready", timeout, |status| status.ready)
    }

    /// Waits until the agent enforces policy for `pod` (`namespace/name`).
    pub fn wait_endpoint(&mut self, pod: &str, timeout: Duration) -> Result<AgentStatus> {
        self.wait_for(&format!("knows {pod}"), timeout, |s| {
            s.endpoints.iter().any(|e| e.pod == pod)
        })
    }

    /// Waits until the status satisfies `accept`; fails at once if the agent exits.
    pub fn wait_for(
        &mut self,
        what: &str,
        timeout: Duration,
        accept: impl Fn(&AgentStatus) -> bool,
    ) -> Result<AgentStatus> {
        let end = Instant::now() + timeout;
        loop {
            let status = self.status();
            if let Ok(Some(status)) = &status
                && accept(status)
            {
                return Ok(status.clone());
            }
            self.check_running()?;
            if Instant::now() >= end {
                let last = match status {
                    Ok(Some(status)) => format!("its status is {status:?}"),
                    Ok(None) => "it has written no status".to_owned(),
                    Err(error) => error.to_string(),
                };
                return Err(self.failure(format!("was given {timeout:?} until it {what}; {last}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The status file's content; `None` while there is none.
    pub fn status(&self) -> Result<Option<AgentStatus>> {
        let path = self.status_path();
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| LabError::Format {
                    path,
                    problem: format!("not an agent's status: {e}"),
                }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LabError::file(path)(error)),
        }
    }

    /// Where its status file and its lock are.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.run
    }

    /// Kills the agent as a crash would. Its programs and tables stay.
    pub fn kill9(&mut self) -> Result<()> {
        let what = format!("cannot kill the agent of {}", self.node);
        if let Some(mut child) = self.child.take() {
            child
                .kill()
                .and_then(|()| child.wait())
                .map_err(LabError::io(what))?;
        }
        Ok(())
    }

    /// Starts the agent again after [`Self::kill9`] or [`Self::terminate`]; ends it first if it runs.
    pub fn restart(&mut self) -> Result<()> {
        self.terminate()?;
        self.spawn()
    }

    /// Flags and environment of the next start.
    pub fn respecify(&mut self, change: impl FnOnce(AgentSpec) -> AgentSpec) {
        self.spec = change(self.spec.clone());
    }

    /// Ends the agent with SIGTERM; kills it and fails if it takes more than five seconds.
    pub fn terminate(&mut self) -> Result<()> {
        let what = format!("cannot end the agent of {}", self.node);
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let pid = i32::try_from(child.id()).unwrap_or(0);
        // SAFETY: kill takes no pointers; the child has not been waited for, so its id is still its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let timeout = patience(Duration::from_secs(5));
        let end = Instant::now() + timeout;
        while Instant::now() < end {
            if child.try_wait().map_err(LabError::io(what.clone()))?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child
            .kill()
            .and_then(|()| child.wait())
            .map_err(LabError::io(what))?;
        Err(self.failure(format!("ignored SIGTERM for {timeout:?}")))
    }

    /// Removes the agent's programs and pins, as `calico-azure cleanup` does for a user.
    pub fn cleanup(&self) -> Result<String> {
        let mut command = self.ns.command(&self.spec.binary);
        exec::run(
            cleanup_args(&mut command, &self.lab, &self.node, &self.run),
            b"",
            self.ns.name(),
        )
    }

    fn spawn(&mut self) -> Result<()> {
        let path = self.status_path();
        // A status of an earlier run must not look like this one's.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(LabError::file(path)(error));
            }
            _ => {}
        }
        let open = || -> std::io::Result<(File, File)> {
            let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
            Ok((log.try_clone()?, log))
        };
        let (out, err) = open().map_err(LabError::file(&self.log))?;
        let mut command = self.ns.command(&self.spec.binary);
        command.arg("agent").args(["--node", &self.node]).arg("--source");
        match &self.spec.kubeconfig {
            Some(kubeconfig) => command.arg("kube").arg("--kubeconfig").arg(kubeconfig),
            None => command.arg(&self.source),
        };
        command.args([
            "--interface-prefix",
            "cali,azv,veth",
            "--fabric-interface",
            &self.spec.fabric,
        ]);
        command.args(["--bpffs", BPFFS, "--pin-name", &self.pin_name()]);
        command
            .arg("--run-dir")
            .arg(&self.run)
            .arg("--flow-log")
            .arg(&self.flow_log)
            .args(&self.paths);
        // Sockets of the whole machine are nobody's business here.
        let group = match &self.spec.host {
            Some((node, group)) if *node == self.node => group.as_path(),
            _ => Path::new("none"),
        };
        command
            .args(&self.spec.args)
            .env("CALICO_AZURE_HOST_CGROUP", group)
            .envs(self.spec.env.iter().map(|(k, v)| (k, v)));
        command.stdin(std::process::Stdio::null()).stdout(out).stderr(err);
        // A Ctrl-C is for this process, which then ends the agent in order.
        command.process_group(0);
        let what = format!("cannot start `{}`", exec::line(&command));
        self.child = Some(command.spawn().map_err(LabError::io(what))?);
        Ok(())
    }

    fn status_path(&self) -> PathBuf {
        self.run.join(format!("{}.status.json", self.node))
    }

    fn check_running(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else {
            return Err(self.failure("is not running".to_owned()));
        };
        let what = format!("cannot wait for the agent of {}", self.node);
        if let Some(status) = child.try_wait().map_err(LabError::io(what))? {
            self.child = None;
            return Err(self.failure(format!("exited ({status})")));
        }
        Ok(())
    }

    fn failure(&self, problem: String) -> LabError {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let tail = lines
            .get(lines.len().saturating_sub(15)..)
            .unwrap_or_default()
            .join("\n");
        LabError::Agent {
            node: self.node.clone(),
            problem,
            log: self.log.clone(),
            tail,
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        for result in [self.terminate(), self.cleanup().map(drop)] {
            if let Err(error) = result {
                eprintln!("warning: {error}");
            }
        }
    }
}

fn pin_name(lab: &str, node: &str) -> String {
    format!("{lab}-{node}")
}

fn cleanup_args<'c>(command: &'c mut Command, lab: &str, node: &str, run: &Path) -> &'c mut Command {
    command.args([
        "cleanup",
        "--node",
        node,
        "--bpffs",
        BPFFS,
        "--pin-name",
        &pin_name(lab, node),
    ]);
    command.arg("--run-dir").arg(run)
}

/// Runs `cleanup` for a node of which only the names are left. Without a binary there is nothing to run.
pub(super) fn cleanup_leftovers(namespace: &str, lab: &str, node: &str, run: &Path) {
    let Ok(binary) = binary() else { return };
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).arg(binary);
    if let Err(error) = exec::run(cleanup_args(&mut command, lab, node, run), b"", namespace) {
        eprintln!("warning: {error}");
    }
}
