//! A script is put away for good.

use super::ScriptName;
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::operators::Actor;
use crate::provider;
use crate::store::{StoreError, scripts};

/// Archives a script: nothing of it is started or added any more. What was submitted before goes on, and what ran stays.
/// A script that is archived already stays as it is. What the provider offers of one is withdrawn.
///
/// # Errors
///
/// The tenant has no such script.
pub async fn archive(
    host: &SharedHost,
    actor: &Actor,
    script: &str,
    now: UnixMillis,
) -> Result<ScriptName, ArchiveError> {
    let none = || ArchiveError::NoScript(script.to_owned());
    let name: ScriptName = script.parse().map_err(|_| none())?;
    let (archived, asked) = (name.clone(), actor.clone());
    let found = host
        .store
        .write(move |conn| {
            let tenant = asked.tenant.id;
            if archived.is_the_providers() && scripts::find(conn, tenant, &archived)?.is_some() {
                return Err(ArchiveError::Providers(archived));
            }
            if scripts::archive(conn, tenant, &archived, &asked.name, now)? {
                let event = Event::by(EventKind::ScriptArchived, &asked)
                    .detail("script", archived.as_str());
                audit::append(conn, &asked.tenant, now, [event])?;
                provider::withdraw_all_of(conn, &asked, &archived, now)?;
                return Ok(true);
            }
            Ok::<_, ArchiveError>(scripts::find(conn, tenant, &archived)?.is_some())
        })
        .await?;
    if found { Ok(name) } else { Err(none()) }
}

/// A script was not archived.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Unknown, or another tenant's: the answer is the same.
    #[error("there is no script {} in the library; nothing was changed", .0.escape_debug())]
    NoScript(String),
    /// It is offered, and the provider's to change.
    #[error("{0} is the provider's, which alone can change it; nothing was changed")]
    Providers(ScriptName),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
