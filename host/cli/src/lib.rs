//! The `sluice` command: what operators do, over the host's REST API and nothing else; and what authors of plugins do,
//! without a host.
//!
//! [`main`] reads the command line, runs one command and makes an exit code of what came out. In reading order:
//!
//! - `command_line`: the commands and the options that all of them share;
//! - `commands`: one file (or folder) for each command;
//! - `host`: the connection to the host: settings, client, server-sent events;
//! - `findings`: findings as SARIF and OCSF;
//! - `output`: what stdout and stderr look like: tables, prefixes, escapes;
//! - `exit`: every exit code, in one table;
//! - `error`: what can go wrong, and how it is said;
//! - `reference`: the pages in `docs/cli/`.

use std::ffi::OsString;
use std::process::ExitCode;

mod command_line;
mod commands;
mod error;
mod exit;
mod findings;
mod host;
mod output;
#[cfg(test)]
mod reference;

pub use command_line::CommandLine;

/// Runs the command that `arguments` (the program's name first) ask for.
///
/// stdout is for what was asked for alone; errors are one line on stderr, an object with `--json`.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let json = command_line::asks_for_json(&arguments);
    let outcome = match command_line::parse(&arguments) {
        Ok(command_line::Parsed::Command(command_line)) => commands::run(*command_line),
        Ok(command_line::Parsed::Text(text)) => output::print(&text).map(|()| exit::SUCCESS),
        Err(error) => Err(error),
    };
    let code = outcome.unwrap_or_else(|error| {
        error.report(json);
        error.exit_code()
    });
    ExitCode::from(code)
}
