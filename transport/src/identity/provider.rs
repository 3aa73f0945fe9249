//! The one provider of cryptography.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// aws-lc-rs, to be given to rustls explicitly: nothing is installed for the whole process.
#[must_use]
pub fn crypto_provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
