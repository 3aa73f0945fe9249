//! Ranges of addresses that machines may join from.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A range in CIDR notation; an address alone is a range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    first: IpAddr,
    prefix: u8,
}

impl AddressRange {
    /// Whether an address is in the range. One of IPv4 that came in the form of IPv6 is the one of IPv4.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                masked(first.to_bits().into(), 32, self.prefix)
                    == masked(address.to_bits().into(), 32, self.prefix)
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                masked(first.to_bits(), 128, self.prefix)
                    == masked(address.to_bits(), 128, self.prefix)
            }
            _ => false,
        }
    }
}

/// The first `prefix` of `width` bits.
const fn masked(bits: u128, width: u8, prefix: u8) -> u128 {
    let behind = (width - prefix) as u32;
    match bits.checked_shr(behind) {
        Some(front) => front,
        None => 0,
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl FromStr for AddressRange {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, InvalidRange> {
        let invalid = || InvalidRange(text.chars().take(100).collect());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let first: IpAddr = address.parse().map_err(|_| invalid())?;
        let width = if first.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => width,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| invalid())?
            }
            Some(_) => return Err(invalid()),
        };
        // An address of IPv4 in the form of IPv6 is one of IPv4 when a machine comes: the range would mean nothing.
        if prefix > width || first.to_canonical() != first {
            return Err(invalid());
        }
        let bits = match first {
            IpAddr::V4(first) => first.to_bits().into(),
            IpAddr::V6(first) => first.to_bits(),
        };
        // Whoever writes 10.0.0.1/8 may mean one machine.
        let behind = u32::from(width - prefix);
        let front = bits.checked_shr(behind).unwrap_or(0);
        if front.checked_shl(behind).unwrap_or(0) != bits {
            return Err(invalid());
        }
        Ok(Self { first, prefix })
    }
}

/// The text is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is no range of addresses (10.1.0.0/16, 2001:db8::/32 or one address; nothing may be set behind the prefix)", .0.escape_debug())]
pub struct InvalidRange(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_a_range_or_not() {
        for (range, address, is_in) in [
            ("10.1.0.0/16", "10.1.255.255", true),
            ("10.1.0.0/16", "10.2.0.0", false),
            ("10.1.0.0/16", "::ffff:10.1.2.3", true),
            ("10.1.0.0/16", "2001:db8::1", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db9::1", true),
        ] {
            let parsed: AddressRange = range.parse().expect(range);
            let address = address.parse().expect("an address");
            assert_eq!(parsed.contains(address), is_in, "{range} {address}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0/8",
            "::ffff:10.0.0.0/104",
            "host",
            "::1/129",
        ] {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
        let range: AddressRange = "10.1.0.0/16".parse().expect("a range");
        assert_eq!(range.to_string().parse(), Ok(range));
    }
}
