//! The first process of a virtual machine of `cargo xtask test --kernels`: mounts what programs expect, loads modules, runs
//! what `/plan` says, and turns the machine off. Only that command starts it.
//!
//! The plan has a line for each step, its parts separated by tabs: `module PATH`, or `run NAME SECONDS PROGRAM ARGUMENT…`.
//! The console says `guest: NAME: ok|failed (EXIT) in N s` of each run, and at last `guest: N failed of M`.

#![expect(clippy::print_stdout, reason = "the console is all that it has")]

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

fn main() {
    // By accident on a real machine it would mount over what is there and turn the machine off.
    if std::process::id() != 1 {
        eprintln!("guest: only for the virtual machines of `cargo xtask test --kernels`");
        std::process::exit(2);
    }
    match run() {
        Ok((failed, all)) => println!("guest: {failed} failed of {all}"),
        Err(error) => println!("guest: {error}"),
    }
    turn_off();
}

fn run() -> Result<(usize, usize), String> {
    for (kind, target) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/run"),
        ("bpf", "/sys/fs/bpf"),
        ("cgroup2", "/sys/fs/cgroup"),
    ] {
        fs::create_dir_all(target).map_err(|error| format!("{target}: {error}"))?;
        mount(kind, target).map_err(|error| format!("{target}: {error}"))?;
    }
    // Kernels before 5.11 count maps as locked memory.
    let unlimited = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: reads a struct of ours.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
    let plan = fs::read_to_string("/plan").map_err(|error| format!("/plan: {error}"))?;
    let (mut failed, mut all) = (0, 0);
    for line in plan.lines() {
        let parts: Vec<&str> = line.split('\t').collect();
        match parts.as_slice() {
            ["module", path] => load(path).map_err(|error| format!("{path}: {error}"))?,
            ["run", name, seconds, program, arguments @ ..] => {
                let limit = seconds.parse().map_err(|_| format!("/plan: {line}"))?;
                all += 1;
                failed += usize::from(!succeeds(name, Duration::from_secs(limit), program, arguments));
            }
            _ => return Err(format!("/plan: {line}")),
        }
    }
    Ok((failed, all))
}

fn succeeds(name: &str, limit: Duration, program: &str, arguments: &[&str]) -> bool {
    println!("guest: {name}: begins");
    let begun = Instant::now();
    let end = Command::new(program)
        .args(arguments)
        .env("PATH", "/sbin:/bin")
        .env("RUST_BACKTRACE", "0")
        .env("CALICO_AZURE_EBPF_OBJECT", "/object")
        .env("CALICO_AZURE_BIN", "/bin/calico-azure")
        .env("CALICO_AZURE_KUBE_PROXY", "ipvs")
        // Software emulation.
        .env("CALICO_AZURE_PATIENCE", "10")
        .spawn()
        .and_then(|child| wait(child, limit));
    let how = match &end {
        Ok(Some(status)) => status.to_string(),
        Ok(None) => "stopped".to_owned(),
        Err(error) => error.to_string(),
    };
    let ok = matches!(end, Ok(Some(status)) if status.success());
    let seconds = begun.elapsed().as_secs();
    println!(
        "guest: {name}: {} ({how}) in {seconds} s",
        if ok { "ok" } else { "failed" }
    );
    ok
}

/// `None` if it took too long.
fn wait(mut child: Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn mount(kind: &str, target: &str) -> io::Result<()> {
    let (kind, target) = (CString::new(kind)?, CString::new(target)?);
    // SAFETY: all pointers are to strings that live on, or null where that is allowed.
    let result = unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn load(path: &str) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: a descriptor of ours, an empty string and no flags.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn turn_off() {
    // SAFETY: no pointers; only the first process of a virtual machine gets here.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
}
