//! Reading and writing header fields without indexing.
//!
//! A view has checked its length once, so the fall-backs here (zero, no effect) are never reached
//! through one; they exist so that no byte from the wire can reach a panic.

/// The big-endian 16-bit number at `at`; 0 outside of `bytes`.
#[inline]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    array_at(bytes, at).map_or(0, u16::from_be_bytes)
}

/// The big-endian 32-bit number at `at`; 0 outside of `bytes`.
#[inline]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    array_at(bytes, at).map_or(0, u32::from_be_bytes)
}

/// The byte at `at`; 0 outside of `bytes`.
#[inline]
pub(crate) fn u8_at(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

/// `N` bytes from `at` on.
#[inline]
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// Everything from `at` on; empty when `at` is outside.
#[inline]
pub(crate) fn rest(bytes: &[u8], at: usize) -> &[u8] {
    bytes.get(at..).unwrap_or_default()
}

/// Overwrites `value.len()` bytes from `at` on; no effect when they do not fit.
#[inline]
pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(slot) = bytes.get_mut(at..).and_then(|tail| tail.get_mut(..value.len())) {
        slot.copy_from_slice(value);
    }
}

/// Writes `value` at the front of `into`, for `emit`.
pub(crate) fn emit(into: &mut [u8], value: &[u8]) -> Result<(), crate::WireError> {
    into.get_mut(..value.len()).ok_or(crate::WireError::Truncated)?.copy_from_slice(value);
    Ok(())
}
