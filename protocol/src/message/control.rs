//! The control stream: who is there, which gates apply, and what is acknowledged.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::gates::GateSet;
use crate::ids::OperationId;

/// From the agent. The first one is `Hello`, and no other is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromAgent {
    /// The handshake.
    Hello(Box<Hello>),
    /// Facts have changed: all of them, as they are now. The host keeps what it was told first where this comes too often
    /// (docs/targets.md).
    Facts(Vec<Fact>),
    /// A gate set was taken in: problems are for the operator, and operations that need a gate with one are blocked.
    GatesReady {
        /// Of the gate set.
        revision: u64,
        /// One line each.
        problems: Vec<String>,
    },
    /// What the machine's ledger has of what the host acknowledged: the answer to `Welcome`, before anything else.
    History(History),
    /// The answer to `Ping`, at once.
    Pong {
        /// Of the `Ping`.
        nonce: u64,
    },
    /// Half of the certificate's life is over: a new one, please. DER of a PKCS#10 request.
    Renew {
        /// DER.
        #[serde(with = "serde_bytes")]
        request: Vec<u8>,
    },
}

/// From the host. The first one is `Welcome`, and no other is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromHost {
    /// The answer to `Hello`.
    Welcome(Box<Welcome>),
    /// What the host makes of the machine's `History`. Whatever an earlier agent took in starts only after `Held`.
    History(Verdict),
    /// Whether anybody is there. Sent over a connection that another one has replaced.
    Ping {
        /// For the `Pong`.
        nonce: u64,
    },
    /// The gates that apply from now on.
    Gates(Box<GateSet>),
    /// Name or tags of the machine have changed.
    Identity(Identity),
    /// End this operation.
    Cancel {
        /// Which.
        operation: OperationId,
        /// The operator, for the message.
        by: String,
    },
    /// A lockdown has begun, or was lifted.
    Lockdown(Lockdown),
    /// The report is stored; the agent may forget the operation.
    Acknowledge {
        /// Which.
        operation: OperationId,
        /// The head of the tenant's audit chain, which the agent remembers.
        audit_head: Digest,
    },
    /// The answer to `Renew`: DER of the new certificate and its issuer.
    Renewed {
        /// Leaf first.
        chain: Vec<serde_bytes::ByteBuf>,
    },
}

/// What an agent says first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// Protocol versions that the agent speaks.
    pub versions: Vec<u16>,
    /// The agent's own version, for people.
    pub software: String,
    /// The machine, as far as the agent knows it.
    pub facts: Vec<Fact>,
    /// Operations that it has accepted and that the host has not acknowledged.
    pub open: Vec<OperationId>,
    /// Which computer it is on.
    pub hardware: Hardware,
    /// The public key (X25519) that secrets for the machine are sealed to.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "serde_bytes")]
    pub sealing_key: Vec<u8>,
}

/// What a host answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// The version that is spoken from here on.
    pub version: u16,
    /// Milliseconds since 1970 by the host's clock.
    pub time: u64,
    /// What the machine is called.
    pub identity: Identity,
    /// Of the host's database: another one where that was restored from a backup.
    pub epoch: u64,
    /// The number of the entry that the ledger had last when the host stored something that it told of; none where it never
    /// did. The machine says in `History` what it has there.
    pub acknowledged: Option<u64>,
    /// The head of the tenant's audit chain.
    pub audit_head: Digest,
    /// Output that the host has of operations of this machine that have not ended: it needs not be told again. Of what is
    /// not in the list the host has nothing. At most [`MAX_STORED`].
    pub stored: Vec<StoredOutput>,
    /// Whether there is a lockdown.
    pub lockdown: Lockdown,
}

/// A place in the chain of a machine's ledger, where every step of an operation is an entry, on disk before what it permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerMark {
    /// The number of the entry, counted from 1; 0 is the empty ledger.
    pub seq: u64,
    /// Its hash, which covers all entries before it.
    pub hash: Digest,
}

/// What a machine's ledger has of what the host acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// The hash of the entry that `Welcome` asks for; none where the ledger does not go as far, or nothing was asked.
    pub at_acknowledged: Option<Digest>,
    /// The last entry on disk.
    pub head: LedgerMark,
}

/// What a host makes of a machine's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It has what the host acknowledged: the machine goes on with what it took in.
    Held,
    /// It lacks that: the machine was rolled back or copied. Whatever it has not started ends `interrupted`, because it may
    /// have been started in what was lost.
    Lost,
}

/// Which computer it is: digests of what stays over its life, and differs between two of them. Keyed with the machine's id, so
/// that they say nothing to anybody else. What cannot be read there is not said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// Of the installation of its operating system.
    pub system: Option<Digest>,
    /// Of its board.
    pub board: Option<Digest>,
}

impl Hardware {
    /// Whether both say something of the same thing, and not the same.
    #[must_use]
    pub fn differs_from(&self, other: &Self) -> bool {
        let differ = |one: Option<Digest>, other: Option<Digest>| {
            one.zip(other).is_some_and(|(one, other)| one != other)
        };
        differ(self.system, other.system) || differ(self.board, other.board)
    }

    /// What is known from both; where both say something, this one.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            system: self.system.or(other.system),
            board: self.board.or(other.board),
        }
    }
}

/// Whether a machine may start what it has got. What it has started goes on in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lockdown {
    /// It starts nothing until it is told otherwise.
    On,
    /// It may.
    Off,
}

/// The most operations whose output a `Welcome` speaks of. What is left out is told again, and stored once.
pub const MAX_STORED: usize = 4096;

/// How far a host has the output of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredOutput {
    /// Which.
    pub operation: OperationId,
    /// It has standard output up to this many bytes from its beginning, as far as the machine told it.
    pub stdout: u64,
    /// The same of standard error.
    pub stderr: u64,
}

/// What a machine is called. For people and for scripts' variables; who it *is* comes from its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The tenant's name.
    pub tenant: String,
    /// The machine's name.
    pub name: String,
    /// `key=value`, sorted.
    pub tags: Vec<String>,
    /// The address of the host's API as operators use it.
    pub url: String,
}

/// Something that an agent knows of its machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fact {
    /// For example `os.family`.
    pub key: String,
    /// Its value.
    pub value: FactValue,
}

/// The types of facts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the words say it")]
pub enum FactValue {
    Boolean(bool),
    Integer(i64),
    Decimal(f64),
    Text(String),
    Texts(Vec<String>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_differs_where_something_is_known_of_both_and_is_not_the_same() {
        let of = |system: Option<&[u8]>, board: Option<&[u8]>| Hardware {
            system: system.map(Digest::of),
            board: board.map(Digest::of),
        };
        let whole = of(Some(b"a"), Some(b"b"));
        for same in [
            whole,
            of(Some(b"a"), None),
            of(None, Some(b"b")),
            of(None, None),
        ] {
            assert!(!same.differs_from(&whole) && !whole.differs_from(&same));
            assert_eq!(same.or(whole), whole);
        }
        for other in [
            of(Some(b"c"), Some(b"b")),
            of(Some(b"a"), Some(b"c")),
            of(None, Some(b"c")),
        ] {
            assert!(other.differs_from(&whole) && whole.differs_from(&other));
        }
    }
}
