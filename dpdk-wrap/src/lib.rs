//! DPDK in safe, owning types.
//!
//! This crate is the only place that turns DPDK into Rust, and with `holdfast-dpdk-sys` the only
//! place with `unsafe` code. It knows frames as bytes: it is *not* a network stack, knows no
//! protocol, starts no threads and logs nothing.
//!
//! ```text
//!   EalConfig ──> Eal (token: the environment is up) ──> Mempool ── alloc ──> Mbuf
//!                  │                                        │                  ▲ │
//!                  └──> Port<Stopped> ── start(queues) ─────┴─> Port<Started>  │ │
//!                            ▲  close                 stop │      │ statistics, link
//!                            └─────────────────────────────┘      │            │ │
//!                                                                 └> QueuePair ┘ ▼
//!                                               RxQueue: NIC ──> Mbuf    TxQueue: Mbuf ──> NIC
//! ```
//!
//! Contract:
//! - The environment (EAL) starts once in a process and lasts until the process ends, and so do
//!   memory pools: an [`Mbuf`] carries no reference to its pool and may outlive every handle.
//! - An [`Mbuf`] is owned. Dropping it returns it to its pool; sending it gives it to the driver.
//! - A [`QueuePair`] has one user at a time (`&mut self`) and may move between threads.
//!   Its port stops when the handle and all its queue pairs are gone.
//! - Packets are single segments. A received chain of segments is refused and counted
//!   ([`PortStatistics::rx_multi_segment`]): choose the pool's data room to fit the largest frame.
//! - Threads that touch buffers work faster when registered ([`RegisteredThread`]).

mod device;
mod eal;
mod error;
mod mbuf;
mod mempool;
mod port;
mod queue;

pub use device::Device;
pub use eal::{Eal, EalConfig, Hugepages, RegisteredThread};
pub use error::{DpdkError, Errno};
pub use mbuf::Mbuf;
pub use mempool::{Mempool, MempoolOptions};
pub use port::{Link, Port, PortOptions, PortStatistics, Started, Stopped};
pub use queue::{QueuePair, RxQueue, TxQueue};
