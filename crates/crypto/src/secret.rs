//! A container for secret octets.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Octets that are wiped when dropped, compared in constant time, and never printed.
#[derive(Clone, Default)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes the octets over; they are wiped with this value.
    #[must_use]
    pub fn new(octets: Vec<u8>) -> Self {
        Self(Zeroizing::new(octets))
    }

    /// Joins the parts in order into one secret.
    #[must_use]
    pub fn concat(parts: &[&[u8]]) -> Self {
        // Sized at once: a growing vector would leave unwiped copies behind in freed memory.
        let mut octets = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            octets.extend_from_slice(part);
        }
        Self::new(octets)
    }

    /// The octets themselves; copies of them are the caller's to wipe.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many octets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<u8>> for SecretBytes {
    fn from(octets: Vec<u8>) -> Self {
        Self::new(octets)
    }
}

impl From<&[u8]> for SecretBytes {
    fn from(octets: &[u8]) -> Self {
        Self::new(octets.to_vec())
    }
}

impl AsRef<[u8]> for SecretBytes {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl PartialEq for SecretBytes {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

impl Eq for SecretBytes {}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} octets)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::SecretBytes;

    #[test]
    fn debug_shows_the_length_only() {
        let secret = SecretBytes::new(vec![0xAB; 3]);
        assert_eq!(format!("{secret:?}"), "SecretBytes(3 octets)");
    }

    #[test]
    fn equality_looks_at_every_octet_and_the_length() {
        let secret = SecretBytes::concat(&[b"ab", b"", b"c"]);
        assert_eq!(secret, SecretBytes::from(&b"abc"[..]));
        assert_ne!(secret, SecretBytes::from(&b"abd"[..]));
        assert_ne!(secret, SecretBytes::from(&b"ab"[..]));
        assert!(SecretBytes::default().is_empty());
    }
}
