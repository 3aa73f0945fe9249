//! `sluice plugin bind`, `unbind`, `revisions` and `list --bindings`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sluice_api_types::binding::{Binding, BindingRevision, CreateBinding, POSITION};
use sluice_protocol::gates::GateLimits;
use sluice_protocol::ids::BindingId;
use sluice_protocol::report::Mode;
use sluice_protocol::script::Language;
use sluice_protocol::units::{ByteSize, Span};

use crate::command_line::Global;
use crate::commands::run::{KeyValue, tag};
use crate::error::Error;
use crate::exit;
use crate::host::Client;
use crate::output::{self, List};

/// What `sluice plugin bind` is given.
#[derive(Debug, clap::Args)]
pub(crate) struct Bind {
    /// A plugin's id, or the digest of its component
    #[arg(value_name = "ID|DIGEST")]
    plugin: String,
    /// Settings, as TOML
    #[arg(long, value_name = "FILE.toml")]
    settings: Option<PathBuf>,
    /// enforce, or monitor to try it without blocking
    #[arg(long, default_value = "enforce", value_parser = mode)]
    mode: Mode,
    /// The tenant
    #[arg(long, value_name = "T")]
    tenant: Option<String>,
    /// Only on machines with this tag; of several a machine needs all
    #[arg(long, value_name = "K=V")]
    tag: Vec<KeyValue>,
    /// Only for scripts of this interpreter and others of its language (bash: every shell), and for those whose language nobody
    /// knows; may be repeated
    #[arg(long, value_name = "NAME", value_parser = language)]
    interpreter: Vec<Language>,
    /// Less than the plugin asks for, for each call: fuel=1000000, memory=8MiB, time=500ms; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    limit: Vec<Limit>,
    /// Where it stands among the gates of its stage: lower comes first
    #[arg(long, value_name = "N", default_value_t = POSITION)]
    position: u32,
    /// The binding to change; where absent that of this plugin with the same tags and interpreters
    #[arg(long, value_name = "ID")]
    binding: Option<BindingId>,
}

/// One limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Fuel(u64),
    Memory(ByteSize),
    Time(Span),
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        match key {
            "fuel" => value
                .parse()
                .map(Self::Fuel)
                .map_err(|_| "fuel is a whole number, as in fuel=1000000".to_owned()),
            "memory" => value
                .parse()
                .map(Self::Memory)
                .map_err(|error| format!("memory: {error}")),
            "time" => value
                .parse()
                .map(Self::Time)
                .map_err(|error| format!("time: {error}")),
            _ => Err("expected fuel=N, memory=SIZE or time=SPAN".to_owned()),
        }
    }
}

fn mode(word: &str) -> Result<Mode, String> {
    match word {
        "enforce" => Ok(Mode::Enforce),
        "monitor" => Ok(Mode::Monitor),
        _ => Err("enforce or monitor".to_owned()),
    }
}

fn language(word: &str) -> Result<Language, String> {
    Language::named(word).ok_or_else(|| {
        let known: Vec<_> = Language::KNOWN.iter().map(|one| one.as_str()).collect();
        format!(
            "of no language that is known (there are: {})",
            known.join(", ")
        )
    })
}

pub(super) async fn bind(global: &Global, bind: Bind) -> Result<u8, Error> {
    let settings = read_settings_file(bind.settings.as_deref())?.unwrap_or_default();
    let mut limits = GateLimits::default();
    for limit in bind.limit {
        match limit {
            Limit::Fuel(fuel) => limits.fuel = Some(fuel),
            Limit::Memory(memory) => limits.memory = Some(memory.0),
            Limit::Time(time) => limits.time_ms = Some(time.0),
        }
    }
    let request = CreateBinding {
        plugin: bind.plugin,
        binding: bind.binding,
        settings,
        mode: bind.mode,
        tenant: bind.tenant,
        tags: bind.tag.into_iter().map(tag).collect(),
        languages: bind.interpreter,
        limits,
        position: bind.position,
    };
    let binding: Binding = Client::new(global)?
        .post(&["bindings"])?
        .body(&request)
        .json()
        .await?;
    if global.json {
        output::json_line(&binding)?
    } else {
        output::print(&format!("{}\n", binding.id))?
    }
    Ok(exit::SUCCESS)
}

pub(super) async fn unbind(global: &Global, binding: &str) -> Result<u8, Error> {
    Client::new(global)?
        .delete(&["bindings", binding])?
        .send()
        .await?;
    if !global.json {
        output::print(&format!("unbound {binding}\n"))?;
    }
    Ok(exit::SUCCESS)
}

