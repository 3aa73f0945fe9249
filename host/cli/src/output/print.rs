//! Writing to stdout and stderr, where a reader that went away is no panic.

use std::io::Write as _;

use serde::Serialize;

use crate::error::Error;

/// Writes `text` to stdout as it is.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(Error::Stdout)
}

/// Writes an object to stdout, on one line.
pub(crate) fn json_line<T: Serialize + ?Sized>(value: &T) -> Result<(), Error> {
    let mut line =
        serde_json::to_string(value).map_err(|error| Error::Answer(error.to_string()))?;
    line.push('\n');
    print(&line)
}

/// Writes one line to stderr. Where even that fails there is nobody left to tell.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
