//! Installing Debian packages: no questions, no recommended extras, an index update only when it is needed.

use std::path::PathBuf;
use std::process::Command;

use super::problems::Problem;
use crate::process;
use crate::term::Ui;

/// apt on this machine.
pub(super) struct Apt<'a> {
    ui: &'a Ui,
    log: PathBuf,
    updated: bool,
    /// Why the index could not be updated. Not fatal by itself: some other repository may be the broken one.
    trouble: Option<anyhow::Error>,
}

impl<'a> Apt<'a> {
    pub(super) fn new(ui: &'a Ui, log: PathBuf) -> Self {
        Self {
            ui,
            log,
            updated: false,
            trouble: None,
        }
    }

    /// The version apt would install, `None` if it knows none.
    pub(super) fn candidate(&self, package: &str) -> Option<String> {
        let mut command = Command::new("apt-cache");
        command.env("LC_ALL", "C").args(["policy", package]);
        parse_candidate(&process::capture(&mut command).ok()?)
    }

    /// Updates the index once. That a part of it could not be had matters only if a package is then unknown.
    pub(super) fn update(&mut self) {
        if !self.updated {
            self.updated = true;
            let args = ["update", "-o", "APT::Update::Error-Mode=any"].map(str::to_owned);
            self.trouble = self.run("updating apt's package index", &args).err();
        }
    }

    /// The reason for a package being unknown: the network if that failed, else the given one.
    pub(super) fn because(&mut self, otherwise: Problem) -> anyhow::Error {
        self.trouble.take().unwrap_or_else(|| otherwise.into())
    }

    /// Installs what is missing; an outdated index (files gone from the mirror) is updated once.
    pub(super) fn install(&mut self, title: &str, packages: &[String]) -> anyhow::Result<()> {
        let mut args = vec![
            "install".to_owned(),
            "-y".to_owned(),
            "--no-install-recommends".to_owned(),
        ];
        args.extend_from_slice(packages);
        match self.run(title, &args) {
            Err(_) if !self.updated => {
                self.update();
                self.run(&format!("{title}, again"), &args)
            }
            other => other,
        }
    }

    fn run(&self, title: &str, args: &[String]) -> anyhow::Result<()> {
        let mut command = Command::new("apt-get");
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C");
        // Another apt may be at work, as it is on a machine that was just started.
        command.args(["-q", "-o", "DPkg::Lock::Timeout=300"]).args(args);
        process::logged(self.ui, title, &mut command, &self.log)
            .map_err(|error| classify(title, &format!("{error:#}")).into())
    }
}

fn parse_candidate(policy: &str) -> Option<String> {
    let version = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate:"))?
        .trim();
    (version != "(none)").then(|| version.to_owned())
}

/// Tells a network that does not work from a package system that does not.
fn classify(doing: &str, output: &str) -> Problem {
    const NETWORK: [&str; 6] = [
        "Temporary failure resolving",
        "Could not resolve",
        "Could not connect",
        "Unable to connect",
        "Failed to fetch",
        "Network is unreachable",
    ];
    let (doing, detail) = (doing.to_owned(), output.to_owned());
    if NETWORK.iter().any(|sign| output.contains(sign)) {
        Problem::NoNetwork { doing, detail }
    } else {
        Problem::AptFailed { doing, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_candidate_is_read_from_the_policy() {
        let policy = "ipset:\n  Installed: (none)\n  Candidate: 7.17-1\n  Version table:\n";
        assert_eq!(parse_candidate(policy).as_deref(), Some("7.17-1"));
        assert_eq!(
            parse_candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"),
            None
        );
        assert_eq!(parse_candidate(""), None);
    }

    #[test]
    fn network_trouble_is_told_from_apt_trouble() {
        let net = classify(
            "installing ipset",
            "Err:1 Temporary failure resolving 'deb.debian.org'",
        )
        .to_string();
        assert!(
            net.starts_with("installing ipset failed because the package mirror cannot be reached"),
            "{net}"
        );
        assert!(net.contains("proxy") && net.contains("deb.debian.org"), "{net}");
        let broken = classify("installing ipset", "E: Unmet dependencies").to_string();
        assert!(
            broken.contains("apt-get -f install") && broken.contains("Unmet dependencies"),
            "{broken}"
        );
    }
}
