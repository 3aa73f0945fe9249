//! `sluice script list`, `show` and `versions`.

use std::io::{IsTerminal as _, Write as _};

use sluice_api_types::script::{Parameter, Script, ScriptText, ScriptVersion};

use super::StoredScript;
use crate::command_line::Global;
use crate::error::Error;
use crate::exit;
use crate::host::Client;
use crate::output::{self, Inert, List};

pub(super) async fn list(global: &Global, tenant: Option<&str>) -> Result<u8, Error> {
    let client = Client::new(global)?;
    let mut list = List::new(
        &["name", "version", "state", "os", "added", "description"],
        global.json,
    );
    let each = |scripts: Vec<Script>| {
        list.write(&scripts, |script| {
            vec![
                script.name.clone(),
                script.versions.to_string(),
                state(script).to_owned(),
                script.latest.os.join(","),
                script.latest.created_at.clone(),
                script.description.clone(),
            ]
        })?;
        Ok(true)
    };
    client
        .pages(&["scripts"], &[("tenant", tenant)], None, None, each)
        .await?;
    Ok(exit::SUCCESS)
}

pub(super) async fn versions(global: &Global, script: &str) -> Result<u8, Error> {
    let client = Client::new(global)?;
    let mut list = List::new(
        &["version", "state", "added", "by", "size", "sha256"],
        global.json,
    );
    let each = |versions: Vec<ScriptVersion>| {
        list.write(&versions, |version| {
            vec![
                version.version.to_string(),
                state_of_version(version).to_owned(),
                version.created_at.clone(),
                version.created_by.clone(),
                version.size.to_string(),
                version.script_sha256.to_string(),
            ]
        })?;
        Ok(true)
    };
    client
        .pages(&["scripts", script, "versions"], &[], None, None, each)
        .await?;
    Ok(exit::SUCCESS)
}

/// A script with its newest version, or the version that is named.
pub(super) async fn show(global: &Global, script: &StoredScript) -> Result<u8, Error> {
    let client = Client::new(global)?;
    let value: serde_json::Value = match script.version {
        None => client.get(&["scripts", &script.name])?.json().await?,
        Some(version) => one(&client, &script.name, version).await?,
    };
    if global.json {
        output::json_line(&value)?;
        return Ok(exit::SUCCESS);
    }
    let wrong = |error: serde_json::Error| Error::Answer(error.to_string());
    let text = match script.version {
        None => {
            let script: Script = serde_json::from_value(value).map_err(wrong)?;
            let mut fields = vec![
                ("name", Some(script.name.clone())),
                ("state", Some(state(&script).to_owned())),
                ("archived", script.archived_at.clone()),
                ("archived by", script.archived_by.clone()),
            ];
            fields.extend(described(&script.latest));
            output::record(&fields)
        }
        Some(_) => {
            let version: ScriptVersion = serde_json::from_value(value).map_err(wrong)?;
            let mut fields = vec![("name", Some(version.name.clone()))];
            fields.extend(described(&version));
            output::record(&fields)
        }
    };
    output::print(&text)?;
    Ok(exit::SUCCESS)
}

/// The text alone: byte for byte into a pipe, made inert on a terminal.
pub(super) async fn text(global: &Global, script: &StoredScript) -> Result<u8, Error> {
    let client = Client::new(global)?;
    let version = match script.version {
        Some(version) => version,
        None => {
            let script: Script = client.get(&["scripts", &script.name])?.json().await?;
            script.versions
        }
    };
    let value = one(&client, &script.name, version).await?;
    if global.json {
        output::json_line(&value)?;
        return Ok(exit::SUCCESS);
    }
    let found: ScriptText =
        serde_json::from_value(value).map_err(|error| Error::Answer(error.to_string()))?;
    let Some(bytes) = found.script else {
        return Err(Error::Usage(format!(
            "the text of {}@{version} was redacted, so there is nothing to print",
            script.name
        )));
    };
    let mut stdout = std::io::stdout().lock();
    if stdout.is_terminal() {
        let mut inert = Inert::default();
        let shown = inert.push(&bytes.0) + &inert.finish();
        drop(stdout);
        output::print(&shown)?;
    } else {
        stdout
            .write_all(&bytes.0)
            .and_then(|()| stdout.flush())
            .map_err(Error::Stdout)?;
    }
    Ok(exit::SUCCESS)
}

