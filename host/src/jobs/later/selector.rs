//! What machines match that join a job later. Names are no part of it: the machines that have them are fixed when it is made,
//! and whoever enrolls under one must not become a target by that.

use serde::{Deserialize, Serialize};
use sluice_api_types::job::{SubmitJob, Tag};
use sluice_protocol::ids::TenantId;

use crate::fleet;
use crate::jobs::targets;
use crate::jobs::{RequestError, is_target};
use crate::store::bindings::TagPair;
use crate::store::machines::{self, MachineRow};
use crate::store::{Connection, StoreError};
use crate::targets::Expression;

/// Tags, of which a machine needs all, and an expression. Every machine of the tenant where there is neither.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    tags: Vec<TagPair>,
    #[serde(rename = "where")]
    condition: Option<String>,
}

impl Selector {
    /// What a request says; none where its machines are fixed when the job is made.
    ///
    /// # Errors
    ///
    /// Only machines with names are meant, or only those that are connected.
    pub fn read(request: &SubmitJob) -> Result<Option<Self>, RequestError> {
        if !request.include_later {
            return Ok(None);
        }
        if request.tags.is_empty() && !request.machines.is_empty() {
            return Err(RequestError::LaterOfNames);
        }
        if request.no_queue {
            return Err(RequestError::LaterNow);
        }
        let tags = request.tags.iter();
        let tags = tags.map(|tag| fleet::parse_tag(&tag.key, &tag.value));
        Ok(Some(Self {
            tags: tags.collect::<Result<_, _>>()?,
            condition: request.condition.clone(),
        }))
    }

    /// Whether a machine matches, by what is known of it now.
    ///
    /// # Errors
    ///
    /// Where the database cannot be read.
    pub fn matches(&self, conn: &Connection, machine: &MachineRow) -> Result<bool, StoreError> {
        let tags = self.tags.iter().map(|tag| Tag {
            key: tag.key.clone(),
            value: tag.value.clone(),
        });
        let request = SubmitJob {
            tags: tags.collect(),
            condition: self.condition.clone(),
            ..SubmitJob::default()
        };
        is_target(conn, &request, machine)
    }

    /// Every machine of the tenant that matches now.
    ///
    /// # Errors
    ///
    /// Where the database cannot be read.
    pub fn all(&self, conn: &Connection, tenant: TenantId) -> Result<Vec<MachineRow>, StoreError> {
        let condition = self.condition.as_deref().map(Expression::read).transpose();
        let condition =
            condition.map_err(|error| StoreError::Corrupt(format!("an expression: {error}")))?;
        let mut found = Vec::new();
        machines::each_with_tags(conn, tenant, &self.tags, |machine| {
            let matches = match &condition {
                Some(condition) => targets::holds(conn, condition, &machine)?,
                None => true,
            };
            if matches {
                found.push(machine);
            }
            Ok::<_, StoreError>(())
        })?;
        Ok(found)
    }
}
