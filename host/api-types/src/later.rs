//! Machines that match a job's selector only after it was made, and join it.

use serde::{Deserialize, Serialize};

/// What becomes of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Later {
    /// Until when they join: when the job expires. RFC 3339.
    pub until: String,
    /// How many have joined.
    pub joined: u64,
    /// How many match and may not.
    pub refused: u64,
    /// The first of these.
    pub refusals: Vec<LaterRefusal>,
    /// When the machines of the job were fixed, RFC 3339; null while others may join.
    pub closed_at: Option<String>,
    /// Why they were.
    pub closed_because: Option<String>,
}

/// A machine that matches and may not join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LaterRefusal {
    /// Its name.
    pub machine: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// Why not, as it was said last.
    pub reason: String,
}

impl std::fmt::Display for Later {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.closed_at, &self.closed_because) {
            (Some(at), Some(why)) => write!(f, "no more machines join since {at}: {why}")?,
            _ => write!(f, "machines that match later join until {}", self.until)?,
        }
        write!(f, "; {} joined, {} refused", self.joined, self.refused)
    }
}
