//! RFC 7296 as a sans-I/O machine.
#![forbid(unsafe_code)]
