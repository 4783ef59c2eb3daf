//! raft-rs driven through Ready over a log, with a lease.
#![forbid(unsafe_code)]
