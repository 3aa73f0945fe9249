//! The `sluice` command. See the library for what it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_cli::main(std::env::args_os())
}
