//! `agent.toml`: the ceiling for whatever a host asks.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU16;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Deserializer, de};
use sluice_gate_types::manifest::{Version, World};
use sluice_gate_types::signature::PublicKey;
use sluice_protocol::units::{ByteSize, Span};
use sluice_shim::spec::{Opened, Profile};

use crate::exec::users::Allowed;

/// Where the file is looked for unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/sluice/agent.toml";

/// The machine owner's policy.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the private directories of scripts are made. Every parent is 0711 or wider.
    pub script_tempdir: PathBuf,
    /// Who may run scripts.
    #[serde(rename = "run-as")]
    pub run_as: RunAs,
    /// Ceilings.
    pub limits: Limits,
    /// What may run them.
    pub interpreters: Interpreters,
    /// Loader variables that jobs may set after all.
    pub environment: Environment,
    /// Gates that must pass.
    pub gates: Gates,
    /// Whose plugins may run here.
    pub trust: Trust,
    /// What is hidden from scripts.
    pub confinement: Confinement,
    /// What the host is told of the machine.
    pub facts: Facts,
}

/// `[run-as]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/agent-toml.md")]
pub struct RunAs {
    #[serde(deserialize_with = "names_or_all")]
    pub users: Allowed,
    pub default: String,
    pub no_new_privs: bool,
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/agent-toml.md")]
pub struct Limits {
    pub time: Span,
    pub output: ByteSize,
    pub memory: ByteSize,
    pub processes: u64,
    #[serde(deserialize_with = "percent")]
    pub cpu: u32,
    pub file_size: ByteSize,
    pub open_files: u64,
    pub parallel: usize,
    pub grace: Span,
    pub spool: ByteSize,
    pub spool_reserve: ByteSize,
}

/// `[interpreters]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/agent-toml.md")]
pub struct Interpreters {
    pub allowed: Vec<String>,
}

/// `[environment]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/agent-toml.md")]
pub struct Environment {
    pub allow: Vec<String>,
}

/// `[gates]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/agent-toml.md")]
pub struct Gates {
    pub required: Vec<RequiredGate>,
    #[serde(deserialize_with = "stages")]
    pub stages: Vec<World>,
}

/// A gate that must pass: the owner's own file, or one that the host must bind.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/agent-toml.md")]
pub struct RequiredGate {
    pub id: String,
    #[serde(deserialize_with = "from_text")]
    pub publisher: PublicKey,
    #[serde(default)]
    pub file: Option<PathBuf>,
    #[serde(default)]
    pub min_version: Option<Version>,
    #[serde(default)]
    pub settings: BTreeMap<String, toml::Value>,
}

/// `[trust]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/agent-toml.md")]
pub struct Trust {
    #[serde(deserialize_with = "keys")]
    pub publishers: Vec<PublicKey>,
    /// Whose signatures an operation needs. A list that is not empty blocks everything in this version, which has none.
    pub operators: Vec<String>,
    /// Whether an approval that the host tells of answers the owner's gates too, and not only those that the host binds.
    pub host_approvals: bool,
}

/// `[facts]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/agent-toml.md")]
pub struct Facts {
    pub every: Span,
}

/// `[confinement]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "docs/agent-toml.md")]
pub struct Confinement {
    pub profile: Profile,
    #[serde(deserialize_with = "places")]
    pub read: Vec<PathBuf>,
    #[serde(deserialize_with = "places")]
    pub write: Vec<PathBuf>,
    #[serde(deserialize_with = "ports")]
    pub tcp_connect: Vec<NonZeroU16>,
    #[serde(deserialize_with = "ports")]
    pub tcp_bind: Vec<NonZeroU16>,
}

impl Confinement {
    /// What the profile `strict` lets scripts reach besides, whoever asks for it.
    #[must_use]
    pub fn opened(&self) -> Opened {
        Opened {
            read: self.read.clone(),
            write: self.write.clone(),
            tcp_connect: self.tcp_connect.clone(),
            tcp_bind: self.tcp_bind.clone(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            script_tempdir: PathBuf::from("/var/lib/sluice/run"),
            run_as: RunAs::default(),
            limits: Limits::default(),
            interpreters: Interpreters::default(),
            environment: Environment::default(),
            gates: Gates::default(),
            trust: Trust::default(),
            confinement: Confinement::default(),
            facts: Facts::default(),
        }
    }
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            every: Span::seconds(300),
        }
    }
}

