//! What is asked, read into types: a request that gets past here can be recorded.

use std::collections::HashSet;

use sluice_api_types::job::{Compat, JobLimits, SubmitJob};
use sluice_protocol::attachment;
use sluice_protocol::bundle::{
    Attachment, Compatibility, Limits, Source, SourceError, Submission, Variable,
};
use sluice_protocol::digest::Digest;
use sluice_protocol::environment::{self, MAX_ENVIRONMENT};
use sluice_protocol::script::ParameterType;
use sluice_protocol::secret::{self, SecretNameError};
use sluice_protocol::shared::Shared;
use sluice_protocol::units::Span;

use super::approval::Approval;
use super::{InvalidSupersedeKey, Selector, SupersedeKey};
use crate::fleet;
use crate::library::{Chosen, Filled, VersionId};
use crate::rollouts::{Plan, PlanError};
use crate::store::Extent;
use crate::store::bindings::TagPair;
use crate::targets::{Expression, ExpressionError};
use crate::windows::Asked;

/// How long a job may wait before it starts, where the request does not say: machines that are switched off over night
/// get it the next day.
pub(crate) const DEFAULT_EXPIRY: Span = Span::seconds(24 * 3600);
/// The longest that a job may wait.
pub(crate) const LONGEST_EXPIRY: Span = Span::seconds(90 * 24 * 3600);
/// The longest time limit.
const LONGEST_TIME: Span = Span::seconds(7 * 24 * 3600);
/// The most parameters and variables, of each.
const MOST: usize = 1000;
/// The longest `--interpreter`, in bytes.
const LONGEST_INTERPRETER: usize = 4096;
/// The most windows that a request may ask for.
const MOST_WINDOWS: usize = 16;
/// The most targets that a request may spell out.
pub(super) const MOST_NAMES: usize = 10_000;

/// A request that makes sense.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// What is to run.
    pub submission: Shared<Submission>,
    /// The script, read.
    pub source: Source,
    /// Where the script is one of the library.
    pub script: Option<VersionId>,
    /// Whether that runs as it is there, secrets and parameters apart.
    pub as_stored: bool,
    /// The systems that the library says the script is for; any where empty.
    pub os: Vec<String>,
    /// Where.
    pub selection: Selection,
    /// What holds for each machine.
    pub condition: Option<Expression>,
    /// What machines match that join it later, where they do.
    pub later: Option<Selector>,
    /// How long it may wait, where that is said.
    pub expires: Option<Span>,
    /// Fail at once where a machine is not connected.
    pub no_queue: bool,
    /// The maintenance windows in which it starts.
    pub windows: Asked,
    /// In batches, or a few at a time; everything at once where absent.
    pub rollout: Option<Plan>,
    /// Leave out the host's scanners.
    pub skip_security_scan: bool,
    /// The key of jobs of which the newest runs.
    pub supersede: Option<SupersedeKey>,
    /// One after the other with all that are in order on a machine.
    pub in_order: bool,
    /// Of the whole request, to tell a repetition from another request.
    pub digest: Digest,
    /// Where it is what was blocked and approved.
    pub approval: Option<Approval>,
}

/// Which machines are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// These, and those that have all of the tags where there are any.
    Some {
        /// Names or ids, as typed.
        named: Vec<String>,
        /// Empty where machines are named alone.
        tags: Vec<TagPair>,
    },
    /// Every machine of the tenant.
    All,
}

impl Selection {
    /// How much there is to look up.
    #[must_use]
    pub fn extent(&self) -> Extent {
        match self {
            Self::Some { named, tags } if tags.is_empty() => Extent::of_rows(named.len()),
            Self::Some { .. } | Self::All => Extent::Long,
        }
    }
}

impl Order {
    /// The digest of a request as it came. One that leaves the version to the host is the same request when there is a
    /// newer one.
    ///
    /// # Errors
    ///
    /// It has no JSON form: a bug.
    pub fn digest_of(request: &SubmitJob) -> Result<Digest, RequestError> {
        serde_json::to_vec(request)
            .map(|json| Digest::of(&json))
            .map_err(|error| RequestError::Unreadable(error.to_string()))
    }

