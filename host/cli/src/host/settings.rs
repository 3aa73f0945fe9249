//! Which host, as whom: flags win over the environment, the environment over the file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::command_line::Global;

/// Everything that a connection needs.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The host's URL.
    pub(crate) host: reqwest::Url,
    /// The operator's token.
    pub(crate) token: String,
    /// The authority that alone is trusted for the host, where one is named.
    pub(crate) ca: Option<PathBuf>,
    /// The tenant that commands are for, where one is named.
    pub(crate) tenant: Option<String>,
}

/// The token is left out.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("host", &self.host.as_str())
            .field("ca", &self.ca)
            .field("tenant", &self.tenant)
            .finish_non_exhaustive()
    }
}

/// `config.toml`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigFile {
    /// The host's URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
    /// The operator's token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// The authority that alone is trusted for the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
}

/// The environment, as far as settings go.
#[derive(Default)]
pub(crate) struct Environment {
    /// `SLUICE_HOST`.
    pub(crate) host: Option<String>,
    /// `SLUICE_TOKEN`.
    pub(crate) token: Option<String>,
    /// `SLUICE_CA`.
    pub(crate) ca: Option<PathBuf>,
    /// `SLUICE_TENANT`.
    pub(crate) tenant: Option<String>,
}

impl Environment {
    /// That of this process. An empty variable is an absent one.
    pub(crate) fn of_process() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            host: variable("SLUICE_HOST"),
            token: variable("SLUICE_TOKEN"),
            ca: variable("SLUICE_CA").map(PathBuf::from),
            tenant: variable("SLUICE_TENANT"),
        }
    }
}

/// `~/.config/sluice/config.toml`, where there is a home directory.
pub(crate) fn config_path() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty())?;
    Some(PathBuf::from(home).join(".config/sluice/config.toml"))
}

impl Settings {
    /// Takes each setting from where it wins. The file is read only where the others leave host or token open.
    pub(crate) fn load(global: &Global) -> Result<Self, SettingsError> {
        let environment = Environment::of_process();
        let (host, token) = (
            global.host.is_some() || environment.host.is_some(),
            global.token.is_some() || environment.token.is_some(),
        );
        let file = match config_path() {
            Some(path) if !(host && token) => ConfigFile::read(&path)?,
            _ => ConfigFile::default(),
        };
        Self::choose(global, environment, file)
    }

    /// Flags over environment over file, setting by setting.
    pub(crate) fn choose(
        global: &Global,
        environment: Environment,
        file: ConfigFile,
    ) -> Result<Self, SettingsError> {
        let host = global
            .host
            .clone()
            .or(environment.host)
            .or(file.host)
            .ok_or(SettingsError::NoHost)?;
        let token = global
            .token
            .clone()
            .or(environment.token)
            .or(file.token)
            .ok_or(SettingsError::NoToken)?;
        let token = token.trim().to_owned();
        if token.is_empty() || token.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err(SettingsError::BadToken);
        }
        let ca = global.ca.clone().or(environment.ca).or(file.ca);
        Ok(Self {
            host: host_url(&host)?,
            token,
            ca,
            tenant: global.tenant.clone().or(environment.tenant),
        })
    }
}

/// The URL of a host, which is HTTPS unless the host is this computer: a token never crosses a network in the clear.
pub(crate) fn host_url(text: &str) -> Result<reqwest::Url, SettingsError> {
    let url = reqwest::Url::parse(text).map_err(|_| SettingsError::BadHost(text.to_owned()))?;
    let host = url.host_str().unwrap_or_default();
    let local = host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        _ if !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || host.is_empty() =>
        {
            Err(SettingsError::BadHost(text.to_owned()))
        }
        "https" => Ok(url),
        "http" if local => Ok(url),
        "http" => Err(SettingsError::PlainHttp(text.to_owned())),
        _ => Err(SettingsError::BadHost(text.to_owned())),
    }
}

impl ConfigFile {
    /// Reads the file; one that is not there says nothing.
    pub(crate) fn read(path: &Path) -> Result<Self, SettingsError> {
        let unreadable = |source| SettingsError::Unreadable {
            path: path.to_owned(),
            source,
        };
        // Opened once: the mode that is checked is that of the file that is read.
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(unreadable(error)),
        };
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(SettingsError::OpenToOthers {
                    path: path.to_owned(),
                    mode,
                });
            }
        }
        let text = std::io::read_to_string(file).map_err(unreadable)?;
        Self::parse(&text).map_err(|(line, message)| SettingsError::Malformed {
            path: path.to_owned(),
            line,
            message,
        })
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            (
                text.as_bytes()[..at]
                    .iter()
                    .filter(|byte| **byte == b'\n')
                    .count()
                    + 1,
                error.message().to_owned(),
            )
        })
    }
}

