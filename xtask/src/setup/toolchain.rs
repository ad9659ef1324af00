//! Which Rust toolchain builds the eBPF programs. Pure: candidates in, choice and its reason out.

use std::path::PathBuf;

use super::facts::{Facts, version_pair};
use super::problems::Problem;

/// Names a rustup toolchain, or a directory with `bin/rustc`, to use instead of the choice made here.
pub(super) const OVERRIDE: &str = "CALICO_AZURE_EBPF_TOOLCHAIN";
/// What the workspace needs.
const OLDEST_RUST: (u32, u32) = (1, 95);
/// The release that aya-ebpf's pinned version is known to build with; rustup installs this one first.
pub(super) const KNOWN_GOOD: &str = "1.96.0";

/// Where a toolchain comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Rustup,
    System,
    Override,
}

/// A toolchain on this machine, usable or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) origin: Origin,
    pub(super) name: String,
    pub(super) prefix: PathBuf,
    /// `1.96.0`, `1.97.0-nightly`.
    pub(super) release: String,
    /// Major version of the LLVM it was built with.
    pub(super) llvm: u32,
    pub(super) has_cargo: bool,
    pub(super) has_sources: bool,
}

/// A usable candidate, and why it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) candidate: Candidate,
    pub(super) why: String,
}

/// A way to get a toolchain when there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    Rustup,
    Apt,
}

/// Everything the eBPF build needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Toolchain {
    pub(crate) cargo: PathBuf,
    pub(crate) rustc: PathBuf,
    pub(crate) linker: PathBuf,
    pub(super) label: String,
    pub(super) why: String,
}

impl Toolchain {
    pub(super) fn of(candidate: &Candidate) -> Self {
        Self {
            cargo: candidate.cargo(),
            rustc: candidate.rustc(),
            linker: PathBuf::new(),
            label: candidate.describe(),
            why: String::new(),
        }
    }

    pub(crate) fn describe(&self) -> String {
        format!("{}, {}; linker {}", self.label, self.why, self.linker.display())
    }
}

impl Candidate {
    pub(super) fn cargo(&self) -> PathBuf {
        self.prefix.join("bin/cargo")
    }

    pub(super) fn rustc(&self) -> PathBuf {
        self.prefix.join("bin/rustc")
    }

    pub(super) fn describe(&self) -> String {
        format!("rustc {} ({}), LLVM {}", self.release, self.name, self.llvm)
    }

    fn nightly(&self) -> bool {
        self.release.contains('-')
    }

    fn refusal(&self) -> Option<&'static str> {
        if version_pair(&self.release).is_none_or(|version| version < OLDEST_RUST) {
            Some("is older than 1.95")
        } else if !self.has_cargo {
            Some("has no cargo")
        } else if !self.has_sources {
            Some("has no sources of core (component rust-src)")
        } else {
            None
        }
    }
}

/// Takes the best usable candidate: the user's wish, the known good release, then what moves least.
pub(super) fn choose(found: &[Candidate], wish: Option<&str>) -> Result<Choice, Problem> {
    let usable = found.iter().filter(|candidate| candidate.refusal().is_none());
    let best = usable.min_by_key(|c| (c.release != KNOWN_GOOD, c.nightly(), c.origin == Origin::System));
    match (best, wish) {
        (Some(candidate), _) => Ok(Choice {
            candidate: candidate.clone(),
            why: reason(candidate),
        }),
        (None, Some(wish)) => Err(Problem::Unusable {
            wish: wish.to_owned(),
            why: found
                .first()
                .map_or_else(|| "it does not run".to_owned(), refused),
        }),
        (None, None) => Err(Problem::NoToolchain {
            tried: found.iter().map(refused).collect(),
        }),
    }
}

fn refused(candidate: &Candidate) -> String {
    format!(
        "{} {}",
        candidate.describe(),
        candidate.refusal().unwrap_or("is usable")
    )
}

