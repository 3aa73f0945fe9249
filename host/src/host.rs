//! What the parts of a host share.

use std::sync::Arc;

use sluice_gate_types::signature::Remembered;
use sluice_protocol::digest::Digest;

use crate::blobs::BlobStore;
use crate::clock::Clock;
use crate::fleet::Presence;
use crate::jobs::{Events, Later, Turns};
use crate::metrics::Metrics;
use crate::operators::{Failures, Roles};
use crate::plugins::Gates;
use crate::receipts::Trials;
use crate::rollouts::Rollouts;
use crate::schedules::Schedules;
use crate::secrets::SecretsKey;
use crate::store::Store;
use crate::windows::Windows;

/// A running host: made once by [`crate::server`], and handed to whoever needs it.
#[derive(Debug)]
pub struct Host {
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The truth.
    pub store: Store,
    /// What values of secrets are encrypted with.
    pub secrets: Arc<SecretsKey>,
    /// Big bytes.
    pub blobs: BlobStore,
    /// Who is connected.
    pub presence: Presence,
    /// Who follows which job.
    pub events: Events,
    /// What wakes those who let the next in order go.
    pub turns: Turns,
    /// What wakes the rollouts.
    pub rollouts: Rollouts,
    /// What wakes those who look for machines that match a job later.
    pub later: Later,
    /// What wakes the schedules.
    pub schedules: Schedules,
    /// What wakes those who wait for windows.
    pub windows: Windows,
    /// The gates of the preflight.
    pub gates: Gates,
    /// The publishers' signatures that were verified.
    pub signatures: Remembered,
    /// The place of a replay or backtest.
    pub trials: Trials,
    /// What is counted.
    pub metrics: Metrics,
    /// What roles mean, as far as they were read.
    pub roles: Roles,
    /// Requests with tokens that are nobody's.
    pub failures: Failures,
    /// Where it is reached.
    pub addresses: Addresses,
}

/// A handle on the host.
pub type SharedHost = Arc<Host>;

/// Where a host is reached, and how its authority is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// `address:port` for agents, in the order in which they try; written into enrollment tokens.
    pub agents: Vec<String>,
    /// The URL of the REST API.
    pub api: String,
    /// The SHA-256 of the root certificate's DER; written into enrollment tokens.
    pub authority: Digest,
}
