//! What is left out of account when two outputs are compared. The list is short and stays so: whoever wonders why two
//! machines are in one group, or are not, must be able to tell from docs/folding.md.
//!
//! | replaced | by |
//! |---|---|
//! | the machine's name and host name, as whole words of three characters or more | `<machine>` |
//! | the ids of the machine, the operation and the job | `<id>` |
//! | a time of day `03:04:05`, with or without a fraction, a date in front and an offset behind | `<time>` |
//! | a process id: the number in `name[123]`, and behind `pid` | `<pid>` |

/// How long a part of a line may be that is looked at as a whole, in bytes. Of longer lines each part is looked at by itself.
pub(super) const LONGEST_LINE: usize = 16 << 10;
/// The shortest name that is replaced: shorter ones are words of too many other things.
const SHORTEST_NAME: usize = 3;

/// What is replaced in the output of one operation.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    /// The longest first, so that no name hides a longer one.
    names: Vec<(Vec<u8>, &'static [u8])>,
}

impl Rules {
    /// For a machine with these names, and these ids.
    pub(super) fn new(names: &[&str], ids: &[String]) -> Self {
        let names = names
            .iter()
            .filter(|name| name.len() >= SHORTEST_NAME)
            .map(|name| (name.as_bytes().to_vec(), &b"<machine>"[..]));
        let ids = ids.iter().map(|id| (id.clone().into_bytes(), &b"<id>"[..]));
        let mut names: Vec<_> = names.chain(ids).collect();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Self { names }
    }

    /// Appends a line to `out`, with everything replaced.
    pub(super) fn line(&self, line: &[u8], out: &mut Vec<u8>) {
        let mut at = 0;
        while let Some(&byte) = line.get(at) {
            let before = at.checked_sub(1).and_then(|at| line.get(at)).copied();
            let found = if before.is_some_and(is_word) {
                // Within a word only the process id behind a program's name begins.
                pid_in_brackets(&line[at..])
            } else {
                // Behind a colon goes on what began before it, such as the address of a network card.
                let time = || time(&line[at..]).filter(|_| before != Some(b':'));
                self.name(&line[at..])
                    .or_else(time)
                    .or_else(|| pid(&line[at..]))
            };
            match found {
                Some(Found { kept, length, by }) => {
                    out.extend_from_slice(&line[at..at + kept]);
                    out.extend_from_slice(by);
                    at += kept + length;
                }
                None => {
                    out.push(byte);
                    at += 1;
                }
            }
        }
    }

    fn name(&self, text: &[u8]) -> Option<Found> {
        let (name, by) = self.names.iter().find(|(name, _)| {
            text.get(..name.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(name))
                && !text.get(name.len()).copied().is_some_and(is_word)
        })?;
        Some(Found {
            kept: 0,
            length: name.len(),
            by,
        })
    }
}

/// Something to be replaced: behind `kept` bytes `length` bytes, `by` something else.
struct Found {
    kept: usize,
    length: usize,
    by: &'static [u8],
}

/// What a word is made of. A name with a part behind a `-` is another name; one with a domain behind it is not.
const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// `2026-11-27T03:04:05.678+01:00`, or less of it, down to `03:04:05`.
fn time(text: &[u8]) -> Option<Found> {
    let date = shape(text, "0000-00-00")
        .filter(|date| matches!(text.get(*date), Some(b'T' | b' ')))
        .map_or(0, |date| date + 1);
    let clock = &text[date..];
    let mut length = shape(clock, "00:00:00")?;
    if matches!(clock.get(length), Some(b'.' | b',')) {
        let digits = digits(&clock[length + 1..]);
        length += if digits > 0 { 1 + digits } else { 0 };
    }
    let rest = &clock[length..];
    length += match rest.first() {
        Some(b'Z') => 1,
        Some(b'+' | b'-') => shape(&rest[1..], "00:00")
            .or_else(|| shape(&rest[1..], "0000"))
            .map_or(0, |offset| 1 + offset),
        _ => 0,
    };
    let ends = !clock
        .get(length)
        .copied()
        .is_some_and(|byte| is_word(byte) || byte == b':');
    ends.then_some(Found {
        kept: 0,
        length: date + length,
        by: b"<time>",
    })
}

/// `[123]`, which stands behind the name of a program.
fn pid_in_brackets(text: &[u8]) -> Option<Found> {
    let inner = text.strip_prefix(b"[")?;
    let length = digits(inner);
    (length > 0 && inner.get(length) == Some(&b']')).then_some(Found {
        kept: 1,
        length,
        by: b"<pid>",
    })
}

