//! The number of the format that agent and shim speak, and that a spool is written in.
//!
//! Agent and shim are installed together, and still may be of different versions for a while: a shim outlives the agent
//! that an upgrade or a downgrade replaces, and its program may be replaced under an agent that runs. So the number is in
//! front of a description ([`crate::order`]) and of every frame of events ([`crate::frame`]), on the pipe as in the spool,
//! and is the first that a server of shims says. What has another number is not looked at.

/// The format of this version. Whatever changes in [`crate::spec`], [`crate::event`] or in what they are sent in raises it;
/// a reader that can take the one before too may then do so. CBOR begins a map with a byte from 0xa0 on, so below that no
/// number looks like something that has none.
pub const FORMAT: u8 = 1;

/// Something has another number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is of another version of Sluice (format {0}, and not {FORMAT})")]
pub struct OtherFormat(pub u8);

/// Looks at a number.
///
/// # Errors
/// It is not [`FORMAT`].
pub const fn check(found: u8) -> Result<(), OtherFormat> {
    if found == FORMAT {
        Ok(())
    } else {
        Err(OtherFormat(found))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;
    use std::time::Duration;

    use serde_bytes::ByteBuf;
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::event::{
        Confinement, ContainmentKind, End, Ends, Ephemeral, Event, HeadFull, LimitHit, Outcome,
        Prepared, Stage, Started, Stream, UnixMillis, Usage,
    };
    use crate::spec::{
        Attachment, Attachments, Content, Limits, Opened, Profile, Script, Secret, Spec, User,
        Variable,
    };
    use crate::{frame, order};

    fn events() -> Vec<Event> {
        vec![
            Event::Prepared(Prepared {
                at: UnixMillis(1),
                workspace: "/w".into(),
                device: 2,
                inode: 3,
                cgroups: vec!["/c".into()],
                ephemeral: Some(Ephemeral {
                    uid: 4,
                    locks: "/l".into(),
                }),
            }),
            Event::Started(Started {
                at: UnixMillis(5),
                pid: 6,
                uid: 7,
                gids: vec![8],
                cwd: "/".into(),
                interpreter: "/i".into(),
                containment: ContainmentKind::CgroupV2,
                confinement: Confinement::default(),
            }),
            Event::Output {
                stream: Stream::Stderr,
                at: 9,
                bytes: ByteBuf::from(vec![10]),
            },
            Event::Spooled,
            Event::HeadFull(HeadFull {
                stdout: 11,
                stderr: 12,
                rest: 13,
            }),
            Event::TailAt {
                stdout: 14,
                stderr: 15,
            },
            Event::Note { text: "n".into() },
            Event::Exited(Outcome {
                at: UnixMillis(16),
                duration: Duration::from_millis(17),
                end: End::Signal {
                    number: 18,
                    name: "CONT".into(),
                    core_dumped: true,
                },
                timed_out: true,
                canceled: true,
                limit_hit: Some(LimitHit::Memory),
                survivors_killed: 19,
                output: Ends::whole([20, 21]),
                spooled: 22,
                usage: Usage::default(),
            }),
            Event::Failed {
                stage: Stage::Spec,
                reason: "r".into(),
            },
        ]
    }

    fn spec(user: User) -> Spec {
        let file = |content| Attachment {
            name: "a".into(),
            content,
        };
        Spec {
            operation: "o".into(),
            spool: "/s".into(),
            workspace_base: "/w".into(),
            interpreter: "/i".into(),
            flags: vec!["-f".into()],
            script: Script {
                name: "script".into(),
                bytes: ByteBuf::from(vec![1]),
            },
            arguments: vec!["a".into()],
            environment: vec![Variable {
                name: "N".into(),
                value: "v".into(),
            }],
            user,
            attachments: Attachments {
                variables: vec!["A".into()],
                files: vec![
                    file(Content::Bytes(ByteBuf::from(vec![2]))),
                    file(Content::File {
                        path: "/f".into(),
                        size: 3,
                        sha256: [4; 32],
                    }),
                ],
            },
            secrets: vec![Secret {
                variable: "S".into(),
                name: "s".into(),
                value: ByteBuf::from(vec![5]),
            }],
            limits: Limits {
                time: Duration::from_millis(6),
                grace: Duration::from_millis(7),
                output: 8,
                memory: Some(9),
                processes: Some(10),
                cpu_percent: Some(11),
                file_size: Some(12),
                open_files: Some(13),
            },
            no_new_privs: true,
            profile: Profile::Strict,
            opened: Opened {
                read: vec!["/r".into()],
                write: vec!["/w".into()],
                tcp_connect: vec![NonZeroU16::MIN],
                tcp_bind: vec![NonZeroU16::MAX],
            },
            hidden: vec!["/h".into()],
        }
    }

    #[test]
    fn what_agent_and_shim_write_has_the_form_that_goes_with_its_number() {
        let users = [
            User::Ephemeral { locks: "/l".into() },
            User::Named {
                name: "n".into(),
                uid: 1,
                gid: 2,
                groups: vec![3],
                home: "/".into(),
            },
        ];
        let mut written: Vec<u8> = events().iter().flat_map(frame::encode).collect();
        written.extend(
            users
                .into_iter()
                .flat_map(|user| order::describe(&spec(user))),
        );
        let digest: String = Sha256::digest(&written)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        // Where the form is another on purpose, the number goes up, and the digest is that of the new form.
        assert_eq!(
            (FORMAT, digest.as_str()),
            (
                1,
                "de1dc253a6a104096aa8e7216aee2bf8ddc7cba239d2ca3cbfade671fd9f8e01"
            )
        );
    }
}
