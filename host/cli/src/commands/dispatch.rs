//! From a command line to the command.

use crate::command_line::{Command, CommandLine};
use crate::commands::{
    approval, audit, completion, doctor, grant, job, lockdown, login, machine, man, offer,
    operator, plugin, role, run as run_command, schedule, script, secret, tenant, token, window,
};
use crate::error::Error;

/// Runs a command to its exit code.
pub(crate) fn run(command_line: CommandLine) -> Result<u8, Error> {
    // One TLS provider for the whole program. An error means that there is one already, which is the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::System {
            action: "start the asynchronous run time",
            source,
        })?;
    let CommandLine { global, command } = command_line;
    runtime.block_on(async {
        match command {
            Command::Run(arguments) => run_command::run(&global, *arguments).await,
            Command::Job(command) => job::run(&global, command).await,
            Command::Machine(command) => machine::run(&global, command).await,
            Command::Script(command) => script::run(&global, command).await,
            Command::Schedule(command) => schedule::run(&global, *command).await,
            Command::Window(command) => window::run(&global, command).await,
            Command::Lockdown(command) => lockdown::run(&global, command).await,
            Command::Plugin(command) => plugin::run(&global, command).await,
            Command::Secret(command) => secret::run(&global, command).await,
            Command::Operator(command) => operator::run(&global, command).await,
            Command::Approval(command) => approval::run(&global, command).await,
            Command::Role(command) => role::run(&global, command).await,
            Command::Token(command) => token::run(&global, command).await,
            Command::Tenant(command) => tenant::run(&global, command).await,
            Command::Grant(command) => grant::run(&global, command).await,
            Command::Offer(command) => offer::run(&global, command).await,
            Command::Audit(command) => audit::run(&global, command).await,
            Command::Login(arguments) => login::run(&global, arguments).await,
            Command::Doctor(arguments) => doctor::run(&global, arguments).await,
            Command::Completion(arguments) => completion::run(&global, &arguments),
            Command::Man(arguments) => man::run(&global, &arguments),
        }
    })
}
