//! What a job runs that names a script of the library.

use sluice_api_types::bytes::Base64;
use sluice_api_types::job::{SubmitJob, Variable};
use sluice_api_types::script::ScriptRef;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::TenantId;

use super::{ScriptName, VersionId};
use crate::store::scripts::{self, Settings, Text};
use crate::store::{Connection, StoreError, offers};

/// A version that may run, with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Which one.
    pub id: VersionId,
    /// Of the bytes.
    pub script_sha256: Digest,
    /// The operator who stored it.
    pub created_by: String,
    /// What holds where the job does not ask for something else.
    pub settings: Settings,
    text: Text,
}

/// What a version adds to a request besides what a request can ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filled {
    /// The version.
    pub id: VersionId,
    /// The systems that it is for; any where empty.
    pub os: Vec<String>,
    /// What its entry declares, as TOML.
    pub declared: Option<String>,
}

/// The version that `script` means: the one it names, or the newest.
///
/// # Errors
///
/// There is none, or it may not run.
pub fn choose(
    conn: &Connection,
    tenant: TenantId,
    script: &ScriptRef,
) -> Result<Chosen, ChooseError> {
    let none = || ChooseError::NoScript(script.name.clone());
    // What is no name is no script's.
    let name: ScriptName = script.name.parse().map_err(|_| none())?;
    let row = scripts::find(conn, tenant, &name)?.ok_or_else(none)?;
    let wanted = match script.version {
        None if name.is_the_providers() => {
            let newest = offers::newest(conn, tenant, &name.at_home())?;
            Some(newest.ok_or_else(|| ChooseError::NotOffered(name.to_string()))?)
        }
        wanted => wanted,
    };
    let found = match wanted {
        Some(version) => scripts::version(conn, tenant, &VersionId { name, version })?,
        None => scripts::latest(conn, tenant, &name)?,
    };
    let version = found.ok_or_else(|| ChooseError::NoVersion {
        name: row.name.clone(),
        version: script.version.unwrap_or_default(),
    })?;
    if row.archived.is_some() {
        return Err(ChooseError::Archived(row.name));
    }
    if !is_offered(conn, tenant, &version.id)? {
        return Err(ChooseError::NotOffered(version.id.to_string()));
    }
    let Some(text) = scripts::text(conn, tenant, &version.id)? else {
        return Err(ChooseError::Redacted(version.id));
    };
    Ok(Chosen {
        id: version.id,
        script_sha256: version.script_sha256,
        created_by: version.created_by,
        settings: version.settings,
        text,
    })
}

/// Whether a version is the tenant's own, or offered to it.
fn is_offered(conn: &Connection, tenant: TenantId, id: &VersionId) -> Result<bool, StoreError> {
    if !id.name.is_the_providers() {
        return Ok(true);
    }
    let at_home = VersionId {
        name: id.name.at_home(),
        version: id.version,
    };
    offers::holds(conn, tenant, &at_home)
}

/// Whether a version that was chosen may still run, in the transaction that records its job.
///
/// # Errors
///
/// It was archived, redacted or withdrawn in the meantime.
pub fn still_runs(conn: &Connection, tenant: TenantId, id: &VersionId) -> Result<(), ChooseError> {
    if !is_offered(conn, tenant, id)? {
        return Err(ChooseError::NotOffered(id.to_string()));
    }
    if scripts::may_run(conn, tenant, id)? {
        return Ok(());
    }
    let version = scripts::version(conn, tenant, id)?;
    Err(match version {
        Some(version) if version.redacted.is_some() => ChooseError::Redacted(version.id),
        _ => ChooseError::Archived(id.name.clone()),
    })
}

impl Chosen {
    /// Completes a request: its text, and what it leaves out.
    pub fn fill(self, request: &mut SubmitJob) -> Filled {
        let Settings {
            description: _,
            interpreter,
            os,
            run_as,
            limits,
            confinement,
            environment,
        } = self.settings;
        request.script = Some(Base64(self.text.script));
        request.interpreter = request.interpreter.take().or(interpreter);
        request.run_as = request.run_as.take().or(run_as);
        request.limits.time = request.limits.time.or(limits.time);
        request.limits.output = request.limits.output.or(limits.output);
        request.limits.memory = request.limits.memory.or(limits.memory);
        // The stricter of the two: whoever stored the script knows what it needs, and nothing is let through by a request.
        request.confinement = request.confinement.max(confinement);
        // Those that the request gives again stay where they are in the request.
        let kept = environment
            .into_iter()
            .filter(|kept| {
                request
                    .environment
                    .iter()
                    .all(|given| given.name != kept.name)
            })
            .map(|kept| Variable {
                name: kept.name,
                value: kept.value,
            })
            .collect();
        let given = std::mem::replace(&mut request.environment, kept);
        request.environment.extend(given);
        Filled {
            id: self.id,
            os,
            declared: self.text.declaration,
        }
    }
}

/// The library has nothing to run.
#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    /// Unknown, or another tenant's: the answer is the same.
    #[error("there is no script {} in the library (sluice script list); no job was made", .0.escape_debug())]
    NoScript(String),
    /// The script has other versions.
    #[error(
        "there is no version {version} of the script {name} (sluice script versions {name}); no job was made"
    )]
    NoVersion {
        /// The script.
        name: ScriptName,
        /// As asked.
        version: u64,
    },
    /// Nothing of it is started any more.
    #[error("the script {0} is archived, so nothing of it is started any more; no job was made")]
    Archived(ScriptName),
    /// It is the provider's, which withdrew it.
    #[error("the provider does not offer {0} any more; no job was made")]
    NotOffered(String),
    /// There is nothing left to run.
    #[error(
        "the text of {0} was redacted, so there is nothing to run; no job was made, use another version"
    )]
    Redacted(VersionId),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
