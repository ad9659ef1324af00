//! `cargo xtask fuzz`: one target under libFuzzer, whose command line this has. The target's name is in the environment.
#![no_main]

use std::sync::OnceLock;

use calico_azure_tests::fuzz::{self, Target};

/// Set by `cargo xtask fuzz`.
const NAME: &str = "CALICO_AZURE_FUZZ_TARGET";

static TARGET: OnceLock<&Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var(NAME).unwrap_or_default();
        let Some(target) = fuzz::TARGETS.iter().find(|target| target.name == name) else {
            let names: Vec<&str> = fuzz::TARGETS.iter().map(|target| target.name).collect();
            eprintln!("{NAME} is {name:?}: expected one of {}", names.join(", "));
            std::process::exit(2);
        };
        TARGET.get_or_init(|| target);
        if target.name == "packet" {
            // SAFETY: a function without arguments that does not unwind.
            unsafe { libc::atexit(tell) };
        }
    },
    |data: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.check)(data);
        }
    }
);

/// At the end: what each program's code has seen.
extern "C" fn tell() {
    for fuzz::Counted { hook, seen, passed } in fuzz::counted() {
        eprintln!("frames at {hook}: {seen}, {passed} of them passed or were answered");
    }
}
