//! Pools of packet buffers.

use crate::error::{DpdkError, Errno, c_string, refused};
use crate::{Eal, Mbuf};
use holdfast_dpdk_sys as sys;
use std::ffi::c_int;
use std::ptr::NonNull;

/// How large a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MempoolOptions {
    /// Buffers in the pool. Best one less than a power of two.
    pub buffers: u32,
    /// Buffers each registered thread keeps for itself; at most 512 and less than two thirds of
    /// `buffers`.
    pub thread_cache: u32,
    /// Bytes for packet data in one buffer, behind the headroom.
    pub data_room_bytes: u16,
}

impl MempoolOptions {
    /// Holds an Ethernet frame of 1500 bytes MTU, and whatever a driver rounds that up to.
    pub const DATA_ROOM_BYTES_DEFAULT: u16 = 2048;
    /// Four bursts: what a worker may hold in hand between two polls.
    pub const THREAD_CACHE_DEFAULT: u32 = 256;
    /// Bytes a buffer costs beside headroom and data room: its mbuf and the pool's bookkeeping.
    const OVERHEAD_BYTES: u64 = 192;

    /// Memory the pool takes, in bytes, to within a few per cent.
    pub fn memory_bytes(&self) -> u64 {
        let headroom = u64::from(sys::RTE_PKTMBUF_HEADROOM);
        let each = u64::from(self.data_room_bytes) + headroom + Self::OVERHEAD_BYTES;
        each.saturating_mul(u64::from(self.buffers))
    }
}

impl Default for MempoolOptions {
    /// 4095 buffers: about 10 MB.
    fn default() -> Self {
        Self {
            buffers: 4095,
            thread_cache: Self::THREAD_CACHE_DEFAULT,
            data_room_bytes: Self::DATA_ROOM_BYTES_DEFAULT,
        }
    }
}

/// A pool of packet buffers. A handle: copies mean the same pool, which lasts as long as the process.
#[derive(Debug, Clone, Copy)]
pub struct Mempool {
    raw: NonNull<sys::rte_mempool>,
}

// SAFETY: DPDK's pools may be used from any thread at once; registered threads have caches of
// their own, all others go to the shared ring.
unsafe impl Send for Mempool {}
// SAFETY: as above.
unsafe impl Sync for Mempool {}

impl Mempool {
    /// Makes a pool. `name` is unique in the process and at most 25 bytes long.
    ///
    /// # Errors
    /// [`DpdkError::Refused`] when memory is short or the name is taken.
    pub fn new(_: Eal, name: &str, options: &MempoolOptions) -> Result<Self, DpdkError> {
        /// Memory of any NUMA node; DPDK's `SOCKET_ID_ANY`.
        const ANY_NODE: c_int = -1;
        let c_name = c_string(name)?;
        let room = u32::from(options.data_room_bytes).saturating_add(sys::RTE_PKTMBUF_HEADROOM);
        let room = u16::try_from(room).unwrap_or(u16::MAX);
        let (buffers, cache) = (options.buffers, options.thread_cache);
        // SAFETY: the environment is up; the name is a C string that DPDK copies.
        let raw = unsafe {
            sys::rte_pktmbuf_pool_create(c_name.as_ptr(), buffers, cache, 0, room, ANY_NODE)
        };
        NonNull::new(raw)
            .map(|raw| Self { raw })
            .ok_or_else(|| refused(Errno::last(), "rte_pktmbuf_pool_create", name))
    }

    /// A fresh buffer with `len` bytes of unspecified content and the usual headroom. `None` when
    /// the pool is empty or `len` exceeds a buffer.
    pub fn alloc(&self, len: usize) -> Option<Mbuf> {
        use holdfast_packet::PacketBuf;
        // SAFETY: the pool is one of packet buffers and lives for ever.
        let raw = unsafe { sys::rte_pktmbuf_alloc(self.raw.as_ptr()) };
        // SAFETY: a buffer fresh from the pool has one segment and no other owner.
        let mut mbuf = unsafe { Mbuf::from_raw(NonNull::new(raw)?) };
        mbuf.append(len).ok()?;
        Some(mbuf)
    }

    /// Buffers nobody holds.
    pub fn available(&self) -> u32 {
        // SAFETY: the pool lives for ever; the function only reads, and tolerates concurrent use.
        unsafe { sys::rte_mempool_avail_count(self.raw.as_ptr()) }
    }

    /// Buffers in the hands of drivers and workers.
    pub fn in_use(&self) -> u32 {
        // SAFETY: as for `available`.
        unsafe { sys::rte_mempool_in_use_count(self.raw.as_ptr()) }
    }

    pub(crate) fn as_ptr(self) -> *mut sys::rte_mempool {
        self.raw.as_ptr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_pool_is_small() {
        let memory = MempoolOptions::default().memory_bytes();
        assert!((8_000_000..11_000_000).contains(&memory), "{memory} bytes");
    }
}
