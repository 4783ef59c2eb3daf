//! The Maglev permutation table.
#![forbid(unsafe_code)]
