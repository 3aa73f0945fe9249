//! `/v1/audit`: the record, and how anyone who has it verifies it.
//!
//! Each entry's `hash` is the SHA-256 of its own JSON without `hash`, keys sorted, no white space; `prev` is the hash of
//! the entry before, 64 zeros for the first. Whoever changes, removes or inserts an entry has to make every later hash
//! anew, which those who hold an earlier head can tell.

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use sluice_protocol::digest::Digest;

/// `prev` of the first entry.
pub const GENESIS: Digest = Digest::from_bytes([0; 32]);

/// One entry of a tenant's audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditEntry {
    /// From 1, without gaps.
    pub seq: u64,
    /// RFC 3339, by the host's clock.
    pub time: String,
    /// For example `script_started`.
    pub event: String,
    /// The tenant's name.
    pub tenant: String,
    /// The machine's name, or what was typed.
    pub machine: Option<String>,
    /// The job's id.
    pub job: Option<String>,
    /// The operation's id.
    pub operation: Option<String>,
    /// Who did it.
    pub operator: Option<String>,
    /// Where it came from: `api`, `host`, `agent` ...
    pub source: String,
    /// Of the bytes submitted.
    #[schema(value_type = Option<String>)]
    pub script_sha256: Option<Digest>,
    /// Of what the gates saw.
    #[schema(value_type = Option<String>)]
    pub bundle_sha256: Option<Digest>,
    /// What the event has to say beyond.
    #[schema(value_type = Object)]
    pub details: serde_json::Map<String, serde_json::Value>,
    /// The hash of the entry before.
    #[schema(value_type = String)]
    pub prev: Digest,
    /// Of this entry.
    #[schema(value_type = String)]
    pub hash: Digest,
}

impl AuditEntry {
    /// The hash that this entry should have. The value of `hash` does not count.
    #[must_use]
    pub fn compute_hash(&self) -> Digest {
        /// The keys of the entry, sorted.
        #[derive(Serialize)]
        struct Hashed<'a> {
            bundle_sha256: &'a Option<Digest>,
            details: SortedObject<'a>,
            event: &'a str,
            job: &'a Option<String>,
            machine: &'a Option<String>,
            operation: &'a Option<String>,
            operator: &'a Option<String>,
            prev: &'a Digest,
            script_sha256: &'a Option<Digest>,
            seq: u64,
            source: &'a str,
            tenant: &'a str,
            time: &'a str,
        }
        let hashed = Hashed {
            bundle_sha256: &self.bundle_sha256,
            details: SortedObject(&self.details),
            event: &self.event,
            job: &self.job,
            machine: &self.machine,
            operation: &self.operation,
            operator: &self.operator,
            prev: &self.prev,
            script_sha256: &self.script_sha256,
            seq: self.seq,
            source: &self.source,
            tenant: &self.tenant,
            time: &self.time,
        };
        let mut bytes = Vec::with_capacity(1024);
        // Strings, numbers and what is made of them always have a form.
        let written = serde_json::to_writer(&mut bytes, &hashed);
        debug_assert!(written.is_ok(), "{written:?}");
        Digest::from_bytes(Sha256::digest(&bytes).into())
    }
}

/// Serialized with its keys sorted, all the way down, whatever order its map has.
struct SortedObject<'a>(&'a serde_json::Map<String, serde_json::Value>);

impl Serialize for SortedObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields: Vec<_> = self.0.iter().collect();
        fields.sort_by_key(|(key, _)| *key);
        serializer.collect_map(fields.into_iter().map(|(key, value)| (key, Sorted(value))))
    }
}

/// A value in which every object is a [`SortedObject`].
struct Sorted<'a>(&'a serde_json::Value);

impl Serialize for Sorted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            serde_json::Value::Object(object) => SortedObject(object).serialize(serializer),
            serde_json::Value::Array(items) => serializer.collect_seq(items.iter().map(Sorted)),
            other => other.serialize(serializer),
        }
    }
}

/// The end of a chain that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// How many entries it has.
    pub entries: u64,
    /// The `seq` of the last entry; 0 where there is none.
    pub seq: u64,
    /// The hash of the last entry; [`GENESIS`] where there is none.
    pub hash: Digest,
}

/// The first entry that does not follow from those before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {seq} is broken: {reason}")]
pub struct Broken {
    /// Of the entry.
    pub seq: u64,
    /// What is wrong with it.
    pub reason: BrokenReason,
}

/// What is wrong with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BrokenReason {
    /// Its content was changed, or its hash.
    #[error("its hash is not that of its content")]
    Hash,
    /// The entry before was replaced, or is not the one it was written after.
    #[error("it does not follow the entry before (prev is another hash)")]
    Prev,
    /// Entries are missing before it, or stand in another order.
    #[error("entry {expected} should stand here")]
    Seq {
        /// The `seq` that should be here.
        expected: u64,
    },
}

/// A chain that is verified entry by entry, in constant memory.
#[derive(Debug, Clone, Copy)]
pub struct ChainVerifier {
    head: Head,
}

impl Default for ChainVerifier {
    fn default() -> Self {
        Self {
            head: Head {
                entries: 0,
                seq: 0,
                hash: GENESIS,
            },
        }
    }
}

