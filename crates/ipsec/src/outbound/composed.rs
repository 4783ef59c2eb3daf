//! Packets of a composition: like the others, but for the layout, and sealed one at a time.

use holdfast_packet::PacketBuf;

use super::{OutboundSa, Sealing, grow};
use crate::DropReason;
use crate::esp::{AeadInput, Layout, NEXT_HEADER_IPV4, TRAILER_LEN, implicit_half};

impl OutboundSa {
    /// Whether a cipher and an integrity algorithm are composed here. The packets of such an SA go
    /// through [`seal_composed`](Self::seal_composed); a job would seal none of them.
    #[must_use]
    #[inline]
    pub const fn is_composed(&self) -> bool {
        self.key.composed().is_some()
    }

    /// The longest inner packet whose ESP packet has at most so many octets.
    #[must_use]
    pub fn inner_len_max(&self, esp_len_max: usize) -> usize {
        let layout = self.key.composed().map_or(Layout::AEAD, |key| Layout::of(key.composition()));
        let encrypted = esp_len_max.saturating_sub(layout.header_len + layout.icv_len);
        (encrypted / layout.alignment * layout.alignment).saturating_sub(TRAILER_LEN)
    }

    /// Makes a sealed ESP packet of the bare inner packet in `buf`, and takes a sequence number.
    ///
    /// # Errors
    /// As [`begin_seal`](Self::begin_seal).
    pub fn seal_composed<B: PacketBuf>(&mut self, buf: &mut B) -> Result<Sealing, DropReason> {
        if self.range.is_empty() {
            return Err(self.why_empty());
        }
        let key = self.key.composed().ok_or(DropReason::NoRoom)?;
        let layout = Layout::of(key.composition());
        let inner_len = buf.bytes().len();
        let padding = layout.padding_len(inner_len);
        grow(buf, layout.header_len, padding + TRAILER_LEN + layout.icv_len)?;
        let sequence = self.range.take().ok_or(DropReason::RangeExhausted)?;
        let parts = layout.split(buf.bytes_mut()).ok_or(DropReason::NoRoom)?;
        if let Some((spi, low)) = parts.numbers.split_first_chunk_mut::<4>() {
            *spi = self.spi.get().to_be_bytes();
            // The lower half is what travels.
            low.copy_from_slice(&(sequence as u32).to_be_bytes());
        }
        // RFC 4303 section 2.4: padding counts 1, 2, 3.
        let trailer = (1..=padding as u8).chain([padding as u8, NEXT_HEADER_IPV4]);
        for (octet, value) in parts.data.iter_mut().skip(inner_len).zip(trailer) {
            *octet = value;
        }
        let behind = implicit_half(sequence, self.width);
        key.seal(sequence, parts.numbers, parts.iv, parts.data, &behind, parts.icv)
            .map_err(|_| DropReason::NoRoom)?;
        self.packets += 1;
        self.bytes += inner_len as u64;
        let input = AeadInput::new(self.spi, sequence, self.width, self.salt, [0; 8]);
        Ok(Sealing { input, sequence })
    }
}
