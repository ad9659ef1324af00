//! `calico-azure cni install` and `calico-azure cni remove`, which the DaemonSet's init container and the cleanup job run.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use super::PLUGIN;
use super::conflist::{FileKind, Ours, first, kind, with, without};
use super::protocol::OnTimeout;
use crate::agent::attachments_path;
use crate::cli::{OK, Outcome};

/// What a configuration of one plug-in is kept as while a list stands in for it.
const KEPT: &str = "before-calico-azure";
/// How often a directory without configurations is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// The chained CNI plug-in, which holds a pod's start until its policy is in the kernel.
#[derive(Debug, Args)]
pub(in crate::cli) struct CniArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copy this program beside the node's plug-ins and add it to the network configuration that the container runtime uses.
    Install(InstallArgs),
    /// Take it out of every network configuration, and remove it.
    Remove(Dirs),
}

#[derive(Debug, Args)]
struct Dirs {
    /// The node's directory of CNI plug-ins.
    #[arg(
        long,
        env = "CALICO_AZURE_CNI_BIN_DIR",
        default_value = "/opt/cni/bin",
        value_name = "DIR"
    )]
    bin_dir: PathBuf,
    /// The node's directory of network configurations.
    #[arg(
        long,
        env = "CALICO_AZURE_CNI_CONF_DIR",
        default_value = "/etc/cni/net.d",
        value_name = "DIR"
    )]
    conf_dir: PathBuf,
    /// The agent's directory, as the node names it.
    #[arg(long, default_value = "/run/calico-azure", value_name = "DIR")]
    run_dir: PathBuf,
}

#[derive(Debug, Args)]
struct InstallArgs {
    #[command(flatten)]
    dirs: Dirs,
    /// The node's name, as pods name it.
    #[arg(long, env = "NODENAME", value_name = "NAME")]
    node: String,
    /// How long a pod's start may wait.
    #[arg(long, env = "CALICO_AZURE_CNI_TIMEOUT", default_value_t = 10, value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(1..=600))]
    timeout: u32,
    /// What becomes of it then.
    #[arg(long, env = "CALICO_AZURE_CNI_ON_TIMEOUT", value_enum, default_value_t)]
    on_timeout: OnTimeout,
    /// How long to wait for a network configuration, which a new node gets from another DaemonSet.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    wait: u64,
}

impl CniArgs {
    pub(in crate::cli) fn run(self, out: &mut dyn Write) -> Outcome {
        match self.command {
            Command::Install(args) => install(&args, out),
            Command::Remove(dirs) => remove(&dirs, out),
        }
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: {error}")
}

fn install(args: &InstallArgs, out: &mut dyn Write) -> Outcome {
    let Dirs {
        bin_dir,
        conf_dir,
        run_dir,
    } = &args.dirs;
    let name = wait_for(conf_dir, Duration::from_secs(args.wait))?;
    let ours = Ours {
        node: args.node.clone(),
        run_dir: run_dir.display().to_string(),
        timeout: args.timeout,
        on_timeout: args.on_timeout,
    };
    let path = conf_dir.join(&name);
    let text = fs::read_to_string(&path).map_err(at(&path))?;
    let kind = kind(&name).unwrap_or(FileKind::List);
    let changed = with(&text, kind, &ours).map_err(|problem| format!("{}: {problem}", path.display()))?;
    // First the program, so that no configuration names what is not there.
    let program = bin_dir.join(PLUGIN);
    let own = std::env::current_exe()?;
    let bytes = fs::read(&own).map_err(at(&own))?;
    if fs::read(&program).ok().as_deref() != Some(&bytes) {
        replace(&program, &bytes, 0o755)?;
        writeln!(out, "wrote {}", program.display())?;
    }
    match (changed, kind) {
        (None, _) => writeln!(out, "{} has it already", path.display())?,
        (Some(text), FileKind::List) => {
            let mode = fs::metadata(&path).map_err(at(&path))?.permissions().mode();
            replace(&path, text.as_bytes(), mode)?;
            writeln!(out, "added {PLUGIN} to {}", path.display())?;
        }
        (Some(text), FileKind::Single) => {
            // Its list would come second: it makes room, and comes back when we go.
            let list = path.with_extension("conflist");
            if list.exists() {
                return Err(format!(
                    "{} is in the way: {} stands beside it",
                    path.display(),
                    list.display()
                )
                .into());
            }
            replace(&list, text.as_bytes(), 0o600)?;
            let kept = conf_dir.join(format!("{name}.{KEPT}"));
            fs::rename(&path, &kept).map_err(at(&kept))?;
            writeln!(
                out,
                "wrote {} for {name}, which is {} now",
                list.display(),
                kept.display()
            )?;
        }
    }
    Ok(OK)
}

fn remove(dirs: &Dirs, out: &mut dyn Write) -> Outcome {
    let Dirs {
        bin_dir,
        conf_dir,
        run_dir,
    } = dirs;
    let names = names(conf_dir)?;
    // Back in place first: the runtime always finds one.
    for name in names
        .iter()
        .filter_map(|name| name.strip_suffix(KEPT)?.strip_suffix('.'))
    {
        let (kept, path) = (conf_dir.join(format!("{name}.{KEPT}")), conf_dir.join(name));
        fs::rename(&kept, &path).map_err(at(&path))?;
        let list = path.with_extension("conflist");
        fs::remove_file(&list).map_err(at(&list))?;
        writeln!(out, "{} is back", path.display())?;
    }
    for name in names.iter().filter(|name| kind(name) == Some(FileKind::List)) {
        let path = conf_dir.join(name);
        // What is no configuration, or is gone with the one above, has no plug-in of ours.
        let without = fs::read_to_string(&path)
            .ok()
            .and_then(|text| without(&text).ok().flatten());
        if let Some(text) = without {
            let mode = fs::metadata(&path).map_err(at(&path))?.permissions().mode();
            replace(&path, text.as_bytes(), mode)?;
            writeln!(out, "took {PLUGIN} out of {}", path.display())?;
        }
    }
    // CRI-O takes a pod's network down with the configuration that it was made with, and cannot without the program.
    let mut pods = fs::read_dir(attachments_path(run_dir)).into_iter().flatten();
    let program = bin_dir.join(PLUGIN);
    if pods.next().is_some() {
        writeln!(
            out,
            "left {}: pods that were made with it are still there",
            program.display()
        )?;
        return Ok(OK);
    }
    match fs::remove_file(&program) {
        Ok(()) => writeln!(out, "removed {}", program.display())?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(at(&program)(error).into()),
    }
    Ok(OK)
}

/// Names of a directory's files.
fn names(dir: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(dir).map_err(at(dir))?;
    let entries = entries.flatten().filter(|entry| entry.path().is_file());
    Ok(entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect())
}

fn wait_for(dir: &Path, patience: Duration) -> Result<String, String> {
    let ends = Instant::now() + patience;
    loop {
        let found = names(dir)?;
        if let Some(name) = first(found) {
            return Ok(name);
        }
        if Instant::now() >= ends {
            return Err(format!(
                "{}: no network configuration after {} s (*.conflist, *.conf, *.json): install the network first",
                dir.display(),
                patience.as_secs()
            ));
        }
        std::thread::sleep(LOOK);
    }
}

/// Writes a file in one step: whoever reads it reads the old one or the new one.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), String> {
    // No configuration by its name.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".calico-azure-new");
    let temporary = PathBuf::from(temporary);
    let write = || {
        fs::write(&temporary, bytes)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(mode))?;
        fs::File::open(&temporary)?.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(at(path))
}
