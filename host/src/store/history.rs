//! What the host knows of each machine's history: how far its ledger was when something of it was stored, which computer it
//! is, and whether it is quarantined. Also the epoch of this database.

use sluice_database::rusqlite::{Connection, Row, params};
use sluice_protocol::ids::{MachineId, TenantId};
use sluice_protocol::message::control::{Hardware, LedgerMark};

use super::StoreError;
use super::row::{
    change, first, from_json, only, parsed_or_null, signed, time_or_null, to_json, unsigned,
    unsigned_or_null,
};
use crate::clock::UnixMillis;

/// A machine's history, as the host knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryRow {
    /// The last entry of its ledger of which the host has stored something that followed from it.
    pub acknowledged: Option<LedgerMark>,
    /// Whatever it has open that has ended here is given up when it connects next.
    pub given_up: bool,
    /// When its history was last found to lack what the host has.
    pub lost: Option<UnixMillis>,
    /// Which computer it is.
    pub hardware: Hardware,
    /// Since when nothing is done for it, and why.
    pub quarantine: Option<Quarantine>,
}

/// A machine for which nothing is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// Since when.
    pub since: UnixMillis,
    /// Why, for people.
    pub reason: String,
}

/// The machine's history; none where there is no such machine.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(
    conn: &Connection,
    tenant: TenantId,
    machine: MachineId,
) -> Result<Option<HistoryRow>, StoreError> {
    first(
        conn,
        "SELECT ledger_seq, ledger_hash, given_up, history_lost, hardware, quarantined, quarantine_reason
         FROM machines WHERE tenant = ? AND id = ?",
        params![tenant.to_string(), machine.to_string()],
        read,
    )
}

fn read(row: &Row<'_>) -> Result<HistoryRow, StoreError> {
    let seq = unsigned_or_null(row, "ledger_seq")?;
    let hash = parsed_or_null(row, "ledger_hash")?;
    Ok(HistoryRow {
        acknowledged: seq.zip(hash).map(|(seq, hash)| LedgerMark { seq, hash }),
        given_up: row.get("given_up")?,
        lost: time_or_null(row, "history_lost")?,
        hardware: from_json(row, "hardware")?,
        quarantine: quarantine_of(row)?,
    })
}

/// Since when nothing is done for a machine, and why, from a row with both columns.
pub(super) fn quarantine_of(row: &Row<'_>) -> Result<Option<Quarantine>, StoreError> {
    let reason: Option<String> = row.get("quarantine_reason")?;
    Ok(time_or_null(row, "quarantined")?.map(|since| Quarantine {
        since,
        reason: reason.unwrap_or_default(),
    }))
}

/// The machine's ledger is known to be as far. One that is known to be farther stays so.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn advance(conn: &Connection, machine: MachineId, mark: LedgerMark) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE machines SET ledger_seq = ?1, ledger_hash = ?2
         WHERE id = ?3 AND (ledger_seq IS NULL OR ledger_seq < ?1)",
        params![signed(mark.seq), mark.hash.to_string(), machine.to_string()],
    )?;
    Ok(())
}

/// The machine's history begins anew: its ledger is as far as it says, whatever was known. What it has open is given up until
/// [`settle`].
///
/// # Errors
///
/// Where the database cannot be written.
pub fn lose(
    conn: &Connection,
    machine: MachineId,
    head: LedgerMark,
    now: UnixMillis,
) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE machines SET ledger_seq = ?, ledger_hash = ?, given_up = 1, history_lost = ?
         WHERE id = ?",
        params![
            signed(head.seq),
            head.hash.to_string(),
            now.0,
            machine.to_string()
        ],
    )?;
    Ok(())
}

/// Nothing of what the machine had open is there any more: from here on its ledger counts again.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn settle(conn: &Connection, machine: MachineId) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE machines SET given_up = 0 WHERE id = ?",
        params![machine.to_string()],
    )?;
    Ok(())
}

/// Records which computer the machine is.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn set_hardware(
    conn: &Connection,
    machine: MachineId,
    hardware: &Hardware,
) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE machines SET hardware = ? WHERE id = ?",
        params![to_json(hardware)?, machine.to_string()],
    )?;
    Ok(())
}

/// From here on nothing is done for the machine. Says no where that is so already.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn quarantine(
    conn: &Connection,
    machine: MachineId,
    reason: &str,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    Ok(change(
        conn,
        "UPDATE machines SET quarantined = ?, quarantine_reason = ? WHERE id = ? AND quarantined IS NULL",
        params![now.0, reason, machine.to_string()],
    )? == 1)
}

/// The machine is served again, with whatever it is by then; what it has open is given up. Says no where it was not
/// quarantined.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn release(conn: &Connection, machine: MachineId) -> Result<bool, StoreError> {
    let hardware = to_json(&Hardware::default())?;
    Ok(change(
        conn,
        "UPDATE machines SET quarantined = NULL, quarantine_reason = NULL, given_up = 1, ledger_seq = NULL, ledger_hash = NULL,
                             hardware = ?
         WHERE id = ? AND quarantined IS NOT NULL",
        params![hardware, machine.to_string()],
    )? == 1)
}

/// The epoch of this database.
///
/// # Errors
///
/// Where it cannot be read.
pub fn epoch(conn: &Connection) -> Result<u64, StoreError> {
    only(conn, "SELECT epoch FROM host_epoch", [], |row| {
        unsigned(row, "epoch")
    })
}

/// Begins another epoch.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn begin_epoch(conn: &Connection, epoch: u64, now: UnixMillis) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE host_epoch SET epoch = ?, since = ?",
        params![signed(epoch), now.0],
    )?;
    Ok(())
}
