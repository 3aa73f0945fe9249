//! Output of several machines on one stream: each line starts with the name of its machine.

/// A line longer than this, in bytes, is broken, so that a machine that never ends a line does not fill the memory.
const MAX_LINE: usize = 64 << 10;

/// Puts a prefix before each line of one stream of one machine.
#[derive(Debug)]
pub(crate) struct LinePrefixer {
    prefix: String,
    /// A line whose end has not arrived.
    rest: Vec<u8>,
}

impl LinePrefixer {
    /// Lines start with `<machine>: `.
    pub(crate) fn new(machine: &str) -> Self {
        Self {
            prefix: format!("{}: ", sluice_protocol::ending::one_line(machine)),
            rest: Vec::new(),
        }
    }

    /// Takes the next bytes, gives the lines that are complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut lines = Vec::with_capacity(bytes.len() + self.prefix.len());
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.rest.len() > MAX_LINE {
                self.take_line(&mut lines);
            }
        }
        lines
    }

    /// The last line, where it had no end.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let mut lines = Vec::new();
        if !self.rest.is_empty() {
            self.take_line(&mut lines);
        }
        lines
    }

    fn take_line(&mut self, lines: &mut Vec<u8>) {
        lines.extend_from_slice(self.prefix.as_bytes());
        lines.append(&mut self.rest);
        if !lines.ends_with(b"\n") {
            lines.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixed(pieces: &[&str]) -> String {
        let mut prefixer = LinePrefixer::new("web-1");
        let mut lines: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| prefixer.push(piece.as_bytes()))
            .collect();
        lines.extend(prefixer.finish());
        String::from_utf8(lines).expect("is text")
    }

    #[test]
    fn every_line_has_its_prefix_however_it_arrives() {
        assert_eq!(prefixed(&["a\nb\n"]), "web-1: a\nweb-1: b\n");
        assert_eq!(
            prefixed(&["a", "b\n\nc", ""]),
            "web-1: ab\nweb-1: \nweb-1: c\n"
        );
        assert_eq!(prefixed(&[]), "");
        assert_eq!(prefixed(&["\n"]), "web-1: \n");
    }

    #[test]
    fn nothing_is_written_before_the_line_is_whole() {
        assert!(LinePrefixer::new("web-1").push(b"half").is_empty());
    }

    #[test]
    fn a_line_without_end_is_broken() {
        let long = "x".repeat(3 * MAX_LINE);
        let lines = prefixed(&[&long[..MAX_LINE], &long[..MAX_LINE], "end"]);
        assert!(
            lines
                .lines()
                .all(|line| line.starts_with("web-1: ") && line.len() < 3 * MAX_LINE)
        );
        assert_eq!(lines.matches('x').count(), 2 * MAX_LINE);
        assert_eq!(lines.lines().count(), 2);
    }

    #[test]
    fn a_name_cannot_forge_a_line() {
        assert_eq!(
            LinePrefixer::new("a\nb\x1b").push(b"x\n"),
            "a b\u{fffd}: x\n".as_bytes()
        );
    }
}
