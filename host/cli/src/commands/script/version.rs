//! `NAME[@VERSION]`: a stored script, as it is typed.

use std::fmt;
use std::str::FromStr;

use sluice_api_types::script::ScriptRef;

/// A script of the library; the newest version where none is given. Whether the name is one, the host says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredScript {
    /// Not empty.
    pub(crate) name: String,
    /// Counted from 1.
    pub(crate) version: Option<u64>,
}

impl FromStr for StoredScript {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => {
                let digits = version.bytes().all(|byte| byte.is_ascii_digit());
                let number = version.parse().ok().filter(|number| digits && *number > 0);
                (name, Some(number.ok_or_else(wrong)?))
            }
            None => (text, None),
        };
        if name.is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            name: name.to_owned(),
            version,
        })
    }
}

fn wrong() -> String {
    "write it as NAME or NAME@VERSION, the version a number from 1".to_owned()
}

impl fmt::Display for StoredScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.version
            .map_or(Ok(()), |version| write!(f, "@{version}"))
    }
}

impl From<StoredScript> for ScriptRef {
    fn from(script: StoredScript) -> Self {
        Self {
            name: script.name,
            version: script.version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_number_from_1_or_left_out() {
        let script = |name: &str, version| StoredScript {
            name: name.to_owned(),
            version,
        };
        assert_eq!("deploy".parse(), Ok(script("deploy", None)));
        assert_eq!("deploy@12".parse(), Ok(script("deploy", Some(12))));
        for wrong in ["", "@1", "a@", "a@0", "a@-1", "a@+1", "a@x", "a@1@2"] {
            assert!(wrong.parse::<StoredScript>().is_err(), "{wrong}");
        }
        assert_eq!(script("a", Some(2)).to_string(), "a@2");
    }
}
