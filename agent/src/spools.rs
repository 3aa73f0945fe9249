//! How much disk output takes that the host has not got yet, and how much it may.
//!
//! What an operation may need at most is set aside before it starts, and what it has taken counts until the host has
//! acknowledged its report. So a host that is away, or that acknowledges nothing, costs a machine no more than its owner
//! says, and no script starts whose output there is no room for.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sluice_protocol::ending::{Block, Ending};
use sluice_protocol::ids::OperationId;
use sluice_protocol::units::ByteSize;
use sluice_shim::kept;

use crate::config::Limits;

/// A folder and files take this much more than what is in them, generously.
const FOLDER: u64 = 16 << 10;

/// How long it is believed how much is free on the disk.
const FRESH: Duration = Duration::from_secs(1);

/// The folder of all spools, and who takes how much of it.
#[derive(Debug)]
pub struct Spools {
    folder: PathBuf,
    account: Mutex<Account>,
}

#[derive(Debug, Default)]
struct Account {
    sizes: HashMap<OperationId, u64>,
    total: u64,
    /// What was free on the disk, less what was set aside since, and when that was.
    free: Option<(Instant, u64)>,
}

/// There is no room for the output of an operation. It was not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// Nothing but a lower limit of its output helps.
    #[error(
        "limits.spool: its output may take {} on disk, the ceiling for all operations is {}",
        size(*needs),
        size(*most)
    )]
    Never {
        /// What it may need.
        needs: u64,
        /// What all may have.
        most: u64,
    },
    /// The host has to take what there is first.
    #[error(
        "limits.spool: output that the host has not got yet takes {}, and with {} for this one it would be over {}; nothing was started",
        size(*taken),
        size(*needs),
        size(*most)
    )]
    Full {
        /// What others have.
        taken: u64,
        /// What it may need.
        needs: u64,
        /// What all may have.
        most: u64,
    },
    /// The disk is full.
    #[error(
        "limits.spool_reserve: {} are free on the disk where output is kept, and with {} for this one less than {} would be; nothing was started",
        size(*free),
        size(*needs),
        size(*reserve)
    )]
    Disk {
        /// What is free.
        free: u64,
        /// What it may need.
        needs: u64,
        /// What has to stay free.
        reserve: u64,
    },
}

impl From<NoRoom> for Ending {
    fn from(reason: NoRoom) -> Self {
        match reason {
            NoRoom::Never { .. } => Self::Blocked(Block::machine_policy(reason.to_string())),
            NoRoom::Full { .. } | NoRoom::Disk { .. } => Self::Error(reason.to_string()),
        }
    }
}

impl Spools {
    /// Of this folder.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            account: Mutex::default(),
        }
    }

    /// Sets aside what an operation may need that keeps at most `output` bytes.
    ///
    /// # Errors
    ///
    /// Where there is no room for it.
    pub fn reserve(
        &self,
        operation: OperationId,
        output: u64,
        limits: &Limits,
    ) -> Result<(), NoRoom> {
        let (needs, now) = (most(output), Instant::now());
        let mut account = self.account();
        let free = match account.free {
            Some((at, free)) if now < at + FRESH => Some(free),
            _ => self.free(),
        };
        account.reserve(operation, needs, limits, free)?;
        account.free = free.map(|free| (now, free.saturating_sub(needs)));
        Ok(())
    }

    /// The same for an operation that an earlier agent started: there is no choice.
    pub fn adopt(&self, operation: OperationId, output: u64) {
        self.account().set(operation, most(output));
    }

    /// An operation has ended, and its spool takes `size` bytes; where that is not known, it is looked up.
    pub fn ended(&self, operation: OperationId, size: Option<u64>) {
        let size = size.unwrap_or_else(|| self.size_of(operation));
        self.account().set(operation, size.saturating_add(FOLDER));
    }

    /// An operation has no spool, or no longer.
    pub fn removed(&self, operation: OperationId) {
        self.account().set(operation, 0);
    }

    /// What the files of a spool take.
    fn size_of(&self, operation: OperationId) -> u64 {
        let files = std::fs::read_dir(self.folder.join(operation.to_string()));
        files
            .into_iter()
            .flatten()
            .filter_map(|file| Some(file.ok()?.metadata().ok()?.len()))
            .sum()
    }

    /// What is free on the disk for this process. None where that cannot be found out: then it is not held against anyone.
    fn free(&self) -> Option<u64> {
        let disk = nix::sys::statvfs::statvfs(&self.folder).ok()?;
        let blocks = if nix::unistd::Uid::effective().is_root() {
            disk.blocks_free()
        } else {
            disk.blocks_available()
        };
        Some(blocks.saturating_mul(disk.fragment_size()))
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn reserve(
        &mut self,
        operation: OperationId,
        needs: u64,
        limits: &Limits,
        free: Option<u64>,
    ) -> Result<(), NoRoom> {
        let (most, reserve) = (limits.spool.0, limits.spool_reserve.0);
        // An operation may be checked again.
        let before = self.sizes.get(&operation).copied().unwrap_or(0);
        let taken = self.total.saturating_sub(before);
        if needs > most {
            return Err(NoRoom::Never { needs, most });
        }
        if taken.saturating_add(needs) > most {
            return Err(NoRoom::Full { taken, needs, most });
        }
        if let Some(free) = free.filter(|free| *free < needs.saturating_add(reserve)) {
            return Err(NoRoom::Disk {
                free,
                needs,
                reserve,
            });
        }
        self.set(operation, needs);
        Ok(())
    }

    fn set(&mut self, operation: OperationId, size: u64) {
        let before = if size == 0 {
            self.sizes.remove(&operation)
        } else {
            self.sizes.insert(operation, size)
        };
        self.total = self
            .total
            .saturating_sub(before.unwrap_or(0))
            .saturating_add(size);
    }
}

