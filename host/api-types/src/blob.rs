//! `PUT /v1/blobs`: attachments, before the job that names them. The body is the file's bytes.

use serde::{Deserialize, Serialize};
use sluice_protocol::digest::Digest;

/// What the host stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Blob {
    /// The name of the bytes from now on.
    #[schema(value_type = String)]
    pub sha256: Digest,
    /// In bytes.
    pub size: u64,
}
