//! IPv4 prefixes.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 prefix, or a single address (length 32).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    address: Ipv4Addr,
    length: u8,
}

impl Prefix {
    /// One address.
    #[must_use]
    pub const fn host(address: Ipv4Addr) -> Self {
        Self { address, length: 32 }
    }

    /// The first address of the prefix.
    #[must_use]
    pub const fn address(self) -> Ipv4Addr {
        self.address
    }

    /// Bits that all addresses share, 0 to 32.
    #[must_use]
    pub const fn length(self) -> u8 {
        self.length
    }

    /// The last address of the prefix.
    #[must_use]
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | !self.mask())
    }

    /// Whether `address` lies within.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask() == self.address.to_bits()
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0)
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("{text:?} is not a prefix such as 192.0.2.0/24");
        let (address, length) = text.split_once('/').unwrap_or((text, "32"));
        let address: Ipv4Addr = address.parse().map_err(|_| form())?;
        let length: u8 = length.parse().map_err(|_| form())?;
        if length > 32 {
            return Err(form());
        }
        let prefix = Self { address, length };
        let first = Ipv4Addr::from_bits(address.to_bits() & prefix.mask());
        if first == address {
            Ok(prefix)
        } else {
            Err(format!("{text:?} has bits beyond its length; {first}/{length} is meant?"))
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_contains_its_first_and_last_address_and_no_other() {
        let prefix: Prefix = "192.0.2.64/26".parse().unwrap();
        assert!(prefix.contains([192, 0, 2, 64].into()));
        assert!(prefix.contains(prefix.last()));
        assert_eq!(prefix.last(), Ipv4Addr::new(192, 0, 2, 127));
        assert!(!prefix.contains([192, 0, 2, 63].into()));
        assert!(!prefix.contains([192, 0, 2, 128].into()));
    }

    #[test]
    fn everything_and_a_single_address_are_prefixes() {
        let all: Prefix = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains([203, 0, 113, 9].into()));
        let one: Prefix = "10.0.0.1".parse().unwrap();
        assert_eq!(one, Prefix::host([10, 0, 0, 1].into()));
        assert_eq!(one.to_string(), "10.0.0.1/32");
    }

    #[test]
    fn bits_beyond_the_length_are_refused_with_what_is_meant() {
        let error = "192.0.2.7/24".parse::<Prefix>().unwrap_err();
        assert!(error.contains("192.0.2.0/24"), "{error}");
        assert!("192.0.2.0/33".parse::<Prefix>().is_err());
        assert!("elsewhere/8".parse::<Prefix>().is_err());
    }
}
