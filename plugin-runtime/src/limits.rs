//! Holds a guest to the memory that one call may use.

use sluice_gate_types::limits::CallLimits;
use wasmtime::ResourceLimiter;

/// Bytes that a table element counts for.
const TABLE_ELEMENT: usize = size_of::<usize>();

/// Adds up all memories and tables of a store: wasmtime's own `StoreLimits` holds each memory to the limit, not their sum.
#[derive(Debug)]
pub(crate) struct Limiter {
    left: usize,
    pub(crate) hit: bool,
}

impl Limiter {
    pub(crate) fn new(limits: &CallLimits) -> Self {
        Self {
            left: usize::try_from(limits.memory).unwrap_or(usize::MAX),
            hit: false,
        }
    }

    fn take(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
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
        Ok(self.take(
            desired
                .saturating_sub(current)
                .saturating_mul(TABLE_ELEMENT),
        ))
    }
}
