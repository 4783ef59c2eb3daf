//! Test bed.
#![forbid(unsafe_code)]
pub mod bed;
pub mod capture;
pub mod error;
pub mod fetch;
pub mod frame;
pub mod namespace;
pub mod peer;
pub mod probe;
pub mod process;
pub mod time;
pub mod topology;
pub mod wait;
pub mod web;
pub mod wire;
