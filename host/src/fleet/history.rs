//! Whether a machine is the one that this host knows, by what its ledger has.
//!
//! Every step of an operation is an entry of the machine's ledger, on disk before what it permits, and the entries are a chain
//! of hashes. With each start and each end that the host hears of it hears how far the ledger is, and keeps that. A machine
//! that comes back says what it has there:
//!
//! | its ledger | what it means | verdict |
//! |---|---|---|
//! | has the same entry there | nothing is missing | goes on |
//! | does not go as far | an older copy of its disk is back | what is open ends as `interrupted`, it begins anew |
//! | has another entry there | two copies of it have run | quarantined |
//!
//! After a release from quarantine nobody knows which of the copies comes: what is open ends there as well.
//!
//! A machine that has lost its history hears so until it has: as long as it has something open that has ended here, it is told
//! again. A word that was lost on its way, an agent that was killed over it, or another copy put back starts nothing again.

use sluice_protocol::ids::OperationId;
use sluice_protocol::message::control::{History, LedgerMark, Verdict};

use super::quarantine::{self, Reason};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::jobs::{self, Machine};
use crate::store::StoreError;
use crate::store::history::{self, HistoryRow};

/// What a machine's history is found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// The machine is served, and told this.
    Served(Verdict),
    /// It was quarantined.
    Quarantined,
}

/// Looks at what a machine says of its history, where it was asked about what the host had `known` then, and does what
/// follows from it. `open` is what it has there.
///
/// # Errors
///
/// Where the database cannot be used: then nothing is known, and nothing may be sent.
pub async fn judge(
    host: &SharedHost,
    machine: &Machine,
    known: &HistoryRow,
    said: History,
    open: &[OperationId],
    now: UnixMillis,
) -> Result<Judged, StoreError> {
    let is_settled = !known.given_up
        || host
            .store
            .read(|conn| jobs::are_open(conn, machine.tenant.id, open))?;
    match Finding::of(known, said, is_settled) {
        Finding::Held => {
            if known.given_up {
                let id = machine.id;
                host.store
                    .write(move |conn| history::settle(conn, id))
                    .await?;
            }
            if known.acknowledged != Some(said.head) {
                let id = machine.id;
                // Nobody waits for it: as long as it is not on disk, less is asked for.
                host.store
                    .write_lazily(
                        move |conn| history::advance(conn, id, said.head),
                        |stored| {
                            if let Err(error) = stored {
                                tracing::error!(%error, "how far a machine's ledger is could not be stored");
                            }
                        },
                    )
                    .await?;
            }
            Ok(Judged::Served(Verdict::Held))
        }
        Finding::Lost => {
            lose(host, machine, known.acknowledged, said.head, now).await?;
            Ok(Judged::Served(Verdict::Lost))
        }
        Finding::Forked => {
            quarantine::quarantine(host, machine, Reason::LedgersFork, now).await?;
            Ok(Judged::Quarantined)
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    Held,
    Lost,
    Forked,
}

impl Finding {
    /// `is_settled` says that nothing is open there that has ended here.
    fn of(known: &HistoryRow, said: History, is_settled: bool) -> Self {
        match known.acknowledged {
            None if known.given_up => Self::Lost,
            None => Self::Held,
            Some(mark) if said.at_acknowledged == Some(mark.hash) => {
                if is_settled {
                    Self::Held
                } else {
                    Self::Lost
                }
            }
            Some(mark) if said.head.seq < mark.seq => Self::Lost,
            Some(_) => Self::Forked,
        }
    }
}

async fn lose(
    host: &SharedHost,
    machine: &Machine,
    acknowledged: Option<LedgerMark>,
    head: LedgerMark,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let ours = machine.clone();
    let ended = host
        .store
        .write(move |conn| {
            history::lose(conn, ours.id, head, now)?;
            let ended = jobs::interrupt_all_of_machine(conn, &ours.tenant, ours.id, now)?;
            let event = Event::by_agent(EventKind::MachineHistoryLost, &ours.name)
                .detail("acknowledged", acknowledged.map(|mark| mark.seq))
                .detail("has", head.seq)
                .detail("interrupted", ended.len());
            audit::append(conn, &ours.tenant, now, [event])?;
            Ok::<_, StoreError>(ended)
        })
        .await?;
    tracing::warn!(
        machine = machine.name,
        interrupted = ended.len(),
        "a machine's ledger lacks what was acknowledged: it was rolled back or copied"
    );
    jobs::tell_ended(host, ended);
    Ok(())
}

#[cfg(test)]
mod tests {
    use sluice_protocol::digest::Digest;

    use super::*;

    fn mark(seq: u64, what: &[u8]) -> LedgerMark {
        LedgerMark {
            seq,
            hash: Digest::of(what),
        }
    }

    #[test]
    fn a_ledger_is_held_that_has_what_was_acknowledged_and_a_shorter_one_is_lost_and_another_forks()
    {
        let said = |at: Option<&[u8]>, seq| History {
            at_acknowledged: at.map(Digest::of),
            head: mark(seq, b"head"),
        };
        let known = |acknowledged, given_up| HistoryRow {
            acknowledged,
            given_up,
            ..HistoryRow::default()
        };
        let fifth = Some(mark(5, b"five"));
        for (known, said, expected) in [
            (known(None, false), said(None, 0), Finding::Held),
            (known(None, false), said(None, 9), Finding::Held),
            (known(fifth, false), said(Some(b"five"), 5), Finding::Held),
            (known(fifth, false), said(Some(b"five"), 9), Finding::Held),
            (known(fifth, false), said(None, 4), Finding::Lost),
            (known(fifth, false), said(None, 0), Finding::Lost),
            (
                known(fifth, false),
                said(Some(b"other"), 5),
                Finding::Forked,
            ),
            (
                known(fifth, false),
                said(Some(b"other"), 9),
                Finding::Forked,
            ),
            // It goes as far, and does not say what it has there.
            (known(fifth, false), said(None, 5), Finding::Forked),
            (known(None, true), said(None, 0), Finding::Lost),
        ] {
            let found = Finding::of(&known, said, !known.given_up);
            assert_eq!(found, expected, "{known:?} {said:?}");
        }
    }

    #[test]
    fn history_is_lost_until_nothing_is_open_there_that_has_ended_here() {
        let mark = |seq, what: &[u8]| LedgerMark {
            seq,
            hash: Digest::of(what),
        };
        let known = HistoryRow {
            acknowledged: Some(mark(5, b"five")),
            given_up: true,
            ..HistoryRow::default()
        };
        let said = |at: &[u8], seq| History {
            at_acknowledged: Some(Digest::of(at)),
            head: mark(seq, b"head"),
        };
        for (said, is_settled, expected) in [
            (said(b"five", 5), false, Finding::Lost),
            (said(b"five", 9), false, Finding::Lost),
            (said(b"five", 5), true, Finding::Held),
            (said(b"five", 9), true, Finding::Held),
            (said(b"other", 9), false, Finding::Forked),
        ] {
            assert_eq!(Finding::of(&known, said, is_settled), expected, "{said:?}");
        }
    }
}