    /// Reads a request with this digest; `chosen` is what it names in the library.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it. No operation exists.
    pub fn read(
        mut request: SubmitJob,
        digest: Digest,
        chosen: Option<Chosen>,
    ) -> Result<Self, RequestError> {
        let selection = selection(&request)?;
        let condition = request.condition.as_deref().map(Expression::read);
        let condition = condition.transpose()?;
        let later = Selector::read(&request)?;
        let expires = request.expires;
        bounded("expires", expires, LONGEST_EXPIRY)?;
        let windows = windows(&request)?;
        let supersede = request.supersede.as_deref().map(str::parse).transpose()?;
        let rollout = Plan::read(&request)?;
        let as_stored = is_as_stored(&request);
        let (script, os, declared) = match chosen {
            Some(chosen) => {
                let Filled { id, os, declared } = chosen.fill(&mut request);
                (Some(id), os, declared)
            }
            None => (None, Vec::new(), None),
        };
        let (no_queue, skip_security_scan) = (request.no_queue, request.no_security_scan);
        let in_order = request.in_order;
        let (submission, source) = Self::submission(request, declared)?;
        Ok(Self {
            submission: submission.into(),
            source,
            script,
            as_stored,
            os,
            selection,
            condition,
            later,
            expires,
            no_queue,
            windows,
            rollout,
            skip_security_scan,
            supersede,
            in_order,
            digest,
            approval: None,
        })
    }

    /// What is to run, wherever that is; `declared` is what a library entry says of its parameters.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it.
    pub(crate) fn submission(
        request: SubmitJob,
        declared: Option<String>,
    ) -> Result<(Submission, Source), RequestError> {
        bounded("limits.time", request.limits.time, LONGEST_TIME)?;
        if request.limits.output.is_some_and(|size| size.0 == 0)
            || request.limits.memory.is_some_and(|size| size.0 == 0)
        {
            return Err(RequestError::ZeroSize);
        }
        let parameters = variables("parameter", request.parameters)?;
        for parameter in &parameters {
            check_parameter(parameter)?;
        }
        let variables = variables("variable", request.environment)?;
        for variable in &variables {
            environment::check_request(&variable.name, &variable.value)
                .map_err(|refusal| RequestError::Environment(refusal.to_string()))?;
        }
        if request
            .interpreter
            .as_ref()
            .is_some_and(|command| command.len() > LONGEST_INTERPRETER)
        {
            return Err(RequestError::Interpreter);
        }
        if let Some(user) = &request.run_as {
            check_user(user)?;
        }
        secret::check(request.secrets.iter().map(String::as_str))?;
        let submission = Submission {
            script: request.script.ok_or(RequestError::NoScript)?.0,
            declared,
            interpreter: request.interpreter,
            parameters,
            environment: variables,
            attachments: attachments(request.attachments)?,
            secrets: request.secrets,
            run_as: request.run_as,
            limits: Limits {
                time: request.limits.time,
                output: request.limits.output,
                memory: request.limits.memory,
            },
            confinement: request.confinement,
            compatibility: match request.compat {
                None => Compatibility::None,
                Some(Compat::Landscape) => Compatibility::Landscape,
            },
        };
        let source = Source::read(&submission)?;
        let declared = source.header.iter().flat_map(|header| &header.parameters);
        let mut secret = declared.filter(|(_, declared)| declared.kind == ParameterType::Secret);
        let given = |name: &str| submission.parameters.iter().any(|given| given.name == name);
        if let Some((name, _)) = secret.find(|(name, _)| given(name)) {
            return Err(RequestError::SecretParameter(name.clone()));
        }
        Ok((submission, source))
    }
}

