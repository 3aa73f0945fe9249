//! The program `sluice-shim`. What to do is read from standard input; its argument (see [`sluice_shim::run`])
//! only says where to make ready.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_shim::run()
}
