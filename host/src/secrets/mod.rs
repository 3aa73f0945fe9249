//! Secrets: values that scripts get and that nobody gets back.
//!
//! In the database a value is encrypted with a key that is not in it ([`SecretsKey`]), so a copy of the database tells
//! nothing. Where a job names a secret, its value is sealed to the key of each machine of the job ([`Confided`]), and what
//! was sealed is erased when the operation ends, or the secret is revoked.

mod change;
mod confide;
mod key;

pub use change::{Change, ChangeSecretError, revoke, set};
pub use confide::{Confided, UseError, are_usable};
pub use key::{KeyError, SecretsKey};

#[cfg(test)]
mod tests;
