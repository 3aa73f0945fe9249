//! Secrets: their names, and their values on the way to one machine.
//!
//! A bundle has the names alone. The value of each travels beside the operation, sealed to the key of the machine that it
//! is for (`sluice_transport::sealing`), and nobody on the way can open it.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::environment::secret_variable;

/// The shortest value in bytes, white space around it not counted: what is shorter cannot be kept out of output without
/// spoiling it.
pub const SHORTEST: usize = 4;
/// The longest value, in bytes.
pub const LONGEST: usize = 32 << 10;
/// The longest name, in bytes.
pub const LONGEST_NAME: usize = 64;
/// The most secrets of one job.
pub const MOST: usize = 16;

/// A value that only one machine can open, for one operation.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// The secret's name.
    pub name: String,
    /// What `sluice_transport::sealing::seal` gave.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Checks the names of a job's secrets.
///
/// # Errors
///
/// There are too many, one is no name, or two would be one variable of the script.
pub fn check<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), SecretNameError> {
    let mut variables = HashSet::new();
    for (index, name) in names.into_iter().enumerate() {
        if index == MOST {
            return Err(SecretNameError::TooMany);
        }
        check_name(name)?;
        if !variables.insert(secret_variable(name)) {
            return Err(SecretNameError::Twice(name.to_owned()));
        }
    }
    Ok(())
}

/// Checks one name: letters, digits, `-` and `_`, the first a letter.
///
/// # Errors
///
/// It is none.
pub fn check_name(name: &str) -> Result<(), SecretNameError> {
    let valid = (1..=LONGEST_NAME).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if valid {
        Ok(())
    } else {
        Err(SecretNameError::Name(name.len()))
    }
}

/// Checks a value.
///
/// # Errors
///
/// It is too short or too long.
pub fn check_value(value: &[u8]) -> Result<(), SecretValueError> {
    if value.trim_ascii().len() < SHORTEST {
        Err(SecretValueError::Short)
    } else if value.len() > LONGEST {
        Err(SecretValueError::Long)
    } else {
        Ok(())
    }
}

/// Names of secrets that no job can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretNameError {
    /// No name.
    #[error(
        "a secret has a name of 1 to {LONGEST_NAME} letters, digits and - _, the first a letter; what was given has {0} bytes and is none"
    )]
    Name(usize),
    /// The script could not tell them apart.
    #[error("the secret {0} is given twice, or has the variable {variable} of another", variable = secret_variable(.0))]
    Twice(String),
    /// More than [`MOST`].
    #[error("a job has {MOST} secrets at most")]
    TooMany,
}

/// A value that cannot be a secret's. Says nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretValueError {
    /// Under [`SHORTEST`].
    #[error(
        "a secret has {SHORTEST} bytes at least, white space around it not counted: a shorter one could not be kept out of output"
    )]
    Short,
    /// Over [`LONGEST`].
    #[error("a secret has {LONGEST} bytes at most")]
    Long,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_variables_and_no_two_the_same() {
        assert_eq!(check(["a", "db-password", "DB_TOKEN"]), Ok(()));
        for name in [
            "",
            "1a",
            "-a",
            "a b",
            "a/b",
            "..",
            "a.b",
            "é",
            "a\n",
            &"a".repeat(65),
        ] {
            assert!(
                matches!(check([name]), Err(SecretNameError::Name(length)) if length == name.len()),
                "{name:?}"
            );
        }
        for twice in [["a", "a"], ["a-b", "a_b"], ["A", "a"]] {
            assert!(
                matches!(check(twice), Err(SecretNameError::Twice(_))),
                "{twice:?}"
            );
        }
        let many: Vec<String> = (0..=MOST).map(|number| format!("s{number}")).collect();
        let names = |count: usize| check(many.iter().take(count).map(String::as_str));
        assert_eq!(names(MOST), Ok(()));
        assert_eq!(names(MOST + 1), Err(SecretNameError::TooMany));
    }

    #[test]
    fn a_value_is_long_enough_to_be_found_in_output() {
        for short in [&b""[..], b"abc", b" abc\n", b"    \n"] {
            assert_eq!(check_value(short), Err(SecretValueError::Short));
        }
        assert_eq!(check_value(b"abcd"), Ok(()));
        assert_eq!(check_value(&[b'a'; LONGEST]), Ok(()));
        assert_eq!(
            check_value(&[b'a'; LONGEST + 1]),
            Err(SecretValueError::Long)
        );
    }
}
