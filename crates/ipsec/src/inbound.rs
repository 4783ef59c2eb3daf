//! The inbound SA: which numbers are acceptable, and the inner packet out of the ESP packet
//! (RFC 4303 section 3.4).
//!
//! ```text
//!   numbers    0 ........... floor .............. right edge ......... horizon ...........
//!              a predecessor may  | accepted by us, as the  | ours to  | authentic perhaps,
//!              have accepted them | replay window tells     | accept   | but not committed
//!   verdict    Ambiguous, TooOld  | Replayed, TooOld, fine  | fine     | HorizonExceeded
//! ```

use std::net::Ipv4Addr;
use std::ops::Range;

use holdfast_crypto::aead::NONCE_LEN;
use holdfast_crypto::{AeadKey, OpenJob};
use holdfast_packet::{FlowKey, ipv4};

use crate::esp::{
    self, AeadInput, ESP_HEADER_LEN, Fields, NEXT_HEADER_IPV4, NEXT_HEADER_NONE, TRAILER_LEN,
};
use crate::parameters::SALT_LEN;
use crate::selector::PairOfSelectors;
use crate::{
    ChildSaParameters, DropReason, Encapsulation, Replay, ReplayEdge, ReplayWindow, Selectors, Spi,
    Width,
};

/// One inbound SA on the worker that owns it.
///
/// Opening takes three steps, so that a worker can have many packets decrypted in one go:
/// [`prepare`](Self::prepare) each packet, collect an [`Opening::job`] for each, run
/// [`AeadBurst::open`](holdfast_crypto::AeadBurst::open) over all, [`finish`](Self::finish) each.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct InboundSa {
    // What each packet touches comes first: a cache line before the AEAD, one behind it, then the
    // key; the window's bitmap is behind a pointer.
    spi: Spi,
    salt: [u8; SALT_LEN],
    floor: u64,
    horizon: u64,
    window: ReplayWindow,
    width: Width,
    packets: u64,
    bytes: u64,
    above_horizon: u64,
    /// The selectors, when there is one for each side; else they are looked up in `selectors`.
    pair: Option<PairOfSelectors>,
    key: AeadKey,
    // What no packet touches.
    selectors: Selectors,
    local: Ipv4Addr,
    remote: Ipv4Addr,
    encapsulation: Encapsulation,
}

const _: () = assert!(std::mem::offset_of!(InboundSa, width) < 64);
const _: () = assert!(std::mem::offset_of!(InboundSa, packets) <= 64);
const _: () = assert!(std::mem::offset_of!(InboundSa, key) <= 128);

impl InboundSa {
    /// The SA of a pair that receives. Numbers at or below `floor` may have been accepted by a
    /// predecessor (0 for a new SA); numbers above `horizon` are not committed.
    #[must_use]
    pub fn new(parameters: &ChildSaParameters, floor: u64, horizon: u64) -> Self {
        Self::resume(parameters, floor, &ReplayEdge::at(floor), horizon)
    }

    /// As [`new`](Self::new), and carries on with exactly the window its predecessor ended with.
    #[must_use]
    pub fn resume(
        parameters: &ChildSaParameters,
        floor: u64,
        edge: &ReplayEdge,
        horizon: u64,
    ) -> Self {
        let (key, salt) = parameters.inbound_key.expand();
        Self {
            spi: parameters.inbound_spi,
            salt,
            floor,
            horizon: horizon.max(floor).max(edge.right_edge),
            window: ReplayWindow::resume(parameters.window_packets, edge),
            width: Width::from_esn(parameters.esn),
            packets: 0,
            bytes: 0,
            above_horizon: 0,
            pair: PairOfSelectors::of(&parameters.selectors),
            key,
            selectors: parameters.selectors.clone(),
            local: parameters.local,
            remote: parameters.remote,
            encapsulation: parameters.encapsulation,
        }
    }

    /// As if it had been made anew with these numbers: forgets every packet, keeps the key.
    pub fn restart(&mut self, floor: u64, edge: &ReplayEdge, horizon: u64) {
        self.floor = floor;
        self.horizon = horizon.max(floor).max(edge.right_edge);
        self.window.restart(edge);
        (self.packets, self.bytes, self.above_horizon) = (0, 0, 0);
    }

    /// Judges a received packet as far as that goes without decrypting it. Changes nothing: it may
    /// be forged. Numbers that are only *perhaps* bad (ambiguous, or above the horizon) pass here
    /// and are refused by [`finish`](Self::finish), which knows whether the packet is authentic.
    ///
    /// # Errors
    /// [`DropReason::EspMalformed`], [`DropReason::UnknownSpi`] (the packet is another SA's),
    /// [`DropReason::Replayed`], [`DropReason::TooOld`].
    #[inline]
    pub fn prepare(&self, esp: &[u8]) -> Result<Opening, DropReason> {
        let fields = Fields::parse(esp).ok_or(DropReason::EspMalformed)?;
        let sequence = self.judge(fields.spi, fields.sequence_low)?;
        let input = AeadInput::new(self.spi, sequence, self.width, self.salt, fields.iv);
        Ok(Opening { input, sequence })
    }

