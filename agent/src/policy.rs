//! What the machine's owner says about an operation, before anything is fetched or asked.

use std::time::Instant;

use sluice_protocol::attachment;
use sluice_protocol::bundle::{Confinement, Limits as Asked, Source, Submission};
use sluice_protocol::ending::{Block, Ending};
use sluice_protocol::environment::{check_request, check_run};
use sluice_protocol::message::operation::Operation;
use sluice_protocol::units::Span;
use sluice_shim::spec::{self, Profile};

use crate::config::{Config, Limits as Ceilings};
use crate::exec::interpreter::{self, Interpreter};
use crate::exec::users::{self, RunAs};

/// Who and what runs the script, and how much it may use: the owner's answer.
#[derive(Debug, Clone)]
pub struct Permitted {
    /// The user.
    pub user: RunAs,
    /// The interpreter, found and checked.
    pub interpreter: Interpreter,
    /// The limits that apply.
    pub limits: spec::Limits,
    /// How much of the machine is kept from it.
    pub profile: Profile,
    /// When the owner's policy was asked.
    pub at: Instant,
}

/// Asks the owner's policy. May look users up in a directory service: call it where blocking is allowed.
///
/// # Errors
///
/// How the operation ends because of it.
pub fn permit(
    operation: &Operation,
    source: &Source,
    config: &Config,
) -> Result<Permitted, Ending> {
    let submission = &operation.submission;
    if !operation.authorizations.is_empty() || !config.trust.operators.is_empty() {
        return Err(blocked(
            "signed authorizations are not implemented in this version",
        ));
    }
    let attachments = submission.attachments.iter();
    attachment::check(attachments.map(|one| (one.name.as_str(), one.size)))
        .map_err(|refused| blocked(refused.to_string()))?;
    for variable in &submission.environment {
        // The host has refused names that are not valid; a hostile one has not.
        check_request(&variable.name, &variable.value)
            .and_then(|()| check_run(&variable.name, &variable.value, &config.environment.allow))
            .map_err(|refusal| blocked(refusal.to_string()))?;
    }
    let limits = limits(submission, config)?;
    let at = Instant::now();
    let user = user(submission, config)?;
    let asked = &source.interpreter;
    let interpreter =
        interpreter::resolve(&asked.command, &asked.flags, &config.interpreters.allowed).map_err(
            |error| {
                if error.is_unsupported() {
                    Ending::Unsupported(error.to_string())
                } else {
                    blocked(error.to_string())
                }
            },
        )?;
    Ok(Permitted {
        user,
        interpreter,
        limits,
        // A job can have more kept from its script than the owner insists on, and never less.
        profile: profile(submission.confinement).max(config.confinement.profile),
        at,
    })
}

/// Who runs the script. As [`permit`], of which it is a part: call it where blocking is allowed.
///
/// # Errors
///
/// The owner does not let this user run scripts, or there is none.
pub fn user(submission: &Submission, config: &Config) -> Result<RunAs, Ending> {
    let user = match &submission.run_as {
        Some(name) => users::resolve(name, &config.run_as.users),
        None if nix::unistd::Uid::effective().is_root() => {
            users::resolve(&config.run_as.default, &config.run_as.users)
        }
        None => users::own_user().map(RunAs::Named),
    };
    user.map_err(|error| blocked(error.to_string()))
}

/// The profile that comes to what a job asks for.
pub(crate) const fn profile(asked: Option<Confinement>) -> Profile {
    match asked {
        None => Profile::None,
        Some(Confinement::Standard) => Profile::Standard,
        Some(Confinement::Strict) => Profile::Strict,
    }
}

fn blocked(reason: impl Into<String>) -> Ending {
    Ending::Blocked(Block::machine_policy(reason))
}

/// How many bytes of its output an operation keeps.
pub(crate) fn output_limit(asked: &Asked, ceiling: &Ceilings) -> u64 {
    asked
        .output
        .map_or_else(|| Asked::OUTPUT.min(ceiling.output).0, |size| size.0)
}

/// How long an operation may take.
pub(crate) fn time_limit(asked: &Asked, ceiling: &Ceilings) -> Span {
    asked.time.unwrap_or_else(|| Asked::TIME.min(ceiling.time))
}

