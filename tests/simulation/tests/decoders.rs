//! Everything that a peer or a submitter may send as bytes, changed in thousands of ways: no decoder panics, none takes long,
//! and none needs much more memory than it was given bytes.

#![allow(
    unsafe_code,
    reason = "counting what is allocated takes an allocator, which has no safe form"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_protocol::bundle::{Source, Submission};
use sluice_protocol::codec;
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::{Block, Ending};
use sluice_protocol::gates::GateSet;
use sluice_protocol::ids::{OperationId, TokenId};
use sluice_protocol::message::control::{
    Fact, FactValue, FromAgent, FromHost, Hardware, Hello, History, Identity, LedgerMark, Lockdown,
    StoredOutput, Verdict, Welcome,
};
use sluice_protocol::message::enroll::{Answer, Enroll, Request, Token};
use sluice_protocol::message::operation::{Chunk, Operation, OutputStream, Progress};
use sluice_protocol::message::{StreamKind, blob};
use sluice_protocol::report::Report;
use sluice_protocol::script::{Header, Interpreter, ScriptText};
use sluice_protocol::units::{ByteSize, Span};
use sluice_simulation::random::Random;
use sluice_simulation::{samples, seeds};
use sluice_transport::identity::{Authority, MachineKey, host_of, machine_of};
use sluice_transport::sealing::SealingKey;

/// How many ways each sample is changed in, for one seed.
const CHANGES: u64 = 300;
/// How long one decoder may take for the longest sample; generous, as everything here takes turns with other tests.
const SLOW: Duration = Duration::from_secs(2);
/// What may be allocated beyond a multiple of what came: text of errors, and room that serde makes ahead for lists of an
/// unknown length (1 MiB at most for each level).
const BASE: usize = 4 << 20;
const TIMES: usize = 64;

struct Counting;

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

fn count(more: usize, less: usize) {
    // A thread that ends may have none any more.
    let _gone = NOW.try_with(|now| {
        now.set(now.get().saturating_add(more).saturating_sub(less));
        let _gone = MOST.try_with(|most| most.set(most.get().max(now.get())));
    });
}

// SAFETY: everything is passed on to the system's allocator as it came; what is counted is kept in cells that need no
// allocation and no drop.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as the caller promises; it came from the same allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How much is allocated at most while `work` runs, beyond what was there before.
fn most_allocated(work: impl FnOnce()) -> usize {
    let before = NOW.get();
    MOST.set(before);
    work();
    MOST.get() - before
}

/// A way in: what it is called, what it is given where all is well, and what reads it.
struct Door {
    name: &'static str,
    samples: Vec<Vec<u8>>,
    read: fn(&[u8]),
}

/// Decodes a message. What is taken must be the one encoding of what was understood.
fn message<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    if let Ok(message) = codec::decode::<T>(bytes) {
        let again = codec::encode(&message).expect("encodes");
        assert_eq!(again, bytes, "two encodings of one message");
    }
}

fn text(bytes: &[u8], read: impl FnOnce(&str)) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        read(text);
    }
}

fn encoded<T: Serialize>(samples: impl IntoIterator<Item = T>) -> Vec<Vec<u8>> {
    let encode = |sample| codec::encode(&sample).expect("encodes");
    samples.into_iter().map(encode).collect()
}

fn doors() -> Vec<Door> {
    let mut doors = messages();
    doors.extend(texts());
    doors.extend(identities());
    doors
}

fn messages() -> Vec<Door> {
    let door = |name, samples, read| Door {
        name,
        samples,
        read,
    };
    let report = Report {
        started_at: Some(1),
        notes: vec!["a note".to_owned(); 3],
        ..Report::without_process(Ending::Blocked(Block::machine_policy("no".to_owned())), 2)
    };
    let chunk = Chunk {
        stream: OutputStream::Stdout,
        offset: 7,
        bytes: b"output".to_vec(),
    };
    vec![
        door(
            "from an agent",
            encoded([
                FromAgent::Hello(Box::new(hello())),
                FromAgent::Facts(facts()),
                FromAgent::GatesReady {
                    revision: 3,
                    problems: vec!["a problem".to_owned()],
                },
                FromAgent::History(History {
                    at_acknowledged: Some(Digest::of(b"seventh")),
                    head: mark(),
                }),
                FromAgent::Pong { nonce: 5 },
                FromAgent::Renew {
                    request: vec![1, 2, 3],
                },
            ]),
            message::<FromAgent>,
        ),
        door(
            "from a host",
            encoded([
                FromHost::Welcome(Box::new(welcome())),
                FromHost::Gates(Box::new(GateSet {
                    revision: 3,
                    publishers: vec!["somebody".to_owned()],
                    bindings: vec![],
                })),
                FromHost::Cancel {
                    operation: OperationId::generate(),
                    by: "ann".to_owned(),
                },
                FromHost::History(Verdict::Held),
                FromHost::Ping { nonce: 5 },
                FromHost::Lockdown(Lockdown::On),
                FromHost::Renewed {
                    chain: vec![serde_bytes::ByteBuf::from([1; 40])],
                },
            ]),
            message::<FromHost>,
        ),
        door("an operation", encoded([operation()]), |bytes| {
            message::<Operation>(bytes);
            let _id = Operation::id_of_unreadable(bytes);
        }),
        door(
            "progress",
            encoded([
                Progress::Of(OperationId::generate()),
                Progress::Running { started_at: 1 },
                Progress::Ledger(mark()),
                Progress::Output(chunk),
                Progress::Finished(Box::new(report)),
            ]),
            message::<Progress>,
        ),
        door(
            "a request for a blob",
            encoded([blob::Request {
                sha256: Digest::of(b"blob"),
                offset: 3,
            }]),
            message::<blob::Request>,
        ),
        door(
            "an answer about a blob",
            encoded([blob::Answer::Found { size: 3 }, blob::Answer::NotFound]),
            message::<blob::Answer>,
        ),
        door(
            "a request to enroll",
            encoded([Request::Enroll(Box::new(Enroll {
                token: TokenId::generate(),
                secret: vec![7; 32],
                request: vec![8; 200],
                name: "web-1".to_owned(),
                facts: facts(),
            }))]),
            message::<Request>,
        ),
        door(
            "an answer about an enrollment",
            encoded([Answer::Refused {
                reason: "no".to_owned(),
            }]),
            message::<Answer>,
        ),
        door("a submission", encoded([operation().submission]), |bytes| {
            if let Ok(submission) = codec::decode::<Submission>(bytes) {
                let _refused = Source::read(&submission);
            }
        }),
    ]
}

