//! A transient scope from systemd: a unit of the shim's own, which outlives the agent's service.
//!
//! The shim asks for itself. systemd learns from the bus who asks (a process id of 0 stands for that), so it takes no other
//! process, whatever namespaces lie between. Not systemd's word counts, but the kernel's: the shim looks where it is.
//!
//! The protocol is spoken here because it is small, and libraries for it are not: zbus brings a runtime and more code than
//! the shim has, and there is but one call to make.

mod bus;
mod message;

use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::Uid;

use self::bus::{Bus, BusError};
use self::message::{Call, Writer};

/// Where the bus of the system listens (D-Bus specification, "System message bus").
pub(super) const BUS: &str = "/run/dbus/system_bus_socket";
/// For everything: systemd may be busy reading its units again.
pub(super) const LIMIT: Duration = Duration::from_secs(5);
const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "/org/freedesktop/systemd1";

/// Why there is no scope.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScopeError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error("systemd made a unit and did not move this process into it")]
    NotMoved,
}

/// Whether systemd runs this machine (sd_booted(3)), and takes orders from this process.
pub(super) fn is_offered() -> bool {
    Uid::effective().is_root() && Path::new("/run/systemd/system").is_dir()
}

/// Moves this process to a new scope. Returns when the kernel says that it is there.
pub(super) fn enter(bus: &Path, scope: &str, limit: Duration) -> Result<(), ScopeError> {
    let until = Instant::now() + limit;
    let mut bus = Bus::connect(bus, until)?;
    bus.call(&start(scope))?;
    // The unit's job is done some time after the answer.
    while !is_in(scope) {
        if Instant::now() > until {
            return Err(ScopeError::NotMoved);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // systemd moves a process in one hierarchy after the other, and answers nobody meanwhile.
    Ok(bus.call(&ping())?)
}

fn is_in(scope: &str) -> bool {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups
        .lines()
        .any(|line| line.rsplit('/').next() == Some(scope))
}

/// `StartTransientUnit(name, mode, properties, auxiliary units)`. With `Delegate` what is below the scope is the shim's,
/// and processes that run out of memory do not end the whole unit (systemd.scope(5), `OOMPolicy`).
fn start(scope: &str) -> Call<'_> {
    let mut body = Writer::default();
    body.text(scope);
    body.text("fail");
    body.array(8, |properties| {
        let mut property = |name, kind, value: &dyn Fn(&mut Writer)| {
            properties.align(8);
            properties.text(name);
            properties.variant(kind, value);
        };
        property("Description", "s", &|body| {
            body.text("Sluice: a script, or the wait for one")
        });
        property("Slice", "s", &|body| body.text(super::place::SLICE));
        property("PIDs", "au", &|body| body.array(4, |pids| pids.number(0)));
        property("Delegate", "b", &|body| body.number(1));
        // The operation's own limit counts, and is told.
        property("TasksMax", "t", &|body| body.long(u64::MAX));
        // Whatever becomes of it, it is forgotten.
        property("CollectMode", "s", &|body| body.text("inactive-or-failed"));
    });
    body.array(8, |_| {});
    Call {
        destination: SYSTEMD,
        path: MANAGER,
        interface: "org.freedesktop.systemd1.Manager",
        member: "StartTransientUnit",
        signature: "ssa(sv)a(sa(sv))",
        body,
    }
}

fn ping() -> Call<'static> {
    Call {
        destination: SYSTEMD,
        path: MANAGER,
        interface: "org.freedesktop.DBus.Peer",
        member: "Ping",
        signature: "",
        body: Writer::default(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::thread::JoinHandle;

    use super::*;

    /// As libdbus writes it.
    const CALL: &str = "\
        6c0100011001000002000000b600000001016f00190000002f6f72672f667265656465736b746f702f73797374656d64\
        310000000000000006017300180000006f72672e667265656465736b746f702e73797374656d64310000000000000000\
        02017300200000006f72672e667265656465736b746f702e73797374656d64312e4d616e616765720000000000000000\
        030173001200000053746172745472616e7369656e74556e697400000000000008016700107373612873762961287361\
        287376292900000015000000736c756963652d7368696d2d372d312e73636f7065000000040000006661696c00000000\
        db000000000000000b0000004465736372697074696f6e000173000025000000536c756963653a206120736372697074\
        2c206f7220746865207761697420666f72206f6e6500000005000000536c696365000173000000000c000000736c7569\
        63652e736c69636500000000000000000400000050494473000261750000000004000000000000000800000044656c65\
        67617465000162000100000000000000080000005461736b734d617800017400ffffffffffffffff0b000000436f6c6c\
        6563744d6f6465000173000012000000696e6163746976652d6f722d6661696c6564000000000000\
        ";

    fn bytes(hex: &str) -> Vec<u8> {
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    }

    #[test]
    fn the_call_is_byte_for_byte_what_libdbus_makes_of_it() {
        assert_eq!(start("sluice-shim-7-1.scope").encode(2), bytes(CALL));
    }

    /// A bus that hears one client out: how it greets, and what it answers to each message.
    fn play(
        greeting: &'static str,
        answers: Vec<Vec<u8>>,
    ) -> (tempfile::TempDir, JoinHandle<Vec<Vec<u8>>>) {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("bus")).unwrap();
        let heard = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let uid = Uid::effective().to_string();
            let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
            let auth = format!("\0AUTH EXTERNAL {hex}\r\n");
            assert_eq!(take(&mut client, auth.len()), auth.into_bytes());
            client.write_all(greeting.as_bytes()).unwrap();
            if !greeting.starts_with("OK") {
                return Vec::new();
            }
            assert_eq!(take(&mut client, 7), b"BEGIN\r\n");
            let mut heard = Vec::new();
            for answer in answers {
                heard.push(message(&mut client));
                client.write_all(&answer).unwrap();
            }
            // Until the client has enough of it.
            let _until_it_goes = client.read_to_end(&mut Vec::new());
            heard
        });
        (directory, heard)
    }

    fn take(client: &mut UnixStream, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        client.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn message(client: &mut UnixStream) -> Vec<u8> {
        let start = take(client, message::START);
        let rest = message::rest(start[..].try_into().unwrap()).unwrap();
        [start, take(client, rest)].concat()
    }

    /// That the call with this serial was done (2) or refused (3), with a text.
    fn answer(kind: u8, serial: u32, text: &str) -> Vec<u8> {
        let mut answer = Writer::default();
        // Byte order, type, flags, version; lengths of body and fields; `REPLY_SERIAL`, `ERROR_NAME`.
        answer.number(u32::from_le_bytes([b'l', kind, 0, 1]));
        answer.number(u32::try_from(text.len()).unwrap() + 5);
        answer.number(1);
        answer.array(8, |fields| {
            fields.number(u32::from_le_bytes([5, 1, b'u', 0]));
            fields.number(serial);
            fields.number(u32::from_le_bytes([4, 1, b's', 0]));
            fields.text("org.example.No");
        });
        answer.align(8);
        answer.text(text);
        answer.into_bytes()
    }

    fn enter_by(directory: &tempfile::TempDir, limit: u64) -> String {
        let bus = directory.path().join("bus");
        let limit = Duration::from_millis(limit);
        let result = enter(&bus, "sluice-shim-7-1.scope", limit);
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_bus_that_says_yes_is_not_believed_before_the_kernel_says_so() {
        // A signal may come before an answer.
        let signal_and_answer = [answer(4, 0, "signal"), answer(2, 2, "/job/1")].concat();
        let answers = vec![answer(2, 1, ":1.7"), signal_and_answer];
        let (directory, heard) = play("OK 0123456789abcdef\r\n", answers);
        let error = enter_by(&directory, 300);
        assert_eq!(error, ScopeError::NotMoved.to_string());
        let heard = heard.join().unwrap();
        assert_eq!(heard[1], bytes(CALL));
        assert!(heard[0].windows(6).any(|part| part == b"Hello\0"));
    }

    #[test]
    fn what_a_bus_has_against_it_is_told() {
        let refusal = vec![answer(2, 1, ":1.7"), answer(3, 2, "Unit exists\u{1b}.")];
        let (directory, _heard) = play("OK 0\r\n", refusal);
        assert_eq!(
            enter_by(&directory, 5000),
            "org.example.No: Unit exists\\u{1b}."
        );
        let (directory, _heard) = play("REJECTED EXTERNAL\r\n", vec![]);
        let error = enter_by(&directory, 5000);
        assert!(error.ends_with("who asks: REJECTED EXTERNAL"), "{error}");
        let (directory, _heard) = play("OK 0\r\n", vec![b"HTTP/1.1 400 Bad Request".to_vec()]);
        let error = enter_by(&directory, 5000);
        assert!(error.contains("not understood"), "{error}");
    }

    #[test]
    fn a_bus_that_is_silent_or_not_there_does_not_hold_a_shim_up() {
        let began = Instant::now();
        let (directory, _heard) = play("OK 0\r\n", vec![answer(2, 1, ":1.7"), vec![]]);
        assert_eq!(enter_by(&directory, 200), BusError::TimedOut.to_string());
        // One that accepts nobody: its queue is full.
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("bus")).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let _waiting = UnixStream::connect(directory.path().join("bus")).unwrap();
        assert_eq!(enter_by(&directory, 200), BusError::TimedOut.to_string());
        let nowhere = tempfile::tempdir().unwrap();
        assert!(enter_by(&nowhere, 5000).starts_with("the bus cannot be reached"));
        assert!(began.elapsed() < Duration::from_secs(3));
    }
}
