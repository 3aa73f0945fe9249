//! The program `sluice-shim`. What to do is read from standard input; its arguments (see [`sluice_shim::run`]) only say
//! where to make ready, that it is to fork shims, or that nothing but the cgroups of this machine is to be tried.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_shim::run()
}
