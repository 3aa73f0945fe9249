//! `sluice completion`: what a shell needs to complete commands and options.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::command_line::{CommandLine, Global};
use crate::error::Error;
use crate::{exit, output};

/// Options of `sluice completion`.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell that the text is for; for example `sluice completion bash > /etc/bash_completion.d/sluice`
    shell: Shell,
}

/// Runs the command. No host is asked.
pub(crate) fn run(global: &Global, arguments: &CompletionArgs) -> Result<u8, Error> {
    let mut text = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut CommandLine::command(),
        "sluice",
        &mut text,
    );
    let text = String::from_utf8_lossy(&text);
    if global.json {
        let shell = arguments.shell.to_string();
        output::json_line(&serde_json::json!({ "shell": shell, "text": text }))?;
    } else {
        output::print(&text)?;
    }
    Ok(exit::SUCCESS)
}
