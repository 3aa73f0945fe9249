//! The text of a version is erased for good: something got in that must not be there.

use super::{ScriptName, VersionId};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::jobs::Canceling;
use crate::operators::Actor;
use crate::provider;
use crate::store::{StoreError, scripts};

/// What was erased, and what that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redaction {
    /// The versions without a text now: the one that was named, and every other one with the same bytes.
    pub redacted: Vec<VersionId>,
    /// How many operations had not started, and were told not to.
    pub canceled: u64,
}

/// Erases the text of a version, and of every other version of the tenant's own with the same bytes, which hold the same secret.
/// What has not started of them is canceled; what runs goes on, and what ran stays. The bytes are not taken again. One
/// that is redacted already stays as it is. Of the provider's, what its customers have of it is erased too.
///
/// # Errors
///
/// The tenant has no such version.
pub async fn redact(
    host: &SharedHost,
    actor: &Actor,
    script: &str,
    version: u64,
    now: UnixMillis,
) -> Result<Redaction, RedactError> {
    let none = || RedactError::NoVersion {
        script: script.to_owned(),
        version,
    };
    let name: ScriptName = script.parse().map_err(|_| none())?;
    let (id, asked, missing) = (VersionId { name, version }, actor.clone(), none());
    let (redacted, canceling) = host
        .store
        .write(move |conn| {
            let tenant = asked.tenant.id;
            let named = scripts::version(conn, tenant, &id)?.ok_or(missing)?;
            if named.id.name.is_the_providers() {
                return Err(RedactError::Providers(named.id));
            }
            let (mut redacted, mut events) = (Vec::new(), Vec::new());
            let mut canceling = Canceling::default();
            for row in scripts::with_text(conn, tenant, named.script_sha256)? {
                // What is offered is the provider's to erase, and would not come back.
                if row.id.name.is_the_providers() {
                    continue;
                }
                if row.redacted.is_none() {
                    scripts::erase(conn, tenant, &row.id, &asked.name, now)?;
                    events.push(
                        Event::by(EventKind::ScriptRedacted, &asked)
                            .with_script(row.script_sha256)
                            .detail("script", row.id.name.as_str())
                            .detail("version", row.id.version),
                    );
                    for job in scripts::open_jobs(conn, tenant, &row.id)? {
                        canceling.add_unstarted(conn, &asked, job, now)?;
                    }
                }
                redacted.push(row.id);
            }
            audit::append(conn, &asked.tenant, now, events)?;
            let mut canceling = vec![(asked.clone(), canceling)];
            canceling.extend(provider::redact_copies(
                conn,
                &asked,
                named.script_sha256,
                now,
            )?);
            Ok::<_, RedactError>((redacted, canceling))
        })
        .await?;
    let told = canceling
        .into_iter()
        .map(|(by, canceling)| canceling.tell(host, &by));
    let canceled = told.sum();
    if let Err(error) = host.store.shorten_log().await {
        // The text is erased either way; the log is written over as the host goes on.
        tracing::warn!(%error, "what was redacted may be in the log of the database until that is written over; redact it again to empty the log");
    }
    Ok(Redaction { redacted, canceled })
}

/// Nothing was redacted.
#[derive(Debug, thiserror::Error)]
pub enum RedactError {
    /// Unknown, or another tenant's: the answer is the same.
    #[error("there is no version {version} of a script {} in the library; nothing was changed", script.escape_debug())]
    NoVersion {
        /// As asked.
        script: String,
        /// As asked.
        version: u64,
    },
    /// It is offered, and the provider's to change.
    #[error("{0} is the provider's, which alone can change it; nothing was changed")]
    Providers(VersionId),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
