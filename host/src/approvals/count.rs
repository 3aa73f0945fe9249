//! Who of those who approved count: not the submitter, and of those who may be one person one. No clock, no I/O but for who made
//! whose token.

use sluice_protocol::ids::TenantId;
use uuid::Uuid;

use crate::store::tokens::{self, Maker};
use crate::store::{Connection, StoreError};

/// Somebody who approves, or submits, and whose word that could be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approver {
    /// The operator and the token that they used.
    pub who: Maker,
    /// Who made that token, who made theirs, and so on.
    pub makers: Vec<Maker>,
    /// The operator of the provider who they are, or by whose grant their token was made; none for the tenant's own.
    pub provider: Option<Uuid>,
}

impl Approver {
    /// The operator who used a token.
    ///
    /// # Errors
    ///
    /// Where the database cannot be read.
    pub fn read(
        conn: &Connection,
        tenant: TenantId,
        token: Uuid,
        operator: Uuid,
        name: &str,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            who: Maker {
                token,
                operator,
                name: name.to_owned(),
            },
            makers: tokens::makers(conn, tenant, token)?,
            provider: tokens::provider_behind(conn, tenant, token)?,
        })
    }

    /// Whether this is `other`, or uses a token that comes from them: who holds a token has made, or could have made, those
    /// that it made. Whoever is made by a grant and the grant's operator come from each other, and so do two of them.
    #[must_use]
    pub fn comes_from(&self, other: &Self) -> bool {
        let is_behind_both = self.provider.is_some() && self.provider == other.provider;
        is_behind_both
            || self.is_also(other)
            || self.makers.iter().any(|maker| same(maker, &other.who))
    }

    /// Whether this is `other`, by whatever token: all tokens of an operator are theirs.
    #[must_use]
    pub fn is_also(&self, other: &Self) -> bool {
        same(&self.who, &other.who)
    }
}

fn same(one: &Maker, other: &Maker) -> bool {
    one.token == other.token || one.operator == other.operator || one.name == other.name
}

/// Whether two may be one person.
#[must_use]
pub fn are_one(one: &Approver, other: &Approver) -> bool {
    one.comes_from(other) || other.comes_from(one)
}

/// Those of the approvers who count: others than the submitter, and others than each other. Of those who may be one person
/// the first counts.
#[must_use]
pub fn others<'a>(
    approvers: impl IntoIterator<Item = &'a Approver>,
    submitter: &Approver,
) -> Vec<&'a Approver> {
    let mut counted: Vec<&Approver> = Vec::new();
    for approver in approvers {
        let is_new = counted.iter().all(|before| !are_one(before, approver));
        if is_new && !approver.comes_from(submitter) {
            counted.push(approver);
        }
    }
    counted
}
