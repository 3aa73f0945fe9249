//! Big bytes by digest: plugins and attachments.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// From the agent: these bytes, from this offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Of the whole blob.
    pub sha256: Digest,
    /// Where to start.
    pub offset: u64,
}

/// From the host. The bytes follow `Found` without further framing, to the end of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// The size of the whole blob.
    Found {
        /// In bytes.
        size: u64,
    },
    /// No such blob, or no open operation or binding of this machine names it.
    NotFound,
}
