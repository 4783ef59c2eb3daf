//! Packet buffers, frames and wire formats.
#![forbid(unsafe_code)]
