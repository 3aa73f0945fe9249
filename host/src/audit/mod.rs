//! The record: a hash chain for each tenant, written in the same transaction as what it records.
//!
//! - [`Event`]: what is recorded.
//! - [`append`]: adds entries to the chain.
//! - [`verify`]: finds the first entry that does not follow from those before it. Anyone with an export does the same
//!   with [`sluice_api_types::audit::verify_chain`].

mod chain;
mod event;

pub use chain::{VerifyError, append, verify};
pub use event::{Event, EventKind};
