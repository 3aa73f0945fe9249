//! `sluice man`: manual pages, for whoever packages the command.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};

use crate::command_line::{CommandLine, Global};
use crate::error::Error;
use crate::{exit, output};

/// Options of `sluice man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// An existing directory; gets `sluice.1`, `sluice-run.1` and so on. Files of these names are replaced
    directory: PathBuf,
}

/// Runs the command. No host is asked.
pub(crate) fn run(global: &Global, arguments: &ManArgs) -> Result<u8, Error> {
    let mut command = CommandLine::command();
    command.build();
    for page in pages(&command) {
        let name = page.get_filename();
        let mut text = Vec::new();
        let path = arguments.directory.join(&name);
        page.render(&mut text)
            .and_then(|()| std::fs::write(&path, &text))
            .map_err(|source| Error::File {
                action: "write",
                path: path.clone(),
                source,
            })?;
        if global.json {
            output::json_line(&serde_json::json!({ "file": path }))?;
        } else {
            output::print(&format!("{}\n", path.display()))?;
        }
    }
    Ok(exit::SUCCESS)
}

/// A page for the command and for each that it has, those that are not there yet left out.
fn pages(command: &clap::Command) -> Vec<clap_mangen::Man> {
    let shown = command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set());
    let mut all = vec![clap_mangen::Man::new(command.clone())];
    all.extend(shown.flat_map(pages));
    all
}