impl ChainVerifier {
    /// Takes the next entry.
    ///
    /// # Errors
    ///
    /// Where it does not follow from those before it.
    pub fn push(&mut self, entry: &AuditEntry) -> Result<(), Broken> {
        let expected = self.head.seq + 1;
        let broken = |reason| {
            Err(Broken {
                seq: entry.seq,
                reason,
            })
        };
        if entry.seq != expected {
            return broken(BrokenReason::Seq { expected });
        }
        if entry.prev != self.head.hash {
            return broken(BrokenReason::Prev);
        }
        if entry.hash != entry.compute_hash() {
            return broken(BrokenReason::Hash);
        }
        self.head = Head {
            entries: self.head.entries + 1,
            seq: entry.seq,
            hash: entry.hash,
        };
        Ok(())
    }

    /// Where the chain ends so far.
    #[must_use]
    pub const fn head(&self) -> Head {
        self.head
    }
}

/// Verifies a whole chain, from its first entry.
///
/// # Errors
///
/// The first entry that does not follow from those before it.
pub fn verify_chain<'a>(entries: impl IntoIterator<Item = &'a AuditEntry>) -> Result<Head, Broken> {
    let mut verifier = ChainVerifier::default();
    entries
        .into_iter()
        .try_for_each(|entry| verifier.push(entry))?;
    Ok(verifier.head())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(length: u64) -> Vec<AuditEntry> {
        let mut prev = GENESIS;
        (1..=length)
            .map(|seq| {
                let mut entry = AuditEntry {
                    seq,
                    time: "2026-11-21T06:00:00Z".to_owned(),
                    event: "script_started".to_owned(),
                    tenant: "default".to_owned(),
                    machine: Some("web-1".to_owned()),
                    job: None,
                    operation: None,
                    operator: Some("admin".to_owned()),
                    source: "api".to_owned(),
                    script_sha256: Some(Digest::of(b"echo")),
                    bundle_sha256: None,
                    details:
                        serde_json::json!({"z": 1, "a": {"d": [1, {"y": null, "b": "\u{1b}é\""}]}})
                            .as_object()
                            .expect("is an object")
                            .clone(),
                    prev,
                    hash: GENESIS,
                };
                entry.hash = entry.compute_hash();
                prev = entry.hash;
                entry
            })
            .collect()
    }

    #[test]
    fn the_hash_is_that_of_the_documented_text() {
        let entry = &chain(1)[0];
        let mut value = serde_json::to_value(entry).expect("serializes");
        value.as_object_mut().expect("is an object").remove("hash");
        // In the documented form keys are sorted, which those of serde_json's own map are or are not.
        value.sort_all_objects();
        assert_eq!(entry.hash, Digest::of(value.to_string().as_bytes()));
    }

    #[test]
    fn the_hash_survives_a_trip_through_json() {
        let entry = &chain(1)[0];
        let read: AuditEntry =
            serde_json::from_str(&serde_json::to_string_pretty(entry).expect("serializes"))
                .expect("reads");
        assert_eq!(read.compute_hash(), entry.hash);
    }

    #[test]
    fn a_whole_chain_has_a_head() {
        let entries = chain(5);
        assert_eq!(
            verify_chain(&entries),
            Ok(Head {
                entries: 5,
                seq: 5,
                hash: entries[4].hash
            })
        );
        assert_eq!(
            verify_chain([]),
            Ok(Head {
                entries: 0,
                seq: 0,
                hash: GENESIS
            })
        );
    }

    #[test]
    fn every_field_is_under_the_hash() {
        let changes: &[fn(&mut AuditEntry)] = &[
            |e| e.time.push('x'),
            |e| e.event.push('x'),
            |e| e.tenant.push('x'),
            |e| e.machine = None,
            |e| e.job = Some("x".to_owned()),
            |e| e.operation = Some("x".to_owned()),
            |e| e.operator = None,
            |e| e.source.push('x'),
            |e| e.script_sha256 = None,
            |e| e.bundle_sha256 = Some(GENESIS),
            |e| e.details["a"]["d"][1]["b"] = "x".into(),
            |e| e.hash = GENESIS,
        ];
        for change in changes {
            let mut entries = chain(3);
            change(&mut entries[1]);
            assert_eq!(
                verify_chain(&entries),
                Err(Broken {
                    seq: 2,
                    reason: BrokenReason::Hash
                })
            );
        }
    }

    #[test]
    fn removed_swapped_and_replaced_entries_are_found() {
        let mut entries = chain(4);
        entries.remove(1);
        assert_eq!(
            verify_chain(&entries),
            Err(Broken {
                seq: 3,
                reason: BrokenReason::Seq { expected: 2 }
            })
        );
        let mut entries = chain(4);
        entries.swap(1, 2);
        assert_eq!(
            verify_chain(&entries),
            Err(Broken {
                seq: 3,
                reason: BrokenReason::Seq { expected: 2 }
            })
        );
        let mut entries = chain(4);
        entries[1].event = "script_blocked".to_owned();
        entries[1].hash = entries[1].compute_hash();
        assert_eq!(
            verify_chain(&entries),
            Err(Broken {
                seq: 3,
                reason: BrokenReason::Prev
            })
        );
        let mut entries = chain(4);
        entries.remove(0);
        assert_eq!(
            verify_chain(&entries),
            Err(Broken {
                seq: 2,
                reason: BrokenReason::Seq { expected: 1 }
            })
        );
    }
}