fn texts() -> Vec<Door> {
    let door = |name, sample: &[u8], read| Door {
        name,
        samples: vec![sample.to_vec()],
        read,
    };
    let script = b"#!/usr/bin/env -S python3 -I\n# /// sluice\n# [parameters.path]\n# type = \"text\"\n# pattern = \"[a-z]+\"\n# [parameters.count]\n# type = \"integer\"\n# min = 1\n# default = 3\n# [requires]\n# os = [\"linux\"]\n# disk = \"1GiB\"\n# ///\nprint(1)\r\n";
    let token = Token {
        addresses: vec!["10.0.0.1:7443".to_owned()],
        authority: Digest::of(b"root"),
        id: TokenId::generate(),
        secret: vec![7; 32],
    };
    vec![
        door("a script", script, |bytes| {
            let _refused = Source::read(&Submission::of(bytes));
            if let Ok(script) = ScriptText::parse(bytes) {
                let _refused = Header::find(script.as_str());
                let _refused = Interpreter::from_shebang(script.as_str());
            }
        }),
        door("an interpreter", b"/usr/bin/python3 -I -u", |bytes| {
            text(bytes, |text| {
                drop(Interpreter::from_command(text));
            });
        }),
        door("a token", token.to_string().as_bytes(), |bytes| {
            text(bytes, |text| {
                let _refused = text.parse::<Token>();
            });
        }),
        door("a time", b"1500ms", |bytes| {
            text(bytes, |text| {
                let _refused = text.parse::<Span>();
            });
        }),
        door("a size", b"16MiB", |bytes| {
            text(bytes, |text| {
                let _refused = text.parse::<ByteSize>();
            });
        }),
        door(
            "an id",
            OperationId::generate().to_string().as_bytes(),
            |bytes| {
                text(bytes, |text| {
                    let _refused = text.parse::<OperationId>();
                })
            },
        ),
        door(
            "a digest",
            Digest::of(b"x").to_string().as_bytes(),
            |bytes| {
                text(bytes, |text| {
                    let _refused = text.parse::<Digest>();
                });
            },
        ),
    ]
}

fn identities() -> Vec<Door> {
    let folder = tempfile::tempdir().expect("makes a folder");
    let authority = Authority::create(&folder.path().join("authority")).expect("creates");
    let key = MachineKey::generate().expect("makes a key");
    let request = key.request().expect("makes a request");
    let issued = authority
        .issue_machine(
            sluice_protocol::ids::TenantId::generate(),
            sluice_protocol::ids::MachineId::generate(),
            &request,
            std::time::SystemTime::now(),
        )
        .expect("issues");
    let sealing = SealingKey::generate().expect("makes a key");
    vec![
        Door {
            name: "a certificate",
            samples: issued.chain,
            read: |bytes| {
                let _none = machine_of(bytes);
                let _none = host_of(bytes);
            },
        },
        Door {
            name: "a machine's key",
            samples: vec![key.pkcs8().to_vec()],
            read: |bytes| drop(MachineKey::from_pkcs8(bytes.to_vec().into())),
        },
        Door {
            name: "a sealing key",
            samples: vec![sealing.to_bytes().expect("is one").to_vec()],
            read: |bytes| drop(SealingKey::from_bytes(bytes)),
        },
    ]
}

fn facts() -> Vec<Fact> {
    vec![Fact {
        key: "os".to_owned(),
        value: FactValue::Text("linux".to_owned()),
    }]
}

