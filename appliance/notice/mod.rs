//! How members and `holdfast-target` talk: one connection of mutual TLS 1.3 from each target to
//! each member, framed like the members' own.
//!
//! ```text
//!   target                                     member
//!     Hello, Report ... --------------------->  listener --TargetEvent--> Member
//!     <------------------------ OwnerNotice     (from the owner only)
//!     Acknowledged | Refused ---------------->
//! ```
//!
//! What it is: messages, and the member's end ([`NoticeListener`]). The target's end is
//! [`crate::target`]. What it is not: it decides nothing; who is told what, when and how often is
//! the member's business, and who is believed is the target's.
//!
//! Contract:
//! * a [`TargetEvent`] comes from the target that the certificate of its connection names;
//! * a member's certificate is not accepted for a target's, nor the other way round;
//! * nothing waits: a target that does not read loses its connection;
//! * the key of the epoch goes to its target and nowhere else.

mod listener;
mod message;

pub use listener::NoticeListener;
pub(crate) use message::{
    FromTarget, FromTargetBody, Hello, MESSAGE_BYTES_MAX, Report, StaleNotice, ToTarget,
    VERSION_MAJOR,
};

#[cfg(test)]
mod tests;