/// Whether a request asks for a script of the library as it is there: with parameters and secrets, which need permissions of
/// their own, and otherwise as its version says. Another interpreter, user, variable, limit, confinement or file would make
/// something else of it.
pub(super) fn is_as_stored(request: &SubmitJob) -> bool {
    request.script_ref.is_some()
        && request.script.is_none()
        && request.interpreter.is_none()
        && request.run_as.is_none()
        && request.environment.is_empty()
        && request.attachments.is_empty()
        && request.limits == JobLimits::default()
        && request.confinement.is_none()
        && request.compat.is_none()
}

/// The windows that a request asks for.
fn windows(request: &SubmitJob) -> Result<Asked, RequestError> {
    let names = &request.windows;
    if request.ignore_windows {
        return if names.is_empty() {
            Ok(Asked::Ignored)
        } else {
            Err(RequestError::WindowsIgnored)
        };
    }
    if names.len() > MOST_WINDOWS {
        return Err(RequestError::TooMany {
            what: "windows",
            limit: MOST_WINDOWS,
        });
    }
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(*name)) {
        Some(twice) => Err(RequestError::WindowTwice(twice.clone())),
        None => Ok(Asked::Names(names.clone())),
    }
}

fn selection(request: &SubmitJob) -> Result<Selection, RequestError> {
    let some = !request.machines.is_empty() || !request.tags.is_empty();
    match (some, request.all) {
        (true, true) => return Err(RequestError::AllAndSome),
        (false, false) if request.condition.is_none() => return Err(RequestError::NoTarget),
        (false, _) => return Ok(Selection::All),
        (true, false) => {}
    }
    if request.machines.len() > MOST_NAMES {
        return Err(RequestError::TooMany {
            what: "machines",
            limit: MOST_NAMES,
        });
    }
    if let Some(name) = request
        .machines
        .iter()
        .find(|name| name.is_empty() || name.len() > 253 || name.chars().any(char::is_control))
    {
        return Err(RequestError::MachineName(name.clone()));
    }
    if request.tags.len() > fleet::MAX_TAGS {
        return Err(RequestError::TooMany {
            what: "tags",
            limit: fleet::MAX_TAGS,
        });
    }
    let tags = request
        .tags
        .iter()
        .map(|tag| fleet::parse_tag(&tag.key, &tag.value))
        .collect::<Result<_, _>>()?;
    Ok(Selection::Some {
        named: request.machines.clone(),
        tags,
    })
}

pub(super) fn bounded(
    what: &'static str,
    span: Option<Span>,
    longest: Span,
) -> Result<(), RequestError> {
    match span {
        Some(span) if span.0 == 0 || span > longest => Err(RequestError::Span {
            what,
            span,
            longest,
        }),
        _ => Ok(()),
    }
}

fn variables(
    what: &'static str,
    given: Vec<sluice_api_types::job::Variable>,
) -> Result<Vec<Variable>, RequestError> {
    if given.len() > MOST {
        return Err(RequestError::TooMany {
            what: if what == "variable" {
                "variables"
            } else {
                "parameters"
            },
            limit: MOST,
        });
    }
    let mut names = HashSet::new();
    let mut size = 0;
    for variable in &given {
        size += variable.name.len() + variable.value.len();
        if !names.insert(variable.name.as_str()) {
            return Err(RequestError::Twice {
                what,
                name: variable.name.clone(),
            });
        }
    }
    if size > MAX_ENVIRONMENT {
        return Err(RequestError::TooLarge { what });
    }
    Ok(given
        .into_iter()
        .map(|variable| Variable {
            name: variable.name,
            value: variable.value,
        })
        .collect())
}

/// A parameter's name and value as text; types and declarations are for the gate on the machine to judge.
fn check_parameter(parameter: &Variable) -> Result<(), RequestError> {
    let name = &parameter.name;
    let valid = (1..=128).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if valid {
        Ok(())
    } else {
        Err(RequestError::ParameterName(name.clone()))
    }
}

