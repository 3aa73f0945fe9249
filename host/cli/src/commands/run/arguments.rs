//! What `sluice run` takes, and the request that it becomes. What fixes the request, `sluice schedule add` takes too.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use sluice_api_types::job::{AttachmentRef, Compat, JobLimits, SubmitJob, Tag, Variable};
use sluice_protocol::bundle::Confinement;
use sluice_protocol::script::MAX_SCRIPT;
use sluice_protocol::secret;
use sluice_protocol::units::{ByteSize, Span};

use crate::commands::script::StoredScript;
use crate::error::Error;

/// Options of `sluice run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(super) job: JobArgs,
    /// Print which machines are meant now and what would come of the job, and make none
    #[arg(long, conflicts_with_all = ["detach", "idempotency_key"], help_heading = "Machines")]
    pub(super) preview: bool,
    /// Print the job's id and leave
    #[arg(long)]
    pub(super) detach: bool,
    /// Submitting again with the same key is the same job
    #[arg(long, value_name = "K")]
    pub(super) idempotency_key: Option<String>,
}

/// Options that fix what is submitted.
#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// The script: a file, or - for stdin
    #[arg(
        value_name = "SCRIPT",
        required_unless_present = "stored",
        conflicts_with = "stored"
    )]
    script: Option<PathBuf>,
    /// A script of the library instead; the newest version where none is given
    #[arg(
        long = "script",
        value_name = "NAME[@VERSION]",
        help_heading = "Script"
    )]
    stored: Option<StoredScript>,
    /// A machine, by name or id; may be repeated
    #[arg(long, value_name = "MACHINE", required_unless_present_any = ["tag", "all", "condition"], help_heading = "Machines")]
    on: Vec<String>,
    /// Machines with this tag; of several tags a machine needs all
    #[arg(long, value_name = "K=V", help_heading = "Machines")]
    tag: Vec<KeyValue>,
    /// Of these, or of all, the machines for which this holds, for example 'os == "debian" and tag.role == "web"'
    #[arg(long = "where", value_name = "EXPR", help_heading = "Machines")]
    condition: Option<String>,
    /// Go to machines too that match --tag, --all or --where only later, each once, until the job expires
    #[arg(long, conflicts_with = "no_queue", help_heading = "Machines")]
    include_later: bool,
    /// All machines of the tenant
    #[arg(long, conflicts_with_all = ["on", "tag"], help_heading = "Machines")]
    all: bool,
    /// The tenant
    #[arg(long, value_name = "T", help_heading = "Machines")]
    tenant: Option<String>,
    /// The user to run as; the machine's default where absent
    #[arg(long = "as", value_name = "USER", help_heading = "Script")]
    run_as: Option<String>,
    /// A parameter; may be repeated
    #[arg(long, value_name = "K=V", help_heading = "Script")]
    param: Vec<KeyValue>,
    /// A parameter whose value is the text of a file
    #[arg(long, value_name = "K=FILE", help_heading = "Script")]
    param_file: Vec<KeyValue>,
    /// A file that the script finds in SLUICE_ATTACHMENTS
    #[arg(long, value_name = "FILE", help_heading = "Script")]
    attach: Vec<PathBuf>,
    /// An environment variable
    #[arg(long, value_name = "K=V", help_heading = "Script")]
    env: Vec<KeyValue>,
    /// The interpreter and its flags; wins over the script's #! line
    #[arg(long, value_name = "CMD", help_heading = "Script")]
    interpreter: Option<String>,
    /// Whose variables the script expects besides SLUICE_*
    #[arg(long, value_name = "PRODUCT", value_parser = compat, help_heading = "Script")]
    compat: Option<Compat>,
    /// How long the script may run, for example 30s
    #[arg(long, value_name = "DURATION", help_heading = "Limits")]
    time_limit: Option<Span>,
    /// How much output is kept, for example 1MiB
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    output_limit: Option<ByteSize>,
    /// How much memory the script's processes may have, for example 512MiB
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    memory_limit: Option<ByteSize>,
    /// Keep at least so much of the machine from the script; its owner may keep more
    #[arg(long, value_name = "standard|strict", help_heading = "Limits")]
    confinement: Option<Confinement>,
    /// How long the job may wait before it starts, for example 1h
    #[arg(long, value_name = "DURATION", help_heading = "Limits")]
    expires: Option<Span>,
    /// Start in batches, each when the one before has ended well: cumulative numbers or percentages, for example "1, 10%, 50%, 100%"
    #[arg(long, value_name = "LIST", help_heading = "Rollout")]
    batches: Option<String>,
    /// Have no more operations of the job open at once
    #[arg(long, value_name = "N", help_heading = "Rollout")]
    max_concurrency: Option<u64>,
    /// Pause once so many operations have failed: a number, a percentage of those that have begun, or never (with --batches 1 where nothing is said)
    #[arg(long, value_name = "N|P%|never", help_heading = "Rollout")]
    stop_on_failures: Option<String>,
    /// Pause once so many operations have timed out, in the same way
    #[arg(long, value_name = "N|P%|never", help_heading = "Rollout")]
    stop_on_timeouts: Option<String>,
    /// Pause once so many machines went dark after they had started it, in the same way
    #[arg(long, value_name = "N|P%|never", help_heading = "Rollout")]
    stop_on_dark: Option<String>,
    /// How long a machine is away when it counts as dark (5m where absent)
    #[arg(
        long,
        value_name = "DURATION",
        requires = "stop_on_dark",
        help_heading = "Rollout"
    )]
    dark_after: Option<Span>,
    /// Pause once there are so many groups of results that the first batch did not have, in the same way
    #[arg(long, value_name = "N|P%|never", help_heading = "Rollout")]
    stop_on_new_groups: Option<String>,
    /// Start in this maintenance window alone; of several one must be open
    #[arg(long, value_name = "NAME", help_heading = "Rollout")]
    window: Vec<String>,
    /// Start outside of the maintenance windows of the machines (needs the permission IgnoreWindows)
    #[arg(long, conflicts_with = "window", help_heading = "Rollout")]
    ignore_window: bool,
    /// End what waits of older jobs with this key on these machines and was never sent, so that only the newest runs
    #[arg(long, value_name = "KEY")]
    supersede: Option<String>,
    /// Start on each machine only when every job with --in-order that was accepted before has ended there
    #[arg(long)]
    in_order: bool,
    /// Fail at once on machines that are not connected
    #[arg(long)]
    no_queue: bool,
    /// Leave out scanners that the host bound, never the owner's (needs the permission SkipSecurityScan)
    #[arg(long)]
    no_security_scan: bool,
    /// A secret, which the script finds in the file that SLUICE_SECRET_<NAME> names; may be repeated
    #[arg(long, value_name = "NAME", help_heading = "Script")]
    secret: Vec<String>,
}

