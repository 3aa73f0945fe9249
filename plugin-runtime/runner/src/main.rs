//! `sluice-gate-runner`: the process that runs WebAssembly, behind walls.
//!
//! Its parent starts it with one socket as standard input and an empty environment. Before it reads a byte it puts up its
//! walls ([`walls`]); a mandatory one that cannot be put up ends it. `serve` loads and calls gates until the socket
//! closes; `compile` answers one request, runs no guest code, and ends.

mod compile;
mod serve;
mod walls;

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(error) = walls::close_inherited() {
        return fail(error);
    }
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next();
    let user = match arguments.next().map(|text| text.parse::<u32>()) {
        None => None,
        Some(Ok(user)) if user != 0 => Some(user),
        Some(_) => return fail("the second argument is not the id of an unprivileged user"),
    };
    let socket = match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(socket) => UnixStream::from(socket),
        Err(error) => return fail(error),
    };
    let run: fn(UnixStream, Vec<String>) -> std::io::Result<()> = match mode.as_deref() {
        Some("serve") => serve::run,
        Some("compile") => compile::run,
        _ => {
            return fail(
                "this program is started by sluice-agent, sluice-host and sluice, not by hand",
            );
        }
    };
    let limits = if mode.as_deref() == Some("compile") {
        walls::Limits::COMPILE
    } else {
        walls::Limits::SERVE
    };
    match walls::put_up(user, &limits)
        .map_err(std::io::Error::other)
        .and_then(|walls| run(socket, walls))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error),
    }
}

fn fail(error: impl std::fmt::Display) -> ExitCode {
    eprintln!("sluice-gate-runner: {error}");
    ExitCode::FAILURE
}
