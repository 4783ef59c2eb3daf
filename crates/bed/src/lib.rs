//! Test bed: namespaces, peers, targets, probes, captures (development only).
#![forbid(unsafe_code)]
