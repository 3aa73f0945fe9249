//! `sluice secret`: values that scripts get and nobody gets back.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use sluice_api_types::secret::{Secret, SetSecret};
use sluice_protocol::secret::LONGEST;

use crate::command_line::Global;
use crate::error::Error;
use crate::exit;
use crate::host::Client;
use crate::output::{self, List};

/// Commands about secrets.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Set a secret, whether there is one of this name or not
    Set {
        /// Its name: letters, digits, - and _
        name: String,
        /// Where the value is, every byte of it: - for stdin, or @FILE. It is never an argument, which others could see
        #[arg(value_name = "-|@FILE", default_value = "-")]
        value: String,
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// Give a secret another value; jobs that wait keep the one they have
    Rotate {
        /// Its name
        name: String,
        /// Where the value is: - for stdin, or @FILE
        #[arg(value_name = "-|@FILE", default_value = "-")]
        value: String,
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// List secrets, without their values
    List {
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// Erase a secret's value, also where it waits for a machine
    Revoke {
        /// Its name
        name: String,
    },
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

impl Source {
    /// What was typed, which is not repeated where it is wrong: it may be the secret.
    fn named(text: &str) -> Result<Self, Error> {
        match text.strip_prefix('@') {
            Some(path) if !path.is_empty() => Ok(Self::File(path.into())),
            _ if text == "-" => Ok(Self::Stdin),
            _ => Err(Error::Usage(
                "the value is read from stdin (-) or a file (@FILE), and is never an argument; nothing was sent".to_owned(),
            )),
        }
    }

    /// Every byte, and no more of an endless file than shows that it is no secret.
    fn read(&self) -> Result<Vec<u8>, Error> {
        let limit = LONGEST as u64 + 1;
        let mut bytes = Vec::new();
        let (path, read) = match self {
            Self::Stdin => (
                Path::new("-"),
                std::io::stdin().lock().take(limit).read_to_end(&mut bytes),
            ),
            Self::File(path) => (
                path.as_path(),
                std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)),
            ),
        };
        read.map_err(Error::read(path))?;
        if bytes.len() > LONGEST {
            return Err(Error::Content {
                path: path.to_owned(),
                problem: format!("larger than a secret may be ({LONGEST} bytes); nothing was sent"),
            });
        }
        Ok(bytes)
    }
}

/// Runs the command.
pub(crate) async fn run(global: &Global, command: SecretCommand) -> Result<u8, Error> {
    match command {
        SecretCommand::Set {
            name,
            value,
            tenant,
        } => {
            let body = request(&value, tenant)?;
            let client = Client::new(global)?;
            let secret = client.put(&["secrets", &name])?.body(&body).json().await?;
            told(global, "set", &secret)?;
        }
        SecretCommand::Rotate {
            name,
            value,
            tenant,
        } => {
            let body = request(&value, tenant)?;
            let client = Client::new(global)?;
            let rotate = client.post(&["secrets", &name, "rotate"])?.body(&body);
            told(global, "rotated", &rotate.json().await?)?;
        }
        SecretCommand::List { tenant } => {
            let mut list = List::new(
                &["name", "version", "changed", "operator", "state"],
                global.json,
            );
            let each = |secrets: Vec<Secret>| {
                list.write(&secrets, |secret| {
                    vec![
                        secret.name.clone(),
                        secret.version.to_string(),
                        secret.changed_at.clone(),
                        secret.operator.clone(),
                        if secret.revoked { "revoked" } else { "active" }.to_owned(),
                    ]
                })?;
                Ok(true)
            };
            let query = [("tenant", tenant.as_deref())];
            let client = Client::new(global)?;
            client.pages(&["secrets"], &query, None, None, each).await?;
        }
        SecretCommand::Revoke { name } => {
            let client = Client::new(global)?;
            client.delete(&["secrets", &name])?.send().await?;
            if !global.json {
                output::print(&format!("revoked secret {name}\n"))?;
            }
        }
    }
    Ok(exit::SUCCESS)
}

fn request(value: &str, tenant: Option<String>) -> Result<SetSecret, Error> {
    let value = Source::named(value)?.read()?.into();
    Ok(SetSecret { value, tenant })
}

fn told(global: &Global, done: &str, secret: &Secret) -> Result<(), Error> {
    if global.json {
        output::json_line(secret)
    } else {
        let Secret { name, version, .. } = secret;
        output::print(&format!("{done} secret {name} (version {version})\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_never_an_argument_and_is_not_repeated() {
        assert_eq!(Source::named("-").ok(), Some(Source::Stdin));
        let file = Source::named("@/a b").ok();
        assert_eq!(file, Some(Source::File("/a b".into())));
        for text in ["hunter22", "", "@", "-x"] {
            let error = Source::named(text).expect_err("is refused").to_string();
            assert!(!error.contains("hunter22"), "{error}");
        }
    }
}
