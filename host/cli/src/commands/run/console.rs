//! Live output of a job on this command's stdout and stderr.

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write};

use sluice_protocol::ending::one_line;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::operation::OutputStream;
use sluice_protocol::report::lost_marker;

use crate::output::{Inert, LinePrefixer};

/// Where the output of a job's operations goes.
pub(crate) struct Console<Out, Err> {
    stdout: Sink<Out>,
    stderr: Sink<Err>,
    /// Several machines: each line starts with the machine's name.
    prefixed: bool,
    streams: HashMap<(OperationId, OutputStream), Stream>,
}

/// One stream of one operation.
#[derive(Default)]
struct Stream {
    /// How far it was written. After a lost connection the host tells everything again.
    offset: u64,
    inert: Inert,
    prefixer: Option<LinePrefixer>,
}

struct Sink<W> {
    writer: W,
    is_terminal: bool,
    /// The last thing written was the end of a line, or nothing was.
    at_line_start: bool,
    /// The reader went away. The job goes on, and so does this command, for the outcome's sake.
    closed: bool,
}

impl<W: Write> Sink<W> {
    const fn new(writer: W, is_terminal: bool) -> Self {
        Self {
            writer,
            is_terminal,
            at_line_start: true,
            closed: false,
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if bytes.is_empty() || self.closed {
            return;
        }
        self.at_line_start = bytes.ends_with(b"\n");
        self.closed = self
            .writer
            .write_all(bytes)
            .and_then(|()| self.writer.flush())
            .is_err();
    }
}

impl Console<std::io::Stdout, std::io::Stderr> {
    /// That of this process.
    pub(crate) fn of_process(prefixed: bool) -> Self {
        let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
        let terminals = (stdout.is_terminal(), stderr.is_terminal());
        Self::new(stdout, terminals.0, stderr, terminals.1, prefixed)
    }
}

impl<Out: Write, Err: Write> Console<Out, Err> {
    fn new(
        stdout: Out,
        stdout_is_terminal: bool,
        stderr: Err,
        stderr_is_terminal: bool,
        prefixed: bool,
    ) -> Self {
        Self {
            stdout: Sink::new(stdout, stdout_is_terminal),
            stderr: Sink::new(stderr, stderr_is_terminal),
            prefixed,
            streams: HashMap::new(),
        }
    }

    /// Writes what is new in a piece of output that starts at `offset` of its stream. Where it starts behind what was
    /// written, the bytes between are lost, and a line says so.
    pub(crate) fn output(
        &mut self,
        operation: OperationId,
        machine: &str,
        stream: OutputStream,
        offset: u64,
        bytes: &[u8],
    ) {
        let prefixed = self.prefixed;
        let state = self
            .streams
            .entry((operation, stream))
            .or_insert_with(|| Stream {
                prefixer: prefixed.then(|| LinePrefixer::new(machine)),
                ..Stream::default()
            });
        let known = usize::try_from(state.offset.saturating_sub(offset)).unwrap_or(usize::MAX);
        let new = bytes.get(known..).unwrap_or_default();
        let lost = offset.saturating_sub(state.offset);
        if new.is_empty() && lost == 0 {
            return;
        }
        state.offset = state.offset.max(offset.saturating_add(bytes.len() as u64));
        let marker = if lost > 0 {
            lost_marker(lost).into_bytes()
        } else {
            Vec::new()
        };
        let new = &[&marker, new].concat();
        let is_terminal = match stream {
            OutputStream::Stdout => self.stdout.is_terminal,
            OutputStream::Stderr => self.stderr.is_terminal,
        };
        let shown = if is_terminal {
            state.inert.push(new).into_bytes()
        } else {
            new.to_vec()
        };
        let shown = match &mut state.prefixer {
            Some(prefixer) => prefixer.push(&shown),
            None => shown,
        };
        self.write(stream, &shown);
    }

    /// Ends the streams of an operation, and writes its outcome as one line on stderr.
    pub(crate) fn outcome(&mut self, operation: OperationId, machine: &str, message: &str) {
        self.finish(operation);
        let message = one_line(message);
        let line = if self.prefixed {
            format!("{}: {message}\n", one_line(machine))
        } else {
            format!("{message}\n")
        };
        // A script whose last line had no end must not take the outcome into it.
        let joined = !self.stderr.at_line_start
            || (self.stdout.is_terminal && self.stderr.is_terminal && !self.stdout.at_line_start);
        if joined {
            self.stderr.write(b"\n");
            self.stdout.at_line_start = true;
        }
        self.stderr.write(line.as_bytes());
    }

