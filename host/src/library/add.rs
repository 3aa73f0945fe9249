//! A script is added, or its next version.

use sluice_api_types::job::SubmitJob;
use sluice_api_types::script::{AddScript, Os, Parameter, Requires};
use sluice_protocol::bundle::{Confinement, Submission};
use sluice_protocol::digest::Digest;
use sluice_protocol::script::{Header, ParameterDeclaration};

use super::{InvalidScriptName, ScriptName, VersionId};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::jobs::{Order, RequestError};
use crate::operators::Actor;
use crate::store::scripts::{self, Declared, ScriptRow, Settings, Text, VersionRow};
use crate::store::{Connection, StoreError};

/// The longest description, in characters.
const LONGEST_DESCRIPTION: usize = 500;

/// What is in the library now.
#[derive(Debug, Clone, PartialEq)]
pub struct Added {
    /// The version.
    pub row: VersionRow,
    /// Whether it was not there before.
    pub is_new: bool,
}

/// Adds a script, or a version to one. Where the newest version has the same bytes and settings, that is the answer. What
/// no job could run is refused here.
///
/// # Errors
///
/// Why it cannot be added; nothing is changed then.
pub async fn add(
    host: &SharedHost,
    actor: &Actor,
    new: AddScript,
    now: UnixMillis,
) -> Result<Added, AddError> {
    let new = New::read(new)?;
    let asked = actor.clone();
    host.store
        .write(move |conn| write(conn, &asked, new, now))
        .await
}

/// A request that makes sense.
struct New {
    name: ScriptName,
    /// None where it is to be that of the version before.
    description: Option<String>,
    settings: Settings,
    declared: Declared,
    text: Text,
}

impl New {
    fn read(new: AddScript) -> Result<Self, AddError> {
        let name: ScriptName = new.name.parse()?;
        if name.is_the_providers() {
            return Err(AddError::Providers(name));
        }
        if let Some(description) = &new.description
            && (description.chars().count() > LONGEST_DESCRIPTION
                || description.chars().any(char::is_control))
        {
            return Err(AddError::Description);
        }
        // By the rules of a job, so that what is stored can be run.
        let request = SubmitJob {
            script: Some(new.script),
            interpreter: new.interpreter,
            run_as: new.run_as,
            limits: new.limits,
            confinement: new.confinement,
            environment: new.environment,
            ..SubmitJob::default()
        };
        let (submission, source) = Order::submission(request, new.parameters)?;
        let header = source.header.unwrap_or_default();
        let os = systems(&header, &new.os)?;
        let Submission {
            script,
            declared: declaration,
            interpreter,
            environment,
            run_as,
            limits,
            confinement,
            ..
        } = submission;
        Ok(Self {
            name,
            description: new.description,
            settings: Settings {
                description: String::new(),
                interpreter,
                os,
                run_as,
                limits,
                confinement,
                environment,
            },
            declared: declared(header),
            text: Text {
                script,
                declaration,
            },
        })
    }
}

/// The systems that a script is for: its header or declaration says it, or whoever adds it.
fn systems(header: &Header, given: &[Os]) -> Result<Vec<String>, AddError> {
    let sorted = |mut words: Vec<String>| {
        words.sort();
        words.dedup();
        words
    };
    let given = sorted(given.iter().map(|os| os.as_str().to_owned()).collect());
    let declared = sorted(
        header
            .requires
            .os
            .iter()
            .map(|os| os.to_lowercase())
            .collect(),
    );
    if declared.is_empty() {
        Ok(given)
    } else if given.is_empty() || given == declared {
        Ok(declared)
    } else {
        Err(AddError::OtherSystems(declared.join(", ")))
    }
}

fn declared(header: Header) -> Declared {
    let requires = header.requires;
    Declared {
        parameters: header.parameters.into_iter().map(parameter).collect(),
        requires: Requires {
            arch: requires.arch,
            commands: requires.commands,
            interpreter: requires.interpreter,
            user: requires.user,
            disk: requires.disk,
            memory: requires.memory,
        },
    }
}

fn parameter((name, declaration): (String, ParameterDeclaration)) -> Parameter {
    Parameter {
        name,
        kind: declaration.kind.as_str().to_owned(),
        required: declaration.required,
        default: declaration.default.map(json),
        pattern: declaration.pattern,
        min: declaration.min,
        max: declaration.max,
        choices: declaration.choices,
        delivery: declaration.delivery.as_str().to_owned(),
        description: declaration.description,
    }
}