    /// The number of a packet that is worth a look.
    #[inline]
    fn judge(&self, spi: u32, sequence_low: u32) -> Result<u64, DropReason> {
        if spi != self.spi.get() {
            return Err(DropReason::UnknownSpi);
        }
        let sequence = self.sequence(sequence_low)?;
        // No sender uses number 0, so there is nothing ambiguous about it.
        if sequence > self.floor || sequence == 0 {
            self.window.check(sequence).map_err(refusal)?;
        } else if self.has_left_the_floor(sequence) {
            return Err(DropReason::TooOld);
        }
        Ok(sequence)
    }

    /// Judges a packet whose job has run; `authentic` is the job's `ok`. Moves the replay window,
    /// strips padding (also the one behind the inner packet) and checks the selectors.
    ///
    /// # Errors
    /// A [`DropReason`]; everything behind the ESP header has then been zeroed.
    #[inline]
    pub fn finish(
        &mut self,
        opening: Opening,
        authentic: bool,
        esp: &mut [u8],
    ) -> Result<Opened, DropReason> {
        let judged = self.accept(&opening, authentic).and_then(|()| {
            let (data, _) = esp::split_mut(esp).ok_or(DropReason::EspMalformed)?;
            self.decapsulate(&opening, data, ESP_HEADER_LEN)
        });
        if judged.is_err()
            && let Some(refused) = esp.get_mut(ESP_HEADER_LEN..)
        {
            refused.fill(0);
        }
        judged
    }

    /// All three steps for a single packet.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare) and [`finish`](Self::finish).
    pub fn open(&mut self, esp: &mut [u8]) -> Result<Opened, DropReason> {
        if self.is_composed() {
            let opening = self.prepare_composed(esp)?;
            let authentic = self.open_composed(&opening, esp);
            return self.finish_composed(opening, authentic, esp);
        }
        let opening = self.prepare(esp)?;
        let job = opening.job(self, esp).ok_or(DropReason::EspMalformed)?;
        let authentic = job.key.open_one(&job.nonce, job.aad, job.data, job.tag).is_ok();
        self.finish(opening, authentic, esp)
    }

    /// Raises the horizon to a committed one; it never sinks.
    pub fn extend_horizon(&mut self, horizon: u64) {
        self.horizon = self.horizon.max(horizon);
    }

    /// The highest number accepted, or the floor while there is none.
    #[must_use]
    pub const fn right_edge(&self) -> u64 {
        self.window.right_edge()
    }

    /// What was accepted, exactly, for a successor to carry on with.
    #[must_use]
    pub fn replay_edge(&self) -> ReplayEdge {
        self.window.export()
    }

    /// The highest number that may be accepted.
    #[must_use]
    pub const fn horizon(&self) -> u64 {
        self.horizon
    }

    /// The highest number a predecessor may have accepted.
    #[must_use]
    pub const fn floor(&self) -> u64 {
        self.floor
    }

    /// The highest number an authentic packet had, accepted or above the horizon; the floor while
    /// there is none. A peer that jumped ahead gets through once the horizon has been raised to
    /// this.
    #[must_use]
    pub const fn highest_authenticated(&self) -> u64 {
        if self.above_horizon > self.right_edge() { self.above_horizon } else { self.right_edge() }
    }

    /// The expanded key.
    #[must_use]
    pub const fn key(&self) -> &AeadKey {
        &self.key
    }

    /// Reads what [`prepare`](Self::prepare) and [`finish`](Self::finish) will, so that the misses
    /// of many SAs overlap: a worker calls this for all packets of a burst before it begins. The
    /// result says nothing.
    #[must_use]
    #[inline]
    pub fn touch(&self) -> u64 {
        self.packets ^ self.window.touch()
    }

    /// The SPI we gave this SA.
    #[must_use]
    pub const fn spi(&self) -> Spi {
        self.spi
    }

    /// Traffic that may come out of this SA.
    #[must_use]
    pub const fn selectors(&self) -> &Selectors {
        &self.selectors
    }

    /// Our tunnel end.
    #[must_use]
    pub const fn local(&self) -> Ipv4Addr {
        self.local
    }

    /// The peer's tunnel end.
    #[must_use]
    pub const fn remote(&self) -> Ipv4Addr {
        self.remote
    }

    /// Whether ESP packets come in UDP, and between which ports.
    #[must_use]
    pub const fn encapsulation(&self) -> Encapsulation {
        self.encapsulation
    }