fn limits(submission: &Submission, config: &Config) -> Result<spec::Limits, Ending> {
    let (asked, ceiling) = (&submission.limits, &config.limits);
    if let Some(time) = asked.time.filter(|time| *time > ceiling.time) {
        return Err(blocked(format!(
            "limits.time: {time} was asked for, the ceiling is {}",
            ceiling.time
        )));
    }
    for (key, asked, ceiling) in [
        ("output", asked.output, ceiling.output),
        ("memory", asked.memory, ceiling.memory),
    ] {
        if let Some(size) = asked.filter(|size| *size > ceiling) {
            return Err(blocked(format!(
                "limits.{key}: {size} was asked for, the ceiling is {ceiling}"
            )));
        }
    }
    Ok(spec::Limits {
        time: time_limit(asked, ceiling).as_duration(),
        grace: ceiling.grace.as_duration(),
        output: output_limit(asked, ceiling),
        memory: Some(
            asked
                .memory
                .map_or_else(|| Asked::MEMORY.min(ceiling.memory).0, |size| size.0),
        ),
        processes: Some(ceiling.processes),
        cpu_percent: Some(ceiling.cpu),
        file_size: Some(ceiling.file_size.0),
        open_files: Some(ceiling.open_files),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use sluice_protocol::bundle::{Attachment, Variable};
    use sluice_protocol::digest::Digest;
    use sluice_protocol::message::operation::Authorization;
    use sluice_protocol::units::ByteSize;

    use super::*;
    use crate::testing::operation;

    fn asked(operation: &Operation) -> Result<Permitted, Ending> {
        let source = Source::read(&operation.submission).unwrap();
        permit(operation, &source, &Config::default())
    }

    fn attachment(name: &str, size: u64) -> Attachment {
        Attachment {
            name: name.to_owned(),
            size,
            sha256: Digest::of(name.as_bytes()),
        }
    }

    fn variable(name: &str, value: &str) -> Variable {
        Variable {
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }

    /// What a host has to be hostile or broken to send: it refuses all of this itself.
    #[test]
    fn what_no_honest_host_sends_is_blocked_by_name_before_anything_is_fetched_or_asked() {
        assert!(asked(&operation()).is_ok());
        type Change = Box<dyn Fn(&mut Operation)>;
        let attach = |files: Vec<Attachment>| -> Change {
            Box::new(move |o| o.submission.attachments = files.clone())
        };
        let set = |name: &'static str, value: &'static str| -> Change {
            Box::new(move |o| o.submission.environment = vec![variable(name, value)])
        };
        let many = (0..=attachment::MOST).map(|n| attachment(&n.to_string(), 1));
        let changes: Vec<(&str, Change)> = vec![
            (
                "signed authorizations",
                Box::new(|o| {
                    o.authorizations = vec![Authorization {
                        signer: "ed25519:".to_owned(),
                        statement: vec![],
                        signature: vec![],
                    }];
                }),
            ),
            ("../passwd", attach(vec![attachment("../passwd", 1)])),
            ("no safe file name", attach(vec![attachment("", 1)])),
            (
                "a and A would be one file",
                attach(vec![attachment("a", 1), attachment("A", 1)]),
            ),
            (
                "over the limit",
                attach(vec![attachment("a", attachment::LARGEST + 1)]),
            ),
            (
                "bytes together, over the limit",
                attach(
                    (0..5)
                        .map(|n| attachment(&n.to_string(), attachment::LARGEST))
                        .collect(),
                ),
            ),
            ("attachments are over the limit", attach(many.collect())),
            ("names are letters", set("A=B", "x")),
            ("names are letters", set("A", "x\0y")),
            ("SLUICE_ names are reserved", set("SLUICE_JOB_ID", "x")),
            ("LD_PRELOAD", set("LD_PRELOAD", "/tmp/x.so")),
            ("PATH has a part", set("PATH", "bin")),
            (
                "limits.time",
                Box::new(|o| o.submission.limits.time = Some(Span::seconds(3601))),
            ),
            (
                "limits.output",
                Box::new(|o| o.submission.limits.output = Some(ByteSize::mib(17))),
            ),
            (
                "limits.memory",
                Box::new(|o| o.submission.limits.memory = Some(ByteSize::mib(2049))),
            ),
            (
                "`awk`",
                Box::new(|o| o.submission.interpreter = Some("awk".to_owned())),
            ),
            (
                "flag `-c`",
                Box::new(|o| o.submission.interpreter = Some("bash -c".to_owned())),
            ),
            (
                "`root`",
                Box::new(|o| o.submission.run_as = Some("root".to_owned())),
            ),
        ];
        for (named, change) in changes {
            // An agent that is not root has its own words for users; root's own agent in a test may be its user.
            if named == "`root`" && !nix::unistd::Uid::effective().is_root() {
                continue;
            }
            let mut operation = operation();
            change(&mut operation);
            match asked(&operation) {
                Err(Ending::Blocked(block)) => {
                    assert!(block.reason.contains(named), "{named}: {}", block.reason);
                }
                other => panic!("{named}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_job_gets_the_stricter_of_what_it_and_the_owner_want_kept_from_it() {
        use Profile::{None as Nothing, Standard, Strict};
        let mut operation = operation();
        let source = Source::read(&operation.submission).unwrap();
        let mut config = Config::default();
        for (owner, asked, expected) in [
            (Nothing, None, Nothing),
            (Nothing, Some(Confinement::Standard), Standard),
            (Nothing, Some(Confinement::Strict), Strict),
            (Standard, None, Standard),
            (Standard, Some(Confinement::Strict), Strict),
            (Strict, None, Strict),
            (Strict, Some(Confinement::Standard), Strict),
        ] {
            config.confinement.profile = owner;
            operation.submission.confinement = asked;
            let permitted = permit(&operation, &source, &config).unwrap();
            assert_eq!(permitted.profile, expected, "{owner} {asked:?}");
        }
    }

    #[test]
    fn what_a_job_does_not_ask_for_is_the_usual_or_the_owners_ceiling_where_that_is_lower() {
        let source = Source::read(&operation().submission).unwrap();
        let mut config = Config::default();
        let limits = permit(&operation(), &source, &config).unwrap().limits;
        assert_eq!(limits.time.as_secs(), 600);
        assert_eq!((limits.output, limits.memory), (1 << 20, Some(512 << 20)));
        config.limits.time = Span::seconds(5);
        config.limits.output = ByteSize(1000);
        config.limits.memory = ByteSize(2000);
        let limits = permit(&operation(), &source, &config).unwrap().limits;
        assert_eq!(limits.time.as_secs(), 5);
        assert_eq!((limits.output, limits.memory), (1000, Some(2000)));
    }
}
