//! `sluice-agent`: the daemon on a machine.
//!
//! It keeps a link to its host, takes operations into its ledger, puts them before the gates, and has `sluice-shim` run
//! what they let pass. In reading order:
//!
//! - `dispatcher`: owns the operations, from their arrival to the host's acknowledgement.
//! - [`at_work`]: what the agent is at work on, for the one after it.
//! - [`operation`]: the story of one operation, from the ledger to the report.
//! - [`config`]: the machine owner's policy, `agent.toml`.
//! - [`policy`]: what that policy says about an operation.
//! - `approval`: whether an approval that came with an operation is for it, and for which gates it counts.
//! - [`gates`]: the owner's gates and the host's, each in a runner of its own.
//! - [`facts`]: what is known about the machine.
//! - [`attachments`], `partial`: blobs that are fetched and verified, and what links leave of them.
//! - `described`: whether what a shim is to run is what the gates saw.
//! - `outcome`: from the shim's events to a report.
//! - [`spools`]: how much disk output takes.
//! - [`exec`]: users, interpreters, environment, and the shim.
//! - [`receipts`]: what is left of each call of a gate, signed.
//! - [`ledger`], [`stored`], [`audit`]: what must survive, in which form, and what is on the record.
//! - [`journal`], `telling`, [`link`]: what is told to the host, and how; [`lockdown`]: what it lets start.
//! - [`history`], [`hardware`]: whether this machine is the one that its host knows.
//! - [`enroll`], [`state`]: how a machine joins, and where it keeps things.
//! - [`supervisor`]: starts and stops the parts.

mod approval;
pub mod at_work;
pub mod attachments;
pub mod audit;
mod clock;
pub mod config;
mod described;
mod dispatcher;
pub mod enroll;
pub mod exec;
pub mod facts;
pub mod gates;
pub mod hardware;
pub mod history;
pub mod journal;
pub mod ledger;
pub mod link;
pub mod lockdown;
pub mod operation;
mod outcome;
mod partial;
pub mod policy;
pub mod receipts;
pub mod secrets;
pub mod spools;
pub mod state;
pub mod stored;
pub mod supervisor;
mod telling;
#[cfg(test)]
mod testing;
