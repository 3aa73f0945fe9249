//! The command line: the options that every command takes, and the commands.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::commands::{
    approval, audit, completion, doctor, grant, job, lockdown, login, machine, man, offer,
    operator, plugin, role, run, schedule, script, secret, tenant, token, window,
};
use crate::error::Error;

/// Run scripts on a fleet of machines, through gates, on the record.
#[derive(Debug, Parser)]
#[command(
    name = "sluice",
    version,
    propagate_version = true,
    disable_help_subcommand = true
)]
pub struct CommandLine {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Global {
    /// The host's URL, for example http://127.0.0.1:7480. [env: SLUICE_HOST]
    #[arg(long, global = true, value_name = "URL", help_heading = "Connection")]
    pub(crate) host: Option<String>,
    /// The operator's token; other users of this computer may see it here, the environment is safer. [env: SLUICE_TOKEN]
    #[arg(long, global = true, value_name = "TOKEN", help_heading = "Connection")]
    pub(crate) token: Option<String>,
    /// Trust this certificate authority, and no other, for the host. [env: SLUICE_CA]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    pub(crate) ca: Option<PathBuf>,
    /// The tenant that the command is for, where it is not your own (sluice tenant list). [env: SLUICE_TENANT]
    // A command that has this option itself means the same by it.
    #[arg(long, global = true, value_name = "T", help_heading = "Connection")]
    pub(crate) tenant: Option<String>,
    /// Print JSON, one object on each line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a script on machines and follow its output
    Run(Box<run::RunArgs>),
    /// Look at jobs, and end them
    #[command(subcommand)]
    Job(job::JobCommand),
    /// The fleet: enroll, list, tag, rename, release, revoke
    #[command(subcommand)]
    Machine(machine::MachineCommand),
    /// The script library: add, list, show, archive, redact
    #[command(subcommand)]
    Script(script::ScriptCommand),
    /// Scripts that run by themselves: add, list, show, pause, resume, remove
    #[command(subcommand)]
    Schedule(Box<schedule::ScheduleCommand>),
    /// Maintenance windows, outside of which nothing starts: add, list, show, remove
    #[command(subcommand)]
    Window(window::WindowCommand),
    /// Let nothing start on any machine, until that is lifted
    #[command(subcommand)]
    Lockdown(lockdown::LockdownCommand),
    /// Gates: trust, install, bind, sign
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Secrets for scripts: set, rotate, list, revoke
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Which jobs wait for other operators, and what is approved in advance
    #[command(subcommand)]
    Approval(approval::ApprovalCommand),
    /// Operators: create, list, roles, remove
    #[command(subcommand)]
    Operator(operator::OperatorCommand),
    /// Roles, which say what operators may do: list, show, set, remove
    #[command(subcommand)]
    Role(role::RoleCommand),
    /// Operators' tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// The provider's customers: create, list, show, rename, archive
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// Operators of the provider who work for its customers: add, list, revoke
    #[command(subcommand)]
    Grant(grant::GrantCommand),
    /// Scripts of the provider that its customers may run: add, list, withdraw
    #[command(subcommand)]
    Offer(offer::OfferCommand),
    /// The audit log: list, export, verify
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Save a host and a token for later commands
    Login(login::LoginArgs),
    /// Find out why commands do not work
    Doctor(doctor::DoctorArgs),
    /// Print what a shell needs to complete commands and options
    Completion(completion::CompletionArgs),
    /// Write manual pages
    Man(man::ManArgs),
}

/// What a command line comes to.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// A command.
    Command(Box<CommandLine>),
    /// Help or version, to be printed.
    Text(String),
}

/// Reads the arguments, the program's name first.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Parsed, Error> {
    match CommandLine::try_parse_from(arguments) {
        Ok(command_line) => Ok(Parsed::Command(Box::new(command_line))),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                Ok(Parsed::Text(error.render().to_string()))
            }
            _ => Err(Error::Usage(sentence(&error, arguments))),
        },
    }
}

/// Whether errors are to be JSON. Asked before, and also where, the command line cannot be read.
pub(crate) fn asks_for_json(arguments: &[OsString]) -> bool {
    arguments
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| argument == "--json")
}

