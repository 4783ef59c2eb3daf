//! Security parameters index.

use std::fmt;
use std::num::NonZeroU32;

use crate::IpsecError;

/// The first value that is not reserved by IANA (RFC 4303 section 2.1).
const FIRST_UNRESERVED: u32 = 256;

/// The index that names an SA at its receiver (RFC 4303 section 2.1), never a reserved value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spi(NonZeroU32);

impl Spi {
    /// Takes a value that is not reserved.
    ///
    /// # Errors
    /// [`IpsecError::ReservedSpi`] for 0 to 255.
    pub fn new(value: u32) -> Result<Self, IpsecError> {
        match NonZeroU32::new(value) {
            Some(spi) if value >= FIRST_UNRESERVED => Ok(Self(spi)),
            _ => Err(IpsecError::ReservedSpi(value)),
        }
    }

    /// The value on the wire, in host order.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The worker an SPI of our own choice belongs to: its low bits under `mask`.
    #[must_use]
    pub const fn worker(self, mask: u32) -> u32 {
        self.get() & mask
    }
}

impl TryFrom<u32> for Spi {
    type Error = IpsecError;

    fn try_from(value: u32) -> Result<Self, IpsecError> {
        Self::new(value)
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.get())
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spi({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_values_are_no_spis() {
        assert_eq!(Spi::new(0), Err(IpsecError::ReservedSpi(0)));
        assert_eq!(Spi::new(255), Err(IpsecError::ReservedSpi(255)));
        assert_eq!(Spi::new(256).map(Spi::get), Ok(256));
    }

    #[test]
    fn low_bits_name_the_worker() {
        let spi = Spi::new(0xABCD_0007).expect("not reserved");
        assert_eq!(spi.worker(0b11), 3);
        assert_eq!(spi.to_string(), "abcd0007");
    }
}
