//! Keeps the ledger in bounds: ids that were acknowledged long ago go, and what is as old as they are is not taken in any more.
//!
//! An id says when its operation was made (UUID version 7, RFC 9562), and the smallest go first; the highest that went is kept.
//! An operation with a lower id that the ledger does not have may have been here, so it is refused. That costs those that wait
//! on their host longer than the ledger goes back: [`KEPT_FOR`], or [`MOST`] operations of this machine, whichever is less.
//! Whatever was not acknowledged stays.

use std::time::Duration;

use sluice_database::rusqlite::{Connection, OptionalExtension as _, params};

use super::{LedgerError, PRUNED, recall, remember};

/// How many ids are kept that were acknowledged.
const MOST: i64 = 100_000;
/// For how long they are kept.
const KEPT_FOR: Duration = Duration::from_secs(90 * 24 * 3600);
/// Among how many acknowledgements one prunes, and how many ids that removes at most: more than come meanwhile.
const EVERY: i64 = 256;
const AT_ONCE: i64 = 1024;

/// Counts an acknowledgement, and prunes where it is time, in the caller's transaction.
pub(super) fn now_and_then(connection: &Connection, now: u64) -> Result<(), LedgerError> {
    // By chance, so that nothing has to be counted over restarts.
    let due: bool = connection
        .prepare_cached("SELECT abs(random()) % ? = 0")?
        .query_row([EVERY], |row| row.get(0))?;
    if due {
        prune(connection, now, MOST)?;
    }
    Ok(())
}

fn prune(connection: &Connection, now: u64, most: i64) -> Result<(), LedgerError> {
    let kept: i64 = connection
        .prepare_cached("SELECT count(*) FROM operations WHERE state = 'acknowledged'")?
        .query_row([], |row| row.get(0))?;
    let kept_for = u64::try_from(KEPT_FOR.as_millis()).unwrap_or(u64::MAX);
    let too_old = first_id_of(now.saturating_sub(kept_for));
    let too_many = kept.saturating_sub(most).clamp(0, AT_ONCE);
    // The last one that goes: the highest of the first ones that are too old, or too many.
    let last: Option<String> = connection
        .prepare_cached(
            "SELECT max(id) FROM (
                 SELECT id, row_number() OVER (ORDER BY id) AS place FROM operations
                 WHERE state = 'acknowledged' ORDER BY id LIMIT ?1
             ) WHERE id < ?2 OR place <= ?3",
        )?
        .query_row(params![AT_ONCE, too_old, too_many], |row| row.get(0))
        .optional()?
        .flatten();
    let Some(last) = last else { return Ok(()) };
    connection
        .prepare_cached("DELETE FROM operations WHERE state = 'acknowledged' AND id <= ?")?
        .execute([&last])?;
    if recall(connection, PRUNED)?.is_none_or(|known| known < last) {
        remember(connection, PRUNED, &last)?;
    }
    Ok(())
}

/// The lowest id of an operation made at this time, in milliseconds since 1970: its first 48 bits.
fn first_id_of(time: u64) -> String {
    let time = time.min((1 << 48) - 1);
    format!("{:08x}-{:04x}-", time >> 16, time & 0xffff)
}

#[cfg(test)]
mod tests {
    use sluice_protocol::digest::Digest;
    use sluice_protocol::ending::Ending;
    use sluice_protocol::ids::OperationId;
    use sluice_protocol::report::Report;

    use super::super::{Known, Ledger};
    use super::*;
    use crate::testing::operation;

    const DAY: u64 = 24 * 3_600_000;
    const NOW: u64 = 1_800_000_000_000;

    fn made_at(time: u64) -> OperationId {
        let text = format!("{}7000-8000-000000000001", first_id_of(time));
        text.parse().expect("is an id")
    }

    async fn pruned(ledger: &Ledger, most: i64) {
        let pruned = ledger
            .0
            .write(move |connection| prune(connection, NOW, most));
        pruned.await.expect("prunes");
    }

    #[tokio::test]
    async fn what_was_acknowledged_long_ago_goes_and_nothing_as_old_is_taken_in_again() {
        let directory = tempfile::tempdir().expect("makes a directory");
        let ledger = Ledger::open(&directory.path().join("ledger.db")).expect("opens");
        let old: Vec<_> = (0..4).map(|day| made_at(NOW - (104 - day) * DAY)).collect();
        let young: Vec<_> = (1..4).map(|day| made_at(NOW - day * DAY)).rev().collect();
        let unheard = made_at(NOW - 200 * DAY);
        let report = Report::without_process(Ending::Succeeded, 3);
        for id in old.iter().chain(&young).chain([&unheard]) {
            let mut operation = operation();
            operation.operation = *id;
            let accepted = ledger.accept(&operation, NOW).await.expect("writes");
            accepted.await.expect("is on disk");
            let finished = ledger
                .finish(*id, report.clone(), NOW)
                .await
                .expect("writes");
            finished.await.expect("is on disk");
            if *id != unheard {
                let acknowledged = ledger.acknowledge(*id, Digest::of(b"head"), NOW);
                assert!(acknowledged.await.expect("writes"));
            }
        }
        pruned(&ledger, 100).await;
        let known = |id| ledger.knows(id).expect("reads");
        for id in &old {
            assert_eq!(known(*id), Known::TooOld, "{id}");
        }
        for id in young.iter().chain([&unheard]) {
            assert_eq!(known(*id), Known::Here, "{id}");
        }
        let between = made_at(NOW - 102 * DAY - 1);
        assert_eq!(known(between), Known::TooOld, "it may have been here");
        assert_eq!(known(made_at(NOW - 80 * DAY)), Known::Never);
        let report_of_unheard = ledger.report(unheard).expect("reads");
        assert_eq!(report_of_unheard, Some(report), "an outcome stays");

        pruned(&ledger, 2).await;
        assert_eq!(known(young[0]), Known::TooOld, "there are too many");
        assert_eq!(
            (known(young[1]), known(young[2])),
            (Known::Here, Known::Here)
        );
        pruned(&ledger, 100).await;
        assert_eq!(known(young[0]), Known::TooOld, "the mark does not go back");
    }
}
