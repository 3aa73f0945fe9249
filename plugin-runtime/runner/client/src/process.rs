//! The runner as a process: started with an empty environment and one socket, asked, timed, and killed on any doubt.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::passing::Frame;
use crate::wire::{
    self, CompileRequest, CompileResponse, FrameId, FromRunner, Ready, Request, Response, ToRunner,
};

/// How long a runner may take to put up its walls.
const START: Duration = Duration::from_secs(10);
/// How long one compilation may take. Its memory and processor time are limited by the child's own walls.
const COMPILE: Duration = Duration::from_secs(120);

/// What is needed to start a runner.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    /// The binary.
    pub(crate) program: PathBuf,
    /// The unassigned user that it drops to, where the parent is root.
    pub(crate) user: Option<u32>,
}

/// A serving runner. Dropping it kills the process.
pub(crate) struct Process {
    pub(crate) ready: Ready,
    next: AtomicU64,
    outgoing: mpsc::UnboundedSender<(FrameId, Frame, oneshot::Sender<Response>)>,
    dead: Arc<AtomicBool>,
    child: Arc<Mutex<Child>>,
    /// A place for each call that the runner makes at once: who waits for one waits before the clock of the call runs.
    calls: Semaphore,
    /// The same for everything else.
    others: Semaphore,
}

type Waiting = Arc<std::sync::Mutex<HashMap<FrameId, oneshot::Sender<Response>>>>;

impl Process {
    pub(crate) async fn start(start: &Start) -> io::Result<Self> {
        let (child, socket) = spawn(start, "serve")?;
        let (mut reader, mut writer) = socket.into_split();
        let ready = match timeout(START, read_frame::<FromRunner>(&mut reader)).await {
            Ok(Ok(Some(FromRunner {
                id: 0,
                response: Response::Ready(ready),
            }))) => ready,
            Ok(Ok(_)) => {
                return Err(io::Error::other(
                    "it ended before its walls stood; its message is in the log",
                ));
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(io::Error::other("it did not put up its walls in time")),
        };
        let dead = Arc::new(AtomicBool::new(false));
        let waiting = Waiting::default();
        let (outgoing, mut queue) =
            mpsc::unbounded_channel::<(FrameId, Frame, oneshot::Sender<Response>)>();
        let (awaited, down) = (Arc::clone(&waiting), Arc::clone(&dead));
        tokio::spawn(async move {
            while let Some((id, frame, answer)) = queue.recv().await {
                lock(&awaited).insert(id, answer);
                if frame.send(&mut writer).await.is_err() {
                    down.store(true, Ordering::Release);
                    lock(&awaited).clear();
                    return;
                }
            }
        });
        let down = Arc::clone(&dead);
        let child = Arc::new(Mutex::new(child));
        let doubtful = Arc::clone(&child);
        tokio::spawn(async move {
            // An answer nobody waits for, or bytes that are no frame, are reason enough to give the runner up.
            while let Ok(Some(frame)) = read_frame::<FromRunner>(&mut reader).await {
                let Some(answer) = lock(&waiting).remove(&frame.id) else {
                    break;
                };
                let _ = answer.send(frame.response);
            }
            down.store(true, Ordering::Release);
            lock(&waiting).clear();
            // It may be there still, and whoever got out of a guest with it.
            end(&doubtful).await;
        });
        Ok(Self {
            ready,
            next: AtomicU64::new(1),
            outgoing,
            dead,
            child,
            calls: Semaphore::new(wire::CALLS),
            others: Semaphore::new(1),
        })
    }

    /// Asks and waits; when `limit` passes the runner is killed, because nothing else can be relied on to stop it. `files`
    /// are those that the request carries.
    pub(crate) async fn ask(
        &self,
        request: Request,
        files: Vec<Arc<File>>,
        limit: Duration,
    ) -> Result<Response, Gone> {
        let places = match request {
            Request::Call { .. } => &self.calls,
            Request::Load(_) | Request::Snapshot(_) | Request::Unload { .. } => &self.others,
        };
        let _place = places.acquire().await.map_err(|_| Gone::Died)?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let frame = Frame::new(&ToRunner { id, request }, files).map_err(|_| Gone::Died)?;
        let (sender, receiver) = oneshot::channel();
        if self.is_dead() || self.outgoing.send((id, frame, sender)).is_err() {
            return Err(Gone::Died);
        }
        match timeout(limit, receiver).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(_)) => Err(Gone::Died),
            Err(_) => {
                self.kill().await;
                Err(Gone::TimedOut)
            }
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    pub(crate) async fn kill(&self) {
        self.dead.store(true, Ordering::Release);
        end(&self.child).await;
    }
}

async fn end(child: &Mutex<Child>) {
    if let Err(error) = child.lock().await.kill().await {
        tracing::warn!(%error, "the gate runner could not be killed");
    }
}

/// Why a runner gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    Died,
    TimedOut,
}

