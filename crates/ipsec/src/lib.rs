//! RFC 4301 and RFC 4303 without the machinery around them: selectors, policies, and the state of
//! one Child SA in each direction.
//!
//! What it is: traffic selectors and the outbound policy database, the parameters of a Child SA as
//! IKE negotiates them and the cluster replicates them, the inbound SA with its replay window and
//! horizon, the outbound SA with its granted sequence numbers, and the names of every reason a
//! packet is dropped for. What it is not: it has no socket, no clock, no thread, and does not know
//! IKE, Raft or NICs.
//!
//! ```text
//!   inner packet                                   ESP packet
//!     │ Spd::lookup(flow)                            │ lookup by SPI
//!     ▼                                              ▼
//!   OutboundSa::begin_seal                         InboundSa::prepare
//!     │ a number from the granted range              │ length, window
//!     ▼                                              ▼
//!   AeadBurst::seal                                AeadBurst::open
//!     │ many packets at once                         │ many packets at once
//!     ▼                                              ▼
//!   ESP packet                                     InboundSa::finish
//!                                                    │ horizon, floor, window again,
//!                                                    ▼ padding, selectors
//!                                                  inner packet
//! ```
//!
//! Contract:
//! * a sequence number (and so an IV) leaves [`OutboundSa`] at most once, and only out of a range
//!   that was granted to it; without ESN it stops at 2^32 - 1 and never wraps (RFC 4303 section
//!   3.3.3);
//! * [`InboundSa`] delivers no number twice, none at or below its floor and none above its horizon;
//! * the inner octets of a refused packet are gone: they are zeroed before the caller gets them
//!   back;
//! * no function panics, whatever octets it is given.
#![forbid(unsafe_code)]

mod drop_reason;
mod error;
mod esp;
mod inbound;
mod outbound;
mod parameters;
mod replay;
mod selector;
mod sequence;
mod spd;
mod spi;

pub use drop_reason::DropReason;
pub use error::IpsecError;
pub use esp::{ESP_HEADER_LEN, ESP_OVERHEAD_MAX, ICV_LEN};
pub use inbound::{InboundSa, Opened, Opening};
pub use outbound::{OutboundSa, Sealing};
pub use parameters::{ChildSaParameters, Encapsulation, SaKey};
pub use replay::{
    Replay, ReplayEdge, ReplayWindow, UNSEEN_RUNS_MAX, WINDOW_PACKETS_MAX, WINDOW_PACKETS_MIN,
};
pub use selector::{NARROWED_MAX, Selectors, TrafficSelector, narrow};
pub use sequence::{SequenceRange, Width};
pub use spd::Spd;
pub use spi::Spi;

#[cfg(test)]
mod testing;