fn check_user(user: &str) -> Result<(), RequestError> {
    if (1..=256).contains(&user.len())
        && !user.chars().any(|c| c.is_control() || c == ':' || c == '/')
    {
        Ok(())
    } else {
        Err(RequestError::User(user.to_owned()))
    }
}

fn attachments(
    given: Vec<sluice_api_types::job::AttachmentRef>,
) -> Result<Vec<Attachment>, RequestError> {
    attachment::check(given.iter().map(|given| (given.name.as_str(), given.size)))?;
    Ok(given
        .into_iter()
        .map(|attachment| Attachment {
            name: attachment.name,
            size: attachment.size,
            sha256: attachment.sha256,
        })
        .collect())
}

/// A request that makes no sense. No operation exists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Contradictory.
    #[error("the request asks for windows and ignores them; no job was made, leave one out")]
    WindowsIgnored,
    /// A slip.
    #[error("the window {} is asked for twice; no job was made", .0.escape_debug())]
    WindowTwice(String),
    /// A key that can be none.
    #[error(transparent)]
    Supersede(#[from] InvalidSupersedeKey),
    /// The script cannot be read.
    #[error(transparent)]
    Script(#[from] SourceError),
    /// Names of secrets.
    #[error("{0}; no job was made")]
    Secret(#[from] SecretNameError),
    /// Its value is not stored, because it may be the secret.
    #[error("the parameter {} is declared as a secret: not implemented in this version; name a secret of the host instead (--secret); no job was made", .0.escape_debug())]
    SecretParameter(String),
    /// Nothing to run.
    #[error("no script is given: give its text (script), or name one of the library (script_ref)")]
    NoScript,
    /// Contradictory scripts.
    #[error(
        "a text and a script of the library cannot both be meant: give either script or script_ref"
    )]
    TwoScripts,
    /// A tag is none.
    #[error(transparent)]
    Tag(#[from] fleet::InvalidTag),
    /// What is to hold for machines makes no sense.
    #[error(transparent)]
    Condition(#[from] ExpressionError),
    /// No target.
    #[error("no machine is named: give machines, tags, where or all")]
    NoTarget,
    /// Names mean the same machines later.
    #[error(
        "include_later is for machines that tags, all or where choose, and only names are given; no job was made, give tags, or leave it or the names out"
    )]
    LaterOfNames,
    /// Contradictory.
    #[error(
        "include_later waits for machines, and no_queue for none; no job was made, leave one out"
    )]
    LaterNow,
    /// Contradictory targets.
    #[error(
        "all machines and some of them cannot both be meant: give either all, or machines and tags"
    )]
    AllAndSome,
    /// A machine's name that can be none.
    #[error("{} can be no machine's name or id", .0.escape_debug())]
    MachineName(String),
    /// Too many of something.
    #[error("there are more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// Too many bytes.
    #[error(
        "names and values of all {what}s have more than {MAX_ENVIRONMENT} bytes; put data into attachments"
    )]
    TooLarge {
        /// Of what.
        what: &'static str,
    },
    /// The same name twice.
    #[error("the {what} {} is given twice", name.escape_debug())]
    Twice {
        /// Of what.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A parameter that can have no declaration.
    #[error("{} is no name for a parameter (a letter, then letters, digits, _ and -)", .0.escape_debug())]
    ParameterName(String),
    /// A variable that no job may set.
    #[error("{0}")]
    Environment(String),
    /// A command line that is too long.
    #[error("the interpreter has more than {LONGEST_INTERPRETER} bytes")]
    Interpreter,
    /// A user's name that can be none.
    #[error("{} can be no user's name", .0.escape_debug())]
    User(String),
    /// Files that may not come with a script, or not together.
    #[error(transparent)]
    Attachments(#[from] attachment::Refused),
    /// Batches, or a rule, that make no sense.
    #[error("{0}; no job was made")]
    Rollout(#[from] PlanError),
    /// A limit of nothing.
    #[error(
        "a limit of no bytes at all leaves nothing to run; leave it out for the machine's default"
    )]
    ZeroSize,
    /// A span out of bounds.
    #[error("{what} cannot be {span} (more than nothing, at most {longest})")]
    Span {
        /// Of what.
        what: &'static str,
        /// As asked.
        span: Span,
        /// The bound.
        longest: Span,
    },
    /// No JSON form: a bug.
    #[error("the request cannot be written down: {0}")]
    Unreadable(String),
}

