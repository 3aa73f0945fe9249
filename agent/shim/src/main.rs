//! The program `sluice-shim`. It takes no arguments: what to do is read from standard input.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_shim::run()
}