/// `K=V`, cut at the first `=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyValue {
    /// Not empty.
    pub(crate) key: String,
    /// May be empty.
    pub(crate) value: String,
}

impl FromStr for KeyValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self {
                key: key.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err("write it as KEY=VALUE".to_owned()),
        }
    }
}

impl From<KeyValue> for Variable {
    fn from(pair: KeyValue) -> Self {
        Self {
            name: pair.key,
            value: pair.value,
        }
    }
}

/// A tag from the command line.
pub(crate) fn tag(pair: KeyValue) -> Tag {
    Tag {
        key: pair.key,
        value: pair.value,
    }
}

fn compat(word: &str) -> Result<Compat, String> {
    match word {
        "landscape" => Ok(Compat::Landscape),
        _ => Err("the only one is landscape".to_owned()),
    }
}

/// A submission that still lacks its attachments.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The request, without attachments.
    pub(super) request: SubmitJob,
    /// Files to upload, in the order given, with the names that the script will see.
    pub(super) attachments: Vec<(String, PathBuf)>,
}

impl Prepared {
    /// Reads every file but the attachments, and refuses what can be seen to be wrong from here.
    pub(crate) fn read(arguments: JobArgs) -> Result<Self, Error> {
        secret::check(arguments.secret.iter().map(String::as_str))
            .map_err(|error| Error::Usage(format!("{error}; nothing was sent")))?;
        let mut parameters: Vec<Variable> =
            arguments.param.into_iter().map(Variable::from).collect();
        for pair in arguments.param_file {
            let path = PathBuf::from(&pair.value);
            let bytes = std::fs::read(&path).map_err(Error::read(&path))?;
            let value = String::from_utf8(bytes).map_err(|_| Error::Content {
                path,
                problem: format!("not UTF-8 text, which the parameter {} has to be; nothing was sent, use --attach", pair.key),
            })?;
            parameters.push(Variable {
                name: pair.key,
                value,
            });
        }
        unique(
            "parameter",
            parameters.iter().map(|parameter| parameter.name.as_str()),
        )?;
        let environment: Vec<Variable> = arguments.env.into_iter().map(Variable::from).collect();
        unique(
            "environment variable",
            environment.iter().map(|variable| variable.name.as_str()),
        )?;
        let attachments = arguments
            .attach
            .into_iter()
            .map(named)
            .collect::<Result<Vec<_>, _>>()?;
        unique(
            "attachment",
            attachments.iter().map(|(name, _)| name.as_str()),
        )?;
        let request = SubmitJob {
            tenant: arguments.tenant,
            script: arguments
                .script
                .map(|path| read_script(&path))
                .transpose()?
                .map(Into::into),
            script_ref: arguments.stored.map(Into::into),
            interpreter: arguments.interpreter,
            machines: arguments.on,
            tags: arguments.tag.into_iter().map(tag).collect(),
            all: arguments.all,
            condition: arguments.condition,
            include_later: arguments.include_later,
            run_as: arguments.run_as,
            parameters,
            environment,
            attachments: Vec::<AttachmentRef>::new(),
            secrets: arguments.secret,
            limits: JobLimits {
                time: arguments.time_limit,
                output: arguments.output_limit,
                memory: arguments.memory_limit,
            },
            confinement: arguments.confinement,
            expires: arguments.expires,
            no_queue: arguments.no_queue,
            supersede: arguments.supersede,
            in_order: arguments.in_order,
            windows: arguments.window,
            ignore_windows: arguments.ignore_window,
            batches: arguments.batches,
            max_concurrency: arguments.max_concurrency,
            stop_on_failures: arguments.stop_on_failures,
            stop_on_timeouts: arguments.stop_on_timeouts,
            stop_on_dark: arguments.stop_on_dark,
            dark_after: arguments.dark_after,
            stop_on_new_groups: arguments.stop_on_new_groups,
            compat: arguments.compat,
            no_security_scan: arguments.no_security_scan,
        };
        Ok(Self {
            request,
            attachments,
        })
    }
}

