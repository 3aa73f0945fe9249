//! `sluice script add`.

use std::path::{Path, PathBuf};

use clap::Args;
use reqwest::StatusCode;
use sluice_api_types::job::{JobLimits, Variable};
use sluice_api_types::script::{AddScript, Os, ScriptVersion};
use sluice_protocol::bundle::Confinement;
use sluice_protocol::units::{ByteSize, Span};

use crate::command_line::Global;
use crate::commands::run::{KeyValue, read_script};
use crate::error::Error;
use crate::host::Client;
use crate::{exit, output};

/// Options of `sluice script add`.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// The script: a file, or - for stdin. Its header declares parameters and requirements
    file: PathBuf,
    /// The same tables in a file of their own, for a script without a header
    #[arg(long, value_name = "FILE.toml")]
    parameters: Option<PathBuf>,
    /// What it is called (the file's name without its ending where absent)
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What it is for, on one line (as before where absent)
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// A system that it is for, where it does not say so itself; may be repeated
    #[arg(long, value_name = "linux|windows|macos", value_parser = os)]
    os: Vec<Os>,
    /// The interpreter and its flags; wins over the script's #! line
    #[arg(long, value_name = "CMD")]
    interpreter: Option<String>,
    /// The user to run as, where a job does not say
    #[arg(long = "as", value_name = "USER")]
    run_as: Option<String>,
    /// An environment variable that jobs start with
    #[arg(long, value_name = "K=V")]
    env: Vec<KeyValue>,
    /// How long it may run, where a job does not say, for example 30s
    #[arg(long, value_name = "DURATION")]
    time_limit: Option<Span>,
    /// How much output is kept, where a job does not say, for example 1MiB
    #[arg(long, value_name = "SIZE")]
    output_limit: Option<ByteSize>,
    /// How much memory its processes may have, where a job does not say, for example 512MiB
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<ByteSize>,
    /// Keep at least so much of the machine from it; a job or the machine's owner may keep more
    #[arg(long, value_name = "standard|strict")]
    confinement: Option<Confinement>,
    /// The tenant
    #[arg(long, value_name = "T")]
    tenant: Option<String>,
}

fn os(word: &str) -> Result<Os, String> {
    [Os::Linux, Os::Windows, Os::Macos]
        .into_iter()
        .find(|os| os.as_str() == word)
        .ok_or_else(|| "linux, windows or macos".to_owned())
}

pub(super) async fn add(global: &Global, arguments: AddArgs) -> Result<u8, Error> {
    let name = match arguments.name {
        Some(name) => name,
        None => stem(&arguments.file)
            .ok_or_else(|| {
                Error::Usage(format!(
                    "{} gives the script no name; nothing was sent, pass --name NAME",
                    arguments.file.display()
                ))
            })?
            .to_owned(),
    };
    let request = AddScript {
        tenant: arguments.tenant,
        name,
        description: arguments.description,
        script: read_script(&arguments.file)?.into(),
        parameters: arguments
            .parameters
            .as_deref()
            .map(declaration)
            .transpose()?,
        interpreter: arguments.interpreter,
        os: arguments.os,
        run_as: arguments.run_as,
        limits: JobLimits {
            time: arguments.time_limit,
            output: arguments.output_limit,
            memory: arguments.memory_limit,
        },
        confinement: arguments.confinement,
        environment: arguments.env.into_iter().map(Variable::from).collect(),
    };
    let (version, _) = send(&Client::new(global)?, &request).await?;
    if global.json {
        output::json_line(&version)?;
    } else {
        output::print(&format!("{}@{}\n", version.name, version.version))?;
    }
    Ok(exit::SUCCESS)
}

/// The tables in a file. Whether they declare something is for the host to say.
fn declaration(file: &Path) -> Result<String, Error> {
    std::fs::read_to_string(file).map_err(Error::read(file))
}

/// The name that a file gives to its script; none for stdin, and for a name that is no text.
pub(super) fn stem(file: &Path) -> Option<&str> {
    if file == Path::new("-") {
        return None;
    }
    file.file_stem()?.to_str()
}

/// Adds a script, and says whether it is a new version.
pub(super) async fn send(
    client: &Client,
    request: &AddScript,
) -> Result<(ScriptVersion, bool), Error> {
    let response = client.post(&["scripts"])?.body(request).send().await?;
    let is_new = response.status() == StatusCode::CREATED;
    let version = response
        .json()
        .await
        .map_err(|error| Error::Answer(error.to_string()))?;
    Ok((version, is_new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_its_name_without_the_ending() {
        assert_eq!(stem(Path::new("/a/deploy.sh")), Some("deploy"));
        assert_eq!(stem(Path::new("backup.daily.py")), Some("backup.daily"));
        assert_eq!(stem(Path::new("plain")), Some("plain"));
        assert_eq!(stem(Path::new("-")), None);
        assert_eq!(stem(Path::new("/")), None);
    }
}
