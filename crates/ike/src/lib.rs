//! RFC 7296 as a sans-I/O machine: an IKEv2 responder with pre-shared keys that also rekeys, deletes
//! and checks the SAs it established, and whose every step can be taken over by another instance. Such
//! an instance may bring counters in step with the peer (RFC 6311), or begin a new IKE SA in place of
//! one it took over.
//!
//! It is not a socket, a clock or a source of randomness: datagrams, moments and a seed are arguments.
//! It begins no IKE SAs but those, knows no certificates and no EAP, and never touches ESP packets: it
//! makes the [`holdfast_ipsec::ChildSaParameters`] others process packets with.
//!
//! ```text
//!  datagram ──> Ike::handle_datagram ──┐
//!  moment   ──> Ike::handle_timeout  ──┼──> Ike::poll_ready ──> Ready ──> 1. commit its changes
//!  wish     ──> Ike::rekey_child, … ───┘                              └─> 2. send its datagrams
//!
//!  IKE_SA_INIT ─> HalfOpen ─ IKE_AUTH + Authenticated ─> IkeSa ─ rekey ─> IkeSa ─ delete ─> (departed)
//!                 not replicated                         exported with every change
//!
//!  Ike::reestablish ─> IKE_SA_INIT ─> Initiation ─ IKE_AUTH + Authenticated ─> IkeSa, the old one is deleted
//!                                     exported before its IKE_AUTH leaves
//! ```
//!
//! # Contract
//! * **Commit before send.** The datagrams of a [`Ready`] may leave only after its changes are
//!   committed, and steps are taken in order. Then a successor that [restores](Ike::restore) the
//!   committed IKE SAs repeats the identical response, sends the outstanding request again, and counts
//!   Message IDs and IVs on from the right place.
//! * After every input call [`Ike::poll_ready`] until it is empty; come back at [`Ike::poll_timeout`].
//! * A datagram that is malformed or does not authenticate changes nothing but a counter.
//! * An IKE SA is only ever made from an `Authenticated` proof, which only a verified AUTH payload
//!   yields.
//! * The peer's address and port are those of its last authentic, fresh message; answers go where the
//!   request came from (section 2.11).
#![forbid(unsafe_code)]

mod algorithm;
mod auth;
mod child;
mod codec;
mod config;
mod cookie;
mod counters;
mod create_child;
mod disown;
mod endpoint;
mod error;
mod exchange;
mod fragment;
mod half_open;
mod informational;
mod init;
mod initiate;
mod initiate_auth;
mod keys;
mod nat;
mod protect;
mod ready;
mod rekey_child;
mod rekey_ike;
mod sa;
mod state;
mod state_initiation;
mod sync;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

#[cfg(test)]
mod tests;

pub use algorithm::{EsnPolicy, EspProposal, IkeEncryption, IkeProposal, IkeSuite};
pub use config::{Connection, Identity, IkeConfig, RetransmitSchedule, TakeoverPolicy};
pub use counters::{IkeCounters, Refusal};
pub use endpoint::{Ike, IkeSaSummary};
pub use error::{IkeError, ProposalError};
pub use initiate::Dial;
pub use ready::{Change, Datagram, IkeSpi, Outcome, Ready};
pub use sync::SyncSupport;
