//! Starting other programs: a clean environment, logs for long work, and what to show when they fail.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::term::Ui;

/// How many lines of a failed program's log are shown.
const TAIL_LINES: usize = 30;
/// How often long work gives a sign of life.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// The cargo that runs us, so that the userspace build uses the toolchain the developer chose.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    // `cargo run` describes xtask in these; they must not look like facts about what we build.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// A program of another toolchain: nothing of what `cargo run` and rustup put into the environment may reach it.
pub(crate) fn foreign(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, value) in std::env::vars_os() {
        match name.to_str() {
            Some("LD_LIBRARY_PATH") => match without_toolchains(&value) {
                Some(rest) => command.env("LD_LIBRARY_PATH", rest),
                None => command.env_remove("LD_LIBRARY_PATH"),
            },
            Some(text) if belongs_to_build(text) => command.env_remove(text),
            _ => &mut command,
        };
    }
    command
}

fn belongs_to_build(name: &str) -> bool {
    const KEPT: [&str; 4] = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR"];
    const DROPPED: [&str; 6] = [
        "RUSTUP_TOOLCHAIN",
        "RUST_RECURSION_COUNT",
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "CARGO",
    ];
    DROPPED.iter().any(|prefix| name.starts_with(prefix))
        && !KEPT.iter().any(|prefix| name.starts_with(prefix))
}

/// rustup's proxies prepend their toolchain's libraries, which another rustc must not load.
fn without_toolchains(path: &OsStr) -> Option<OsString> {
    let kept: Vec<PathBuf> = std::env::split_paths(path)
        .filter(|entry| {
            let text = entry.to_string_lossy();
            !text.is_empty() && !text.contains("/toolchains/") && !text.contains("/rustlib/")
        })
        .collect();
    if kept.is_empty() {
        None
    } else {
        std::env::join_paths(kept).ok()
    }
}

/// The full path of a command; the sbin directories count even when a user's PATH leaves them out.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    all_on_path(name).into_iter().next()
}

/// Every file of that name on the path, in order.
pub(crate) fn all_on_path(name: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    let mut found: Vec<PathBuf> = Vec::new();
    for file in std::env::split_paths(&path).chain(sbin).map(|dir| dir.join(name)) {
        if is_executable(&file) && !found.contains(&file) {
            found.push(file);
        }
    }
    found
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The command as a user would type it, without its environment.
pub(crate) fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}

/// Runs a short command and returns its standard output; its standard error is in the error.
pub(crate) fn capture(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{}`", shown(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{}` failed ({}): {}",
            shown(command),
            output.status,
            tail(stderr.trim(), 6)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command whose output the user should see as it comes.
pub(crate) fn visible(command: &mut Command) -> anyhow::Result<bool> {
    let status = command
        .status()
        .with_context(|| format!("cannot run `{}`", shown(command)))?;
    Ok(status.success())
}

/// Runs long work with its output in a log, giving signs of life; on failure the error is the end of its output.
pub(crate) fn logged(ui: &Ui, title: &str, command: &mut Command, log: &Path) -> anyhow::Result<()> {
    let step = ui.step(title);
    let result = run_logged(command, log, |last| step.alive(last));
    match result {
        Ok(()) => step.done(""),
        Err(_) => step.failed(),
    }
    result
}

fn run_logged(command: &mut Command, log: &Path, mut alive: impl FnMut(&str)) -> anyhow::Result<()> {
    if let Some(dir) = log.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    writeln!(file, "\n$ {}", shown(command))?;
    let start = file.metadata()?.len();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("cannot run `{}`", shown(command)))?;
    let mut next = Instant::now() + ALIVE_EVERY;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(50));
        if Instant::now() >= next {
            next += ALIVE_EVERY;
            alive(
                log_since(log, start)
                    .trim_end()
                    .lines()
                    .last()
                    .unwrap_or_default(),
            );
        }
    };
    if status.success() {
        return Ok(());
    }
    bail!(
        "`{}` failed ({status}); its output ends with:\n{}\n(all of it: {})",
        shown(command),
        tail(log_since(log, start).trim_end(), TAIL_LINES),
        log.display()
    )
}

fn log_since(log: &Path, start: u64) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let from = usize::try_from(start).unwrap_or(usize::MAX).min(bytes.len());
    String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned()
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all.iter()
        .skip(from)
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_toolchain_does_not_see_ours() {
        for name in [
            "RUSTUP_TOOLCHAIN",
            "RUSTC",
            "RUSTC_WRAPPER",
            "CARGO",
            "CARGO_ENCODED_RUSTFLAGS",
        ] {
            assert!(belongs_to_build(name), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_HTTP_PROXY",
            "PATH",
            "RUSTUP_HOME",
        ] {
            assert!(!belongs_to_build(name), "{name}");
        }
        let path = OsStr::new("/x/.rustup/toolchains/stable/lib:/opt/lib");
        assert_eq!(without_toolchains(path), Some("/opt/lib".into()));
        assert_eq!(without_toolchains(OsStr::new("/x/toolchains/stable/lib")), None);
    }

    #[test]
    fn a_failure_shows_the_end_of_its_log() {
        let log = std::env::temp_dir().join(format!("xtask-log-{}", std::process::id()));
        let script = "for i in $(seq 100); do echo line $i; done; exit 3";
        let error = run_logged(Command::new("sh").args(["-c", script]), &log, |_| ())
            .unwrap_err()
            .to_string();
        std::fs::remove_file(&log).unwrap();
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(
            error.contains("    line 71\n") && error.contains("    line 100\n"),
            "{error}"
        );
        assert!(!error.contains("line 70\n"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = capture(&mut Command::new("/nonexistent/program"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nonexistent/program"), "{error}");
    }
}
