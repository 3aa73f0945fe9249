//! Operations that start one after the other on their machine.
//!
//! ```text
//! held ──── keeps nobody waiting
//! queued ── its turn has come where nothing that is in order was sent to the machine and has not ended, and nothing that
//!           was accepted before is queued
//! sent ───┐
//! ended ──┴─ by a report, by time, or because somebody ended it: the machine is among those to look at (`turns`)
//! ```
//!
//! What was sent waits for nobody, and what is queued waits for what was sent or is before it on its own machine: nothing
//! ever waits for itself. What was accepted before is what has the lower rowid: rows are only added behind the
//! last, and a `VACUUM` copies them in this order, also where it numbers them anew.

use super::*;

/// Where the operation `operations` has to wait.
macro_rules! not_its_turn {
    () => {
        "EXISTS (SELECT 1 FROM operations o INDEXED BY operations_in_order
                 WHERE o.machine = operations.machine AND o.ended = 0 AND o.in_order = 1 AND o.tenant = operations.tenant
                     AND (o.state NOT IN ('held', 'queued')
                          OR (o.state = 'queued' AND o.rowid < operations.rowid)))"
    };
}

/// [`set_delivered`].
pub(super) const DELIVER: &str = concat!(
    "UPDATE operations SET state = 'delivered'
     WHERE id = ? AND state = 'queued' AND (in_order = 0 OR NOT ",
    not_its_turn!(),
    ")"
);

const NEXT: &str = concat!(
    operations!(
        "INDEXED BY operations_in_order
         WHERE machine = ? AND ended = 0 AND in_order = 1 AND state = 'queued' AND tenant = ? AND NOT "
    ),
    not_its_turn!(),
    " LIMIT 1"
);

const BEFORE: &str = operations!(
    "INDEXED BY operations_in_order
     WHERE machine = ?1 AND ended = 0 AND in_order = 1 AND tenant = ?2 AND id <> ?3
         AND (state NOT IN ('held', 'queued')
              OR (state = 'queued' AND rowid < (SELECT rowid FROM operations WHERE id = ?3)))
     ORDER BY state = 'queued', rowid LIMIT 1"
);

/// Notes the machines of these operations, as far as something else is queued there.
macro_rules! give_way {
    ($which:literal) => {
        concat!(
            "INSERT INTO turns (machine, tenant) SELECT machine, tenant FROM operations ",
            $which,
            " AND in_order = 1 AND ended = 0 AND EXISTS
                (SELECT 1 FROM operations o INDEXED BY operations_in_order
                 WHERE o.machine = operations.machine AND o.ended = 0 AND o.in_order = 1 AND o.state = 'queued'
                     AND o.id <> operations.id)
              ON CONFLICT DO NOTHING"
        )
    };
}

const GIVES_WAY: &str = give_way!("WHERE id = ? AND state <> 'held'");
const ALL_GIVE_WAY: &str =
    give_way!("WHERE tenant = ? AND job = ? AND batch IS NOT NULL AND state = 'queued'");

/// What is queued on the machine and whose turn has come; none where something else is to end first.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn next(
    conn: &Connection,
    tenant: TenantId,
    machine: MachineId,
) -> Result<Option<OperationRow>, StoreError> {
    first(
        conn,
        NEXT,
        params![machine.to_string(), tenant.to_string()],
        read,
    )
}

/// What is to end on the machine before the turn of this operation comes, which is queued: what was sent, or else the first in
/// the queue. None where it is not in order, or its turn has come.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn before(
    conn: &Connection,
    operation: &OperationRow,
) -> Result<Option<OperationRow>, StoreError> {
    let Some(machine) = operation.machine.filter(|_| operation.in_order) else {
        return Ok(None);
    };
    let (tenant, id) = (operation.tenant.to_string(), operation.id.to_string());
    first(conn, BEFORE, params![machine.to_string(), tenant, id], read)
}

/// Has the machine of an operation looked at, which is about to end or to be held, where something else waits for its turn
/// there. It is on disk with what the caller's transaction makes of the operation, so that no crash loses it.
pub(super) fn give_way(conn: &Connection, id: OperationId) -> Result<(), StoreError> {
    change(conn, GIVES_WAY, params![id.to_string()]).map(|_| ())
}

/// The same for all of a job with a rollout that are queued and about to be held.
pub(super) fn all_give_way(
    conn: &Connection,
    tenant: TenantId,
    job: JobId,
) -> Result<(), StoreError> {
    let params = params![tenant.to_string(), job.to_string()];
    change(conn, ALL_GIVE_WAY, params).map(|_| ())
}

/// Machines on which it may be another's turn, at most so many.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn machines_to_look_at(
    conn: &Connection,
    most: u32,
) -> Result<Vec<(TenantId, MachineId)>, StoreError> {
    all(
        conn,
        "SELECT tenant, machine FROM turns ORDER BY machine LIMIT ?",
        params![most],
        |row| Ok((parsed(row, "tenant")?, parsed(row, "machine")?)),
    )
}

/// A machine has been looked at.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn looked_at(conn: &Connection, machine: MachineId) -> Result<(), StoreError> {
    let machine = machine.to_string();
    change(
        conn,
        "DELETE FROM turns WHERE machine = ?",
        params![machine],
    )
    .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whose_turn_it_is_is_found_by_the_index_of_what_is_in_order() {
        let (_dir, store) = crate::store::tests_support::temporary();
        for (what, params) in [
            (DELIVER, 1),
            (NEXT, 2),
            (BEFORE, 3),
            (GIVES_WAY, 1),
            (ALL_GIVE_WAY, 2),
        ] {
            let steps = store
                .read(|conn| {
                    all(
                        conn,
                        &format!("EXPLAIN QUERY PLAN {what}"),
                        sluice_database::rusqlite::params_from_iter(vec!["x"; params]),
                        |row| Ok(row.get::<_, String>("detail")?),
                    )
                })
                .expect("reads");
            let walks = steps.iter().any(|step| step.starts_with("SCAN "));
            let by_index = steps
                .iter()
                .any(|step| step.contains("operations_in_order (machine=?"));
            assert!(!walks && by_index, "{what}: {steps:#?}");
        }
    }
}
