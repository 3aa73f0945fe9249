//! Holds a guest to the memory that one call may use.

use sluice_gate_types::limits::CallLimits;
use wasmtime::ResourceLimiter;

/// Bytes that a table element counts for.
const TABLE_ELEMENT: usize = size_of::<usize>();

/// Core instances of one plugin: its module, and what adapters need.
pub(crate) const INSTANCES: u32 = 16;
/// Memories of one plugin.
pub(crate) const MEMORIES: u32 = 1;
/// Tables of one plugin: its own, and that of an adapter.
pub(crate) const TABLES: u32 = 4;
/// Elements of one table.
pub(crate) const ELEMENTS: usize = 10_000;

/// Adds up all memories and tables of a store: wasmtime's own `StoreLimits` holds each memory to the limit, not their sum.
///
/// The numbers that a pool is made with hold here too, so that a plugin is stopped by the same ones where there is no pool.
#[derive(Debug)]
pub(crate) struct Limiter {
    left: usize,
    taken: u64,
    pub(crate) hit: bool,
}

impl Limiter {
    pub(crate) fn new(limits: &CallLimits) -> Self {
        Self {
            left: usize::try_from(limits.memory).unwrap_or(usize::MAX),
            taken: 0,
            hit: false,
        }
    }

    /// Bytes that were taken. Memories and tables never shrink, so it is the most that there was at once.
    pub(crate) const fn taken(&self) -> u64 {
        self.taken
    }

    fn take(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                self.taken = self.taken.saturating_add(bytes as u64);
                true
            }
            None => {
                self.hit = true;
                false
            }
        }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.take(desired.saturating_sub(current)))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > ELEMENTS {
            self.hit = true;
            return Ok(false);
        }
        Ok(self.take(
            desired
                .saturating_sub(current)
                .saturating_mul(TABLE_ELEMENT),
        ))
    }

    fn instances(&self) -> usize {
        INSTANCES as usize
    }

    fn tables(&self) -> usize {
        TABLES as usize
    }

    fn memories(&self) -> usize {
        MEMORIES as usize
    }
}