async fn one(client: &Client, name: &str, version: u64) -> Result<serde_json::Value, Error> {
    client
        .get(&["scripts", name, "versions", &version.to_string()])?
        .json()
        .await
}

fn state(script: &Script) -> &'static str {
    match (&script.archived_at, &script.offered) {
        (Some(_), _) => "archived",
        (None, Some(offered)) if offered.is_empty() => "withdrawn",
        (None, _) => state_of_version(&script.latest),
    }
}

const fn state_of_version(version: &ScriptVersion) -> &'static str {
    match version.redacted_at {
        Some(_) => "redacted",
        None => "active",
    }
}

/// What an operator wants to know before they run it.
fn described(version: &ScriptVersion) -> Vec<(&'static str, Option<String>)> {
    let list = |words: &[String]| Some(words.join(", ")).filter(|text| !text.is_empty());
    let requires = &version.requires;
    let mut fields = vec![
        ("version", Some(version.version.to_string())),
        (
            "description",
            Some(version.description.clone()).filter(|text| !text.is_empty()),
        ),
        ("tenant", Some(version.tenant.clone())),
        ("sha256", Some(version.script_sha256.to_string())),
        ("size", Some(version.size.to_string())),
        ("added", Some(version.created_at.clone())),
        ("added by", Some(version.created_by.clone())),
        ("redacted", version.redacted_at.clone()),
        ("redacted by", version.redacted_by.clone()),
        ("interpreter", version.interpreter.clone()),
        ("os", list(&version.os)),
        ("runs as", version.run_as.clone()),
        (
            "time limit",
            version.limits.time.map(|span| span.to_string()),
        ),
        (
            "output limit",
            version.limits.output.map(|size| size.to_string()),
        ),
        (
            "memory limit",
            version.limits.memory.map(|size| size.to_string()),
        ),
        (
            "confinement",
            version.confinement.map(|asked| asked.to_string()),
        ),
        ("needs arch", list(&requires.arch)),
        ("needs commands", list(&requires.commands)),
        ("needs interpreter", requires.interpreter.clone()),
        ("needs user", requires.user.clone()),
        ("needs disk", requires.disk.map(|size| size.to_string())),
        ("needs memory", requires.memory.map(|size| size.to_string())),
    ];
    let variables = version.environment.iter();
    fields.extend(variables.map(|variable| {
        let text = format!("{}={}", variable.name, variable.value);
        ("variable", Some(text))
    }));
    let parameters = version.parameters.iter();
    fields.extend(parameters.map(|parameter| ("parameter", Some(declared(parameter)))));
    fields
}

/// A parameter in words: `times: integer, default 1, at most 3`.
fn declared(parameter: &Parameter) -> String {
    let mut words = vec![format!("{}: {}", parameter.name, parameter.kind)];
    if parameter.required && parameter.default.is_none() {
        words.push("required".to_owned());
    }
    if let Some(default) = &parameter.default {
        words.push(match default {
            serde_json::Value::String(text) => format!("default {text}"),
            other => format!("default {other}"),
        });
    }
    if let Some(min) = parameter.min {
        words.push(format!("at least {min}"));
    }
    if let Some(max) = parameter.max {
        words.push(format!("at most {max}"));
    }
    if !parameter.choices.is_empty() {
        words.push(format!("one of {}", parameter.choices.join(" ")));
    }
    if let Some(pattern) = &parameter.pattern {
        words.push(format!("like {pattern}"));
    }
    let text = words.join(", ");
    match &parameter.description {
        Some(description) => format!("{text} ({description})"),
        None => text,
    }
}
