//! What the agent tells the shim: everything about one start, decided and complete.

use std::fmt;
use std::num::NonZeroU16;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// The niceness of a shim that has no operation yet, or no longer: what it does then, nobody waits for.
pub const NICE_AHEAD: i32 = 10;

/// One operation to start. Comes on the shim's standard input in a frame (see [`crate::order`]), as CBOR.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The operation's id: one path component of letters, digits, `-` and `_`, at most 64 bytes.
    pub operation: String,
    /// Where the operation's spool goes: a directory of its own in that of all spools, the agent's user's, 0700. Nothing
    /// may be there when the operation starts.
    pub spool: PathBuf,
    /// Where the private directory is made (`script_tempdir` of the machine's owner).
    pub workspace_base: PathBuf,
    /// The interpreter's absolute path.
    pub interpreter: PathBuf,
    /// Flags between interpreter and script.
    pub flags: Vec<String>,
    /// The script as it will run.
    pub script: Script,
    /// Arguments after the script.
    pub arguments: Vec<String>,
    /// The whole environment. Added by the shim: the variables that name files it makes (attachments, secrets), and
    /// `USER` and `LOGNAME` of an ephemeral user where they are not in the list.
    pub environment: Vec<Variable>,
    /// Who runs it.
    pub user: User,
    /// Files beside the script.
    pub attachments: Attachments,
    /// Secrets that the script reads from files.
    pub secrets: Vec<Secret>,
    /// What it may use.
    pub limits: Limits,
    /// Set `no_new_privs`, so that set-user-id programs gain nothing.
    pub no_new_privs: bool,
    /// How much of the machine is kept from it.
    pub profile: Profile,
    /// What the profile `strict` lets it reach besides.
    pub opened: Opened,
    /// Sluice's own directories and files, which a script of root or under a profile finds empty.
    pub hidden: Vec<PathBuf>,
}

/// How much of the machine is kept from a script. What each comes to is in the module `confinement`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// What its user may not reach anyway.
    #[default]
    None,
    /// System calls that no ordinary script makes, and the temporary files of others.
    Standard,
    /// That, TCP, and all files but the system's and its own.
    Strict,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Standard => "standard",
            Self::Strict => "strict",
        })
    }
}

/// What the machine's owner lets scripts reach that are otherwise kept from it by [`Profile::Strict`]. Modes and owners of
/// files hold as ever.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opened {
    /// Files, and directories with all that is below them, to read and execute.
    pub read: Vec<PathBuf>,
    /// The same to change as well.
    pub write: Vec<PathBuf>,
    /// TCP ports to connect to, of any machine.
    pub tcp_connect: Vec<NonZeroU16>,
    /// TCP ports of this machine to listen on.
    pub tcp_bind: Vec<NonZeroU16>,
}

/// The script's bytes and the name of its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// File name, one path component (`script`, or `script.ps1` for PowerShell, which insists on it).
    pub name: String,
    /// The bytes that the gates saw.
    pub bytes: ByteBuf,
}

/// One environment variable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    /// Its name: not empty, without `=` and NUL.
    pub name: String,
    /// Its value, without NUL.
    pub value: String,
}

/// The user a script runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum User {
    /// A uid of the reserved range that no other operation of this machine has while this one runs.
    Ephemeral {
        /// Directory with one lock file for each uid in use, shared by all agents of the machine.
        locks: PathBuf,
    },
    /// A user of the machine's data base, resolved by the agent.
    Named {
        /// Login name, for messages.
        name: String,
        /// User id.
        uid: u32,
        /// Primary group.
        gid: u32,
        /// Supplementary groups, the primary one included or not.
        groups: Vec<u32>,
        /// Home directory: the working directory, where it can be entered.
        home: PathBuf,
    },
}

/// Attached files and the variables that name their directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachments {
    /// Variables that are set to the directory's path when there are files, such as `SLUICE_ATTACHMENTS`.
    pub variables: Vec<String>,
    /// The files.
    pub files: Vec<Attachment>,
}

/// One attached file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// One path component.
    pub name: String,
    /// Where the bytes are.
    pub content: Content,
}

/// The bytes of an attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Content {
    /// A regular file in the agent's own store, copied from there. The operation does not start where it is another than
    /// the gates saw.
    File {
        /// Where it is.
        path: PathBuf,
        /// Its bytes.
        size: u64,
        /// SHA-256 of these.
        sha256: [u8; 32],
    },
    /// The bytes themselves.
    Bytes(ByteBuf),
}

