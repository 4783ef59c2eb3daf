//! RFC 4301 and RFC 4303: selectors, SPD, SA runtime, replay window.
#![forbid(unsafe_code)]
