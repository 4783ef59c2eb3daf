//! Packets of a composition: like the others, but for the layout, and opened one at a time.

use holdfast_crypto::AeadAlgorithm;

use super::{InboundSa, Opened, Opening};
use crate::DropReason;
use crate::esp::{AeadInput, Layout, NUMBERS_LEN, implicit_half};

impl InboundSa {
    /// Whether a cipher and an integrity algorithm are composed here. The packets of such an SA go
    /// through the methods of this name; the others would find none of them authentic.
    #[must_use]
    #[inline]
    pub const fn is_composed(&self) -> bool {
        self.key.composed().is_some()
    }

    fn layout(&self) -> Option<Layout> {
        self.key.composed().map(|key| Layout::of(key.composition()))
    }

    /// As [`prepare`](Self::prepare).
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn prepare_composed(&self, esp: &mut [u8]) -> Result<Opening, DropReason> {
        let parts = self.layout().and_then(|layout| layout.split(esp));
        let parts = parts.ok_or(DropReason::EspMalformed)?;
        let [s0, s1, s2, s3, n0, n1, n2, n3] = *parts.numbers;
        let low = u32::from_be_bytes([n0, n1, n2, n3]);
        let sequence = self.judge(u32::from_be_bytes([s0, s1, s2, s3]), low)?;
        // There is no nonce: the IV is where it was.
        let input = AeadInput::new(self.spi, sequence, self.width, self.salt, [0; 8]);
        Ok(Opening { input, sequence })
    }

    /// Verifies and decrypts a prepared packet: whether it is authentic.
    #[must_use]
    pub fn open_composed(&self, opening: &Opening, esp: &mut [u8]) -> bool {
        let (Some(layout), Some(key)) = (self.layout(), self.key.composed()) else { return false };
        let Some(parts) = layout.split(esp) else { return false };
        let behind = implicit_half(opening.sequence, self.width);
        key.open(parts.numbers, parts.iv, parts.data, &behind, parts.icv).is_ok()
    }

    /// As [`finish`](Self::finish).
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn finish_composed(
        &mut self,
        opening: Opening,
        authentic: bool,
        esp: &mut [u8],
    ) -> Result<Opened, DropReason> {
        let judged = self.accept(&opening, authentic).and_then(|()| {
            let layout = self.layout().ok_or(DropReason::EspMalformed)?;
            let parts = layout.split(esp).ok_or(DropReason::EspMalformed)?;
            self.decapsulate(&opening, parts.data, layout.header_len)
        });
        if judged.is_err()
            && let Some(refused) = esp.get_mut(NUMBERS_LEN..)
        {
            refused.fill(0);
        }
        judged
    }

    /// The algorithm of the SA.
    #[must_use]
    pub const fn algorithm(&self) -> AeadAlgorithm {
        self.key.algorithm()
    }
}
