//! ECDSA on P-256: what every TLS library, and every client of the API, can verify.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};
use zeroize::Zeroizing;

/// A key pair, and its PKCS#8, which is wiped when dropped.
pub(super) struct PrivateKey {
    pair: EcdsaKeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl PrivateKey {
    pub(super) fn generate() -> Result<Self, rcgen::Error> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map_err(|_| rcgen::Error::RingUnspecified)?;
        let pkcs8 = pair
            .to_pkcs8v1()
            .map_err(|_| rcgen::Error::RingUnspecified)?;
        let pkcs8 = Zeroizing::new(pkcs8.as_ref().to_vec());
        Ok(Self { pair, pkcs8 })
    }

    pub(super) fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, rcgen::Error> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8)
            .map_err(|error| rcgen::Error::RingKeyRejected(error.to_string()))?;
        Ok(Self { pair, pkcs8 })
    }

    pub(super) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }
}

impl PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self
            .pair
            .sign(&SystemRandom::new(), message)
            .map_err(|_| rcgen::Error::RingUnspecified)?;
        Ok(signature.as_ref().to_vec())
    }
}
