//! `sluice login`: save a host and a token for later commands.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;

use clap::Args;
use sluice_api_types::whoami::WhoAmI;

use crate::command_line::Global;
use crate::error::Error;
use crate::host::{Client, ConfigFile, Environment, Settings, config_path};
use crate::{exit, output};

/// Options of `sluice login`. Host and token come from the common options, the environment, or stdin.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {}

/// Runs the command: the token is tried before it is saved.
pub(crate) async fn run(global: &Global, _: LoginArgs) -> Result<u8, Error> {
    let path = config_path().ok_or_else(|| {
        Error::Usage("HOME is not set, so there is no place for the file".to_owned())
    })?;
    let environment = Environment::of_process();
    let mut wanted = global.clone();
    if wanted.host.is_none() && environment.host.is_none() {
        wanted.host = Some(ask("Host, for example http://127.0.0.1:7480")?);
    }
    if wanted.token.is_none() && environment.token.is_none() {
        wanted.token = Some(ask("Token (it will be visible here)")?);
    }
    let settings = Settings::choose(&wanted, environment, ConfigFile::default())?;
    let client = Client::with(settings)?;
    let whoami: WhoAmI = client.get(&["whoami"])?.json().await?;
    let settings = client.settings();
    let ca = match &settings.ca {
        Some(ca) => Some(std::path::absolute(ca).map_err(Error::read(ca))?),
        None => None,
    };
    save(
        &path,
        &ConfigFile {
            host: Some(settings.host.to_string()),
            token: Some(settings.token.clone()),
            ca,
        },
    )?;
    if global.json {
        output::json_line(&whoami)?;
    } else {
        output::print(&format!(
            "logged in to {} as {} (tenant {}); host and token are in {}\n",
            settings.host,
            whoami.operator,
            whoami.tenant,
            path.display()
        ))?;
    }
    Ok(exit::SUCCESS)
}

/// One line of stdin.
fn ask(question: &str) -> Result<String, Error> {
    let mut stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        let mut stderr = std::io::stderr().lock();
        // Without a prompt the line can still be typed.
        let _ = write!(stderr, "{question}: ").and_then(|()| stderr.flush());
    }
    let mut line = String::new();
    stdin.read_line(&mut line).map_err(|source| Error::System {
        action: "read stdin",
        source,
    })?;
    let line = line.trim();
    if line.is_empty() {
        return Err(Error::Usage(
            "nothing was typed; nothing was saved".to_owned(),
        ));
    }
    Ok(line.to_owned())
}

/// Replaces the file in one step. It is 0600 before the token is in it.
fn save(path: &Path, file: &ConfigFile) -> Result<(), Error> {
    let text = toml::to_string(file).map_err(|error| Error::Content {
        path: path.to_owned(),
        problem: error.to_string(),
    })?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory).map_err(Error::write(directory))?;
    let mut temporary =
        tempfile::NamedTempFile::new_in(directory).map_err(Error::write(directory))?;
    temporary
        .write_all(text.as_bytes())
        .and_then(|()| temporary.as_file().sync_all())
        .map_err(Error::write(temporary.path()))?;
    temporary
        .persist(path)
        .map_err(|error| Error::write(path)(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_back_and_is_for_its_owner_alone() {
        let directory = tempfile::tempdir().expect("makes a directory");
        let path = directory.path().join("a/b/config.toml");
        let file = ConfigFile {
            host: Some("https://h".to_owned()),
            token: Some("t\"\\".to_owned()),
            ca: None,
        };
        for _ in 0..2 {
            save(&path, &file).expect("saves");
            assert!(ConfigFile::read(&path).expect("reads") == file);
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| {
                std::fs::metadata(path)
                    .expect("is there")
                    .permissions()
                    .mode()
                    & 0o777
            };
            assert_eq!(
                (mode(&path), mode(path.parent().expect("has one"))),
                (0o600, 0o700)
            );
        }
        assert_eq!(
            std::fs::read_dir(path.parent().expect("has one"))
                .expect("reads")
                .count(),
            1
        );
    }
}
