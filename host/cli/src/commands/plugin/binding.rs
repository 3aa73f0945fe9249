//! `sluice plugin bind`, `unbind` and `list --bindings`.

use std::collections::BTreeMap;
use std::path::Path;

use sluice_api_types::binding::{Binding, CreateBinding};
use sluice_protocol::report::Mode;

use crate::command_line::Global;
use crate::commands::run::{KeyValue, tag};
use crate::error::Error;
use crate::exit;
use crate::host::Client;
use crate::output::{self, List};

pub(super) async fn bind(
    global: &Global,
    plugin: String,
    settings: Option<&Path>,
    mode: Mode,
    tenant: Option<String>,
    tags: Vec<KeyValue>,
) -> Result<u8, Error> {
    let settings = match settings {
        Some(path) => read_settings(
            path,
            &std::fs::read_to_string(path).map_err(Error::read(path))?,
        )?,
        None => BTreeMap::new(),
    };
    let request = CreateBinding {
        plugin,
        settings,
        mode,
        tenant,
        tags: tags.into_iter().map(tag).collect(),
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
        &["id", "plugin", "version", "world", "mode", "tags", "sha256"],
        global.json,
    );
    let each = |bindings: Vec<Binding>| {
        list.write(&bindings, |binding| {
            let tags: Vec<_> = binding
                .tags
                .iter()
                .map(|tag| format!("{}={}", tag.key, tag.value))
                .collect();
            let mode = match binding.mode {
                Mode::Enforce => "enforce",
                Mode::Monitor => "monitor",
            };
            vec![
                binding.id.to_string(),
                binding.plugin.clone(),
                binding.version.clone(),
                binding.world.clone(),
                mode.to_owned(),
                tags.join(","),
                binding.sha256.to_string(),
            ]
        })?;
        Ok(true)
    };
    client
        .pages(&["bindings"], &[("tenant", tenant)], None, None, each)
        .await?;
    Ok(exit::SUCCESS)
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