const fn most(output: u64) -> u64 {
    kept::most_on_disk(output).saturating_add(FOLDER)
}

/// In MiB, rounded up, where it is at least one.
fn size(bytes: u64) -> ByteSize {
    const MIB: u64 = 1 << 20;
    if bytes < MIB {
        ByteSize(bytes)
    } else {
        ByteSize(bytes.div_ceil(MIB).saturating_mul(MIB))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn limits(spool: u64, reserve: u64) -> Limits {
        Limits {
            spool: ByteSize::mib(spool),
            spool_reserve: ByteSize::mib(reserve),
            ..Limits::default()
        }
    }

    #[test]
    fn what_is_set_aside_and_taken_counts_until_it_is_removed() {
        let (mut account, limits) = (Account::default(), limits(10, 1));
        let [first, second] = [(); 2].map(|()| OperationId::generate());
        let reserve = |account: &mut Account, id, needs| {
            account.reserve(id, needs * MIB, &limits, Some(100 * MIB))
        };
        assert_eq!(reserve(&mut account, first, 6), Ok(()));
        assert_eq!(
            reserve(&mut account, second, 5),
            Err(NoRoom::Full {
                taken: 6 * MIB,
                needs: 5 * MIB,
                most: 10 * MIB
            })
        );
        account.set(first, 5 * MIB);
        assert_eq!(reserve(&mut account, second, 5), Ok(()));
        account.set(first, 0);
        account.set(second, 0);
        assert_eq!((account.total, account.sizes.len()), (0, 0));
        assert!(matches!(
            reserve(&mut account, first, 11),
            Err(NoRoom::Never { .. })
        ));
    }

    #[test]
    fn a_disk_that_is_nearly_full_starts_nothing() {
        let limits = limits(1024, 32);
        let reserve =
            |free| Account::default().reserve(OperationId::generate(), MIB, &limits, free);
        assert_eq!(reserve(Some(33 * MIB)), Ok(()));
        assert_eq!(
            reserve(Some(33 * MIB - 1)),
            Err(NoRoom::Disk {
                free: 33 * MIB - 1,
                needs: MIB,
                reserve: 32 * MIB
            })
        );
        assert_eq!(reserve(None), Ok(()));
    }

    #[test]
    fn a_spool_that_is_there_is_counted_with_what_it_takes() {
        let folder = tempfile::tempdir().expect("makes a folder");
        let (spools, id) = (
            Spools::new(folder.path().to_owned()),
            OperationId::generate(),
        );
        let spool = folder.path().join(id.to_string());
        std::fs::create_dir(&spool).expect("makes a folder");
        std::fs::write(spool.join("events"), [0; 1000]).expect("writes");
        std::fs::write(spool.join("tail-1"), [0; 500]).expect("writes");
        spools.ended(id, None);
        assert_eq!(spools.account().total, 1500 + FOLDER);
        spools.ended(id, Some(7));
        assert_eq!(spools.account().total, 7 + FOLDER);
        spools.removed(id);
        assert_eq!(spools.account().total, 0);
    }
}