impl Default for RunAs {
    fn default() -> Self {
        let names = ["ephemeral", "nobody"].map(str::to_owned).to_vec();
        Self {
            users: Allowed::Names(names),
            default: "ephemeral".to_owned(),
            no_new_privs: true,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            time: Span::seconds(3600),
            output: ByteSize::mib(16),
            memory: ByteSize::mib(2048),
            processes: 512,
            cpu: 100,
            file_size: ByteSize::mib(4096),
            open_files: 1024,
            parallel: 4,
            grace: Span::seconds(5),
            spool: ByteSize::mib(1024),
            spool_reserve: ByteSize::mib(32),
        }
    }
}

impl Default for Interpreters {
    fn default() -> Self {
        let allowed = [
            "sh", "bash", "dash", "zsh", "python3", "ruby", "perl", "node", "pwsh",
        ];
        Self {
            allowed: allowed.map(str::to_owned).to_vec(),
        }
    }
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            required: Vec::new(),
            stages: World::ALL.to_vec(),
        }
    }
}

impl Config {
    /// Reads the file. Without `path` the default one is read where it exists.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, could have been written by others, or has something in it that is not understood: with
    /// file, line, column and key.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        let fail = |problem: String| ConfigError {
            path: file.to_owned(),
            problem,
        };
        // Opened once: what is judged is what is read, whatever is put at its place meanwhile.
        let unreadable = |error: io::Error| fail(format!("cannot be read: {error}"));
        let mut opened = match std::fs::File::open(file) {
            Ok(opened) => opened,
            Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(unreadable(error)),
        };
        if nix::unistd::Uid::effective().is_root() {
            let metadata = opened.metadata().map_err(unreadable)?;
            if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
                return Err(fail("must be owned by root and not writable by group or others, because it decides what runs here".to_owned()));
            }
        }
        let mut text = String::new();
        io::Read::read_to_string(&mut opened, &mut text).map_err(unreadable)?;
        let config: Self = toml::from_str(&text).map_err(|error| {
            let (line, column) = error
                .span()
                .map_or((1, 1), |span| position(&text, span.start));
            let key = text
                .lines()
                .nth(line - 1)
                .and_then(|line| line.split('=').next())
                .unwrap_or_default()
                .trim();
            fail(format!(
                "line {line}, column {column}: {key}: {}",
                error.message().lines().collect::<Vec<_>>().join(" ")
            ))
        })?;
        config.check().map_err(fail)?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if !self.script_tempdir.is_absolute() {
            return Err("script_tempdir must be an absolute path".to_owned());
        }
        if self.limits.parallel == 0 {
            return Err("limits.parallel must be at least 1".to_owned());
        }
        if self.facts.every < Span::seconds(1) {
            return Err("facts.every must be at least 1s".to_owned());
        }
        match self
            .gates
            .required
            .iter()
            .find(|gate| gate.file.as_ref().is_some_and(|file| !file.is_absolute()))
        {
            Some(gate) => Err(format!(
                "gates.required: the file of {} must be an absolute path",
                gate.id
            )),
            None => Ok(()),
        }
    }
}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    (
        before.matches('\n').count() + 1,
        before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1,
    )
}

fn names_or_all<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Allowed, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Users {
        Names(Vec<String>),
        Word(String),
    }
    match Users::deserialize(deserializer)? {
        Users::Names(names) => Ok(Allowed::Names(names)),
        Users::Word(word) if word == "ALL" => Ok(Allowed::All),
        Users::Word(_) => Err(de::Error::custom(
            "run-as.users is a list of names or \"ALL\"",
        )),
    }
}

fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.strip_suffix('%')
        .and_then(|n| n.parse().ok())
        .filter(|n| *n > 0)
        .ok_or_else(|| de::Error::custom("expected a percentage such as \"100%\""))
}

/// Paths as they lead through the file system: whoever reads the file sees what is opened.
fn places<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    Vec::<PathBuf>::deserialize(deserializer)?
        .into_iter()
        .map(|path| {
            let is_place = path.is_absolute()
                && path.components().count() > 1
                && !path.components().any(|part| part == Component::ParentDir)
                && !path.to_string_lossy().contains('\0');
            if is_place {
                // Without `.` and slashes that say nothing.
                Ok(path.components().collect())
            } else {
                Err(de::Error::custom(format!(
                    "{path:?} is not an absolute path without `..`, below the root"
                )))
            }
        })
        .collect()
}