/// `pid 123`, `PID: 123`, `pid=123`.
fn pid(text: &[u8]) -> Option<Found> {
    let word = text.get(..3)?;
    if !word.eq_ignore_ascii_case(b"pid") {
        return None;
    }
    let between = text[3..]
        .iter()
        .take(2)
        .take_while(|byte| matches!(byte, b' ' | b':' | b'='))
        .count();
    let length = digits(&text[3 + between..]);
    let ends = !text.get(3 + between + length).copied().is_some_and(is_word);
    (between > 0 && length > 0 && ends).then_some(Found {
        kept: 3 + between,
        length,
        by: b"<pid>",
    })
}

/// How long `shape` is, where the text begins with a digit for each 0 of it and with everything else as it is.
fn shape(text: &[u8], shape: &str) -> Option<usize> {
    let fits = |(byte, shape): (&u8, u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        other => *byte == other,
    };
    (text.len() >= shape.len() && text.iter().zip(shape.bytes()).all(fits)).then_some(shape.len())
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// One stream, taken in piece by piece.
pub(super) struct Stream<'r, S> {
    rules: &'r Rules,
    line: Vec<u8>,
    out: Vec<u8>,
    sink: S,
}

impl<'r, S: FnMut(&[u8])> Stream<'r, S> {
    /// What is normalized goes to `sink`.
    pub(super) const fn new(rules: &'r Rules, sink: S) -> Self {
        Self {
            rules,
            line: Vec::new(),
            out: Vec::new(),
            sink,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut part = part;
            while !part.is_empty() {
                let room = LONGEST_LINE - self.line.len();
                let (taken, rest) = part.split_at(part.len().min(room));
                self.line.extend_from_slice(taken);
                part = rest;
                if self.line.len() == LONGEST_LINE || self.line.last() == Some(&b'\n') {
                    self.flush();
                }
            }
        }
    }

    /// Bytes are lost here, however many.
    pub(super) fn gap(&mut self) {
        self.flush();
        (self.sink)(b"<lost>");
    }

    /// Gives the rest.
    pub(super) fn flush(&mut self) {
        self.out.clear();
        self.rules.line(&self.line, &mut self.out);
        self.line.clear();
        (self.sink)(&self.out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules::new(
            &["web-1", "ip-10-0-0-1", "a"],
            &["01a1fe67-495c-73cb-8c37-7177ccd52adb".to_owned()],
        )
    }

    fn normalized(text: &str) -> String {
        let mut out = Vec::new();
        rules().line(text.as_bytes(), &mut out);
        String::from_utf8(out).expect("is text")
    }

    #[test]
    fn what_differs_on_every_machine_is_replaced() {
        for (text, expected) in [
            (
                "web-1 and WEB-1.example.com",
                "<machine> and <machine>.example.com",
            ),
            ("host=ip-10-0-0-1!", "host=<machine>!"),
            ("op 01a1fe67-495c-73cb-8c37-7177ccd52adb.", "op <id>."),
            ("2026-11-27T03:04:05.678+01:00 up", "<time> up"),
            ("2026-11-27 03:04:05,678 up", "<time> up"),
            ("at 03:04:05Z, 23:59:59", "at <time>, <time>"),
            (
                "Nov 27 03:04:05 sshd[812]: pid 7, PID: 8, pid=9",
                "Nov 27 <time> sshd[<pid>]: pid <pid>, PID: <pid>, pid=<pid>",
            ),
        ] {
            assert_eq!(normalized(text), expected);
        }
    }

    #[test]
    fn nothing_else_is() {
        for text in [
            "web-10 web-1-old my-web-1 aweb-1",
            "a word",
            "2026-11-27 and 03:04 and 1:02:03:04 and 103:04:05 and 00:11:22:33:44:55",
            "[812] array[x1] pids 7 rapid 7 pid x7 pid 7th",
            "0x7ffe 10.0.0.1 42 c2f9ae46-0000-4000-8000-000000000000",
        ] {
            assert_eq!(normalized(text), text);
        }
    }

    #[test]
    fn it_does_not_matter_how_a_stream_is_cut_into_pieces() {
        let text = format!(
            "up at 03:04:05\nweb-1\n{}\nsshd[7]",
            "x".repeat(2 * LONGEST_LINE + 7)
        );
        let taken = |size: usize| {
            let (rules, mut out) = (rules(), Vec::new());
            let mut stream = Stream::new(&rules, |bytes: &[u8]| out.extend_from_slice(bytes));
            text.as_bytes()
                .chunks(size)
                .for_each(|piece| stream.push(piece));
            stream.flush();
            out
        };
        let whole = taken(text.len());
        assert!(
            whole.starts_with(b"up at <time>\n<machine>\nx") && whole.ends_with(b"sshd[<pid>]")
        );
        for size in [1, 2, 7, 4096] {
            assert!(taken(size) == whole, "{size}");
        }
    }
}
