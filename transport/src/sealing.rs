//! Values that one machine alone can open.
//!
//! A machine has an X25519 key for this and nothing else, beside the one of its certificate, so that what is signed and what
//! is opened never get into each other's way. For each value the sender makes a key pair of its own; both sides derive an
//! AES-256-GCM key from the shared secret and the two public keys (HKDF-SHA256), which is used once, so the nonce is zero.
//! That is the base mode of HPKE (RFC 9180) without its negotiation. What the value is for is authenticated with it, so a
//! sealed value is of no use under another name, in another operation or on another machine. Who has sealed it is not: the
//! connection that carries it says that.
//!
//! ```text
//! sealed = 0x01, the sender's public key (32 bytes), ciphertext, tag (16 bytes)
//! ```

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{
    EphemeralPrivateKey, PrivateKey, UnparsedPublicKey, X25519, agree, agree_ephemeral,
};
use aws_lc_rs::encoding::{AsBigEndian as _, Curve25519SeedBin};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::rand::SystemRandom;
use sluice_protocol::codec;
use sluice_protocol::ids::OperationId;
use zeroize::Zeroizing;

use crate::identity::MachineIdentity;

const FORMAT: u8 = 1;
const LABEL: &[u8] = b"sluice sealed secret 1";
/// Bytes of a public key, and of a private one.
const KEY: usize = 32;

/// What a value is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purpose<'a> {
    /// The machine that may open it.
    pub machine: MachineIdentity,
    /// The operation that it goes with.
    pub operation: OperationId,
    /// The secret's name.
    pub name: &'a str,
}

impl Purpose<'_> {
    fn authenticated(&self) -> Result<Vec<u8>, SealingError> {
        let MachineIdentity { tenant, machine } = self.machine;
        codec::encode(&(tenant, machine, self.operation, self.name)).map_err(|_| SealingError)
    }
}

/// The private key of a machine, for opening.
#[derive(Debug)]
pub struct SealingKey(PrivateKey);

impl SealingKey {
    /// A new key.
    ///
    /// # Errors
    ///
    /// Where the system has no random numbers.
    pub fn generate() -> Result<Self, SealingError> {
        Ok(Self(PrivateKey::generate(&X25519)?))
    }

    /// The key that [`Self::to_bytes`] gave.
    ///
    /// # Errors
    ///
    /// Where the bytes are no such key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealingError> {
        let key = PrivateKey::from_private_key(&X25519, bytes).map_err(|_| SealingError)?;
        Ok(Self(key))
    }

    /// The private key, to be stored where nobody else can read it.
    ///
    /// # Errors
    ///
    /// Never for a key of this kind.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, SealingError> {
        let seed: Curve25519SeedBin<'_> = self.0.as_be_bytes()?;
        Ok(Zeroizing::new(seed.as_ref().to_vec()))
    }

    /// What to seal to.
    ///
    /// # Errors
    ///
    /// Never for a key of this kind.
    pub fn public(&self) -> Result<Vec<u8>, SealingError> {
        Ok(self.0.compute_public_key()?.as_ref().to_vec())
    }

    /// Opens what was sealed to this key for `purpose`.
    ///
    /// # Errors
    ///
    /// It is not that.
    pub fn open(
        &self,
        purpose: Purpose<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealingError> {
        let (&FORMAT, rest) = sealed.split_first().ok_or(SealingError)? else {
            return Err(SealingError);
        };
        let (sender, ciphertext) = rest.split_at_checked(KEY).ok_or(SealingError)?;
        let own = self.public()?;
        let key = agree(
            &self.0,
            UnparsedPublicKey::new(&X25519, sender),
            SealingError,
            |shared| derive(shared, sender, &own),
        )?;
        let mut value = Zeroizing::new(ciphertext.to_vec());
        let length = key
            .open_in_place(nonce(), Aad::from(purpose.authenticated()?), &mut value)?
            .len();
        value.truncate(length);
        Ok(value)
    }
}

