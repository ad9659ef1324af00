//! A virtual machine, from power on to power off, and what its console says.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::Run;

/// A machine that takes longer is stopped.
const LIMIT: Duration = Duration::from_secs(10_000);
/// Software emulation of a processor that kernels of all lines start on. qemu 7.2 returns wrong flags from `cmpxchg16b`, on which
/// the allocator of newer kernels would then trip.
const PROCESSOR: &str = "Skylake-Server-v4,cx16=off";

/// Boots, waits for the end, and returns the console.
pub(super) fn boot(
    vmlinuz: &Path,
    initrd: &Path,
    log: &Path,
    alive: impl Fn(&str),
) -> anyhow::Result<String> {
    let console = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = Command::new("qemu-system-x86_64")
        .args([
            "-M",
            "pc",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            PROCESSOR,
            "-smp",
            "2",
            "-m",
            "3072",
        ])
        .args(["-nographic", "-no-reboot", "-net", "none"])
        .args(["-append", "console=ttyS0 panic=-1 quiet"])
        .arg("-kernel")
        .arg(vmlinuz)
        .arg("-initrd")
        .arg(initrd)
        .stdin(Stdio::null())
        .stdout(console)
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
    let begun = Instant::now();
    let mut next = begun + Duration::from_secs(30);
    while child.try_wait()?.is_none() {
        if begun.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            break;
        }
        if Instant::now() > next {
            next += Duration::from_secs(30);
            alive(read(log)?.lines().last().unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    read(log)
}

fn read(log: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    Ok(String::from_utf8_lossy(&bytes).replace('\r', ""))
}

/// Whether the guest got to the end of its plan.
pub(super) fn finished(console: &str) -> bool {
    console
        .lines()
        .any(|line| line.starts_with("guest: ") && line.contains(" failed of "))
}

/// What the guest says of its runs.
pub(super) fn runs(console: &str) -> Vec<Run> {
    let lines = console.lines().filter_map(|line| line.strip_prefix("guest: "));
    lines
        .filter_map(|line| {
            let (name, rest) = line.split_once(": ")?;
            let (word, how) = rest.split_once(' ')?;
            let ok = match word {
                "ok" => true,
                "failed" => false,
                _ => return None,
            };
            Some(Run {
                name: name.to_owned(),
                ok,
                how: how.to_owned(),
            })
        })
        .collect()
}

/// The lines for the person who waits: the guest's own, the verifier's table, and tests that failed.
pub(super) fn told(console: &str) -> String {
    let mut table = false;
    let mut text = String::new();
    for line in console.lines() {
        table |= line.starts_with("PROGRAM ");
        let failed = line.ends_with("FAILED") || line.contains("panicked at");
        if table || failed || line.starts_with("guest: ") && !line.ends_with(": begins") {
            text.push_str("    ");
            text.push_str(line);
            text.push('\n');
        }
        table &= !line.starts_with("limit ");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "\u{1b}[2JSeaBIOS\nguest: verifier: begins\nPROGRAM  VERIFIED\nto_workload 5\nlimit 9; x\n\
                           guest: verifier: ok (exit status: 0) in 3 s\nguest: programs: begins\ntest a ... ok\ntest b ... FAILED\n\
                           guest: programs: failed (exit status: 101) in 4 s\nguest: 1 failed of 2\n[ 9.1] reboot: Power down\n";

    #[test]
    fn runs_are_read_from_the_console() {
        let runs = runs(CONSOLE);
        let short: Vec<_> = runs.iter().map(|run| (run.name.as_str(), run.ok)).collect();
        assert_eq!(short, [("verifier", true), ("programs", false)]);
        assert!(finished(CONSOLE));
    }

    #[test]
    fn a_machine_that_dies_did_not_finish() {
        let cut = CONSOLE.split("guest: 1 failed").next().unwrap_or_default();
        assert!(!finished(&format!("{cut}Kernel panic - not syncing\n")));
    }

    #[test]
    fn the_verifiers_table_and_what_failed_is_told() {
        let told = told(CONSOLE);
        assert!(
            told.contains("to_workload 5") && told.contains("test b ... FAILED"),
            "{told}"
        );
        assert!(!told.contains("SeaBIOS") && !told.contains("test a"), "{told}");
    }
}
