//! Holdfast's shell: everything around the pure [`holdfast_member::Member`] that touches the world.
//!
//! What it is: configuration, threads, sockets, log files, timers, signals, the operator's CLI.
//! What it is not: it knows no protocol rule. Whatever decides anything lives below, where the
//! simulator can run it.
//!
//! ```text
//!                      +------------------- controller thread -------------------+
//!   peers --mTLS-----> | transport --PeerMessage-->                --SendPeer---> | --> peers
//!   operator --unix--> | server    --Operator----->                --Operator---> | --> operator
//!   timerfd ---------> |           --timeout------>  M e m b e r   --Lease------> | --> LeaseCell
//!   storage --wake---> |           --Persisted---->                --Persist----> | --> storage thread (fdatasync)
//!   targets --mTLS---> | notice    --Target------->                --NotifyTarget> | --> targets
//!   workers --wake---> | rings     --Worker------->                --Worker-----> | --> rings --> workers
//!                      +-----------------------------------------------------------+
//!   workers --> statistics segment (a mapped file) --> `holdfast drop-reasons`
//! ```
//!
//! Contract:
//! * one clock ([`clock::now`]) for the controller, the workers and the lease;
//! * the inbox is processed before timers, so that an overdue tick never precedes the message
//!   that makes it moot;
//! * a worker is never waited for: what does not fit its ring stays in a bounded backlog;
//! * nothing here prints or logs key material.
#![deny(unsafe_code)]

pub mod cli;
pub mod clock;
pub mod config;
pub mod controller;
pub mod daemon;
pub mod notice;
pub mod os;
pub mod pki;
pub mod server;
pub mod stats;
pub mod store;
pub mod target;
pub mod transport;
pub mod worker;