    /// Writes what is left of the streams of an operation.
    pub(crate) fn finish(&mut self, operation: OperationId) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let Some(mut state) = self.streams.remove(&(operation, stream)) else {
                continue;
            };
            let rest = state.inert.finish().into_bytes();
            let rest = match &mut state.prefixer {
                Some(prefixer) => [prefixer.push(&rest), prefixer.finish()].concat(),
                None => rest,
            };
            self.write(stream, &rest);
        }
    }

    fn write(&mut self, stream: OutputStream, bytes: &[u8]) {
        match stream {
            OutputStream::Stdout => self.stdout.write(bytes),
            OutputStream::Stderr => self.stderr.write(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(terminal: bool, prefixed: bool) -> Console<Vec<u8>, Vec<u8>> {
        Console::new(Vec::new(), terminal, Vec::new(), terminal, prefixed)
    }

    fn written(console: &Console<Vec<u8>, Vec<u8>>) -> (String, String) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&console.stdout.writer), text(&console.stderr.writer))
    }

    #[test]
    fn one_operation_writes_the_bytes_of_its_script_and_one_line_more() {
        let operation = OperationId::generate();
        let mut console = console(false, false);
        console.output(operation, "a", OutputStream::Stdout, 0, b"\x1b[2Jout");
        console.output(operation, "a", OutputStream::Stderr, 0, b"err");
        console.outcome(operation, "a", "Script executed successfully");
        assert_eq!(
            written(&console),
            (
                "\x1b[2Jout".to_owned(),
                "err\nScript executed successfully\n".to_owned()
            )
        );
    }

    #[test]
    fn what_is_told_again_is_written_once() {
        let operation = OperationId::generate();
        let mut console = console(false, false);
        for (offset, bytes) in [(0, "abc"), (0, "abc"), (0, "abcde"), (3, "def"), (6, "g")] {
            console.output(
                operation,
                "a",
                OutputStream::Stdout,
                offset,
                bytes.as_bytes(),
            );
        }
        assert_eq!(written(&console).0, "abcdefg");
    }

    #[test]
    fn what_is_lost_is_said_where_it_is_missing() {
        let operation = OperationId::generate();
        let mut console = console(false, false);
        for (offset, bytes) in [(0, "head"), (14, "tail"), (18, ""), (20, ""), (20, "")] {
            console.output(
                operation,
                "a",
                OutputStream::Stdout,
                offset,
                bytes.as_bytes(),
            );
        }
        assert_eq!(
            written(&console).0,
            "head\n[... 10 bytes lost ...]\ntail\n[... 2 bytes lost ...]\n"
        );
    }

    #[test]
    fn several_machines_have_their_name_on_each_line() {
        let (a, b) = (OperationId::generate(), OperationId::generate());
        let mut console = console(false, true);
        console.output(a, "a", OutputStream::Stdout, 0, b"1\n2");
        console.output(b, "b", OutputStream::Stdout, 0, b"3\n");
        console.outcome(b, "b", "Script executed successfully");
        console.outcome(a, "a", "Script failed with exit code 3");
        let (stdout, stderr) = written(&console);
        assert_eq!(stdout, "a: 1\nb: 3\na: 2\n");
        assert_eq!(
            stderr,
            "b: Script executed successfully\na: Script failed with exit code 3\n"
        );
    }

    #[test]
    fn a_terminal_gets_inert_text_and_the_outcome_on_its_own_line() {
        let operation = OperationId::generate();
        let mut console = console(true, false);
        console.output(operation, "a", OutputStream::Stdout, 0, b"\x1b[2Jx");
        console.outcome(operation, "a", "Script executed\x1b[2J");
        assert_eq!(
            written(&console),
            (
                "\\x1b[2Jx".to_owned(),
                "\nScript executed\u{fffd}[2J\n".to_owned()
            )
        );
    }

    #[test]
    fn a_reader_that_goes_away_does_not_end_the_following() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let operation = OperationId::generate();
        let mut console = Console::new(Gone, false, Vec::new(), false, false);
        console.output(operation, "a", OutputStream::Stdout, 0, b"x");
        console.outcome(operation, "a", "done");
        assert_eq!(console.stderr.writer, b"done\n");
    }
}
