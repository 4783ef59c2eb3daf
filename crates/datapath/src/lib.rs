//! The poll-mode worker.
#![forbid(unsafe_code)]
