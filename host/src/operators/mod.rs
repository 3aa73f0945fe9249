//! Who may do what: operators act by bearer tokens, and have roles, whose policies decide.

mod actor;
mod change;
mod decide;
mod failures;
mod grants;
mod invitation;
mod permission;
mod role;
mod shipped;
mod token;

pub use actor::{
    Actor, AuthenticationError, Cause, Denied, Standing, authenticate, authenticate_in, in_others,
    on_behalf_of,
};
pub use change::{
    ChangeOperatorError, ChangeRoleError, NewToken, add, put_role, remove, remove_role, set_roles,
    token,
};
pub use decide::{About, No, Question, Rights, Run};
pub use failures::Failures;
pub use grants::{GrantError, Grants, MOST_ROLES, Roles};
pub use permission::{InvalidPermission, Permission, Permissions};
pub use role::{InvalidRole, LONGEST, Role, RoleName, SCHEMA};
pub use shipped::{OWNER, SHIPPED, shipped};
pub use token::{BearerToken, CreateTokenError, MadeBy, create, create_for, revoke};