/// A secret: a 0400 file, named by a variable.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// The variable that is set to the file's path, such as `SLUICE_SECRET_TOKEN`.
    pub variable: String,
    /// File name, one path component.
    pub name: String,
    /// The secret itself; never shown.
    pub value: ByteBuf,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("variable", &self.variable)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What an operation may use. Absent: not limited by the shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Wall-clock time from the start of the interpreter.
    pub time: Duration,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Bytes of output kept, both streams together.
    pub output: u64,
    /// Bytes of memory of all processes together (where a cgroup can be used, else of each process's data).
    pub memory: Option<u64>,
    /// Processes and threads at a time.
    pub processes: Option<u64>,
    /// Share of one processor in percent: 100 is one whole processor. Needs a cgroup.
    pub cpu_percent: Option<u32>,
    /// Bytes of the largest file it may write.
    pub file_size: Option<u64>,
    /// Open files of each process.
    pub open_files: Option<u64>,
}

/// Why a spec is refused.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Not one CBOR value of this shape.
    #[error("the operation's description cannot be read")]
    Decode(#[source] ciborium::de::Error<std::io::Error>),
    /// Bytes after the value.
    #[error("the operation's description has {0} bytes too many")]
    TrailingBytes(usize),
    /// A name that is not one safe path component.
    #[error("{what} `{name}` is not a single safe path component")]
    Name {
        /// Which name.
        what: &'static str,
        /// The name, escaped.
        name: String,
    },
    /// A path that is not absolute.
    #[error("{what} `{}` is not an absolute path", path.display())]
    Relative {
        /// Which path.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// A NUL byte where the kernel takes none, or an invalid variable name.
    #[error("{what} `{text}` has a NUL byte or is not a valid name")]
    Text {
        /// Which text.
        what: &'static str,
        /// The text, escaped.
        text: String,
    },
}

impl Spec {
    /// The CBOR form that a shim reads.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.script.bytes.len() + 4096);
        // Writing to a Vec cannot fail, and a spec has no type that CBOR cannot hold except a path that is not UTF-8;
        // the shim then reads an empty description and refuses it.
        if ciborium::into_writer(self, &mut bytes).is_err() {
            bytes.clear();
        }
        bytes
    }

    /// Reads and checks a spec.
    ///
    /// # Errors
    /// Anything but one complete, valid value.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SpecError> {
        let mut rest = bytes;
        let spec: Self = ciborium::from_reader(&mut rest).map_err(SpecError::Decode)?;
        if !rest.is_empty() {
            return Err(SpecError::TrailingBytes(rest.len()));
        }
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), SpecError> {
        let id = &self.operation;
        if id.is_empty()
            || id.len() > 64
            || !id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        {
            return Err(SpecError::Name {
                what: "operation",
                name: id.escape_debug().to_string(),
            });
        }
        absolute("spool", &self.spool)?;
        absolute("workspace base", &self.workspace_base)?;
        absolute("interpreter", &self.interpreter)?;
        component("script name", &self.script.name)?;
        for text in self.flags.iter().chain(&self.arguments) {
            no_nul("argument", text)?;
        }
        for variable in &self.environment {
            variable_name(&variable.name)?;
            no_nul("value of variable", &variable.value)?;
        }
        for name in &self.attachments.variables {
            variable_name(name)?;
        }
        for file in &self.attachments.files {
            component("attachment", &file.name)?;
            if let Content::File { path, .. } = &file.content {
                absolute("attachment's source", path)?;
            }
        }
        for secret in &self.secrets {
            variable_name(&secret.variable)?;
            component("secret", &secret.name)?;
        }
        for path in self.opened.read.iter().chain(&self.opened.write) {
            absolute("path to open", path)?;
        }
        for path in &self.hidden {
            absolute("hidden path", path)?;
        }
        match &self.user {
            User::Ephemeral { locks } => absolute("directory of uid locks", locks),
            User::Named { home, .. } => absolute("home", home),
        }
    }
}

fn absolute(what: &'static str, path: &Path) -> Result<(), SpecError> {
    let text = path.to_string_lossy();
    if !path.is_absolute()
        || text.contains('\0')
        || path.components().any(|c| c == Component::ParentDir)
    {
        return Err(SpecError::Relative {
            what,
            path: path.to_owned(),
        });
    }
    Ok(())
}

