//! What the machine's owner says about an operation, before anything is fetched or asked.

use sluice_protocol::attachment;
use sluice_protocol::bundle::{Limits as Asked, Source, Submission};
use sluice_protocol::ending::{Block, Ending};
use sluice_protocol::environment::{check_request, check_run};
use sluice_protocol::message::operation::Operation;
use sluice_shim::spec;

use crate::config::Config;
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
    check_attachments(submission)?;
    for variable in &submission.environment {
        // The host has refused names that are not valid; a hostile one has not.
        check_request(&variable.name, &variable.value)
            .and_then(|()| check_run(&variable.name, &variable.value, &config.environment.allow))
            .map_err(|refusal| blocked(refusal.to_string()))?;
    }
    let limits = limits(submission, config)?;
    let user = match &submission.run_as {
        Some(name) => users::resolve(name, &config.run_as.users),
        None if nix::unistd::Uid::effective().is_root() => {
            users::resolve(&config.run_as.default, &config.run_as.users)
        }
        None => users::own_user().map(RunAs::Named),
    };
    let user = user.map_err(|error| blocked(error.to_string()))?;
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
    })
}

fn blocked(reason: impl Into<String>) -> Ending {
    Ending::Blocked(Block::machine_policy(reason))
}

fn check_attachments(submission: &Submission) -> Result<(), Ending> {
    let attachments = &submission.attachments;
    if attachments.len() > attachment::MOST {
        return Err(blocked(format!(
            "{} attachments, over the limit of {}",
            attachments.len(),
            attachment::MOST
        )));
    }
    for (index, attachment) in attachments.iter().enumerate() {
        let name = attachment.name.escape_debug();
        if !attachment::is_safe_name(&attachment.name) {
            return Err(blocked(format!(
                "the attachment {name} is not a single safe file name"
            )));
        }
        if attachments[..index]
            .iter()
            .any(|other| other.name.to_lowercase() == attachment.name.to_lowercase())
        {
            return Err(blocked(format!("two attachments are called {name}")));
        }
        if attachment.size > attachment::LARGEST {
            return Err(blocked(format!(
                "the attachment {name} has {} bytes, over the limit of {}",
                attachment.size,
                attachment::LARGEST
            )));
        }
    }
    Ok(())
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
        time: asked.time.map_or_else(
            || Asked::TIME.min(ceiling.time).as_duration(),
            |time| time.as_duration(),
        ),
        grace: ceiling.grace.as_duration(),
        output: asked
            .output
            .map_or_else(|| Asked::OUTPUT.min(ceiling.output).0, |size| size.0),
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
