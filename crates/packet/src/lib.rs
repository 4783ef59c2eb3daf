//! Packet buffers, ports and wire formats: floor 0 of Holdfast.
//!
//! What it is: the words in which every other crate speaks about packets. Buffers with head- and
//! tailroom, the two NIC sides, time as a number, and each header as a *view* (bytes checked once,
//! then read without any further check) and a *Repr* (its meaning: `parse`, `buffer_len`, `emit`).
//!
//! What it is not: it knows no security association, no policy, no DPDK, no socket and no clock.
//!
//! ```text
//!   NIC --Port::rx--> PacketBuf --bytes()--> ethernet::View --payload()--> ipv4::View
//!                                                                            |payload()
//!                        FlowKey <-- parse -- inner IPv4      udp::View <----+----> esp::View
//!                           |hash(seed)                          |nat_traversal()
//!                           v                                    v
//!                        Maglev, flow table               IKE / ESP / keepalive
//! ```
//!
//! Contract:
//! * bytes from the wire never make a function of this crate panic; a bad length is a [`WireError`];
//! * after a `View::parse` returned `Ok`, each accessor is total;
//! * a buffer operation that lacks room returns [`NoRoom`], trims clamp;
//! * all numbers are in host order outside of the byte slices.
#![forbid(unsafe_code)]

pub mod arp;
mod buffer;
pub mod checksum;
pub mod esp;
pub mod ethernet;
mod field;
mod flow;
pub mod fragment;
pub mod frame;
pub mod gue;
pub mod icmp;
pub mod ipv4;
pub mod path;
mod port;
pub mod tcp;
mod time;
pub mod udp;

pub use arrayvec::ArrayVec;
pub use buffer::{HEADROOM, HeapBuf, NoRoom, PacketBuf, TAILROOM};
pub use ethernet::MacAddr;
pub use flow::{FlowKey, siphash_2_4};
pub use port::{BURST, MEMORY_PORT_QUEUE_FRAMES, MemoryPort, Port, Side};
pub use time::Nanos;

/// Why bytes are not the header they were taken for. The sender is at fault in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Fewer bytes than the header (or the length it names) needs.
    #[error("truncated: the header or the length it names does not fit")]
    Truncated,
    /// A length field contradicts the header it stands in.
    #[error("a length field contradicts its own header")]
    BadLength,
    /// A version or hardware type other than the one this crate speaks.
    #[error("unsupported version or type")]
    Unsupported,
    /// The checksum does not add up.
    #[error("checksum does not add up")]
    BadChecksum,
}
