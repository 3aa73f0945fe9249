//! `/v1/audit`

use axum::extract::State;
use sluice_api_types::audit::AuditEntry;
use sluice_api_types::page::{Page, PageQuery};

use super::Refusal;
use super::auth::{Operator, allow, own_tenant};
use super::extract::{Answer, Query, limit, next};
use crate::host::SharedHost;
use crate::operators::Permission;
use crate::store::{Extent, audit};

/// Lists entries of the audit log in order, after the entry with the number `after`. Needs `ReadAudit`.
#[utoipa::path(get, path = "/v1/audit", params(PageQuery), responses((status = 200, body = Page<AuditEntry>)))]
pub(super) async fn list_audit(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Page<AuditEntry>>, Refusal> {
    allow(&host, &actor, Permission::ReadAudit, "read the audit log").await?;
    own_tenant(&actor, query.tenant.as_deref())?;
    let after = match query.after.as_deref() {
        None => 0,
        Some(text) => text
            .parse()
            .map_err(|_| Refusal::invalid("after: expected the number of an entry"))?,
    };
    let limit = limit(query.limit)?;
    let tenant = actor.tenant;
    let items = host
        .store
        .look(Extent::of_rows(limit as usize), move |conn| {
            audit::list(conn, tenant.id, after, limit)
        })
        .await?;
    let next = next(&items, limit, |entry| entry.seq.to_string());
    Ok(Answer(Page { items, next }))
}
