//! Verbs that build and then become one of our programs, so that signals and exit codes are the program's own.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, ensure};

use crate::LoadArgs;
use crate::term::Ui;
use crate::workspace::{Object, Workspace};
use crate::{build, ebpf};

/// `demo`, `bench`, `verifier`.
pub(crate) fn program(ui: &Ui, ws: &Workspace, name: &str, args: &[String]) -> anyhow::Result<ExitCode> {
    let toolchain = build::all(ui, ws)?;
    if name == "bench" {
        ebpf::build(ui, ws, &toolchain, Object::Yardstick)?;
    }
    become_program(ws, name, args)
}

/// `build-and-load`.
pub(crate) fn load(ui: &Ui, ws: &Workspace, args: &LoadArgs) -> anyhow::Result<ExitCode> {
    build::all(ui, ws)?;
    become_program(ws, "calico-azure", &load_arguments(args))
}

fn load_arguments(args: &LoadArgs) -> Vec<String> {
    let LoadArgs {
        interface,
        fabric,
        attach,
        detach,
    } = args;
    let mut list = vec!["load".to_owned()];
    for name in interface {
        list.extend(["--interface".to_owned(), name.clone()]);
    }
    if let Some(name) = fabric {
        list.extend(["--fabric".to_owned(), name.clone()]);
    }
    if let Some(attach) = attach {
        list.extend(["--attach".to_owned(), attach.name().to_owned()]);
    }
    if *detach {
        list.push("--detach".to_owned());
    }
    list
}

fn become_program(ws: &Workspace, name: &str, args: &[String]) -> anyhow::Result<ExitCode> {
    let program = ws.program(name, false);
    ensure!(
        program.is_file(),
        "{} was not built: the workspace has no binary called {name}; check the [[bin]] sections",
        program.display()
    );
    let error = Command::new(&program).args(args).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{Cli, Verb};

    fn passed_on(line: &str) -> String {
        match Cli::try_parse_from(line.split(' ')).unwrap().verb {
            Verb::BuildAndLoad(args) => load_arguments(&args).join(" "),
            Verb::Demo { args } | Verb::Bench { args } | Verb::Verifier { args } => args.join(" "),
            _ => panic!("not a verb that passes arguments on"),
        }
    }

    #[test]
    fn arguments_reach_the_program() {
        assert_eq!(
            passed_on(
                "xtask build-and-load --interface a b --interface c --fabric eth0 --attach clsact --detach"
            ),
            "load --interface a --interface b --interface c --fabric eth0 --attach clsact --detach"
        );
        assert_eq!(
            passed_on("xtask build-and-load --interface cali0"),
            "load --interface cali0"
        );
        assert_eq!(
            passed_on("xtask demo --keep --networking flannel"),
            "--keep --networking flannel"
        );
        assert_eq!(passed_on("xtask demo -- --help"), "--help");
        assert!(Cli::try_parse_from(["xtask", "build-and-load"]).is_err());
    }
}
