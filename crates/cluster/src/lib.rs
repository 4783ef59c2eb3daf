//! The replicated state machine: what all members agree upon, entry by entry.
//!
//! It holds who owns the common address, every IKE SA (opaque bytes) and Child SA with their
//! relation, which sequence numbers were granted to whom, and which targets drain. It is **not**
//! consensus (that is `replica`), no IKE, no packet: one deterministic function from a state and
//! a command to the next state and the effects somebody else carries out.
//!
//! ```text
//!   member A: controller                         every member, in log order
//!   --------------------                         -----------------------------------------
//!   Command --encode()--> log entry --Raft-->    decode() --> State::apply(index, command)
//!                                                                |              |
//!                                                           next State     Vec<Effect>
//!                                                       (records, numbers)  install, grant,
//!                                                                           remove, refuse
//!   State::freeze() --encode()--> bytes --> State::restore()     for members that fell behind
//! ```
//!
//! # Contract
//!
//! * **Deterministic**: equal applied index, equal [`State::hash`]. No clock, no randomness, no
//!   map with an order of its own.
//! * **Commit before use** (law 2): [`numbers`] has the proof; a takeover grants fresh numbers for
//!   every Child SA in its own entry, so the new owner may send at once.
//! * **Exact when it can be**: an owner that stops on purpose says where it stopped, and the next one
//!   carries on there: [`settlement`] has the proof.
//! * **Records have an owner**: each record names the ownership it stands under. A takeover leaves
//!   them as they are (inherited) until the new owner carries each on; a delete names the
//!   ownership it means and is refused when the record stands under another.
//! * **Only the owner**: commands whose owner differs in member, incarnation or
//!   epoch from the present one are refused, visibly, by every replica alike.
//! * **All or nothing**: the changes of one IKE exchange are applied together or not at all.
//! * **Bounded**: see [`limits`].
//! * **Secret**: keys and exported IKE SAs are zeroized on drop and absent from `Debug`.
#![forbid(unsafe_code)]

mod carry;
mod codec;
mod command;
mod configuration;
mod digest;
mod effect;
mod identity;
pub mod level;
pub mod limits;
mod membership;
mod mutation;
pub mod numbers;
mod record_map;
mod records;
pub mod settlement;
mod state;
#[cfg(test)]
mod tests;
mod wire;

pub use codec::CodecError;
pub use command::{Command, Direction, GrantItem, StateChange};
pub use configuration::Configuration;
pub use effect::{Effect, Refusal};
pub use identity::{Epoch, IkeSpi, Incarnation, MemberId, Owner, TargetId};
pub use membership::{MemberChange, MemberCommand, MemberRecord, Membership};
#[cfg(any(test, feature = "testing"))]
pub use mutation::set_mutation;
pub use mutation::{Mutation, mutated, small};
pub use records::{ChildRecord, Hold, HoldKind, IkeRecord, Readiness, RecordName, Standing};
pub use settlement::{SettleItem, Settlement};
pub use state::{Frozen, State};