/// Asks a one-shot child, which runs no guest code. It is gone when the answer is here. `files` are those that the request
/// carries.
pub(crate) async fn compile(
    start: &Start,
    request: CompileRequest,
    files: Vec<Arc<File>>,
) -> io::Result<CompileResponse> {
    let (mut child, socket) = spawn(start, "compile")?;
    let (mut reader, mut writer) = socket.into_split();
    let frame = Frame::new(&request, files)?;
    let exchange = async {
        frame.send(&mut writer).await?;
        read_frame::<CompileResponse>(&mut reader)
            .await?
            .ok_or_else(|| io::Error::other("compiling it ran into the limits of time or memory"))
    };
    let response = match timeout(COMPILE, exchange).await {
        Ok(response) => response,
        Err(_) => Err(io::Error::other(format!(
            "compiling it took longer than {} s",
            COMPILE.as_secs()
        ))),
    };
    child.kill().await?;
    response
}

#[allow(
    clippy::disallowed_methods,
    reason = "the gate runner is started here and nowhere else"
)]
fn spawn(start: &Start, mode: &str) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut command = Command::new(&start.program);
    command
        .arg(mode)
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    if let Some(user) = start.user {
        command.arg(user.to_string());
    }
    let child = command.spawn().map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("{} cannot be started: {error}", start.program.display()),
        )
    })?;
    Ok((child, UnixStream::from_std(ours)?))
}

/// The user that runners drop to where it exists. No script may run as it: processes of one uid can end each other.
pub const GATE_USER: &str = "sluice-gate";
/// The uids that runners of root have otherwise: those of systemd's dynamic range. No script may have one.
pub const GATE_UIDS: RangeInclusive<u32> = 61_184..=65_519;

/// The user that runners of this parent drop to: [`GATE_USER`] where it exists, else the `slot`-th of [`GATE_UIDS`] without
/// a user. None where the parent is not root.
pub(crate) fn gate_user(slot: u32) -> io::Result<Option<u32>> {
    use nix::unistd::{Uid, User};
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    if let Ok(Some(user)) = User::from_name(GATE_USER) {
        return Ok(Some(user.uid.as_raw()));
    }
    GATE_UIDS
        .filter(|uid| matches!(User::from_uid(Uid::from_raw(*uid)), Ok(None)))
        .nth(slot as usize)
        .map(Some)
        .ok_or_else(|| {
            io::Error::other(
                "no unassigned user id between 61184 and 65519; add a user named sluice-gate",
            )
        })
}

async fn read_frame<T: serde::de::DeserializeOwned>(
    reader: &mut OwnedReadHalf,
) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match reader.read_exact(&mut length).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    };
    let length = wire::checked_length(length, wire::MAX_ANSWER)?;
    let mut bytes = Vec::new();
    if reader.take(length as u64).read_to_end(&mut bytes).await? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    wire::decode(&bytes).map(Some)
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
