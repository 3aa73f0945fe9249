//! What was scanned is what runs: the bundle once more, read back from the description that a shim gets.
//!
//! Everything of it that decides what runs is taken from the description; the rest says what was asked for, and the
//! description must grant that. So a description that was made wrong, or changed since the gates answered, has another
//! digest or none.

use std::time::Duration;

use sluice_protocol::bundle::{Attachment, Bundle, Confinement, Limits, Variable};
use sluice_protocol::digest::Digest;
use sluice_protocol::environment::secret_variable;
use sluice_protocol::script::{Interpreter, Language};
use sluice_shim::spec::{Content, Profile, Spec, User};

use crate::exec::environment::Names;
use crate::exec::interpreter::Interpreter as Found;
use crate::exec::users::EPHEMERAL;
use crate::policy::profile;

/// Whether what a shim would run has the digest of what the gates saw. `bundle` is what they saw, `found` the interpreter
/// that was found for it, and `names` those by which the script learns its identity.
#[must_use]
pub(crate) fn is_what_was_seen(
    spec: &Spec,
    bundle: &Bundle,
    found: &Found,
    names: Names,
    digest: Digest,
) -> bool {
    read_back(spec, bundle, found, names)
        .and_then(|bundle| bundle.digest().ok())
        .is_some_and(|again| again == digest)
}

/// The bundle that a description comes to; none where it does not say what the bundle says.
fn read_back(spec: &Spec, bundle: &Bundle, found: &Found, names: Names) -> Option<Bundle> {
    Some(Bundle {
        interpreter: interpreter(spec, &bundle.interpreter, found)?,
        script: String::from_utf8(spec.script.bytes.to_vec()).ok()?,
        arguments: spec.arguments.clone(),
        environment: environment(spec, &bundle.environment, names)?,
        attachments: attachments(spec)?,
        secrets: secrets(spec)?,
        run_as: run_as(spec, bundle.run_as.as_deref())?,
        limits: limits(spec, bundle.limits)?,
        confinement: confinement(spec.profile, bundle.confinement)?,
    })
}

/// The command by the name or path that was asked for, where that is what will be executed; and the flags behind those
/// that every script of the language gets.
fn interpreter(spec: &Spec, asked: &Interpreter, found: &Found) -> Option<Interpreter> {
    let executed = spec.interpreter.as_path();
    let command = if asked.command.starts_with('/') {
        executed.to_str()?
    } else {
        executed.file_name()?.to_str()?
    };
    let (fixed, given) = spec.flags.split_at_checked(found.fixed)?;
    let flags = if asked.language() == Language::PowerShell && given.is_empty() {
        // It takes none but those that every script gets; who asks for one of these gets it once.
        &asked.flags
    } else {
        given
    };
    (executed == found.path && fixed == &found.flags[..found.fixed]).then(|| Interpreter {
        command: command.to_owned(),
        flags: flags.to_vec(),
    })
}

/// The job's variables with the values that the script will see. Those that tell it its identity are the machine's to say.
fn environment(spec: &Spec, asked: &[Variable], names: Names) -> Option<Vec<Variable>> {
    let value = |name: &str| {
        let mut values = spec.environment.iter().filter(|given| given.name == name);
        let value = values.next()?.value.clone();
        values.next().is_none().then_some(value)
    };
    asked
        .iter()
        .map(|variable| {
            let value = if names.are_identity(&variable.name) {
                variable.value.clone()
            } else {
                value(&variable.name)?
            };
            Some(Variable {
                name: variable.name.clone(),
                value,
            })
        })
        .collect()
}

/// The files, which the shim compares with size and digest while it copies them.
fn attachments(spec: &Spec) -> Option<Vec<Attachment>> {
    spec.attachments
        .files
        .iter()
        .map(|file| match &file.content {
            Content::File { size, sha256, .. } => Some(Attachment {
                name: file.name.clone(),
                size: *size,
                sha256: Digest::from_bytes(*sha256),
            }),
            Content::Bytes(_) => None,
        })
        .collect()
}

/// The secrets, each by the variable that goes with its name.
fn secrets(spec: &Spec) -> Option<Vec<String>> {
    spec.secrets
        .iter()
        .map(|secret| {
            (secret.variable == secret_variable(&secret.name)).then(|| secret.name.clone())
        })
        .collect()
}

fn run_as(spec: &Spec, asked: Option<&str>) -> Option<Option<String>> {
    let name = match &spec.user {
        User::Ephemeral { .. } => EPHEMERAL,
        User::Named { name, .. } => name,
    };
    match asked {
        Some(asked) => (asked == name).then(|| Some(name.to_owned())),
        // The owner's default, whatever it is.
        None => Some(None),
    }
}

fn limits(spec: &Spec, asked: Limits) -> Option<Limits> {
    let kept = asked
        .time
        .is_none_or(|time| Duration::from_millis(time.0) == spec.limits.time)
        && asked.output.is_none_or(|size| size.0 == spec.limits.output)
        && asked
            .memory
            .is_none_or(|size| Some(size.0) == spec.limits.memory);
    kept.then_some(asked)
}

