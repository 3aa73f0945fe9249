//! Who is who: certificates, their roles, and the keys behind them.
//!
//! ```text
//! root (10 years; its key can be taken offline)
//!  +- hosts  (5 years, serverAuth) -- host certificate:    URI sluice://host/<id>, DNS host.sluice.invalid
//!  |                               +- API certificate:     the names that operators use, and no URI
//!  +- agents (5 years, clientAuth) -- machine certificate: URI sluice://machine/<tenant>/<machine>, 30 days
//! ```
//!
//! Agents accept hosts alone, hosts accept machines alone. What a certificate is for follows from its issuer, its
//! extended key usage and its one URI together, and never from a message.

mod authority;
mod files;
mod issue;
mod key;
mod name;
mod pem;
mod private_key;
mod provider;
mod signed;
pub(crate) mod verify;

pub use authority::Authority;
pub use files::StoreError;
pub use issue::{IssueError, Issued, ServerCertificate};
pub use key::{AgentIdentity, IdentityError, MachineKey};
pub use name::{HOST_SERVER_NAME, InvalidName, MachineIdentity, host_of, machine_of};
pub use provider::crypto_provider;
pub use signed::is_signed;

#[cfg(test)]
pub(crate) use issue::Signer;