pub(super) async fn list(global: &Global, tenant: Option<&str>) -> Result<u8, Error> {
    let client = Client::new(global)?;
    let mut list = List::new(
        &[
            "id",
            "plugin",
            "version",
            "world",
            "mode",
            "tags",
            "sha256",
            "revision",
            "state",
            "languages",
            "position",
        ],
        global.json,
    );
    let each = |bindings: Vec<Binding>| {
        list.write(&bindings, |binding| {
            let tags: Vec<_> = binding
                .tags
                .iter()
                .map(|tag| format!("{}={}", tag.key, tag.value))
                .collect();
            let languages: Vec<_> = binding.languages.iter().map(|one| one.as_str()).collect();
            vec![
                binding.id.to_string(),
                binding.plugin.clone(),
                binding.version.clone(),
                binding.world.clone(),
                mode_word(binding.mode).to_owned(),
                tags.join(","),
                binding.sha256.to_string(),
                binding.revision.to_string(),
                binding.state.clone(),
                languages.join(","),
                binding.position.to_string(),
            ]
        })?;
        Ok(true)
    };
    client
        .pages(&["bindings"], &[("tenant", tenant)], None, None, each)
        .await?;
    Ok(exit::SUCCESS)
}

pub(super) async fn revisions(global: &Global, binding: &str) -> Result<u8, Error> {
    let client = Client::new(global)?;
    let mut list = List::new(
        &["revision", "state", "version", "mode", "by", "at", "reason"],
        global.json,
    );
    let each = |revisions: Vec<BindingRevision>| {
        list.write(&revisions, |revision| {
            vec![
                revision.revision.to_string(),
                revision.state.clone(),
                revision.version.clone(),
                mode_word(revision.mode).to_owned(),
                revision.created_by.clone(),
                revision.created_at.clone(),
                revision.reason.clone().unwrap_or_default(),
            ]
        })?;
        Ok(true)
    };
    client
        .pages(&["bindings", binding, "revisions"], &[], None, None, each)
        .await?;
    Ok(exit::SUCCESS)
}

const fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Monitor => "monitor",
    }
}

/// The settings in a file, where one is named.
pub(super) fn read_settings_file(
    path: Option<&Path>,
) -> Result<Option<BTreeMap<String, serde_json::Value>>, Error> {
    let Some(path) = path else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(path).map_err(Error::read(path))?;
    read_settings(path, &text).map(Some)
}

/// TOML has more types than settings: dates are refused here, the rest by the plugin's schema on the host.
fn read_settings(path: &Path, text: &str) -> Result<BTreeMap<String, serde_json::Value>, Error> {
    let wrong = |problem| Error::Content {
        path: path.to_owned(),
        problem,
    };
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes()[..at]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        wrong(format!(
            "line {line}: {}; nothing was bound",
            error.message()
        ))
    })?;
    table
        .into_iter()
        .map(|(key, value)| match to_json(value) {
            Some(value) => Ok((key, value)),
            None => Err(wrong(format!(
                "{key}: dates and numbers that are not finite are no settings; nothing was bound"
            ))),
        })
        .collect()
}

fn to_json(value: toml::Value) -> Option<serde_json::Value> {
    Some(match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => serde_json::Number::from_f64(number)?.into(),
        toml::Value::Boolean(truth) => truth.into(),
        toml::Value::Array(items) => items
            .into_iter()
            .map(to_json)
            .collect::<Option<Vec<_>>>()?
            .into(),
        toml::Value::Table(table) => serde_json::Value::Object(
            table
                .into_iter()
                .map(|(key, value)| Some((key, to_json(value)?)))
                .collect::<Option<_>>()?,
        ),
        toml::Value::Datetime(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_interpreters_are_read_with_their_units_and_names() {
        assert_eq!("fuel=5".parse(), Ok(Limit::Fuel(5)));
        assert_eq!("memory=8MiB".parse(), Ok(Limit::Memory(ByteSize(8 << 20))));
        assert_eq!("time=500ms".parse(), Ok(Limit::Time(Span(500))));
        for wrong in [
            "",
            "fuel",
            "fuel=",
            "fuel=-1",
            "memory=8x",
            "time=",
            "calls=3",
        ] {
            assert!(wrong.parse::<Limit>().is_err(), "{wrong}");
        }
        for (word, read) in [
            ("bash", Language::Shell),
            ("shell", Language::Shell),
            ("python3.11", Language::Python),
            ("javascript", Language::JavaScript),
        ] {
            assert_eq!(language(word), Ok(read), "{word}");
        }
        for wrong in ["", "unknown", "tclsh"] {
            assert!(language(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn settings_become_json_and_mistakes_are_named() {
        let read = |text| read_settings(Path::new("s.toml"), text);
        let settings =
            read("threshold = \"high\"\nusers = [\"a\"]\nmax = 3\nratio = 0.5\non = true\n")
                .expect("reads");
        assert_eq!(
            serde_json::to_value(settings).expect("serializes"),
            serde_json::json!({"threshold": "high", "users": ["a"], "max": 3, "ratio": 0.5, "on": true})
        );
        let message = read("a = 1\nb = \n").expect_err("is wrong").to_string();
        assert!(message.starts_with("s.toml: line 2: "), "{message}");
        assert!(
            read("when = 2026-11-21\n")
                .expect_err("is wrong")
                .to_string()
                .contains("when")
        );
        assert!(read("x = [inf]\n").is_err());
    }
}
