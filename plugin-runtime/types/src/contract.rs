//! Versions of the contract in `wit/`.

use serde::{Deserialize, Serialize};

use crate::manifest::Version;

/// A version of the contract that this runtime calls gates by: one for each major version, and below 1.0 one for each minor
/// version. Within one, functions and interfaces are only added, so that a component of an earlier patch is called by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Contract {
    /// `sluice:gate@0.1`
    #[serde(rename = "0.1.0")]
    V0_1,
}

impl Contract {
    /// Every one, the newest last.
    pub const ALL: &[Self] = &[Self::V0_1];

    /// The version as it is in `wit/`, or was when the next one came.
    #[must_use]
    pub const fn version(self) -> &'static str {
        match self {
            Self::V0_1 => "0.1.0",
        }
    }

    /// The one for a component whose interfaces have this version, `1.2.3`; none where this runtime has none.
    #[must_use]
    pub fn of(version: &str) -> Option<Self> {
        let asked: Version = version.parse().ok()?;
        Self::ALL.iter().copied().find(|contract| {
            let known: Result<Version, _> = contract.version().parse();
            known.is_ok_and(|known| {
                let minor = known.major > 0 || known.minor == asked.minor;
                known.major == asked.major && minor
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_is_called_by_its_contract_and_nothing_else_is() {
        assert_eq!(Contract::of("0.1.0"), Some(Contract::V0_1));
        assert_eq!(Contract::of("0.1.17"), Some(Contract::V0_1));
        for other in [
            "0.2.0",
            "1.1.0",
            "0.10.0",
            "0.1",
            "0.1.0-rc1",
            "v0.1.0",
            "",
            "0.1.0.0",
        ] {
            assert_eq!(Contract::of(other), None, "{other}");
        }
    }

    #[test]
    fn the_newest_is_the_one_in_wit() {
        let worlds = include_str!("../../../wit/worlds.wit");
        let newest = Contract::ALL.last().expect("there is one").version();
        assert!(worlds.starts_with(&format!("package sluice:gate@{newest};")));
        assert_eq!(newest, crate::CONTRACT);
    }
}