fn component(what: &'static str, name: &str) -> Result<(), SpecError> {
    let safe = !name.is_empty()
        && name.len() <= 255
        && name != "."
        && name != ".."
        && !name.contains(['/', '\0']);
    if safe {
        Ok(())
    } else {
        Err(SpecError::Name {
            what,
            name: name.escape_debug().to_string(),
        })
    }
}

fn no_nul(what: &'static str, text: &str) -> Result<(), SpecError> {
    if text.contains('\0') {
        return Err(SpecError::Text {
            what,
            text: text.escape_debug().take(80).collect(),
        });
    }
    Ok(())
}

fn variable_name(name: &str) -> Result<(), SpecError> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(SpecError::Text {
            what: "variable",
            text: name.escape_debug().take(80).collect(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn spec() -> Spec {
        Spec {
            operation: "0192-aa".into(),
            spool: "/var/lib/sluice/spool/0192-aa".into(),
            workspace_base: "/var/lib/sluice/run".into(),
            interpreter: "/bin/sh".into(),
            flags: vec![],
            script: Script {
                name: "script".into(),
                bytes: ByteBuf::from(b"echo".to_vec()),
            },
            arguments: vec![],
            environment: vec![Variable {
                name: "LANG".into(),
                value: "C".into(),
            }],
            user: User::Ephemeral {
                locks: "/run/sluice/uids".into(),
            },
            attachments: Attachments::default(),
            secrets: vec![Secret {
                variable: "SLUICE_SECRET_T".into(),
                name: "t".into(),
                value: ByteBuf::from(b"hunter2".to_vec()),
            }],
            limits: Limits {
                time: Duration::from_secs(1),
                grace: Duration::from_secs(1),
                output: 1,
                memory: None,
                processes: None,
                cpu_percent: None,
                file_size: None,
                open_files: None,
            },
            no_new_privs: true,
            profile: Profile::None,
            opened: Opened::default(),
            hidden: vec!["/var/lib/sluice".into()],
        }
    }

    #[test]
    fn a_spec_survives_its_own_encoding_and_nothing_may_follow_it() {
        let mut bytes = spec().to_bytes();
        assert_eq!(Spec::from_bytes(&bytes).unwrap(), spec());
        bytes.push(0xf6);
        assert!(matches!(
            Spec::from_bytes(&bytes),
            Err(SpecError::TrailingBytes(1))
        ));
    }

    #[test]
    fn names_that_leave_their_directory_are_refused() {
        for name in ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\0b"] {
            let mut bad = spec();
            bad.attachments.files.push(Attachment {
                name: name.into(),
                content: Content::Bytes(ByteBuf::new()),
            });
            assert!(
                matches!(
                    Spec::from_bytes(&bad.to_bytes()),
                    Err(SpecError::Name {
                        what: "attachment",
                        ..
                    })
                ),
                "{name:?}"
            );
            let mut bad = spec();
            bad.operation = name.into();
            assert!(Spec::from_bytes(&bad.to_bytes()).is_err(), "{name:?}");
        }
    }

    #[test]
    fn relative_paths_and_nul_bytes_are_refused() {
        let mut bad = spec();
        bad.interpreter = "sh".into();
        assert!(matches!(
            Spec::from_bytes(&bad.to_bytes()),
            Err(SpecError::Relative {
                what: "interpreter",
                ..
            })
        ));
        let mut bad = spec();
        bad.hidden.push("etc/sluice".into());
        assert!(matches!(
            Spec::from_bytes(&bad.to_bytes()),
            Err(SpecError::Relative {
                what: "hidden path",
                ..
            })
        ));
        let opens: [fn(&mut Opened) -> &mut Vec<PathBuf>; 2] =
            [|opened| &mut opened.read, |opened| &mut opened.write];
        for open in opens {
            let mut bad = spec();
            open(&mut bad.opened).push("/srv/../etc".into());
            assert!(matches!(
                Spec::from_bytes(&bad.to_bytes()),
                Err(SpecError::Relative {
                    what: "path to open",
                    ..
                })
            ));
        }
        let mut bad = spec();
        bad.environment[0].value = "a\0b".into();
        assert!(matches!(
            Spec::from_bytes(&bad.to_bytes()),
            Err(SpecError::Text { .. })
        ));
        let mut bad = spec();
        bad.environment[0].name = "A=B".into();
        assert!(matches!(
            Spec::from_bytes(&bad.to_bytes()),
            Err(SpecError::Text { .. })
        ));
    }

    #[test]
    fn a_secret_is_not_shown_when_a_spec_is() {
        assert!(!format!("{:?}", spec()).contains("hunter2"));
    }
}
