//! One packet buffer.

use holdfast_dpdk_sys as sys;
use holdfast_packet::{NoRoom, PacketBuf};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// One packet in one buffer of a [`crate::Mempool`], owned.
///
/// ```text
///   buf_addr ─┐           data_off          data_len
///             ├── headroom ──┤<────── packet ───────>├── tailroom ──┤
///             0                                                  buf_len
/// ```
#[repr(transparent)]
pub struct Mbuf {
    raw: NonNull<sys::rte_mbuf>,
}

// SAFETY: the buffer has one owner, which is this value; DPDK lets any thread free it.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Takes ownership of a buffer.
    ///
    /// # Safety
    /// `raw` is an allocated mbuf of one segment that nobody else uses or frees, whose pool lives
    /// for ever.
    pub(crate) unsafe fn from_raw(raw: NonNull<sys::rte_mbuf>) -> Self {
        Self { raw }
    }

    /// Gives the buffer away without freeing it.
    pub(crate) fn into_raw(self) -> NonNull<sys::rte_mbuf> {
        ManuallyDrop::new(self).raw
    }

    /// The buffer, still owned by this value.
    pub(crate) fn as_ptr(&self) -> *mut sys::rte_mbuf {
        self.raw.as_ptr()
    }

    /// Where the field at one of the `HOLDFAST_MBUF_*` offsets lies.
    fn field<T>(&self, offset: u32) -> *mut T {
        field(self.raw, offset)
    }

    fn data_off(&self) -> u16 {
        // SAFETY: the field lies in the owned mbuf and is a u16 in every release of DPDK.
        unsafe { self.field::<u16>(sys::HOLDFAST_MBUF_DATA_OFF).read() }
    }

    fn data_len(&self) -> u16 {
        // SAFETY: as for `data_off`.
        unsafe { self.field::<u16>(sys::HOLDFAST_MBUF_DATA_LEN).read() }
    }

    fn buf_len(&self) -> u16 {
        // SAFETY: as for `data_off`.
        unsafe { self.field::<u16>(sys::HOLDFAST_MBUF_BUF_LEN).read() }
    }

    fn data(&self) -> *mut u8 {
        // SAFETY: the field lies in the owned mbuf and is a pointer.
        let start = unsafe { self.field::<*mut u8>(sys::HOLDFAST_MBUF_BUF_ADDR).read() };
        start.wrapping_add(usize::from(self.data_off()))
    }

    /// Sets where the packet begins and ends. Callers keep `data_off + len <= buf_len`.
    fn set_extent(&mut self, data_off: u16, len: u16) {
        debug_assert!(u32::from(data_off) + u32::from(len) <= u32::from(self.buf_len()));
        // SAFETY: the field lies in the owned mbuf and is a u16.
        unsafe { self.field::<u16>(sys::HOLDFAST_MBUF_DATA_OFF).write(data_off) };
        // SAFETY: as above.
        unsafe { self.field::<u16>(sys::HOLDFAST_MBUF_DATA_LEN).write(len) };
        // SAFETY: the field lies in the owned mbuf and is a u32; with one segment it equals data_len.
        unsafe { self.field::<u32>(sys::HOLDFAST_MBUF_PKT_LEN).write(u32::from(len)) };
    }
}

/// Segments of the packet that begins with this mbuf.
///
/// # Safety
/// `raw` is an allocated mbuf.
pub(crate) unsafe fn segments(raw: NonNull<sys::rte_mbuf>) -> u16 {
    // SAFETY: the field lies in the mbuf and is a u16 in every release of DPDK.
    unsafe { field::<u16>(raw, sys::HOLDFAST_MBUF_NB_SEGS).read() }
}

fn field<T>(raw: NonNull<sys::rte_mbuf>, offset: u32) -> *mut T {
    raw.as_ptr().cast::<u8>().wrapping_add(offset as usize).cast()
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: the buffer is owned and not used after this.
        unsafe { sys::rte_pktmbuf_free(self.raw.as_ptr()) };
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mbuf({} bytes)", self.data_len())
    }
}

impl PacketBuf for Mbuf {
    fn bytes(&self) -> &[u8] {
        // SAFETY: data_off + data_len <= buf_len is kept by drivers and by `set_extent`, so the
        // range lies in the buffer, which DPDK mapped and zeroed once; it lives while self does,
        // and nobody else writes to it.
        unsafe { std::slice::from_raw_parts(self.data(), usize::from(self.data_len())) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`; the exclusive borrow of self makes the slice the only access.
        unsafe { std::slice::from_raw_parts_mut(self.data(), usize::from(self.data_len())) }
    }

    fn headroom(&self) -> usize {
        usize::from(self.data_off())
    }

    fn tailroom(&self) -> usize {
        let used = usize::from(self.data_off()) + usize::from(self.data_len());
        usize::from(self.buf_len()).saturating_sub(used)
    }

    fn prepend(&mut self, n: usize) -> Result<(), NoRoom> {
        let n = u16::try_from(n).map_err(|_| NoRoom)?;
        let data_off = self.data_off().checked_sub(n).ok_or(NoRoom)?;
        let len = self.data_len().checked_add(n).ok_or(NoRoom)?;
        self.set_extent(data_off, len);
        Ok(())
    }

    fn append(&mut self, n: usize) -> Result<(), NoRoom> {
        if n > self.tailroom() {
            return Err(NoRoom);
        }
        let n = u16::try_from(n).map_err(|_| NoRoom)?;
        let len = self.data_len().checked_add(n).ok_or(NoRoom)?;
        self.set_extent(self.data_off(), len);
        Ok(())
    }

    fn trim_front(&mut self, n: usize) {
        let len = self.data_len();
        let n = u16::try_from(n).map_or(len, |n| n.min(len));
        self.set_extent(self.data_off().saturating_add(n), len.saturating_sub(n));
    }

    fn trim_back(&mut self, n: usize) {
        let len = self.data_len();
        let n = u16::try_from(n).map_or(len, |n| n.min(len));
        self.set_extent(self.data_off(), len.saturating_sub(n));
    }
}
