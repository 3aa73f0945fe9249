//! One connection to a bus: the authentication, calls, and their answers, until a deadline.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket};
use nix::sys::time::TimeVal;
use nix::unistd::Uid;

use super::message::{self, Call, Incoming, START, Writer};

/// The longest line of the authentication that is read.
const LONGEST_LINE: usize = 1024;

/// Why a call was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BusError {
    #[error("the bus cannot be reached: {0}")]
    Connect(Errno),
    #[error("the connection to the bus broke: {0}")]
    Broken(std::io::Error),
    #[error("the bus did not answer in time")]
    TimedOut,
    #[error("the bus does not know who asks: {}", .0.escape_debug())]
    Unauthenticated(String),
    #[error("what the bus said is not understood: {0}")]
    Unintelligible(&'static str),
    #[error("{}: {}", name.escape_debug(), text.escape_debug())]
    Refused { name: String, text: String },
}

/// A connection.
pub(super) struct Bus {
    stream: UnixStream,
    until: Instant,
    serial: u32,
}

impl Bus {
    /// Connects, says who this process is, and gets a name.
    pub(super) fn connect(path: &Path, until: Instant) -> Result<Self, BusError> {
        let socket = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .map_err(BusError::Connect)?;
        // A listener that takes nobody in would be waited for without end. The limit is for writing as well.
        let left = until.saturating_duration_since(Instant::now());
        setsockopt(&socket, SendTimeout, &time_value(left)).map_err(BusError::Connect)?;
        let address = UnixAddr::new(path).map_err(BusError::Connect)?;
        connect(socket.as_raw_fd(), &address).map_err(|errno| match errno {
            Errno::EAGAIN => BusError::TimedOut,
            errno => BusError::Connect(errno),
        })?;
        let mut bus = Self {
            stream: socket.into(),
            until,
            serial: 0,
        };
        bus.authenticate()?;
        bus.call(&Call {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member: "Hello",
            signature: "",
            body: Writer::default(),
        })?;
        Ok(bus)
    }

    /// Makes a call and waits until it is done. What it returns is not looked at.
    pub(super) fn call(&mut self, call: &Call<'_>) -> Result<(), BusError> {
        self.serial += 1;
        self.write(&call.encode(self.serial))?;
        loop {
            match self.receive()? {
                Incoming::Returned(serial) if serial == self.serial => return Ok(()),
                Incoming::Refused { serial, name, text } if serial == self.serial => {
                    return Err(BusError::Refused { name, text });
                }
                _ => {}
            }
        }
    }

    /// The kernel tells the bus the uid; EXTERNAL says to take that.
    fn authenticate(&mut self) -> Result<(), BusError> {
        let uid = Uid::effective().to_string();
        let hex: String = uid.bytes().map(|digit| format!("{digit:02x}")).collect();
        self.write(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() > LONGEST_LINE {
                return Err(BusError::Unintelligible("a line is too long"));
            }
            let mut byte = [0];
            self.read(&mut byte)?;
            line.push(byte[0]);
        }
        if !line.starts_with(b"OK ") {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            return Err(BusError::Unauthenticated(line));
        }
        self.write(b"BEGIN\r\n")
    }

    fn receive(&mut self) -> Result<Incoming, BusError> {
        let mut start = [0; START];
        self.read(&mut start)?;
        let mut bytes = start.to_vec();
        bytes.resize(START + message::rest(&start)?, 0);
        self.read(&mut bytes[START..])?;
        message::decode(&bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BusError> {
        self.stream.write_all(bytes).map_err(failed)
    }

    fn read(&mut self, mut buffer: &mut [u8]) -> Result<(), BusError> {
        while !buffer.is_empty() {
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(BusError::TimedOut);
            }
            self.stream.set_read_timeout(Some(left)).map_err(failed)?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(failed(ErrorKind::UnexpectedEof.into())),
                Ok(length) => buffer = &mut buffer[length..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }
}

fn failed(error: std::io::Error) -> BusError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => BusError::TimedOut,
        _ => BusError::Broken(error),
    }
}

/// At least a microsecond, as zero would be without end.
fn time_value(time: Duration) -> TimeVal {
    let time = time.max(Duration::from_micros(1));
    TimeVal::new(
        time.as_secs().cast_signed(),
        time.subsec_micros().cast_signed().into(),
    )
}
