//! How a customer comes to its first administrator. Somebody of the provider makes an operator there and a token of theirs, by a
//! grant, and the token ends with that: it is an invitation. Whoever has it makes a token for themselves, once, which is the
//! customer's own and good for as long as they say. From then on all others come of that: nothing that a grant made outlives it.

use uuid::Uuid;

use super::{Actor, GrantError, Permission, Rights, Roles, Standing};
use crate::clock::UnixMillis;
use crate::store::tenants::TenantKind;
use crate::store::tokens::{self, TokenRow};
use crate::store::{Connection, operators};

/// Takes an invitation up where an operator makes a token for themselves by this one of theirs, and gives its id: where it was made
/// by a grant, they administer the tenant and are more than this token, and no administrator of the tenant has one that no
/// grant made. It is revoked then: whoever else has it finds it used, and its name is free for the new one.
pub(super) fn take_up(
    conn: &Connection,
    roles: &Roles,
    actor: &Actor,
    token: &TokenRow,
    now: UnixMillis,
) -> Result<Option<Uuid>, GrantError> {
    let is_own = matches!(actor.standing, Standing::Own(TenantKind::Customer));
    if !is_own || token.made_by_grant.is_none() || actor.require(Permission::Administer).is_err() {
        return Ok(None);
    }
    let operator = operators::find(conn, token.tenant, token.operator)?;
    // One that was made with its token ends with it.
    if operator.is_none_or(|operator| operator.token.is_some())
        || has_own_administrator(conn, roles, token, now)?
    {
        return Ok(None);
    }
    tokens::revoke(conn, token.tenant, token.id, now)?;
    Ok(Some(token.id))
}

/// Whether some operator of the token's tenant can administer it by a token that is good and that no grant made.
fn has_own_administrator(
    conn: &Connection,
    roles: &Roles,
    token: &TokenRow,
    now: UnixMillis,
) -> Result<bool, GrantError> {
    let tenant = token.tenant;
    for row in tokens::list(conn, tenant)? {
        let is_over = row.revoked.is_some() || row.expires.is_some_and(|end| end <= now);
        if is_over || row.made_by_grant.is_some() {
            continue;
        }
        let Some(operator) = operators::find(conn, tenant, row.operator)? else {
            continue;
        };
        let only = row.only.as_ref();
        let only = only
            .map(|only| roles.mean(conn, tenant, only))
            .transpose()?;
        let held = roles.mean(conn, tenant, &operator.grants)?;
        if Rights::new(held, only).may_some(Permission::Administer) {
            return Ok(true);
        }
    }
    Ok(false)
}
