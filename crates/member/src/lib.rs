//! One cluster member, pure: inputs in, outputs out.
#![forbid(unsafe_code)]
