//! The operator's API: messages and framing.
#![forbid(unsafe_code)]
