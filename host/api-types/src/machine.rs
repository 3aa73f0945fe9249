//! `/v1/machines`: the fleet.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluice_protocol::ids::MachineId;

use crate::job::Tag;

/// A machine, as the host knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Machine {
    /// Its id, which never changes.
    #[schema(value_type = String)]
    pub id: MachineId,
    /// Its name.
    pub name: String,
    /// The tenant's name.
    pub tenant: String,
    /// Whether its agent is connected.
    pub connected: bool,
    /// Whether it was revoked.
    pub revoked: bool,
    /// Whether it waits for somebody to approve it: it gets no gates and no operations.
    #[serde(default)]
    pub pending: bool,
    /// RFC 3339.
    pub enrolled_at: String,
    /// RFC 3339; null where it never connected.
    pub last_seen: Option<String>,
    /// The version of its agent; null where it never connected.
    pub agent_version: Option<String>,
    /// Sorted by key.
    pub tags: Vec<Tag>,
    /// What the machine says about itself: claims.
    #[schema(value_type = Object)]
    pub facts: BTreeMap<String, serde_json::Value>,
    /// What the machine said about gates that it could not take in; operations that need them are blocked.
    #[serde(default)]
    pub gate_problems: Vec<String>,
    /// Nothing is done for it until an operator releases it; null where that is not so.
    #[serde(default)]
    pub quarantine: Option<MachineQuarantine>,
    /// When its history was last found to lack what the host has, because it was rolled back or copied: RFC 3339; null where
    /// it never was.
    #[serde(default)]
    pub history_lost_at: Option<String>,
    /// How its connection fares; null where it has none, and `last_seen` says since when.
    #[serde(default)]
    pub link: Option<MachineLink>,
    /// What waits here for it.
    #[serde(default)]
    pub waiting: MachineWaiting,
}

/// Why nothing is done for a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MachineQuarantine {
    /// RFC 3339.
    pub since: String,
    /// For people.
    pub reason: String,
}

/// How a machine's connection fares, as its host sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MachineLink {
    /// Since when it is up: RFC 3339.
    pub since: String,
    /// Where the machine is.
    pub address: String,
    /// The time of a round trip, as estimated, in microseconds.
    pub rtt_us: u64,
    /// Packets that the host has sent.
    pub sent_packets: u64,
    /// How many of them were lost.
    pub lost_packets: u64,
    /// Bytes that the host has sent.
    pub sent_bytes: u64,
    /// Bytes that came from the machine.
    pub received_bytes: u64,
}

/// Operations that wait on the host for a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MachineWaiting {
    /// How many are queued.
    pub operations: u64,
    /// When the oldest of them was submitted: RFC 3339; null where there is none.
    pub since: Option<String>,
}

/// Query of `GET /v1/machines`.
#[derive(
    Debug,
    Clone,
    PartialEq,
    Eq,
    Default,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
    utoipa::IntoParams,
)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MachineQuery {
    /// `next` of the part before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many at most; the host has a ceiling of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The tenant's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Only machines with this tag, written `key=value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Only machines that are not revoked and for which this expression over facts and tags holds: docs/targets.md. A part
    /// may then have fewer machines than its limit, also where another follows.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    #[param(rename = "where")]
    pub condition: Option<String>,
}

/// `PATCH /v1/machines/{machine}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchMachine {
    /// A new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Changes to its tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<PatchTags>,
}

/// Changes to the tags of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchTags {
    /// Added, or given another value.
    #[serde(default)]
    pub set: Vec<Tag>,
    /// Keys that go.
    #[serde(default)]
    pub remove: Vec<String>,
}
