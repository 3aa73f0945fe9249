//! Frames between a parent and its runner: four bytes of length (little endian) and CBOR. Components and compiled
//! components are not in them: they go along as memory files ([`crate::memory_file`], [`crate::passing`]).
//!
//! The runner is not believed: frames are capped before they are read, decoded into these types, and what a gate answers
//! is checked again by the parent.

use std::io::{self, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sluice_gate_types::admission::{Admitted, Refused};
use sluice_gate_types::answer::{Answer, CallError};
use sluice_gate_types::contract::Contract;
use sluice_gate_types::input::{Attribute, DataPack, Question};
use sluice_gate_types::limits::CallLimits;
use sluice_gate_types::manifest::World;

/// The longest frame, in bytes: a question with all texts of an operation.
pub const MAX_FRAME: usize = 96 << 20;

/// The longest frame that a parent takes, in bytes: an answer with its log, or what admission says. Whoever got out of a
/// guest sends what it likes, and a short text takes more memory than room in a frame.
pub(crate) const MAX_ANSWER: usize = 4 << 20;

/// A frame's number: an answer has that of its question.
pub type FrameId = u64;

/// A message from the parent, with which memory files go.
pub trait Carries {
    /// How many, neither more nor fewer. Which they are stands at the message.
    fn files(&self) -> usize;
}

/// From the parent to a serving runner.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToRunner {
    /// Chosen by the parent.
    pub id: FrameId,
    /// What is asked.
    pub request: Request,
}

/// What a serving runner is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Load a compiled component under this number. File: the compiled component.
    Load(Box<Load>),
    /// Ask a loaded gate.
    Call {
        /// The number it was loaded under.
        gate: u64,
        /// The question, in the encoding of [`Encoded`].
        #[serde(with = "serde_bytes")]
        question: Vec<u8>,
    },
    /// Configure an instrumented component and snapshot it. Files: the original component; the instrumented one, compiled
    /// with little effort; space for the new component.
    Snapshot(Box<Snapshot>),
    /// Forget a loaded gate.
    Unload {
        /// The number it was loaded under.
        gate: u64,
    },
}

impl Carries for ToRunner {
    fn files(&self) -> usize {
        match self.request {
            Request::Load(_) => 1,
            Request::Snapshot(_) => 3,
            Request::Call { .. } | Request::Unload { .. } => 0,
        }
    }
}

/// A question in its one encoding: it is encoded once for all gates of a stage, and its digest tells it from others.
#[derive(Debug, Clone)]
pub struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) sha256: [u8; 32],
}

impl Encoded {
    /// Encodes a question.
    ///
    /// # Errors
    ///
    /// Where it has no CBOR form.
    pub fn new(question: &Question) -> io::Result<Self> {
        let mut bytes = Vec::new();
        ciborium::into_writer(question, &mut bytes)
            .map_err(|error| io::Error::other(error.to_string()))?;
        let sha256 = Sha256::digest(&bytes).into();
        Ok(Self { bytes, sha256 })
    }

    /// Reads a question again.
    ///
    /// # Errors
    ///
    /// Where the bytes are none.
    pub fn read(bytes: &[u8]) -> io::Result<Question> {
        decode(bytes)
    }
}

/// How many calls a runner makes at once. Its parent lets no more wait inside of it, because a call's clock runs there.
pub const CALLS: usize = 4;

/// A compiled component to load.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// The number to load it under.
    pub gate: u64,
    /// The version of the contract that it was built for.
    pub contract: Contract,
    /// Its world.
    pub world: World,
    /// Limits of each call.
    pub limits: CallLimits,
    /// Settings for a component that is configured on every call.
    pub configure: Option<Configure>,
}

/// What `configure` gets.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "as in wit/")]
pub struct Configure {
    pub settings: Vec<Attribute>,
    pub data: Vec<DataPack>,
}

/// A component to configure and snapshot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The version of the contract that it was built for.
    pub contract: Contract,
    /// Its world.
    pub world: World,
    /// What `configure` gets.
    pub configure: Configure,
}

/// From a serving runner.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FromRunner {
    /// Of the request; 0 for [`Response::Ready`].
    pub id: FrameId,
    /// The answer.
    pub response: Response,
}

/// What a serving runner answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Response {
    /// The first frame: the walls stand.
    Ready(Ready),
    /// To `Load` and `Unload`.
    Loaded(Result<(), CallError>),
    /// To `Call`.
    Called(Box<Called>),
    /// To `Snapshot`: the length of the new component.
    Snapshot(Result<u64, CallError>),
}

/// What a runner says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// The walls that were put up, for example `seccomp`, `landlock`.
    pub walls: Vec<String>,
    /// What compiled components must have been made with.
    #[serde(with = "serde_bytes")]
    pub compatibility: [u8; 32],
    /// The runtime's version, for receipts.
    pub runtime: String,
    /// Where instances get their memory.
    pub memory: Memory,
}

/// Where instances of gates get their memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Memory {
    /// From a pool that was reserved when the runner started: calls are quick.
    Pool,
    /// From the system at each call: the process may not have the address space for a pool. The limits are the same.
    OnDemand,
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Called {
    /// The answer, or why there is none.
    pub answer: Result<Answer, CallError>,
    /// Fuel that was burned.
    pub fuel: u64,
    /// The most bytes of memories and tables that there were at once.
    pub memory: u64,
    /// Microseconds inside the runner.
    pub duration_us: u64,
    /// What the guest logged, unescaped.
    pub log: Vec<String>,
}

/// From the parent to a compiling child, which answers once and ends.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum CompileRequest {
    /// Read a component without compiling it. File: the component.
    Inspect,
    /// Admit a component, instrument it and compile the result with little effort. Files: the component; space for the
    /// result.
    Instrument,
    /// Compile with full effort: a snapshot, or a component that cannot be snapshotted. Files: the component; space for
    /// the result.
    Compile,
}

impl Carries for CompileRequest {
    fn files(&self) -> usize {
        match self {
            Self::Inspect => 1,
            Self::Instrument | Self::Compile => 2,
        }
    }
}

/// From a compiling child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum CompileResponse {
    /// To `Inspect`.
    Inspected(Box<Result<Admitted, Refused>>),
    /// To `Instrument`.
    Instrumented(Box<Result<Instrumented, Refused>>),
    /// To `Compile`: the length of the compiled component.
    Compiled(Result<u64, String>),
}

/// An admitted component, and the length of its instrumented and compiled form or the reason why it cannot be
/// snapshotted.
pub type Instrumented = (Admitted, Result<u64, String>);

/// Writes one frame.
///
/// # Errors
///
/// Where the other side is gone or the value is too large.
pub fn write<T: Serialize>(writer: &mut impl Write, value: &T) -> io::Result<()> {
    writer.write_all(&encode(value)?)
}

/// A frame with its length before it.
pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    ciborium::into_writer(value, &mut bytes)
        .map_err(|error| io::Error::other(error.to_string()))?;
    let length = u32::try_from(bytes.len() - 4)
        .ok()
        .filter(|length| *length as usize <= MAX_FRAME);
    let length = length.ok_or_else(|| io::Error::other("frame too large"))?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// The length that a frame begins with, where it is at most `longest`.
pub(crate) fn checked_length(bytes: [u8; 4], longest: usize) -> io::Result<usize> {
    let length = u32::from_le_bytes(bytes) as usize;
    if length > longest {
        Err(io::Error::other("frame too large"))
    } else {
        Ok(length)
    }
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, 32)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "trailing bytes in a frame",
        ))
    }
}
