//! Adding and removing windows. One is never changed: what a job asked for stays what it was.

use sluice_api_types::window::AddWindow;
use uuid::Uuid;

use super::{Calendar, CalendarError};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::fleet::{self, InvalidTag, is_plain_name};
use crate::host::SharedHost;
use crate::operators::{Actor, Denied, Permission};
use crate::schedules::{TimingError, Zone};
use crate::store::bindings::TagPair;
use crate::store::windows::{self, Scope, WindowRow};
use crate::store::{Connection, StoreError};

/// The most windows of a tenant: each is looked at for each operation.
const MOST: u64 = 100;
/// The most tags of a window.
const MOST_TAGS: usize = 16;

/// Adds a window.
///
/// # Errors
///
/// The request makes no sense, or there is one of this name.
pub async fn add(
    host: &SharedHost,
    actor: &Actor,
    request: AddWindow,
    now: UnixMillis,
) -> Result<WindowRow, ChangeError> {
    let row = read(actor, request, now)?;
    may_manage(actor, &row)?;
    let asked = actor.clone();
    let row = host
        .store
        .write(move |conn| {
            if windows::count(conn, asked.tenant.id)? >= MOST {
                return Err(ChangeError::TooMany);
            }
            if !windows::insert(conn, &row)? {
                return Err(ChangeError::Taken(row.name));
            }
            let event = about(&row, Event::by(EventKind::WindowAdded, &asked));
            audit::append(conn, &asked.tenant, now, [event])?;
            Ok(row)
        })
        .await?;
    host.windows.wake();
    Ok(row)
}

/// Removes a window. What is held to it on its machines starts; jobs that asked for it wait for it all the same.
///
/// # Errors
///
/// The operator's tenant has no such window.
pub async fn remove(
    host: &SharedHost,
    actor: &Actor,
    name: &str,
    now: UnixMillis,
) -> Result<(), ChangeError> {
    let (asked, name) = (actor.clone(), name.to_owned());
    host.store
        .write(move |conn| {
            let row = find(conn, &asked, &name)?;
            may_manage(&asked, &row)?;
            windows::remove(conn, asked.tenant.id, row.id, now)?;
            let event = about(&row, Event::by(EventKind::WindowRemoved, &asked));
            audit::append(conn, &asked.tenant, now, [event])?;
            Ok::<_, ChangeError>(())
        })
        .await?;
    host.windows.wake();
    Ok(())
}

fn find(conn: &Connection, actor: &Actor, name: &str) -> Result<WindowRow, ChangeError> {
    windows::find(conn, actor.tenant.id, name)?
        .ok_or_else(|| ChangeError::NoWindow(name.to_owned()))
}

/// A window of machines is about all that are ever tagged so: whoever may manage only some of them has no say in it.
fn may_manage(actor: &Actor, row: &WindowRow) -> Result<(), Denied> {
    match row.scope {
        Scope::Asked => actor.require(Permission::ManageMachines),
        Scope::Tagged(_) | Scope::Every => actor.require_always(Permission::ManageMachines),
    }
}

fn read(actor: &Actor, request: AddWindow, now: UnixMillis) -> Result<WindowRow, ChangeError> {
    let name = request.name;
    if name.len() > 64 || !is_plain_name(&name) {
        return Err(ChangeError::Name(name));
    }
    let zone = request.zone.as_deref().map(Zone::read).transpose()?;
    let zone = zone.unwrap_or(Zone::UTC);
    let calendar = Calendar::new(&request.cron, request.lasts, zone, now)?;
    let tags: Vec<TagPair> = request
        .tags
        .iter()
        .map(|tag| fleet::parse_tag(&tag.key, &tag.value))
        .collect::<Result<_, _>>()?;
    let mut keys: Vec<_> = tags.iter().map(|tag| tag.key.as_str()).collect();
    keys.sort_unstable();
    if keys.windows(2).any(|pair| pair[0] == pair[1]) || tags.len() > MOST_TAGS {
        return Err(ChangeError::Tags);
    }
    let scope = match (tags.is_empty(), request.all) {
        (false, true) => return Err(ChangeError::TagsAndAll),
        (true, true) => Scope::Every,
        (false, false) => Scope::Tagged(tags),
        (true, false) => Scope::Asked,
    };
    Ok(WindowRow {
        id: Uuid::now_v7(),
        tenant: actor.tenant.id,
        name,
        cron: calendar.cron().to_string(),
        lasts: calendar.lasts(),
        zone: calendar.zone().name().to_owned(),
        scope,
        created: now,
        created_by: actor.name.clone(),
    })
}

/// What an entry about a window says of it.
fn about(row: &WindowRow, event: Event) -> Event {
    let event = event
        .detail("window", row.name.as_str())
        .detail("cron", row.cron.as_str())
        .detail("lasts", row.lasts.to_string())
        .detail("zone", row.zone.as_str());
    match &row.scope {
        Scope::Asked => event,
        Scope::Tagged(tags) => {
            let words = tags.iter().map(ToString::to_string);
            event.detail("tags", words.collect::<Vec<_>>())
        }
        Scope::Every => event.detail("all", true),
    }
}

/// A window was neither added nor removed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// A permission is missing.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Unknown, or another tenant's: the answer is the same.
    #[error("there is no window {} (sluice window list); nothing was done", .0.escape_debug())]
    NoWindow(String),
    /// It would be shown in messages and the audit log.
    #[error("{} is no name for a window (1 to 64 letters, digits and - _ ., the first a letter or digit); nothing was done", .0.escape_debug())]
    Name(String),
    /// Two of one name could not be told apart.
    #[error(
        "there is a window {0} already; nothing was done, remove it first or choose another name"
    )]
    Taken(String),
    /// Too many.
    #[error("the tenant has {MOST} windows, which is the most; nothing was done, remove one first")]
    TooMany,
    /// No machine could have them all.
    #[error("a window has at most {MOST_TAGS} tags, each with another key; nothing was done")]
    Tags,
    /// Contradictory.
    #[error("a window is about machines with tags or about all, not both; nothing was done")]
    TagsAndAll,
    /// It would never be open, or nobody can say when.
    #[error("{0}; nothing was done")]
    Calendar(#[from] CalendarError),
    /// There is no such zone.
    #[error("{0}; nothing was done")]
    Zone(#[from] TimingError),
    /// No tag.
    #[error("{0}; nothing was done")]
    Tag(#[from] InvalidTag),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