fn ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NonZeroU16>, D::Error> {
    Vec::<i64>::deserialize(deserializer)?
        .into_iter()
        .map(|port| {
            let port = u16::try_from(port).ok().and_then(NonZeroU16::new);
            port.ok_or_else(|| de::Error::custom("expected ports from 1 to 65535"))
        })
        .collect()
}

fn stages<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<World>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let world = |name: &String| {
        World::ALL
            .iter()
            .copied()
            .find(|world| world.stage() == name)
    };
    names
        .iter()
        .map(|name| {
            world(name).ok_or_else(|| {
                de::Error::custom(format!(
                    "unknown stage {name:?} (stages are environment, prepare, scan, policy)"
                ))
            })
        })
        .collect()
}

fn from_text<'de, D: Deserializer<'de>, T: std::str::FromStr<Err: std::fmt::Display>>(
    deserializer: D,
) -> Result<T, D::Error> {
    String::deserialize(deserializer)?
        .parse()
        .map_err(de::Error::custom)
}

fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PublicKey>, D::Error> {
    Vec::<String>::deserialize(deserializer)?
        .iter()
        .map(|key| key.parse().map_err(de::Error::custom))
        .collect()
}

/// `agent.toml` cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the configuration {}: {problem}", path.display())]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().expect("makes a file");
        std::fs::write(file.path(), text).expect("writes");
        Config::load(Some(file.path()))
    }

    #[test]
    fn the_defaults_are_those_of_the_documentation() {
        let page = include_str!("../../docs/agent-toml.md");
        let block = page
            .split("```toml\n")
            .nth(1)
            .and_then(|rest| rest.split("```").next())
            .expect("the page shows the file");
        let written = load(block);
        assert_eq!(
            format!("{:?}", written.expect("loads")),
            format!("{:?}", Config::default())
        );
    }

    #[test]
    fn mistakes_are_named_with_line_and_column() {
        let error = load("[limits]\ntime = \"1h\"\noutputs = \"1MiB\"\n").expect_err("is wrong");
        assert!(
            error.problem.starts_with("line 3, column 1: ") && error.problem.contains("outputs"),
            "{error}"
        );
        let table = [
            ("limits", "time = \"1 hour\""),
            ("gates", "stages = [\"scans\"]"),
            ("run-as", "users = \"all\""),
            ("limits", "cpu = 100"),
            ("trust", "publishers = [\"x\"]"),
            ("confinement", "profile = \"Strict\""),
            ("confinement", "read = [\"srv/data\"]"),
            ("confinement", "read = \"/srv\""),
            ("confinement", "write = [\"/srv/../etc\"]"),
            ("confinement", "write = [\"/srv\", \"/\"]"),
            ("confinement", "tcp_connect = [0]"),
            ("confinement", "tcp_connect = [\"443\"]"),
            ("confinement", "tcp_bind = [65536]"),
            ("confinement", "connect = [443]"),
        ];
        for (section, entry) in table {
            let error = load(&format!("[{section}]\n{entry}\n")).expect_err("is wrong");
            let key = entry.split(' ').next().expect("has a key");
            assert!(
                error.problem.starts_with("line 2, column ")
                    && error.problem.contains(&format!(": {key}: ")),
                "{error}"
            );
        }
        let strict = load("[confinement]\nprofile = \"strict\"\n").expect("is a profile");
        assert_eq!(strict.confinement.profile, Profile::Strict);
        let opened = load(
            "[confinement]\nread = [\"/srv/./a/\"]\nwrite = [\"/srv/b\"]\ntcp_connect = [443]\ntcp_bind = [8080, 65535]\n",
        );
        let opened = opened.expect("is right").confinement.opened();
        assert_eq!(opened.read, [Path::new("/srv/a")]);
        assert_eq!(opened.read[0].as_os_str(), "/srv/a");
        assert_eq!(opened.write, [Path::new("/srv/b")]);
        let ports = [&opened.tcp_connect, &opened.tcp_bind];
        assert_eq!(ports.map(|ports| ports.len()), [1, 2]);
        let often = load("[facts]\nevery = \"999ms\"\n").expect_err("is too often");
        assert_eq!(often.problem, "facts.every must be at least 1s");
        assert!(Config::load(Some(Path::new("/nonexistent.toml"))).is_err());
    }
}
