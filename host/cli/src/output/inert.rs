//! Script output on a terminal: shown, never obeyed.
//!
//! Escape sequences can move the cursor over what was printed before, set the clipboard or answer in the operator's name
//! (CVE-2003-0063 and its many successors). So C0 and C1 control characters except line feed and tab are written as
//! `\x1b`, and bytes that are no UTF-8 too. Bytes that go into a file or a pipe are left as they are.

use std::fmt::Write as _;

/// Makes one stream inert, whatever pieces it comes in.
#[derive(Debug, Default)]
pub(crate) struct Inert {
    /// The beginning of a character whose end has not arrived: at most 3 bytes.
    rest: Vec<u8>,
}

impl Inert {
    /// Takes the next bytes, gives what may be shown.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        let mut bytes = [self.rest.as_slice(), bytes].concat();
        self.rest.clear();
        let mut shown = String::with_capacity(bytes.len());
        let mut from = 0;
        while from < bytes.len() {
            match std::str::from_utf8(&bytes[from..]) {
                Ok(text) => {
                    escape(text, &mut shown);
                    break;
                }
                Err(error) => {
                    let valid = from + error.valid_up_to();
                    escape(&String::from_utf8_lossy(&bytes[from..valid]), &mut shown);
                    let Some(length) = error.error_len() else {
                        self.rest = bytes.split_off(valid);
                        break;
                    };
                    escape_bytes(&bytes[valid..valid + length], &mut shown);
                    from = valid + length;
                }
            }
        }
        shown
    }

    /// What is left at the end of the stream.
    pub(crate) fn finish(&mut self) -> String {
        let mut shown = String::new();
        escape_bytes(&std::mem::take(&mut self.rest), &mut shown);
        shown
    }
}

fn escape(text: &str, shown: &mut String) {
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(character),
            control if control.is_control() => {
                let _ = write!(shown, "\\x{:02x}", u32::from(control));
            }
            other => shown.push(other),
        }
    }
}

fn escape_bytes(bytes: &[u8], shown: &mut String) {
    for byte in bytes {
        let _ = write!(shown, "\\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inert(bytes: &[u8]) -> String {
        let mut inert = Inert::default();
        let shown = inert.push(bytes);
        shown + &inert.finish()
    }

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(inert(b"a\tb\nc"), "a\tb\nc");
        assert_eq!(
            inert(b"\x1b]52;c;x\x07\r\x00\x7f"),
            "\\x1b]52;c;x\\x07\\x0d\\x00\\x7f"
        );
        assert_eq!(inert("\u{9b}2J é".as_bytes()), "\\x9b2J é");
        assert_eq!(inert(b"\x9b2J \xff\xc3"), "\\x9b2J \\xff\\xc3");
    }

    #[test]
    fn pieces_do_not_matter() {
        let text = "aé\u{9b}\u{1f980}\x1b[0m\n".as_bytes();
        for cut in 0..=text.len() {
            let mut in_pieces = Inert::default();
            let shown =
                in_pieces.push(&text[..cut]) + &in_pieces.push(&text[cut..]) + &in_pieces.finish();
            assert_eq!(shown, inert(text), "cut at {cut}");
        }
    }
}
