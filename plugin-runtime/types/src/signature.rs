//! What a publisher says about a plugin: a signed statement in a file beside the component.
//!
//! The file is CBOR: the publisher's public key, the statement's bytes, and the Ed25519 signature over a fixed prefix and
//! those bytes. The statement binds the plugin's id, version and world to the digest of the exact file.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::manifest::{Version, World};

/// The longest signature file, in bytes.
pub const MAX_SIGNATURE_FILE: usize = 16 << 10;

/// Keeps a signature made for plugins from meaning anything elsewhere.
const CONTEXT: &[u8] = b"sluice plugin statement v1\0";

/// A publisher's Ed25519 key, written `ed25519:<base64>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519:{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let encoded = text.strip_prefix("ed25519:").ok_or(InvalidKey)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| InvalidKey)?;
        bytes.try_into().map(Self).map_err(|_| InvalidKey)
    }
}

/// The text is no publisher's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a publisher's key (expected ed25519: and 32 bytes in base64)")]
pub struct InvalidKey;

/// What a publisher states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// The plugin's id.
    pub id: String,
    /// Its version.
    pub version: Version,
    /// Its world.
    pub world: World,
    /// The digest of the component file.
    #[serde(with = "serde_bytes")]
    pub sha256: [u8; 32],
    /// Milliseconds since 1970 after which the statement is void.
    pub not_after: u64,
    /// Whoever takes this version takes none below this one afterwards.
    pub minimum_version: Version,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(with = "serde_bytes")]
    publisher: [u8; 32],
    #[serde(with = "serde_bytes")]
    statement: Vec<u8>,
    #[serde(with = "serde_bytes")]
    signature: Vec<u8>,
}

/// A statement whose signature was checked against a trusted key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Who signed it.
    pub publisher: PublicKey,
    /// What they state.
    pub statement: Statement,
}

/// A publisher's key pair.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// A new key pair, and the PKCS#8 document to keep.
    ///
    /// # Errors
    ///
    /// Where the system has no randomness.
    pub fn generate() -> Result<(Self, Vec<u8>), SigningError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| SigningError::Generate)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| SigningError::Generate)?;
        Ok((Self(pair), pkcs8.as_ref().to_vec()))
    }

    /// The key pair of a PKCS#8 document.
    ///
    /// # Errors
    ///
    /// Where it is none of an Ed25519 key.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, SigningError> {
        Ed25519KeyPair::from_pkcs8(bytes)
            .map(Self)
            .map_err(|_| SigningError::NotAKey)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(bytes)
    }

    /// The signature file for `statement`.
    ///
    /// # Errors
    ///
    /// Never for this type.
    pub fn sign(&self, statement: &Statement) -> Result<Vec<u8>, SigningError> {
        let statement = to_cbor(statement)?;
        let signature = self
            .0
            .sign(&[CONTEXT, &statement].concat())
            .as_ref()
            .to_vec();
        to_cbor(&File {
            publisher: self.public().0,
            statement,
            signature,
        })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public()).finish()
    }
}

fn to_cbor<T: Serialize>(value: &T) -> Result<Vec<u8>, SigningError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).map_err(|_| SigningError::Encode)?;
    Ok(bytes)
}

/// A statement could not be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// No randomness.
    #[error("no key could be made: the system gave no randomness")]
    Generate,
    /// Not an Ed25519 key.
    #[error("not an Ed25519 private key in PKCS#8")]
    NotAKey,
    /// No CBOR form: a bug.
    #[error("the statement has no CBOR form")]
    Encode,
}

/// Whose signature a file says it is. Nothing is checked: whoever shows it says so, or calls [`verify`] next.
///
/// # Errors
///
/// Where the file is no signature file.
pub fn stated_publisher(file: &[u8]) -> Result<PublicKey, SignatureError> {
    read_file(file).map(|file| PublicKey(file.publisher))
}

fn read_file(file: &[u8]) -> Result<File, SignatureError> {
    if file.len() > MAX_SIGNATURE_FILE {
        return Err(SignatureError::Malformed);
    }
    whole(file)
}

/// What all of these bytes say: with more behind, a file would have many forms that are believed.
fn whole<T: DeserializeOwned>(mut bytes: &[u8]) -> Result<T, SignatureError> {
    let value = ciborium::from_reader(&mut bytes).map_err(|_| SignatureError::Malformed)?;
    if bytes.is_empty() {
        Ok(value)
    } else {
        Err(SignatureError::Malformed)
    }
}

/// Checks a signature file against the bytes it is for.
///
/// `component_sha256` is the digest of the bytes that will be compiled, `now` is in milliseconds since 1970.
///
/// # Errors
///
/// Whatever keeps the statement from being believed.
pub fn verify(
    file: &[u8],
    component_sha256: [u8; 32],
    trusted: &[PublicKey],
    now: u64,
) -> Result<Signed, SignatureError> {
    let file = read_file(file)?;
    let publisher = PublicKey(file.publisher);
    if !trusted.contains(&publisher) {
        return Err(SignatureError::Untrusted(publisher));
    }
    UnparsedPublicKey::new(&ED25519, publisher.0)
        .verify(&[CONTEXT, &file.statement].concat(), &file.signature)
        .map_err(|_| SignatureError::Forged(publisher))?;
    let statement: Statement = whole(&file.statement)?;
    if statement.sha256 != component_sha256 {
        return Err(SignatureError::OtherFile {
            stated: hex::encode(statement.sha256),
            actual: hex::encode(component_sha256),
        });
    }
    let signed = Signed {
        publisher,
        statement,
    };
    signed.is_believed(trusted, now)?;
    Ok(signed)
}

