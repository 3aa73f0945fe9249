//! Sizes and durations as people write them: `512MiB`, `30s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of bytes, written `[0-9]+(B|KiB|MiB|GiB)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

/// A span of time in whole milliseconds, written `[0-9]+(ms|s|m|h|d)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub u64);

impl ByteSize {
    /// `n` MiB.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
}

impl Span {
    /// `n` seconds.
    #[must_use]
    pub const fn seconds(n: u64) -> Self {
        Self(n * 1000)
    }

    /// The same as a [`Duration`].
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// Units from large to small, with how many of the base unit each has.
const BYTE_UNITS: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];
const TIME_UNITS: &[(&str, u64)] = &[
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// The largest unit that leaves no rest.
fn write(
    value: u64,
    units: &[(&str, u64)],
    smallest: &str,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    match units
        .iter()
        .find(|(_, factor)| value > 0 && value.is_multiple_of(*factor))
    {
        Some((unit, factor)) => write!(f, "{}{unit}", value / factor),
        None => write!(f, "{value}{smallest}"),
    }
}

macro_rules! unit {
    ($name:ident, $units:ident, $smallest:literal, $error:ident, $message:literal) => {
        impl FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                parse(text, $units).map(Self).ok_or($error)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write(self.0, $units, $smallest, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_u64(self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?
                        .parse()
                        .map_err(de::Error::custom)
                } else {
                    u64::deserialize(deserializer).map(Self)
                }
            }
        }

        #[doc = concat!("The text is ", $message)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
        #[error($message)]
        pub struct $error;
    };
}

unit!(
    ByteSize,
    BYTE_UNITS,
    "B",
    InvalidByteSize,
    "not a size (a whole number and B, KiB, MiB or GiB, for example 512MiB)"
);
unit!(
    Span,
    TIME_UNITS,
    "ms",
    InvalidSpan,
    "not a duration (a whole number and ms, s, m, h or d, for example 30s)"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["30s", "500ms", "1m", "90s", "1h", "7d", "0ms"] {
            assert_eq!(
                text.parse::<Span>().map(|s| s.to_string()).as_deref(),
                Ok(text)
            );
        }
        for text in ["1MiB", "512MiB", "1GiB", "1B", "1025B", "0B"] {
            assert_eq!(
                text.parse::<ByteSize>().map(|s| s.to_string()).as_deref(),
                Ok(text)
            );
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "1.5s",
            "30 s",
            "30S",
            "1min",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(text.parse::<Span>(), Err(InvalidSpan), "{text}");
        }
        for text in ["1MB", "1M", "1mib", "+1MiB", "18446744073709551615GiB"] {
            assert_eq!(text.parse::<ByteSize>(), Err(InvalidByteSize), "{text}");
        }
    }
}
