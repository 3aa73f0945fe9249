//! `/v1/whoami`

use sluice_api_types::whoami::WhoAmI;

use super::auth::Operator;
use super::extract::Answer;
use crate::operators::Standing;

/// Who the token belongs to, and what it may do.
#[utoipa::path(get, path = "/v1/whoami", responses((status = 200, body = WhoAmI)))]
pub(super) async fn get_whoami(Operator(actor): Operator) -> Answer<WhoAmI> {
    Answer(WhoAmI {
        permissions: actor
            .permissions()
            .map(|permission| permission.as_str().to_owned())
            .collect(),
        roles: actor.rights.roles().map(str::to_owned).collect(),
        grant: match actor.standing {
            Standing::Own(_) => None,
            Standing::Granted { grant, .. } => Some(grant.to_string()),
        },
        operator: actor.name,
        tenant: actor.tenant.name,
        host_version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}