fn reason(candidate: &Candidate) -> String {
    match candidate.origin {
        Origin::Override => format!("chosen because {OVERRIDE} names it"),
        Origin::Rustup => "chosen because rustup has it with rust-src".to_owned(),
        Origin::System => {
            "chosen because it comes with the sources of core and no rustup toolchain suits better".to_owned()
        }
    }
}

/// What to try, in order, when nothing here is usable.
pub(super) fn attempts(facts: &Facts) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    if facts.rustup && !facts.rustup_may_not_install {
        attempts.push(Attempt::Rustup);
    }
    if facts.has_apt() {
        attempts.push(Attempt::Apt);
    }
    attempts
}

#[cfg(test)]
mod tests {
    use super::super::facts::tests::good;
    use super::*;

    fn candidate(origin: Origin, release: &str, has_sources: bool) -> Candidate {
        Candidate {
            origin,
            name: format!("{origin:?}"),
            prefix: PathBuf::from("/opt").join(release),
            release: release.into(),
            llvm: 22,
            has_cargo: true,
            has_sources,
        }
    }

    #[test]
    fn the_usable_one_that_moves_least_is_taken() {
        use Origin::{Rustup, System};
        let cases: [(&[Candidate], &str); 4] = [
            (
                &[
                    candidate(Rustup, "1.95.0", false),
                    candidate(System, "1.96.0", true),
                ],
                "1.96.0",
            ),
            (
                &[
                    candidate(Rustup, "1.98.0-nightly", true),
                    candidate(System, "1.96.0", true),
                ],
                "1.96.0",
            ),
            (
                &[
                    candidate(Rustup, "1.98.0-nightly", true),
                    candidate(Rustup, "1.97.0", true),
                ],
                "1.97.0",
            ),
            (
                &[
                    candidate(Rustup, "1.98.0-nightly", true),
                    candidate(System, "1.85.0", true),
                ],
                "1.98.0-nightly",
            ),
        ];
        for (found, expected) in cases {
            let choice = choose(found, None).unwrap();
            assert_eq!(choice.candidate.release, expected);
            assert!(choice.why.starts_with("chosen because"), "{}", choice.why);
        }
    }

    #[test]
    fn refusals_say_why() {
        let no_cargo = Candidate {
            has_cargo: false,
            ..candidate(Origin::System, "1.96.0", true)
        };
        let found = [
            candidate(Origin::Rustup, "1.95.0", false),
            candidate(Origin::System, "1.85.0", true),
            no_cargo,
        ];
        let text = choose(&found, None).unwrap_err().to_string();
        for part in [
            "rust-src",
            "older than 1.95",
            "has no cargo",
            "rustup toolchain install nightly -c rust-src",
        ] {
            assert!(text.contains(part), "wanted {part:?} in: {text}");
        }
    }

    #[test]
    fn a_wish_that_cannot_be_met_is_an_error() {
        let text = choose(&[], Some("nightly-2026-01-01")).unwrap_err().to_string();
        assert!(
            text.contains("CALICO_AZURE_EBPF_TOOLCHAIN=nightly-2026-01-01"),
            "{text}"
        );
        let old = candidate(Origin::Override, "1.80.0", true);
        assert!(
            choose(&[old], Some("/opt"))
                .unwrap_err()
                .to_string()
                .contains("older than 1.95")
        );
    }

    #[test]
    fn rustup_is_tried_before_apt_unless_forbidden() {
        let with = Facts {
            rustup: true,
            ..good()
        };
        assert_eq!(attempts(&with), [Attempt::Rustup, Attempt::Apt]);
        assert_eq!(
            attempts(&Facts {
                rustup_may_not_install: true,
                ..with
            }),
            [Attempt::Apt]
        );
        assert_eq!(
            attempts(&Facts {
                os_release: "ID=arch".into(),
                ..good()
            }),
            []
        );
    }
}