impl Signed {
    /// What may be another thing at another time.
    fn is_believed(&self, trusted: &[PublicKey], now: u64) -> Result<(), SignatureError> {
        if !trusted.contains(&self.publisher) {
            return Err(SignatureError::Untrusted(self.publisher));
        }
        if self.statement.not_after < now {
            return Err(SignatureError::Expired);
        }
        Ok(())
    }
}

/// How many verified signatures are remembered.
const REMEMBERED: usize = 1024;

/// Signatures that were verified, for whoever asks about the same ones again and again: of those only what time and trust
/// make of them is looked at.
#[derive(Debug, Default)]
pub struct Remembered(Mutex<Known>);

/// By signature file and digest of the component.
type Known = HashMap<(Vec<u8>, [u8; 32]), Signed>;

impl Remembered {
    /// As [`verify`].
    ///
    /// # Errors
    ///
    /// As [`verify`].
    pub fn verify(
        &self,
        file: &[u8],
        component_sha256: [u8; 32],
        trusted: &[PublicKey],
        now: u64,
    ) -> Result<Signed, SignatureError> {
        let key = (file.to_vec(), component_sha256);
        let known = self.entries().get(&key).cloned();
        if let Some(signed) = known {
            return signed.is_believed(trusted, now).map(|()| signed);
        }
        let signed = verify(file, component_sha256, trusted, now)?;
        let mut entries = self.entries();
        if entries.len() >= REMEMBERED {
            entries.clear();
        }
        entries.insert(key, signed.clone());
        Ok(signed)
    }

    fn entries(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a signature is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not a signature file.
    #[error("the signature file is malformed")]
    Malformed,
    /// Signed by someone who is not on the list.
    #[error("the publisher {0} is not trusted")]
    Untrusted(PublicKey),
    /// Not signed by whom it says.
    #[error("the signature of {0} is wrong: the statement was changed or forged")]
    Forged(PublicKey),
    /// About other bytes.
    #[error("the signature is for another file (for {stated}, this is {actual})")]
    OtherFile {
        /// The digest in the statement.
        stated: String,
        /// The digest of the file.
        actual: String,
    },
    /// Too old.
    #[error("the signature has expired; ask the publisher for a new one")]
    Expired,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement() -> Statement {
        let version = Version {
            major: 1,
            minor: 2,
            patch: 3,
        };
        Statement {
            id: "a".to_owned(),
            version,
            world: World::ScannerPlugin,
            sha256: [7; 32],
            not_after: 1000,
            minimum_version: version,
        }
    }

    #[test]
    fn only_the_right_bytes_key_and_time_are_believed() {
        let (key, pkcs8) = SigningKey::generate().expect("generates");
        assert_eq!(
            SigningKey::from_pkcs8(&pkcs8).expect("reads").public(),
            key.public()
        );
        let file = key.sign(&statement()).expect("signs");
        let trusted = [key.public()];
        assert_eq!(
            verify(&file, [7; 32], &trusted, 1000)
                .expect("verifies")
                .statement,
            statement()
        );
        assert!(matches!(
            verify(&file, [8; 32], &trusted, 0),
            Err(SignatureError::OtherFile { .. })
        ));
        assert_eq!(
            verify(&file, [7; 32], &trusted, 1001),
            Err(SignatureError::Expired)
        );
        assert_eq!(
            verify(&file, [7; 32], &[], 0),
            Err(SignatureError::Untrusted(key.public()))
        );
        assert_eq!(key.public().to_string().parse(), Ok(key.public()));
        assert_eq!(stated_publisher(&file), Ok(key.public()));
    }

    #[test]
    fn what_was_verified_before_is_believed_as_long_as_trust_and_time_let_it() {
        let (key, _) = SigningKey::generate().unwrap();
        let statement = statement();
        let (file, sha256, end) = (
            key.sign(&statement).unwrap(),
            statement.sha256,
            statement.not_after,
        );
        let (trusted, remembered) = ([key.public()], Remembered::default());
        let signed = remembered.verify(&file, sha256, &trusted, end).unwrap();
        assert_eq!(
            remembered.verify(&file, sha256, &trusted, end),
            Ok(signed.clone())
        );
        assert_eq!(
            remembered.verify(&file, sha256, &trusted, end + 1),
            Err(SignatureError::Expired)
        );
        assert_eq!(
            remembered.verify(&file, sha256, &[], end),
            Err(SignatureError::Untrusted(key.public()))
        );
        // It is remembered for these bytes and this file.
        assert!(remembered.verify(&file, [8; 32], &trusted, end).is_err());
        let mut forged = file.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert!(remembered.verify(&forged, sha256, &trusted, end).is_err());
        assert_eq!(remembered.verify(&file, sha256, &trusted, end), Ok(signed));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let (key, _) = SigningKey::generate().expect("generates");
        let file = key.sign(&statement()).expect("signs");
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(
                verify(&changed, [7; 32], &[key.public()], 0).is_err(),
                "byte {at}"
            );
        }
        let mut longer = file;
        longer.push(0xf6);
        let verified = verify(&longer, [7; 32], &[key.public()], 0);
        assert_eq!(verified.err(), Some(SignatureError::Malformed));
    }
}
