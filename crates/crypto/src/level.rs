//! Which implementation of AES-GCM keys are expanded for.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::CryptoError;
use crate::self_test::level_works;

/// An implementation of AES-GCM, the fastest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// This crate's own kernels in 512-bit vectors (AVX-512, VAES, VPCLMULQDQ).
    Vaes512,
    /// The `aes-gcm` crate, which runs everywhere.
    Portable,
}

/// What keys are expanded for from the first one on.
static CHOSEN: OnceLock<Level> = OnceLock::new();
/// What gives wrong answers here.
static BROKEN: OnceLock<Vec<(Level, CryptoError)>> = OnceLock::new();

impl Level {
    /// Every level, the fastest first.
    pub const ALL: &[Self] = &[Self::Vaes512, Self::Portable];

    /// What to call it in configuration, logs and benches.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vaes512 => "vaes512",
            Self::Portable => "portable",
        }
    }

    /// Whether this processor can run it.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Vaes512 => crate::simd::is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Vaes512 => false,
            Self::Portable => true,
        }
    }

    /// Whether it gives the known answers here.
    ///
    /// # Errors
    /// [`CryptoError::LevelUnavailable`] on a processor without its instructions,
    /// [`CryptoError::SelfTest`] with the first thing that is wrong.
    pub fn test(self) -> Result<(), CryptoError> {
        if !self.is_available() {
            return Err(CryptoError::LevelUnavailable(self.name()));
        }
        level_works(self)
    }

    /// The level that keys are expanded for: the one that [`choose`](Self::choose) was called with,
    /// or else the fastest that works here.
    #[must_use]
    pub fn chosen() -> Self {
        *CHOSEN.get_or_init(|| Self::fastest().0)
    }

    /// The fastest level that works here, and the faster ones that this processor has the
    /// instructions for and that give wrong answers all the same, with what is wrong.
    #[must_use]
    pub fn fastest() -> (Self, Vec<(Self, CryptoError)>) {
        let mut broken = Vec::new();
        for &level in Self::ALL.iter().filter(|level| level.is_available()) {
            match level.test() {
                Ok(()) => return (level, broken),
                Err(error) => broken.push((level, error)),
            }
        }
        (Self::Portable, broken)
    }

    /// The faster levels of which [`fastest`](Self::fastest) says that they give wrong answers; it is
    /// asked once.
    pub fn broken() -> &'static [(Self, CryptoError)] {
        BROKEN.get_or_init(|| Self::fastest().1)
    }

    /// Sets the level for the whole process, before the first key is expanded.
    ///
    /// # Errors
    /// As [`test`](Self::test), and [`CryptoError::LevelChosen`] when keys are being expanded for
    /// another level already.
    pub fn choose(self) -> Result<(), CryptoError> {
        self.test()?;
        let chosen = *CHOSEN.get_or_init(|| self);
        if chosen == self { Ok(()) } else { Err(CryptoError::LevelChosen(chosen.name())) }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = CryptoError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.iter().copied().find(|level| level.name() == name);
        named.ok_or(CryptoError::NoSuchLevel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_levels() {
        for &level in Level::ALL {
            assert_eq!(level.name().parse(), Ok(level));
        }
        assert_eq!("fast".parse::<Level>(), Err(CryptoError::NoSuchLevel));
    }

    #[test]
    fn what_is_available_works_and_the_fastest_is_chosen() {
        for level in Level::ALL.iter().filter(|level| level.is_available()) {
            assert_eq!(level.test(), Ok(()), "{level}");
        }
        let fastest = Level::ALL.iter().copied().find(|level| level.is_available());
        assert_eq!(Some(Level::chosen()), fastest);
        assert_eq!(Level::fastest(), (Level::chosen(), Vec::new()));
    }

    #[test]
    fn a_level_is_chosen_once() {
        let chosen = Level::chosen();
        assert_eq!(chosen.choose(), Ok(()));
        for level in Level::ALL.iter().filter(|&&level| level != chosen && level.is_available()) {
            assert_eq!(level.choose(), Err(CryptoError::LevelChosen(chosen.name())));
        }
    }
}
