//! The `calico-azure` binary: leaves everything to the library. By the name of the CNI plug-in it is that.

use std::path::Path;
use std::process::ExitCode;

use calico_azure_userspace::cli;

fn main() -> ExitCode {
    let name = std::env::args_os().next();
    let called = name.as_deref().map(Path::new).and_then(Path::file_name);
    if called.is_some_and(|name| name == cli::cni::PLUGIN) {
        cli::cni::main()
    } else {
        cli::main()
    }
}
