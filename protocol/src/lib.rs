//! What hosts and agents say to each other, and the words they say it with.
//!
//! This crate has no run time, no network and no clock: bytes go in, typed values come out, and the time is always an
//! argument. In reading order:
//!
//! - [`ids`], [`units`], [`digest`]: one type for each id and unit.
//! - [`codec`]: the one way to write a message as CBOR, and the refusal of every other.
//! - [`script`]: from submitted bytes to the text that runs: normalization, interpreter, header block.
//! - [`environment`]: which variables a job may set.
//! - [`bundle`]: what a submission fixes, and its digest; [`attachment`]: which files it may bring.
//! - [`secret`]: names of secrets, and their values on the way to a machine.
//! - [`ending`], [`report`]: how operations end, and what is said about it; [`causes`]: an error with its causes.
//! - [`receipt`]: what is left of each call of a gate, and the machine's word for it.
//! - [`gates`]: which gates a host binds to a machine.
//! - [`message`]: the messages, by the stream that carries them.

pub mod attachment;
pub mod bundle;
pub mod causes;
pub mod codec;
pub mod digest;
pub mod ending;
pub mod environment;
pub mod gates;
pub mod ids;
pub mod message;
pub mod receipt;
pub mod report;
pub mod script;
pub mod secret;
pub mod shared;
pub mod units;

/// The protocol version that this crate speaks. A host speaks the last three; there is only one so far.
pub const VERSION: u16 = 1;
