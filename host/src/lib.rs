//! The host: the server that operators ask and machines connect to. In reading order:
//!
//! - [`jobs`]: from a request to a result. Start with `jobs/submit.rs`.
//! - [`library`]: stored scripts and their versions.
//! - [`approvals`]: jobs above a threshold, which wait for other operators.
//! - [`schedules`]: scripts that run by themselves.
//! - [`windows`]: when operations may start on machines.
//! - [`link`]: the machines' connections.
//! - [`plugins`]: gates: trusted, installed, bound.
//! - [`receipts`]: what the machines' gates said, signed; asked again, and what they would say.
//! - [`targets`], [`rollouts`], [`folding`]: many machines: which are meant, one after the other, and their results as few.
//! - [`fleet`]: machines: names, tags, presence, enrollment, history and quarantine.
//! - [`operators`]: operators, their tokens, and the roles that decide what they may do.
//! - [`secrets`]: values that scripts get and nobody gets back.
//! - [`audit`]: the record.
//! - [`rest`]: the API for operators.
//! - [`store`], [`blobs`]: what is kept, and how.
//! - [`config`], [`directory`], [`init`], [`server`], [`restored`]: how a host is set up, runs, and comes from a backup; `tls.rs`
//!   is the API's certificate.
//! - [`host`], [`metrics`], [`clock`], [`random`]: what the parts share.

pub mod jobs;

pub mod targets;

pub mod folding;

pub mod library;

pub mod rollouts;

pub mod approvals;

pub mod schedules;

pub mod windows;

pub mod link;

pub mod plugins;

pub mod receipts;

pub mod fleet;

pub mod operators;
pub mod provider;

pub mod secrets;

pub mod audit;

pub mod rest;

pub mod blobs;
pub mod store;

pub mod config;
pub mod directory;
pub mod init;
pub mod restored;
pub mod server;
mod tls;

pub mod clock;
pub mod host;
pub mod metrics;
pub mod random;

#[cfg(test)]
mod testing;