/// A default as JSON. A date has no form of its own there, so it is shown as it is written.
fn json(value: toml::Value) -> serde_json::Value {
    match value {
        toml::Value::Datetime(date) => date.to_string().into(),
        toml::Value::Array(items) => items.into_iter().map(json).collect(),
        other => serde_json::to_value(other).unwrap_or_default(),
    }
}

fn write(conn: &Connection, actor: &Actor, new: New, now: UnixMillis) -> Result<Added, AddError> {
    let tenant = actor.tenant.id;
    let script_sha256 = Digest::of(&new.text.script);
    let known = scripts::find(conn, tenant, &new.name)?;
    if known
        .as_ref()
        .is_some_and(|script| script.archived.is_some())
    {
        return Err(AddError::Archived(new.name));
    }
    let same_text = scripts::with_text(conn, tenant, script_sha256)?;
    if let Some(redacted) = same_text.into_iter().find(|row| row.redacted.is_some()) {
        return Err(AddError::Redacted(redacted.id));
    }
    let before = scripts::latest(conn, tenant, &new.name)?;
    let settings = Settings {
        description: new
            .description
            .or_else(|| Some(before.as_ref()?.settings.description.clone()))
            .unwrap_or_default(),
        ..new.settings
    };
    let version = before.as_ref().map_or(0, |before| before.id.version) + 1;
    if let Some(row) = before
        && row.script_sha256 == script_sha256
        && row.settings == settings
        && scripts::declaration(conn, tenant, &row.id)? == new.text.declaration
    {
        return Ok(Added { row, is_new: false });
    }
    let mut events = Vec::new();
    if known.is_none() {
        let script = ScriptRow {
            name: new.name.clone(),
            created: now,
            created_by: actor.name.clone(),
            archived: None,
            archived_by: None,
        };
        scripts::insert(conn, tenant, &script)?;
        events.push(Event::by(EventKind::ScriptAdded, actor).detail("script", new.name.as_str()));
    }
    let row = VersionRow {
        id: VersionId {
            name: new.name,
            version,
        },
        script_sha256,
        size: new.text.script.len() as u64,
        settings,
        declared: Some(new.declared),
        created: now,
        created_by: actor.name.clone(),
        redacted: None,
        redacted_by: None,
    };
    scripts::insert_version(conn, tenant, &row, &new.text)?;
    let declaration = new.text.declaration.as_deref().map(str::as_bytes);
    events.push(added(actor, &row, declaration.map(Digest::of)));
    audit::append(conn, &actor.tenant, now, events)?;
    Ok(Added { row, is_new: true })
}

/// The entry for a version: all that it fixes, but for values of variables and the text itself.
fn added(actor: &Actor, row: &VersionRow, declaration_sha256: Option<Digest>) -> Event {
    let settings = &row.settings;
    let variables: Vec<&str> = settings
        .environment
        .iter()
        .map(|variable| variable.name.as_str())
        .collect();
    Event::by(EventKind::ScriptVersionAdded, actor)
        .with_script(row.script_sha256)
        .detail("script", row.id.name.as_str())
        .detail("version", row.id.version)
        .detail("interpreter", settings.interpreter.clone())
        .detail("os", settings.os.clone())
        .detail("run_as", settings.run_as.clone())
        .detail(
            "time_limit",
            settings.limits.time.map(|span| span.to_string()),
        )
        .detail(
            "output_limit",
            settings.limits.output.map(|size| size.to_string()),
        )
        .detail(
            "memory_limit",
            settings.limits.memory.map(|size| size.to_string()),
        )
        .detail("confinement", settings.confinement.map(Confinement::as_str))
        .detail("environment", variables)
        .detail(
            "declaration_sha256",
            declaration_sha256.map(|digest| digest.to_string()),
        )
}

/// A script was not added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// No name.
    #[error("{0}; nothing was added")]
    Name(#[from] InvalidScriptName),
    /// Names of the provider's are not for others.
    #[error("{0} is a name of the provider's; choose one without /; nothing was added")]
    Providers(ScriptName),
    /// Too long, or more than one line.
    #[error(
        "a description is one line of at most {LONGEST_DESCRIPTION} characters; nothing was added"
    )]
    Description,
    /// What no job could run.
    #[error("{0}; nothing was added")]
    Request(#[from] RequestError),
    /// Its header or declaration names other systems.
    #[error(
        "the script says that it is for {0}; leave the systems out, or name the same; nothing was added"
    )]
    OtherSystems(String),
    /// Nothing is added to it any more.
    #[error("the script {0} is archived; add it under another name; nothing was added")]
    Archived(ScriptName),
    /// What was erased is not to come back.
    #[error(
        "these are the bytes of {0}, which was redacted; take out what must not be in it; nothing was added"
    )]
    Redacted(VersionId),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