#[cfg(test)]
mod tests {
    use sluice_api_types::bytes::Base64;
    use sluice_api_types::job::{AttachmentRef, Tag, Variable as ApiVariable};
    use sluice_protocol::units::ByteSize;

    use super::*;

    fn request() -> SubmitJob {
        SubmitJob {
            script: bytes(b"#!/bin/sh\necho hi\n"),
            machines: vec!["web-1".to_owned()],
            ..SubmitJob::default()
        }
    }

    fn bytes(script: &[u8]) -> Option<Base64> {
        Some(script.to_vec().into())
    }

    fn read(request: SubmitJob) -> Result<Order, RequestError> {
        let digest = Order::digest_of(&request)?;
        Order::read(request, digest, None)
    }

    #[test]
    fn a_plain_request_is_read() {
        let order = read(request()).expect("reads");
        assert_eq!(order.expires, None);
        assert_eq!(
            order.selection,
            Selection::Some {
                named: vec!["web-1".to_owned()],
                tags: Vec::new()
            }
        );
        assert_eq!(order.digest, read(request()).expect("reads").digest);
        let other = SubmitJob {
            no_queue: true,
            ..request()
        };
        assert_ne!(order.digest, read(other).expect("reads").digest);
    }

    #[test]
    fn every_refusal_names_what_is_wrong() {
        let variable = |name: &str, value: &str| {
            vec![ApiVariable {
                name: name.to_owned(),
                value: value.to_owned(),
            }]
        };
        let sized = |name: &str, size| {
            vec![AttachmentRef {
                name: name.to_owned(),
                sha256: Digest::of(b""),
                size,
            }]
        };
        let attachment = move |name: &str| sized(name, 0);
        type Change = Box<dyn Fn(&mut SubmitJob)>;
        let table: Vec<(Change, &str)> = vec![
            (Box::new(|r| r.script = bytes(b"")), "empty"),
            (Box::new(|r| r.script = None), "no script is given"),
            (
                Box::new(|r| r.script = bytes(b"#!/bin/sh\n\0")),
                "NUL byte in line 2",
            ),
            (Box::new(|r| r.script = bytes(b"\xff\xfea\0")), "UTF-16"),
            (
                Box::new(|r| r.script = bytes(b"#!/bin/sh\n\xff\n")),
                "not UTF-8 in line 2",
            ),
            (
                Box::new(|r| r.script = bytes(b"echo\n")),
                "names no interpreter",
            ),
            (Box::new(|r| r.machines.clear()), "no machine is named"),
            (Box::new(|r| r.all = true), "cannot both be meant"),
            (
                Box::new(|r| r.machines = vec!["a\nb".to_owned()]),
                "no machine's name",
            ),
            (
                Box::new(|r| {
                    r.tags = vec![Tag {
                        key: "a,b".to_owned(),
                        value: String::new(),
                    }]
                }),
                "is no tag",
            ),
            (
                Box::new(move |r| r.environment = variable("SLUICE_X", "")),
                "reserved",
            ),
            (
                Box::new(move |r| r.environment = variable("A=B", "")),
                "cannot be set",
            ),
            (
                Box::new(move |r| r.environment = variable("A", "\0")),
                "cannot be set",
            ),
            (
                Box::new(move |r| {
                    r.environment = [variable("A", "1"), variable("A", "2")].concat()
                }),
                "given twice",
            ),
            (
                Box::new(move |r| r.parameters = variable("1x", "")),
                "no name for a parameter",
            ),
            (
                Box::new(move |r| r.parameters = variable("x", &"a".repeat(MAX_ENVIRONMENT))),
                "attachments",
            ),
            (
                Box::new(|r| {
                    r.windows = vec!["nights".to_owned()];
                    r.ignore_windows = true;
                }),
                "asks for windows and ignores them",
            ),
            (Box::new(|r| r.include_later = true), "only names are given"),
            (
                Box::new(|r| {
                    (r.machines, r.all) = (Vec::new(), true);
                    (r.include_later, r.no_queue) = (true, true);
                }),
                "no_queue for none",
            ),
            (
                Box::new(|r| r.supersede = Some("a b".to_owned())),
                "can be no key for supersede",
            ),
            (
                Box::new(|r| r.windows = vec!["nights".to_owned(); 2]),
                "is asked for twice",
            ),
            (
                Box::new(|r| r.secrets = vec!["a".to_owned(), "a b".to_owned()]),
                "a secret has a name of",
            ),
            (
                Box::new(|r| r.secrets = vec!["a-b".to_owned(), "A_b".to_owned()]),
                "SLUICE_SECRET_A_B",
            ),
            (
                Box::new(move |r| {
                    let text =
                        "#!/bin/sh\n# /// sluice\n# [parameters.t]\n# type = \"secret\"\n# ///\n";
                    r.script = Some(text.as_bytes().to_vec().into());
                    r.parameters = variable("t", "hunter22");
                }),
                "not implemented in this version",
            ),
            (
                Box::new(move |r| r.attachments = attachment("../x")),
                "no safe file name",
            ),
            (
                Box::new(move |r| r.attachments = attachment("..")),
                "no safe file name",
            ),
            (
                Box::new(move |r| r.attachments = attachment("a\\b")),
                "no safe file name",
            ),
            (
                Box::new(move |r| r.attachments = [attachment("a"), attachment("A")].concat()),
                "would be one file",
            ),
            (
                Box::new(move |r| r.attachments = sized("a", attachment::LARGEST + 1)),
                "over the limit of 268435456",
            ),
            (
                Box::new(move |r| {
                    let four = ["a", "b", "c", "d"].map(|name| sized(name, attachment::LARGEST));
                    r.attachments = [four.concat(), sized("e", 1)].concat();
                }),
                "have 1073741825 bytes together, over the limit of 1073741824",
            ),
            (
                Box::new(move |r| {
                    let names = (0..=attachment::MOST).map(|number| number.to_string());
                    r.attachments = names.flat_map(|name| attachment(&name)).collect();
                }),
                "101 attachments are over the limit of 100",
            ),
            (
                Box::new(|r| r.run_as = Some("a/b".to_owned())),
                "no user's name",
            ),
            (
                Box::new(|r| r.limits.time = Some(Span(0))),
                "limits.time cannot be 0ms",
            ),
            (
                Box::new(|r| r.limits.memory = Some(ByteSize(0))),
                "no bytes at all",
            ),
            (
                Box::new(|r| r.expires = Some(Span(u64::MAX))),
                "expires cannot be",
            ),
        ];
        for (change, expected) in table {
            let mut wrong = request();
            change(&mut wrong);
            let error = read(wrong).expect_err(expected).to_string();
            assert!(
                error.contains(expected),
                "expected {expected:?} in {error:?}"
            );
            assert!(!error.contains('\n'), "{error:?}");
        }
    }

    #[test]
    fn what_a_machine_blocks_is_not_refused_here() {
        // Loader variables and relative parts in PATH are blocked where they would take effect, and recorded.
        let mut order = request();
        order.environment = vec![
            ApiVariable {
                name: "LD_PRELOAD".to_owned(),
                value: "/x".to_owned(),
            },
            ApiVariable {
                name: "PATH".to_owned(),
                value: "bin".to_owned(),
            },
        ];
        read(order).expect("reads");
    }
}
