//! Who may do what: operators act by bearer tokens, and a token has permissions.

mod actor;
mod failures;
mod permission;
mod token;

pub use actor::{Actor, AuthenticationError, Denied, authenticate, on_behalf_of};
pub use failures::Failures;
pub use permission::{InvalidPermission, Permission};
pub use token::{BearerToken, CreateTokenError, create};
