//! What one call of a gate may use.

use serde::{Deserialize, Serialize};

use crate::manifest::LimitsAsked;

/// Limits of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
}
