//! Script text: what is taken, and how it is normalized before any gate sees it.

use super::Language;

/// The largest script, in bytes.
pub const MAX_SCRIPT: usize = 4 << 20;

/// Text that may run: UTF-8 without NUL, BOM or, for interpreters that choke on them, CRLF line ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptText {
    text: String,
    /// A byte order mark was removed.
    pub bom_stripped: bool,
    /// CRLF line ends were made LF.
    pub crlf_normalized: bool,
}

impl ScriptText {
    /// Takes the submitted bytes.
    ///
    /// # Errors
    ///
    /// Empty, UTF-16, with NUL bytes, not UTF-8, or too large: the operation is refused before it exists.
    pub fn parse(bytes: &[u8]) -> Result<Self, TextError> {
        if bytes.len() > MAX_SCRIPT {
            return Err(TextError::TooLarge(bytes.len()));
        }
        if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            return Err(TextError::Utf16);
        }
        if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
            return Err(TextError::Nul {
                line: line_of(bytes, at),
            });
        }
        let stripped = bytes.strip_prefix(b"\xef\xbb\xbf");
        let body = stripped.unwrap_or(bytes);
        let text = str::from_utf8(body).map_err(|error| TextError::NotUtf8 {
            line: line_of(body, error.valid_up_to()),
        })?;
        if text.trim().is_empty() {
            return Err(TextError::Empty);
        }
        Ok(Self {
            text: text.to_owned(),
            bom_stripped: stripped.is_some(),
            crlf_normalized: false,
        })
    }

    /// Makes CRLF line ends LF where the language needs it: all but PowerShell, which takes both.
    #[must_use]
    pub fn normalize_for(mut self, language: Language) -> Self {
        if language != Language::PowerShell && self.text.contains("\r\n") {
            self.text = self.text.replace("\r\n", "\n");
            self.crlf_normalized = true;
        }
        self
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What normalization changed, for the result's notes.
    pub fn notes(&self) -> impl Iterator<Item = &'static str> {
        let bom = self
            .bom_stripped
            .then_some("a byte order mark was removed from the script");
        let crlf = self
            .crlf_normalized
            .then_some("CRLF line ends of the script were made LF");
        bom.into_iter().chain(crlf)
    }
}

fn line_of(bytes: &[u8], at: usize) -> usize {
    bytes[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Bytes that are no script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Nothing but white space.
    #[error("the script is empty")]
    Empty,
    /// Starts with a UTF-16 byte order mark.
    #[error("the script is UTF-16; save it as UTF-8")]
    Utf16,
    /// Interpreters stop at NUL or worse.
    #[error("the script has a NUL byte in line {line}; scripts are UTF-8 text")]
    Nul {
        /// Counted from 1.
        line: usize,
    },
    /// Not text.
    #[error("the script is not UTF-8 in line {line}; save it as UTF-8")]
    NotUtf8 {
        /// Counted from 1.
        line: usize,
    },
    /// Over [`MAX_SCRIPT`].
    #[error("the script has {0} bytes, over the limit of {max} bytes; put data into attachments", max = MAX_SCRIPT)]
    TooLarge(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_refused_with_the_line() {
        assert_eq!(ScriptText::parse(b""), Err(TextError::Empty));
        assert_eq!(ScriptText::parse(b"\xef\xbb\xbf \n"), Err(TextError::Empty));
        assert_eq!(
            ScriptText::parse(b"a\nb\0"),
            Err(TextError::Nul { line: 2 })
        );
        assert_eq!(ScriptText::parse(b"\xff\xfea\0"), Err(TextError::Utf16));
        assert_eq!(
            ScriptText::parse(b"a\n\n\xc3("),
            Err(TextError::NotUtf8 { line: 3 })
        );
        assert_eq!(
            ScriptText::parse(&vec![b'a'; MAX_SCRIPT + 1]),
            Err(TextError::TooLarge(MAX_SCRIPT + 1))
        );
    }

    #[test]
    fn bom_and_crlf_go_and_are_noted() {
        let text = ScriptText::parse(b"\xef\xbb\xbfecho a\r\necho b\r\n")
            .expect("text")
            .normalize_for(Language::Shell);
        assert_eq!(text.as_str(), "echo a\necho b\n");
        assert_eq!(text.notes().count(), 2);
        let text = ScriptText::parse(b"echo a\r\n")
            .expect("text")
            .normalize_for(Language::PowerShell);
        assert_eq!((text.as_str(), text.notes().count()), ("echo a\r\n", 0));
    }
}
