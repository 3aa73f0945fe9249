//! Windows as operators see them.

use sluice_api_types::job::Tag;
use sluice_api_types::window::{Opening, Window};

use super::hold::calendar;
use crate::clock::UnixMillis;
use crate::operators::Actor;
use crate::store::windows::{self, Scope, WindowRow};
use crate::store::{Connection, StoreError};

/// How many of the next openings are shown.
const NEXT: usize = 3;

/// A window with its next openings; the first is the one of now, where it is open.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn show(
    conn: &Connection,
    actor: &Actor,
    row: WindowRow,
    now: UnixMillis,
) -> Result<Window, StoreError> {
    let machines = windows::count_machines(conn, row.tenant, &row.scope)?;
    let (mut next, mut open) = (Vec::new(), false);
    // One that cannot be read is shown all the same, so that it can be found and removed.
    if let Ok(calendar) = calendar(&row) {
        open = calendar.is_open(now);
        let mut at = now;
        while let (true, Some(opens)) = (next.len() < NEXT, calendar.opens(at)) {
            let closes = calendar.closes(opens);
            next.push(Opening {
                opens_at: opens.to_string(),
                closes_at: closes.to_string(),
                local: calendar.zone().show(opens),
                local_until: calendar.zone().show(closes),
            });
            at = closes;
        }
    }
    let (tags, all) = match row.scope {
        Scope::Asked => (Vec::new(), false),
        Scope::Tagged(tags) => (tags, false),
        Scope::Every => (Vec::new(), true),
    };
    let tags = tags.into_iter().map(|tag| Tag {
        key: tag.key,
        value: tag.value,
    });
    Ok(Window {
        name: row.name,
        tenant: actor.tenant.name.clone(),
        cron: row.cron,
        lasts: row.lasts,
        zone: row.zone,
        tags: tags.collect(),
        all,
        machines,
        open,
        next,
        created_at: row.created.to_string(),
        created_by: row.created_by,
    })
}
