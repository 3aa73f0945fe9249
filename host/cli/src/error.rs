//! What can go wrong in `sluice` itself, and how it is said.

use std::path::{Path, PathBuf};

use sluice_api_types::problem::Problem;
use sluice_plugin_build::plugin::BuildError;
use sluice_protocol::ending::one_line;

use crate::commands::plugin::{CaseError, NewError, WorkbenchError};
use crate::exit;
use crate::host::SettingsError;

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A later version will do it.
    #[error("{0}: not implemented in this version")]
    NotImplemented(&'static str),
    /// It is not known which host to ask, or as whom.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A file cannot be read or written.
    #[error("cannot {action} {path}; nothing was sent", path = path.display())]
    File {
        /// `read`, `write` ...
        action: &'static str,
        /// Which one.
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A file does not say what it should.
    #[error("{path}: {problem}", path = path.display())]
    Content {
        /// Which one.
        path: PathBuf,
        /// Line, key, and what is wrong.
        problem: String,
    },
    /// No answer from the host.
    #[error(
        "no answer from {host}; check that the host runs there and can be reached (sluice doctor)"
    )]
    Unreachable {
        /// Its address.
        host: String,
        #[source]
        source: reqwest::Error,
    },
    /// The host cannot be told from an impostor.
    #[error(
        "the certificate of {host} is not trusted; nothing was sent, pass the authority of this host with --ca FILE"
    )]
    Untrusted {
        /// Its address.
        host: String,
        #[source]
        source: reqwest::Error,
    },
    /// The host said no.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    /// The host's answer is not one of this API.
    #[error("unexpected answer from the host ({0}); compare the versions with sluice doctor")]
    Answer(String),
    /// The connection was lost and did not come back.
    #[error(
        "lost the connection to the host; job {job} goes on without this command (sluice job show {job})"
    )]
    Lost {
        /// The job that was followed.
        job: String,
    },
    /// A plugin's folder was not made.
    #[error(transparent)]
    PluginNew(#[from] NewError),
    /// A plugin was not built.
    #[error(transparent)]
    PluginBuild(#[from] BuildError),
    /// A plugin's test cases cannot be read.
    #[error(transparent)]
    PluginCase(#[from] CaseError),
    /// A plugin cannot be asked here.
    #[error(transparent)]
    PluginGate(#[from] WorkbenchError),
    /// stdout cannot be written to.
    #[error("cannot write to stdout")]
    Stdout(#[source] std::io::Error),
    /// Something that the system should have given.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// A file that could not be read.
    pub(crate) fn read(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File {
            action: "read",
            path: path.as_ref().to_owned(),
            source,
        }
    }

    /// A file that could not be written.
    pub(crate) fn write(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File {
            action: "write",
            path: path.as_ref().to_owned(),
            source,
        }
    }

    /// A request that got no answer.
    pub(crate) fn no_answer(host: String, source: reqwest::Error) -> Self {
        // The address is in the message already, and nothing but text tells the layers of the causes apart.
        let source = source.without_url();
        let mut cause: Option<&dyn std::error::Error> = Some(&source);
        let mut certificate = false;
        while let Some(error) = cause {
            certificate |= error.to_string().contains("certificate");
            cause = error.source();
        }
        if certificate {
            Self::Untrusted { host, source }
        } else {
            Self::Unreachable { host, source }
        }
    }

    /// For programs. The host's own code where the host refused.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Usage(_) => "usage",
            Self::NotImplemented(_) => "not-implemented",
            Self::Settings(_) => "settings",
            Self::File { .. } => "file",
            Self::Content { .. } => "content",
            Self::Unreachable { .. } => "unreachable",
            Self::Untrusted { .. } => "untrusted",
            Self::Refused(problem) => &problem.code,
            Self::Answer(_) => "unexpected-answer",
            Self::Lost { .. } => "connection-lost",
            Self::PluginNew(_) => "plugin-new",
            Self::PluginBuild(_) => "plugin-build",
            Self::PluginCase(_) => "plugin-case",
            Self::PluginGate(_) => "plugin-gate",
            Self::Stdout(_) => "stdout",
            Self::System { .. } => "system",
        }
    }

    /// Whatever failed in `sluice` itself is the same code, and that no machine is meant is one of its own: for a program that
    /// may be no failure.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(problem) if problem.code == "no-machines" => exit::NO_MACHINES,
            _ => exit::FAILED,
        }
    }

    /// One line for people: the message and its causes.
    pub(crate) fn line(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        let mut causes = Vec::new();
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        // reqwest repeats causes and addresses at each level: the innermost says what happened
        if let Some(cause) = causes.last() {
            text = match text.split_once("; ") {
                Some((what, then)) => format!("{what}: {cause}; {then}"),
                None => format!("{text}: {cause}"),
            };
        }
        one_line(&text)
    }

    /// Says it on stderr: one line, an object where JSON was asked for. Nothing for a reader that went away.
    pub(crate) fn report(&self, json: bool) {
        if let Self::Stdout(source) = self
            && source.kind() == std::io::ErrorKind::BrokenPipe
        {
            return;
        }
        if json {
            let error =
                serde_json::json!({ "error": { "code": self.code(), "message": self.line() } });
            crate::output::complain(&error.to_string());
        } else {
            crate::output::complain(&format!("sluice: {}", self.line()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_its_cause_before_the_advice() {
        let error = Error::read("/etc/x\ny")(std::io::Error::other("it is gone"));
        assert_eq!(
            error.line(),
            "cannot read /etc/x y: it is gone; nothing was sent"
        );
        let problem = Problem::new(404, "Not Found", "no-such-job", "no job has this id\x1b[2J");
        let error = Error::Refused(Box::new(problem));
        assert_eq!(
            (error.code(), error.line().as_str()),
            ("no-such-job", "no job has this id\u{fffd}[2J")
        );
    }
}
