//! Randomness for secrets, from the operating system.

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};

/// `N` random bytes.
///
/// # Errors
///
/// The system has none.
pub fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// The system gave no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no randomness, so no secret can be made")]
pub struct NoRandomness;