/// What was asked for, where the script gets that or more of it.
fn confinement(applied: Profile, asked: Option<Confinement>) -> Option<Option<Confinement>> {
    (profile(asked) <= applied).then_some(asked)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_bytes::ByteBuf;
    use sluice_protocol::units::{ByteSize, Span};
    use sluice_shim::spec::{self, Attachments, Opened, Script, Secret};

    use super::*;

    fn found() -> Found {
        Found {
            path: "/usr/bin/python3".into(),
            flags: vec!["-s".to_owned(), "-u".to_owned()],
            fixed: 1,
            script_name: "script",
        }
    }

    fn variable(name: &str, value: &str) -> Variable {
        Variable {
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }

    fn bundle() -> Bundle {
        Bundle {
            interpreter: Interpreter {
                command: "python3".to_owned(),
                flags: vec!["-u".to_owned()],
            },
            script: "print(1)\n".to_owned(),
            arguments: vec!["a".to_owned()],
            environment: vec![variable("A", "1"), variable("PATH", "/bin")],
            attachments: vec![Attachment {
                name: "file".to_owned(),
                size: 3,
                sha256: Digest::of(b"abc"),
            }],
            secrets: vec!["token".to_owned()],
            run_as: Some("ann".to_owned()),
            limits: Limits {
                time: Some(Span(1000)),
                output: Some(ByteSize(10)),
                memory: Some(ByteSize(20)),
            },
            confinement: Some(Confinement::Standard),
        }
    }

    fn given(name: &str, value: &str) -> spec::Variable {
        spec::Variable {
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }

    fn description() -> Spec {
        Spec {
            operation: "o".to_owned(),
            spool: "/spool/o".into(),
            workspace_base: "/run".into(),
            interpreter: found().path,
            flags: found().flags,
            script: Script {
                name: "script".to_owned(),
                bytes: b"print(1)\n".to_vec().into(),
            },
            arguments: vec!["a".to_owned()],
            environment: vec![
                given("PATH", "/bin"),
                given("HOME", "/home/ann"),
                given("A", "1"),
            ],
            user: User::Named {
                name: "ann".to_owned(),
                uid: 1000,
                gid: 1000,
                groups: vec![1000],
                home: "/home/ann".into(),
            },
            attachments: Attachments {
                variables: vec!["SLUICE_ATTACHMENTS".to_owned()],
                files: vec![spec::Attachment {
                    name: "file".to_owned(),
                    content: Content::File {
                        path: "/blobs/x".into(),
                        size: 3,
                        sha256: *Digest::of(b"abc").as_bytes(),
                    },
                }],
            },
            secrets: vec![Secret {
                variable: "SLUICE_SECRET_TOKEN".to_owned(),
                name: "token".to_owned(),
                value: ByteBuf::new(),
            }],
            limits: spec::Limits {
                time: Duration::from_secs(1),
                grace: Duration::from_secs(5),
                output: 10,
                memory: Some(20),
                processes: Some(10),
                cpu_percent: Some(100),
                file_size: Some(1),
                open_files: Some(64),
            },
            no_new_privs: true,
            profile: Profile::Standard,
            opened: Opened::default(),
            hidden: vec![],
        }
    }

    type Change = (&'static str, fn(&mut Spec));

    fn is_seen(spec: &Spec) -> bool {
        seen_as(spec, &bundle(), Names::Sluice)
    }

    fn seen_as(spec: &Spec, bundle: &Bundle, names: Names) -> bool {
        is_what_was_seen(spec, bundle, &found(), names, bundle.digest().unwrap())
    }

    #[test]
    fn what_a_script_learns_of_itself_is_the_machines_to_say_where_it_is_asked_to() {
        let mut asked = bundle();
        asked.environment.push(variable("LANDSCAPE_URL", "forged"));
        let mut spec = description();
        spec.environment.push(given("LANDSCAPE_URL", "the host"));
        assert!(seen_as(&spec, &asked, Names::SluiceAndLandscape));
        assert!(!seen_as(&spec, &asked, Names::Sluice));
    }

    #[test]
    fn a_description_that_says_anything_else_than_the_gates_saw_is_not_started() {
        assert!(is_seen(&description()));
        let changes: [Change; 21] = [
            ("script", |s| s.script.bytes.push(b'\n')),
            ("no text", |s| s.script.bytes[0] = 0xff),
            ("interpreter", |s| s.interpreter = "/tmp/python3".into()),
            ("another one", |s| s.interpreter = "/usr/bin/perl".into()),
            ("a flag more", |s| s.flags.push("-c".to_owned())),
            ("no fixed flag", |s| drop(s.flags.remove(0))),
            ("fixed flag", |s| s.flags[0] = "-i".to_owned()),
            ("flag", |s| s.flags[1] = "-B".to_owned()),
            ("argument", |s| s.arguments.push(String::new())),
            ("value", |s| s.environment[2].value.push('2')),
            ("no variable", |s| drop(s.environment.remove(0))),
            ("twice", |s| s.environment.push(given("A", "2"))),
            ("file name", |s| s.attachments.files[0].name.push('s')),
            ("file", |s| {
                s.attachments.files[0].content = Content::File {
                    path: "/blobs/x".into(),
                    size: 3,
                    sha256: [0; 32],
                };
            }),
            ("no file", |s| s.attachments.files.clear()),
            ("no secret", |s| s.secrets.clear()),
            ("a secret by another variable", |s| {
                s.secrets[0].variable = "SLUICE_SECRET_OTHER".to_owned();
            }),
            ("user", |s| {
                if let User::Named { name, .. } = &mut s.user {
                    *name = "root".to_owned();
                }
            }),
            ("time", |s| s.limits.time *= 2),
            ("memory", |s| s.limits.memory = None),
            ("confinement", |s| s.profile = Profile::None),
        ];
        for (what, change) in changes {
            let mut spec = description();
            change(&mut spec);
            assert!(!is_seen(&spec), "{what}");
        }
    }

    #[test]
    fn what_the_agent_adds_is_not_in_the_bundle() {
        let mut spec = description();
        spec.environment.push(given("SLUICE_JOB_ID", "j"));
        spec.limits.grace *= 2;
        spec.limits.processes = None;
        spec.profile = Profile::Strict;
        spec.opened.read.push("/srv".into());
        assert!(is_seen(&spec));
    }
}