    /// Packets accepted as authentic and new.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.packets
    }

    /// Octets of the inner packets that were delivered.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number behind the 32 bits on the wire.
    #[inline]
    fn sequence(&self, low: u32) -> Result<u64, DropReason> {
        match self.width {
            Width::Bits32 => Ok(u64::from(low)),
            // The number nearest to the edge rather than RFC 4303 appendix A2.2 with the window's
            // own size: right of the window both agree up to a jump of 2^31, which no horizon
            // allows; left of it, an old packet is told from a forged one, and after a takeover the
            // true number may be further below the edge than the window is wide.
            Width::Esn => self.window.infer_nearest(low).ok_or(DropReason::TooOld),
        }
    }

    /// Whether a number at or below the floor needs no second look: the peer has long passed the
    /// floor.
    #[inline]
    fn has_left_the_floor(&self, sequence: u64) -> bool {
        let edge = self.window.right_edge();
        edge > self.floor && edge - sequence >= self.window.packets()
    }

    #[inline]
    fn accept(&mut self, opening: &Opening, authentic: bool) -> Result<(), DropReason> {
        if !authentic {
            return Err(DropReason::IcvMismatch);
        }
        if opening.sequence > self.horizon {
            self.above_horizon = self.above_horizon.max(opening.sequence);
            return Err(DropReason::HorizonExceeded);
        }
        if opening.sequence <= self.floor {
            return Err(DropReason::Ambiguous);
        }
        self.window.accept(opening.sequence).map_err(refusal)?;
        self.packets += 1;
        Ok(())
    }

    #[inline]
    fn decapsulate(
        &mut self,
        opening: &Opening,
        data: &[u8],
        start: usize,
    ) -> Result<Opened, DropReason> {
        let payload = strip_trailer(data)?;
        let view = ipv4::View::parse(payload).map_err(|_| DropReason::InnerMalformed)?;
        let flow = FlowKey::of(&view).ok_or(DropReason::InnerMalformed)?;
        let allowed = match &self.pair {
            Some(pair) => pair.matches_inbound(&flow),
            None => self.selectors.matches_inbound(&flow),
        };
        if !allowed {
            return Err(DropReason::SelectorMismatch);
        }
        // The inner header says where the packet ends; what follows hides its length
        // (RFC 4303 section 2.7).
        let inner_len = view.total_len();
        self.bytes += inner_len as u64;
        let inner = start..start + inner_len;
        Ok(Opened { inner, flow, sequence: opening.sequence })
    }
}

/// The payload without padding, pad length and next header.
#[inline]
fn strip_trailer(data: &[u8]) -> Result<&[u8], DropReason> {
    let (rest, &[pad_len, next_header]) =
        data.split_last_chunk::<TRAILER_LEN>().ok_or(DropReason::EspMalformed)?;
    if next_header == NEXT_HEADER_NONE {
        return Err(DropReason::DummyPacket);
    }
    let (payload, padding) = rest
        .len()
        .checked_sub(usize::from(pad_len))
        .and_then(|payload_len| rest.split_at_checked(payload_len))
        .ok_or(DropReason::BadPadding)?;
    // RFC 4303 section 2.4: the receiver should inspect the padding where its contents are
    // prescribed.
    if padding.iter().zip(1..).any(|(&octet, expected): (&u8, u8)| octet != expected) {
        return Err(DropReason::BadPadding);
    }
    if next_header != NEXT_HEADER_IPV4 {
        return Err(DropReason::NextHeader);
    }
    Ok(payload)
}

const fn refusal(replay: Replay) -> DropReason {
    match replay {
        Replay::Seen => DropReason::Replayed,
        Replay::TooOld => DropReason::TooOld,
    }
}

/// A packet between being received and being judged.
#[derive(Debug)]
pub struct Opening {
    input: AeadInput,
    sequence: u64,
}

impl Opening {
    /// The packet's sequence number, if it is authentic.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The nonce it was sealed under.
    #[must_use]
    pub const fn nonce(&self) -> &[u8; NONCE_LEN] {
        &self.input.nonce
    }

    /// What is authenticated but not encrypted. With ESN it is not in the packet as such.
    #[must_use]
    pub fn aad(&self) -> &[u8] {
        self.input.aad()
    }

    /// What the AEAD has to do. `esp` is the whole ESP packet that `sa` prepared; `None` when it is
    /// too short to be that.
    #[inline]
    #[must_use]
    pub fn job<'a>(&'a self, sa: &'a InboundSa, esp: &'a mut [u8]) -> Option<OpenJob<'a>> {
        let (data, tag) = esp::split_mut(esp)?;
        Some(OpenJob {
            key: &sa.key,
            nonce: self.input.nonce,
            aad: self.input.aad(),
            data,
            tag,
            ok: false,
        })
    }
}

/// An authentic, new, well-formed packet that its SA allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Where the inner packet is in the ESP packet.
    pub inner: Range<usize>,
    /// What connection it belongs to.
    pub flow: FlowKey,
    /// Its sequence number.
    pub sequence: u64,
}

mod composed;
#[cfg(test)]
mod tests;
