//! What one call of a gate may use.

use serde::{Deserialize, Serialize};

use crate::manifest::LimitsAsked;

/// Limits of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallLimits {
    /// Units of fuel, roughly one for each instruction.
    pub fuel: u64,
    /// Bytes over all memories and tables of the instance.
    pub memory: u64,
    /// Milliseconds of guest time.
    pub time_ms: u64,
    /// Bytes that the guest may hand over in one answer or log line.
    pub answer: u64,
    /// Lines of log that are kept; more are dropped.
    pub log_lines: u32,
}

impl CallLimits {
    /// What a plugin gets that asks for nothing.
    pub const DEFAULT: Self = Self {
        fuel: 2_000_000_000,
        memory: 64 << 20,
        time_ms: 2_000,
        answer: 1 << 20,
        log_lines: 100,
    };

    /// The most that a plugin can ask for.
    pub const CEILING: Self = Self {
        fuel: 20_000_000_000,
        memory: 64 << 20,
        time_ms: 10_000,
        answer: 1 << 20,
        log_lines: 100,
    };

    /// For `configure`, which runs once when the plugin is bound and builds what later calls start from.
    pub const CONFIGURE: Self = Self {
        fuel: 60_000_000_000,
        memory: 64 << 20,
        time_ms: 20_000,
        answer: 1 << 20,
        log_lines: 100,
    };

    /// What a plugin gets that asks for this.
    ///
    /// # Errors
    ///
    /// Every limit above the ceiling, by name.
    pub fn granted(asked: &LimitsAsked) -> Result<Self, Vec<String>> {
        let mut reasons = Vec::new();
        let mut grant = |name: &str, asked: Option<u64>, default: u64, ceiling: u64| match asked {
            Some(asked) if asked > ceiling => {
                reasons.push(format!(
                    "it asks for {name} {asked}, over the ceiling of {ceiling}"
                ));
                default
            }
            asked => asked.unwrap_or(default),
        };
        let limits = Self {
            fuel: grant("fuel", asked.fuel, Self::DEFAULT.fuel, Self::CEILING.fuel),
            memory: grant(
                "memory",
                asked.memory,
                Self::DEFAULT.memory,
                Self::CEILING.memory,
            ),
            time_ms: grant(
                "time",
                asked.time,
                Self::DEFAULT.time_ms,
                Self::CEILING.time_ms,
            ),
            ..Self::DEFAULT
        };
        if reasons.is_empty() {
            Ok(limits)
        } else {
            Err(reasons)
        }
    }

    /// These limits, or less where less is asked for. A binding takes from what its plugin gets and adds nothing to it.
    ///
    /// # Errors
    ///
    /// Every limit that is more than there is, or nothing, by name.
    pub fn within(self, asked: &LimitsAsked) -> Result<Self, Vec<String>> {
        let mut reasons = Vec::new();
        let mut lower = |name: &str, asked: Option<u64>, given: u64| match asked {
            Some(0) => {
                reasons.push(format!("{name} must be at least 1"));
                given
            }
            Some(asked) if asked > given => {
                reasons.push(format!(
                    "{name} cannot be {asked}, over the {given} that the plugin gets"
                ));
                given
            }
            asked => asked.unwrap_or(given),
        };
        let limits = Self {
            fuel: lower("fuel", asked.fuel, self.fuel),
            memory: lower("memory", asked.memory, self.memory),
            time_ms: lower("time", asked.time, self.time_ms),
            ..self
        };
        if reasons.is_empty() {
            Ok(limits)
        } else {
            Err(reasons)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_takes_from_what_its_plugin_gets_and_adds_nothing() {
        let own = CallLimits::DEFAULT;
        let asked = |fuel, memory, time| LimitsAsked { fuel, memory, time };
        assert_eq!(own.within(&asked(None, None, None)), Ok(own));
        let lower = own.within(&asked(Some(5), None, Some(own.time_ms)));
        assert_eq!(lower, Ok(CallLimits { fuel: 5, ..own }));
        let over = own.within(&asked(Some(0), Some(own.memory + 1), Some(own.time_ms + 1)));
        let reasons = over.expect_err("is more");
        let named = ["fuel ", "memory ", "time "];
        assert_eq!(reasons.len(), named.len(), "{reasons:?}");
        for (reason, name) in reasons.iter().zip(named) {
            assert!(reason.starts_with(name), "{reason}");
        }
    }
}