/// Seals a value to the public key of a machine.
///
/// # Errors
///
/// Where that is no key, or the system has no random numbers.
pub fn seal(public: &[u8], purpose: Purpose<'_>, value: &[u8]) -> Result<Vec<u8>, SealingError> {
    if public.len() != KEY {
        return Err(SealingError);
    }
    let ephemeral = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new())?;
    let sender = ephemeral.compute_public_key()?;
    let key = agree_ephemeral(
        ephemeral,
        UnparsedPublicKey::new(&X25519, public),
        SealingError,
        |shared| derive(shared, sender.as_ref(), public),
    )?;
    let mut sealed = [&[FORMAT], sender.as_ref()].concat();
    // Encrypted where it will be, so that no copy of the value is left behind.
    let mut text = Zeroizing::new(value.to_vec());
    let tag = key.seal_in_place_separate_tag(
        nonce(),
        Aad::from(purpose.authenticated()?),
        text.as_mut_slice(),
    )?;
    sealed.extend_from_slice(&text);
    sealed.extend_from_slice(tag.as_ref());
    Ok(sealed)
}

fn derive(shared: &[u8], sender: &[u8], receiver: &[u8]) -> Result<LessSafeKey, SealingError> {
    let mut key = Zeroizing::new([0; KEY]);
    Salt::new(HKDF_SHA256, LABEL)
        .extract(shared)
        .expand(&[sender, receiver], HKDF_SHA256)?
        .fill(key.as_mut_slice())?;
    Ok(LessSafeKey::new(UnboundKey::new(
        &AES_256_GCM,
        key.as_slice(),
    )?))
}

/// Each key is made for one value.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// A key cannot be used, or a value not be opened with it. Says nothing more, because there is nothing more to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was sealed to another key or for another purpose, or is damaged")]
pub struct SealingError;

impl From<aws_lc_rs::error::Unspecified> for SealingError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self
    }
}

#[cfg(test)]
mod tests {
    use sluice_protocol::ids::{MachineId, TenantId};

    use super::*;

    fn purpose(name: &str) -> Purpose<'_> {
        Purpose {
            machine: MachineIdentity {
                tenant: TenantId::generate(),
                machine: MachineId::generate(),
            },
            operation: OperationId::generate(),
            name,
        }
    }

    #[test]
    fn a_value_is_opened_by_its_machine_also_after_the_key_was_stored() {
        let key = SealingKey::generate().expect("makes");
        let public = key.public().expect("has one");
        let purpose = purpose("token");
        for value in [&b""[..], b"hunter2\n\0", &[7; 32 << 10]] {
            let sealed = seal(&public, purpose, value).expect("seals");
            assert!(value.is_empty() || !sealed.windows(value.len()).any(|part| part == value));
            let stored = SealingKey::from_bytes(&key.to_bytes().expect("has some")).expect("reads");
            assert_eq!(
                stored.open(purpose, &sealed).expect("opens").as_slice(),
                value
            );
            assert_ne!(sealed, seal(&public, purpose, value).expect("seals"));
        }
    }

    #[test]
    fn a_value_is_of_no_use_elsewhere_or_for_anything_else() {
        let key = SealingKey::generate().expect("makes");
        let given = purpose("token");
        let sealed = seal(&key.public().expect("has one"), given, b"hunter2").expect("seals");
        let other = SealingKey::generate().expect("makes");
        assert_eq!(other.open(given, &sealed).err(), Some(SealingError));
        let elsewhere = purpose("token");
        let mut wrong = [given; 4];
        wrong[0].name = "password";
        wrong[1].operation = elsewhere.operation;
        wrong[2].machine.machine = elsewhere.machine.machine;
        wrong[3].machine.tenant = elsewhere.machine.tenant;
        for purpose in wrong {
            assert_eq!(key.open(purpose, &sealed).err(), Some(SealingError));
        }
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(key.open(given, &changed).err(), Some(SealingError), "{at}");
            assert_eq!(key.open(given, &sealed[..at]).err(), Some(SealingError));
        }
    }

    #[test]
    fn what_is_no_key_is_not_sealed_to() {
        let value = |public: &[u8]| seal(public, purpose("a"), b"hunter2").err();
        // The last one is of small order: everybody knows the shared secret.
        for public in [&[][..], &[1; 31], &[1; 33], &[0; 32]] {
            assert_eq!(value(public), Some(SealingError), "{public:?}");
        }
        assert!(SealingKey::from_bytes(&[1; 31]).is_err());
    }
}