fn named(path: PathBuf) -> Result<(String, PathBuf), Error> {
    match path.file_name().and_then(|name| name.to_str()) {
        Some(name) => Ok((name.to_owned(), path)),
        None => Err(Error::Usage(format!(
            "the attachment {} has no usable file name; nothing was sent",
            path.display()
        ))),
    }
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Error::Usage(format!(
                "the {what} {name} is given more than once; nothing was sent"
            )));
        }
    }
    Ok(())
}

/// Reads a script (stdin for `-`), and no more of an endless file than shows that it is none. What is in it the host judges.
pub(crate) fn read_script(path: &Path) -> Result<Vec<u8>, Error> {
    let limit = MAX_SCRIPT as u64 + 1;
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(Error::read(path))?;
    if bytes.len() > MAX_SCRIPT {
        let problem = format!(
            "larger than a script may be ({MAX_SCRIPT} bytes); nothing was sent, put data into --attach"
        );
        return Err(Error::Content {
            path: path.to_owned(),
            problem,
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        arguments: RunArgs,
    }

    fn prepared(arguments: &[&str]) -> Result<Prepared, String> {
        let directory = tempfile::tempdir().expect("makes a directory");
        let script = directory.path().join("script");
        std::fs::write(&script, "#!/bin/sh\necho\n").expect("writes");
        let words = ["run", script.to_str().expect("is text")]
            .into_iter()
            .chain(arguments.iter().copied());
        let only = Only::try_parse_from(words).map_err(|error| error.to_string())?;
        Prepared::read(only.arguments.job).map_err(|error| error.to_string())
    }

    #[test]
    fn values_keep_everything_behind_the_first_equals_sign() {
        let request = prepared(&[
            "--on",
            "a",
            "--param",
            "x=-a=b\n ",
            "--param",
            "y=",
            "--env",
            "Z=1",
        ])
        .expect("is right")
        .request;
        let pair = |name: &str, value: &str| Variable {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        assert_eq!(request.parameters, [pair("x", "-a=b\n "), pair("y", "")]);
        assert_eq!(request.environment, [pair("Z", "1")]);
        assert_eq!(
            request.script.map(|script| script.0),
            Some(b"#!/bin/sh\necho\n".to_vec())
        );
        assert_eq!(request.script_ref, None);
    }

    #[test]
    fn machines_are_named_one_way_or_the_other() {
        assert!(prepared(&[]).is_err());
        assert!(prepared(&["--all", "--on", "a"]).is_err());
        assert!(prepared(&["--all", "--tag", "a=b"]).is_err());
        let request = prepared(&["--on", "a", "--on", "b", "--tag", "k=v"])
            .expect("is right")
            .request;
        assert_eq!(
            (request.machines.len(), request.tags.len(), request.all),
            (2, 1, false)
        );
        assert!(prepared(&["--all"]).expect("is right").request.all);
    }

    #[test]
    fn a_name_that_is_given_twice_is_refused() {
        for twice in [["--param", "--param"], ["--env", "--env"]] {
            let error =
                prepared(&["--on", "m", twice[0], "a=1", twice[1], "a=2"]).expect_err("is wrong");
            assert!(error.contains("more than once"), "{error}");
        }
        let error =
            prepared(&["--on", "m", "--attach", "/a/x", "--attach", "/b/x"]).expect_err("is wrong");
        assert!(error.contains("attachment x"), "{error}");
    }

    #[test]
    fn secrets_are_named_and_never_given() {
        let request = prepared(&["--on", "m", "--secret", "a", "--secret", "b-c"])
            .expect("is right")
            .request;
        assert_eq!(request.secrets, ["a", "b-c"]);
        for (wrong, expected) in [
            ("a=hunter22", "has 10 bytes and is none"),
            ("A", "given twice"),
        ] {
            let error = prepared(&["--on", "m", "--secret", "a", "--secret", wrong]);
            let error = error.expect_err("is wrong");
            assert!(error.contains(expected), "{error}");
        }
    }
}