/// clap's message on one line, without its usage block.
fn sentence(error: &clap::Error, arguments: &[OsString]) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        || error.kind() == ErrorKind::MissingSubcommand
    {
        return format!("no command is given; see {} --help", command_of(arguments));
    }
    let text = error.render().to_string();
    let words: Vec<_> = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .flat_map(str::split_whitespace)
        .collect();
    let sentence = words.join(" ");
    let sentence = sentence.strip_prefix("error: ").unwrap_or(&sentence);
    format!(
        "{sentence}; nothing was done, see {} --help",
        command_of(arguments)
    )
}

/// The command whose help has the answer: as far as the words name one.
fn command_of(arguments: &[OsString]) -> String {
    let root = CommandLine::command();
    let (mut command, mut path) = (&root, vec!["sluice"]);
    for word in arguments.iter().skip(1) {
        if let Some(next) = command.find_subcommand(word) {
            path.push(next.get_name());
            command = next;
        }
    }
    path.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &str) -> Result<Parsed, Error> {
        parse(&words.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_line_holds_together() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn help_and_version_are_no_errors() {
        for words in [
            "sluice --help",
            "sluice --version",
            "sluice run --help",
            "sluice machine tag --help",
        ] {
            assert!(matches!(parse_words(words), Ok(Parsed::Text(_))), "{words}");
        }
    }

    #[test]
    fn usage_errors_are_one_sentence() {
        for words in [
            "sluice",
            "sluice run",
            "sluice frobnicate",
            "sluice run x --on a --time-limit 30",
            "sluice run x --script s --on a",
            "sluice run --script s@0 --on a",
            "sluice run --on a",
            "sluice job",
        ] {
            let error = parse_words(words).expect_err("is wrong");
            let text = error.to_string();
            assert_eq!((error.code(), error.exit_code()), ("usage", 125), "{words}");
            assert!(
                !text.contains('\n') && !text.contains("Usage") && text.contains("--help"),
                "{words}: {text}"
            );
        }
        let text = parse_words("sluice run x --on a --time-limit 30")
            .expect_err("is wrong")
            .to_string();
        assert!(
            text.contains("not a duration") && text.ends_with("see sluice run --help"),
            "{text}"
        );
    }

    #[test]
    fn every_command_is_there() {
        let commands = [
            "run x --on a --on b --tag k=v --tenant t --as u --param a=b --param-file a=f --attach f --env A=b --interpreter sh \
             --time-limit 30s --output-limit 1MiB --memory-limit 512MiB --confinement strict --expires 1h --no-queue --detach --compat landscape \
             --no-security-scan --idempotency-key k --json",
            "run - --all",
            "run x --where a==1 --preview",
            "machine list --where a==1",
            "run x --all --batches 1,10%,50%,100% --max-concurrency 5 --stop-on-failures 10%",
            "run x --all --batches 1,100% --stop-on-timeouts 2 --stop-on-dark 1 --dark-after 1m --stop-on-new-groups 1",
            "job list",
            "job show j",
            "job show j --format sarif",
            "job show j --fold",
            "job show j --follow",
            "job output j",
            "job cancel j",
            "job pause j",
            "job resume j",
            "job halt",
            "job halt --tenant t",
            "job approve j",
            "job approve j --machine a --machine b --expires 1h",
            "job approve j --digest aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "job deny j",
            "job deny j --reason x",
            "approval policy show",
            "approval policy set f --tenant t",
            "approval policy revisions --tenant t",
            "approval standing add --script s@3 --as root --targets 5",
            "approval standing add --sha256 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa --as u --as default \
             --param a=b --tag k=v --targets 5 --expires 30d --tenant t",
            "approval standing add --script s --as u --no-param --targets 5",
            "approval standing approve i",
            "approval standing list --tenant t",
            "approval standing revoke i",
            "machine enroll-token --uses 3 --expires 1d",
            "machine enroll-token --tag k=v --address 10.0.0.0/8 --address ::1 --approval manual --tenant t",
            "machine enroll-tokens --tenant t",
            "machine revoke-enroll-token t",
            "machine approve m",
            "machine deny m",
            "machine list",
            "machine show m",
            "machine tag m a=b c-",
            "machine rename m n",
            "machine release m",
            "machine revoke m",
            "script add f",
            "script list",
            "script show s",
            "script versions s",
            "script add f --name n --description d --os linux --os macos --as u --interpreter sh --env A=b --time-limit 30s \
             --output-limit 1MiB --memory-limit 512MiB --confinement standard --tenant t",
            "script show s@2 --text",
            "script archive s",
            "script redact s@2",
            "script import d --tenant t",
            "run --script s@2 --on a",
            "schedule add n s --every 1h --on a",
            "schedule add n s --at 2026-11-22T03:00 --zone Europe/Berlin --all",
            "schedule add n - --cron @daily --zone UTC --jitter 5m --missed all --overlap queue --tag k=v --tenant t --as u \
             --param a=b --param-file a=f --attach f --env A=b --interpreter sh --time-limit 30s --output-limit 1MiB \
             --memory-limit 512MiB --confinement strict --expires 1h --no-queue --compat landscape --no-security-scan --json",
            "schedule add n s --event online --at-most-every 1h --tag k=v",
            "schedule list --tenant t",
            "schedule show s",
            "schedule pause s",
            "schedule resume s",
            "schedule remove s",
            "window add w --cron @daily --for 3h --zone Europe/Berlin --tag k=v --tag l=w --tenant t",
            "window add w --cron @daily --for 3h --all",
            "window list --tenant t",
            "window show w",
            "window remove w",
            "run x --on a --window w --window v",
            "run x --on a --ignore-window",
            "secret set n",
            "secret set n - --tenant t",
            "secret set n @f",
            "secret rotate n @f",
            "secret list --tenant t",
            "secret revoke n",
            "run x --on a --secret s --secret t",
            "plugin new n --lang rust --world policy --sdk s",
            "lockdown on --reason x --cancel",
            "lockdown off",
            "lockdown show",
            "plugin build",
            "plugin build d --json",
            "plugin test",
            "plugin test f --cases c",
            "plugin bench f --cases c --calls 3",
            "plugin inspect f",
            "plugin sign f --key k",
            "plugin list",
            "plugin unbind b",
            "plugin replay o",
            "plugin replay o --plugin p --settings s",
            "plugin backtest p",
            "plugin backtest p --settings s --last 5 --tenant t",
            "job show j --receipts",
            "plugin trust ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= --tenant t",
            "plugin untrust ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "plugin install f",
            "plugin install oci://x/y",
            "plugin bind scanner --settings s.toml --mode monitor --tenant t --tag k=v",
            "plugin bind scanner --limit fuel=1 --limit memory=1MiB --interpreter bash --position 7",
            "plugin bind scanner --binding 01890a5d-ac96-774b-bcce-b302099a8057",
            "plugin revisions b",
            "token create ci --permission RemoteExecution --expires 30d",
            "token create ci --operator ann --role viewer --role auditor --tenant t",
            "operator create ann --role helpdesk,viewer --tenant t",
            "operator list --tenant t",
            "operator roles ann --role operator",
            "operator remove ann",
            "role list --tenant t",
            "role show r",
            "role set r f --tenant t",
            "role set r -",
            "role remove r",
            "token list",
            "token revoke t",
            "tenant create t",
            "tenant list",
            "tenant show t",
            "tenant rename t u",
            "tenant archive t",
            "tenant provider-access deny",
            "tenant provider-access allow",
            "grant add ann --tenant t --role operator --for 8h",
            "grant add ann --tenant t --role operator,viewer --until 2030-01-01T18:00:00Z",
            "grant list",
            "grant list --tenant t",
            "grant revoke g",
            "offer add s@1 --to t --to u",
            "offer add s@1 --to-all",
            "offer list",
            "offer withdraw o",
            "job show j --tenant t",
            "audit list",
            "audit verify",
            "audit verify f",
            "audit export",
            "login",
            "doctor",
            "completion bash",
            "man .",
        ];
        for command in commands {
            let words: Vec<_> = std::iter::once("sluice")
                .chain(command.split_whitespace())
                .map(OsString::from)
                .collect();
            assert!(
                matches!(parse(&words), Ok(Parsed::Command(_))),
                "{command}: {:?}",
                parse(&words)
            );
        }
    }

    #[test]
    fn json_is_asked_for_before_the_end_of_options() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(asks_for_json(&words("sluice frobnicate --json")));
        assert!(!asks_for_json(&words("sluice run -- --json")));
    }
}