fn hello() -> Hello {
    Hello {
        versions: vec![1],
        software: "1.0".to_owned(),
        facts: facts(),
        open: vec![OperationId::generate(); 3],
        hardware: Hardware {
            system: Some(Digest::of(b"system")),
            board: Some(Digest::of(b"board")),
        },
        sealing_key: vec![9; 32],
    }
}

fn mark() -> LedgerMark {
    LedgerMark {
        seq: 9,
        hash: Digest::of(b"ninth"),
    }
}

fn welcome() -> Welcome {
    Welcome {
        version: 1,
        time: 1,
        identity: Identity {
            tenant: "default".to_owned(),
            name: "web-1".to_owned(),
            tags: vec!["role=web".to_owned()],
            url: "http://localhost".to_owned(),
        },
        epoch: 1,
        acknowledged: Some(7),
        audit_head: Digest::of(b"audit"),
        stored: vec![StoredOutput {
            operation: OperationId::generate(),
            stdout: 1,
            stderr: 2,
        }],
        lockdown: Lockdown::Off,
    }
}

fn operation() -> Operation {
    samples::operation("#!/bin/sh\necho hi\n")
}

/// Another version of a sample: a few bytes of it changed, cut out, doubled or put in, or lengths made long.
fn changed(sample: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for _ in 0..random.within(1..4) {
        let at = |random: &mut Random, length: usize| {
            usize::try_from(random.within(0..length.max(1) as u64)).unwrap_or_default()
        };
        let place = at(random, bytes.len());
        let rest = bytes.len() - place;
        match random.within(0..9) {
            0 => bytes.truncate(place),
            1 if rest > 0 => bytes[place] ^= 1 << random.within(0..8),
            2 if rest > 0 => bytes[place] = u8::try_from(random.within(0..256)).unwrap_or(0),
            3 => {
                let end = place + at(random, rest);
                bytes.drain(place..end);
            }
            4 => {
                let end = place + at(random, rest);
                let part = bytes[place..end].to_vec();
                bytes.splice(place..place, part);
            }
            // Heads of CBOR that announce much: lists, maps, bytes and texts of up to 2^64 - 1.
            5 => {
                let head = random.one_of(&[0x9a_u8, 0x9b, 0xba, 0xbb, 0x5a, 0x5b, 0x7a, 0x7b]);
                let mut long = vec![head];
                long.extend([0xff; 8]);
                let end = place + rest.min(1);
                bytes.splice(place..end, long);
            }
            // Depth.
            6 => {
                let count = usize::try_from(random.within(1..5_000)).unwrap_or_default();
                let nested = vec![random.one_of(&[0x81_u8, 0xa1, 0xc1, b'[', b'{']); count];
                bytes.splice(place..place, nested);
            }
            // Much that is small.
            7 => {
                let count = usize::try_from(random.within(1..50_000)).unwrap_or_default();
                let many =
                    vec![random.one_of(&[0xf6_u8, 0x60, 0x80, 0xa0, b'\n', b'#', b'"']); count];
                bytes.splice(place..place, many);
            }
            _ => bytes.push(u8::try_from(random.within(0..256)).unwrap_or(0)),
        }
    }
    bytes
}

#[test]
fn no_bytes_make_a_decoder_panic_or_take_much_time_or_memory() {
    let test = "no_bytes_make_a_decoder_panic_or_take_much_time_or_memory";
    let doors = doors();
    for door in &doors {
        for sample in &door.samples {
            (door.read)(sample);
        }
    }
    seeds::each(test, 200, Duration::from_secs(3), |seed| {
        let mut random = Random::new(seed);
        for door in &doors {
            for change in 0..CHANGES {
                let sample = random.one_of(&door.samples);
                let bytes = changed(&sample, &mut random);
                let begun = Instant::now();
                let most = most_allocated(|| (door.read)(&bytes));
                let (name, took) = (door.name, begun.elapsed());
                assert!(
                    most <= BASE + TIMES * bytes.len(),
                    "{name}, change {change}: {} bytes cost {most}",
                    bytes.len()
                );
                assert!(took < SLOW, "{name}, change {change}: took {took:?}");
            }
        }
    });
}

#[test]
fn the_longest_frame_of_each_kind_costs_at_most_so_many_times_its_length() {
    for kind in StreamKind::ALL {
        for byte in [0xf6_u8, 0x60, 0x80, 0xa0, 0x00] {
            // A list of the smallest things there are, as long as the frame may be.
            let length = kind.max_frame() - 5;
            let count = u32::try_from(length).expect("fits").to_be_bytes();
            let mut bytes = vec![0x9a];
            bytes.extend(count);
            bytes.resize(kind.max_frame(), byte);
            let most = most_allocated(|| match kind {
                StreamKind::Control => {
                    message::<FromAgent>(&bytes);
                    message::<FromHost>(&bytes);
                }
                StreamKind::Operation => message::<Operation>(&bytes),
                StreamKind::Progress => message::<Progress>(&bytes),
                StreamKind::Blob => message::<blob::Request>(&bytes),
                StreamKind::Enroll => message::<Request>(&bytes),
            });
            assert!(
                most <= 4 * kind.max_frame(),
                "{kind:?}: {most} bytes for a frame of {byte:#x}"
            );
        }
    }
}