/// Settings that lead nowhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// No host is named anywhere.
    #[error("no host is set; run sluice login, or set SLUICE_HOST to its URL")]
    NoHost,
    /// No token is named anywhere.
    #[error("no token is set; run sluice login, or set SLUICE_TOKEN")]
    NoToken,
    /// Not something a header can carry.
    #[error(
        "the token has white space or control characters in it; copy it again as it was printed"
    )]
    BadToken,
    /// Not a host's URL.
    #[error("{0} is not the URL of a host; write for example https://sluice.example.com:7480")]
    BadHost(String),
    /// The token would be readable on the way.
    #[error(
        "{0} is plain HTTP to another computer, where the token could be read on the way; nothing was sent, use https://"
    )]
    PlainHttp(String),
    /// Others can read the token.
    #[error("{path} can be read or written by others (mode {mode:04o}) and has a token in it; run chmod 600 {path}", path = path.display())]
    OpenToOthers {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The system does not give the file.
    #[error("cannot read {path}", path = path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, or with a key that is none.
    #[error("{path}, line {line}: {message}; the keys are host, token and ca", path = path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The file of `--ca` is no certificate.
    #[error("{path} has no PEM certificate in it", path = path.display())]
    BadCa {
        /// Which file.
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(host: Option<&str>, token: Option<&str>) -> Global {
        Global {
            host: host.map(str::to_owned),
            token: token.map(str::to_owned),
            ..Global::default()
        }
    }

    fn environment(host: Option<&str>, token: Option<&str>) -> Environment {
        Environment {
            host: host.map(str::to_owned),
            token: token.map(str::to_owned),
            ca: None,
            tenant: None,
        }
    }

    fn file() -> ConfigFile {
        ConfigFile {
            host: Some("https://file".to_owned()),
            token: Some("file".to_owned()),
            ca: Some("/file.pem".into()),
        }
    }

    #[test]
    fn flags_win_over_environment_and_environment_over_file() {
        let chosen = |g, e, f| {
            let settings = Settings::choose(&g, e, f).expect("is complete");
            (settings.host.as_str().to_owned(), settings.token)
        };
        let pair = |host: &str, token: &str| (host.to_owned(), token.to_owned());
        assert_eq!(
            chosen(global(None, None), environment(None, None), file()),
            pair("https://file/", "file")
        );
        assert_eq!(
            chosen(
                global(None, None),
                environment(Some("https://env"), None),
                file()
            ),
            pair("https://env/", "file")
        );
        assert_eq!(
            chosen(
                global(None, Some("flag")),
                environment(Some("https://env"), Some("env")),
                file()
            ),
            pair("https://env/", "flag")
        );
        assert_eq!(
            chosen(
                global(Some("https://flag"), None),
                environment(Some("https://env"), Some("env")),
                ConfigFile::default()
            ),
            pair("https://flag/", "env")
        );
        assert!(matches!(
            Settings::choose(
                &global(None, Some("t")),
                environment(None, None),
                ConfigFile::default()
            ),
            Err(SettingsError::NoHost)
        ));
        assert!(matches!(
            Settings::choose(
                &global(Some("https://h"), None),
                environment(None, None),
                ConfigFile::default()
            ),
            Err(SettingsError::NoToken)
        ));
    }

    #[test]
    fn a_token_does_not_cross_a_network_in_the_clear() {
        for good in [
            "http://127.0.0.1:7480",
            "http://localhost:1",
            "http://[::1]:7480",
            "https://sluice.example.com",
        ] {
            assert!(host_url(good).is_ok(), "{good}");
        }
        assert!(matches!(
            host_url("http://10.0.0.1:7480"),
            Err(SettingsError::PlainHttp(_))
        ));
        assert!(matches!(
            host_url("http://localhost.example.com"),
            Err(SettingsError::PlainHttp(_))
        ));
        for bad in [
            "127.0.0.1:7480",
            "sluice.example.com",
            "ftp://127.0.0.1",
            "http://me:pw@127.0.0.1",
            "",
        ] {
            assert!(
                matches!(host_url(bad), Err(SettingsError::BadHost(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line() {
        let (line, message) = ConfigFile::parse("host = \"https://h\"\ntokn = \"t\"\n")
            .err()
            .expect("is wrong");
        assert_eq!(line, 2);
        assert!(message.contains("tokn"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("makes a directory");
        let path = directory.path().join("config.toml");
        std::fs::write(&path, "host = \"https://h\"\ntoken = \"t\"\n").expect("writes");
        for (mode, good) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o620, false),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
                .expect("changes the mode");
            assert_eq!(ConfigFile::read(&path).is_ok(), good, "{mode:o}");
        }
        assert!(ConfigFile::read(&directory.path().join("absent")).is_ok());
    }
}
