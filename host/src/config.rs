//! `sluice-host serve --config FILE`: what the command line does not say. The command line wins.
//!
//! ```toml
//! agents = "0.0.0.0:7443"
//! api = "127.0.0.1:7480"
//! advertise = ["sluice.example.org:7443"]
//!
//! [tls]                            # for an --api address that is not loopback; else one issued by the host's authority
//! certificate = "/etc/sluice/api.pem"
//! key = "/etc/sluice/api.key"
//! names = ["sluice.example.org"]   # for an issued one: how operators reach the host
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Where machines connect (UDP).
    pub agents: Option<SocketAddr>,
    /// Where operators connect (TCP).
    pub api: Option<SocketAddr>,
    /// `address:port` for machines, as enrollment tokens carry it.
    #[serde(default)]
    pub advertise: Vec<String>,
    /// The runner of gates; beside the host's own executable where absent.
    pub gate_runner: Option<PathBuf>,
    /// For the API.
    #[serde(default)]
    pub tls: Tls,
}

/// `[tls]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tls {
    /// PEM, leaf first.
    pub certificate: Option<PathBuf>,
    /// PEM.
    pub key: Option<PathBuf>,
    /// Names and addresses for a certificate that the host's own authority issues.
    #[serde(default)]
    pub names: Vec<String>,
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, or says something that it may not; with file, line, column and key.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let before = text.get(..start).unwrap_or_default();
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            let key = text
                .get(line_start..)
                .and_then(|rest| rest.lines().next())
                .unwrap_or_default();
            ConfigError::Invalid {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
                key: key.split('=').next().unwrap_or_default().trim().to_owned(),
                message: error.message().to_owned(),
            }
        })?;
        if config.tls.certificate.is_some() != config.tls.key.is_some() {
            return Err(ConfigError::HalfCertificate(path.to_owned()));
        }
        Ok(config)
    }
}

/// The configuration cannot be used: the host does not start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No file.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not what a configuration says.
    #[error("{}:{line}:{column}: {key}: {message}; the host does not start", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What stands there.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// A certificate without a key, or the other way round.
    #[error("{}: tls.certificate and tls.key go together; give both or none", .0.display())]
    HalfCertificate(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("host.toml"))
    }

    #[test]
    fn a_whole_file_is_read() {
        let config = parse(
            "agents = \"0.0.0.0:1\"\napi = \"[::1]:0\"\nadvertise = [\"h:1\"]\ngate-runner = \"/x\"\n[tls]\ncertificate = \"/c\"\nkey = \"/k\"\nnames = [\"h\"]\n",
        )
        .expect("reads");
        assert_eq!(config.advertise, ["h:1"]);
        assert_eq!(config.tls.names, ["h"]);
        assert_eq!(parse("").expect("reads"), Config::default());
    }

    #[test]
    fn errors_name_file_line_column_and_key() {
        for (text, expected) in [
            (
                "agents = \"0.0.0.0:1\"\n\napii = \"x\"\n",
                "host.toml:3:1: apii: unknown field",
            ),
            ("api = 7480\n", "host.toml:1:7: api: "),
            ("api = \"nowhere\"\n", "host.toml:1:7: api: "),
            (
                "[tls]\nname = \"x\"\n",
                "host.toml:2:1: name: unknown field",
            ),
            ("[tls]\nkey = \"x\"\n", "go together"),
        ] {
            let error = parse(text).expect_err(expected).to_string();
            assert!(
                error.contains(expected),
                "expected {expected:?} in {error:?}"
            );
        }
    }
}
