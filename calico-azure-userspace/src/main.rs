//! The `calico-azure` binary: parses the command line and leaves the rest to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    calico_azure_userspace::cli::main()
}
