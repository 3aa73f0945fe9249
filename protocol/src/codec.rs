//! CBOR, one encoding for each message.
//!
//! Decoding parses into the typed message and then encodes that again: only bytes that come out the same are taken.
//! Whatever says the same in another way (unknown fields, duplicate keys, absent instead of null, indefinite lengths,
//! integers longer than they need to be, trailing bytes) is refused by that one rule. Callers cap the length before they
//! read, so that memory is bounded by the cap.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Messages nest far less; deeper input is an attack on the stack.
const MAX_DEPTH: usize = 32;

/// The encoding of `value`.
///
/// # Errors
///
/// Where a value has no CBOR form, which no type of this crate has: a bug.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::with_capacity(256);
    ciborium::into_writer(value, &mut bytes).map_err(|error| EncodeError(error.to_string()))?;
    Ok(bytes)
}

/// The deterministic encoding of RFC 8949, section 4.2.1: like [`encode`], with the keys of every map sorted by their
/// encoded bytes. Digests that others should be able to compute are over this form.
///
/// # Errors
///
/// As [`encode`].
pub fn encode_sorted<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut value =
        ciborium::Value::serialized(value).map_err(|error| EncodeError(error.to_string()))?;
    sort_keys(&mut value)?;
    encode(&value)
}

fn sort_keys(value: &mut ciborium::Value) -> Result<(), EncodeError> {
    match value {
        ciborium::Value::Array(items) => items.iter_mut().try_for_each(sort_keys),
        ciborium::Value::Map(entries) => {
            let mut keyed = Vec::with_capacity(entries.len());
            for (key, mut value) in entries.drain(..) {
                sort_keys(&mut value)?;
                keyed.push((encode(&key)?, key, value));
            }
            keyed.sort_by(|a, b| a.0.cmp(&b.0));
            entries.extend(keyed.into_iter().map(|(_, key, value)| (key, value)));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The message that `bytes` are the encoding of.
///
/// # Errors
///
/// Where they are no CBOR, not of this type, or not the one encoding of their value.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut rest = bytes;
    let value: T = ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH)
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(DecodeError::TrailingBytes(rest.len()));
    }
    let again = encode(&value).map_err(|error| DecodeError::Malformed(error.to_string()))?;
    if again == bytes {
        Ok(value)
    } else {
        Err(DecodeError::NotCanonical)
    }
}

/// What can be read of a message that is none of this version: fields that `T` does not have are passed over, and so is
/// whatever follows. Nothing may be done with it but to answer.
pub(crate) fn decode_leniently<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    ciborium::de::from_reader_with_recursion_limit(bytes, MAX_DEPTH).ok()
}

/// A value could not be written as CBOR.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the value has no CBOR form: {0}")]
pub struct EncodeError(String);

/// Bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No CBOR, or not of the expected type.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// More bytes than the message has.
    #[error("malformed message: {0} trailing bytes")]
    TrailingBytes(usize),
    /// Says something valid in a way other than the one that this protocol writes.
    #[error(
        "malformed message: not in its one encoding (unknown or duplicate fields, or a longer form than needed)"
    )]
    NotCanonical,
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Message {
        a: u64,
        b: Option<String>,
    }

    fn raw(pairs: &[(&str, ciborium::Value)]) -> Vec<u8> {
        let map = pairs
            .iter()
            .map(|(k, v)| (ciborium::Value::from(*k), v.clone()))
            .collect();
        encode(&ciborium::Value::Map(map)).expect("encodes")
    }

    #[test]
    fn the_one_encoding_is_taken() {
        let message = Message { a: 7, b: None };
        assert_eq!(
            decode::<Message>(&encode(&message).expect("encodes")),
            Ok(message)
        );
    }

    #[test]
    fn every_other_encoding_is_refused() {
        let (one, null) = (ciborium::Value::from(1), ciborium::Value::Null);
        let good = raw(&[("a", one.clone()), ("b", null.clone())]);
        assert!(decode::<Message>(&good).is_ok());
        let mut trailing = good.clone();
        trailing.push(0);
        assert_eq!(
            decode::<Message>(&trailing),
            Err(DecodeError::TrailingBytes(1))
        );
        let bad = [
            raw(&[("a", one.clone()), ("b", null.clone()), ("c", one.clone())]),
            raw(&[("a", one.clone()), ("a", one.clone()), ("b", null.clone())]),
            raw(&[("a", one.clone())]),
            raw(&[("b", null.clone()), ("a", one.clone())]),
            // {"a": 1 in two bytes, "b": null}
            vec![0xa2, 0x61, b'a', 0x18, 0x01, 0x61, b'b', 0xf6],
            // the same map with an indefinite length
            vec![0xbf, 0x61, b'a', 0x01, 0x61, b'b', 0xf6, 0xff],
        ];
        for bytes in bad {
            assert!(decode::<Message>(&bytes).is_err(), "{bytes:02x?}");
        }
    }

    #[test]
    fn truncation_and_nesting_are_errors() {
        let good = encode(&Message {
            a: 1,
            b: Some("x".repeat(40)),
        })
        .expect("encodes");
        for n in 0..good.len() {
            assert!(decode::<Message>(&good[..n]).is_err());
        }
        assert!(decode::<ciborium::Value>(&vec![0x81; 1_000_000]).is_err());
        // a string that claims 2^63 bytes
        assert!(decode::<String>(&[0x7b, 0x80, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
