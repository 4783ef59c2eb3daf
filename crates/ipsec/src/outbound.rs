//! The outbound SA: numbers out of a granted range, and the ESP packet around the inner one
//! (RFC 4303 section 3.3).

use std::net::Ipv4Addr;

use holdfast_crypto::aead::NONCE_LEN;
use holdfast_crypto::{AeadKey, SealJob};
use holdfast_packet::PacketBuf;

use crate::esp::{
    self, ALIGNMENT, AeadInput, ESP_HEADER_LEN, ICV_LEN, NEXT_HEADER_IPV4, TRAILER_LEN, padding_len,
};
use crate::parameters::SALT_LEN;
use crate::{ChildSaParameters, DropReason, Encapsulation, SequenceRange, Spi, Width};

/// One outbound SA on the worker that owns it.
///
/// Sealing takes three steps, so that a worker can have many packets encrypted in one go:
/// [`begin_seal`](Self::begin_seal) each packet, collect a [`Sealing::job`] for each, run
/// [`AeadBurst::seal`](holdfast_crypto::AeadBurst::seal) over all.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct OutboundSa {
    // What each packet touches shares the first cache line.
    range: SequenceRange,
    packets: u64,
    bytes: u64,
    spi: Spi,
    salt: [u8; SALT_LEN],
    local: Ipv4Addr,
    remote: Ipv4Addr,
    encapsulation: Encapsulation,
    width: Width,
    key: AeadKey,
}

const _: () = assert!(std::mem::offset_of!(OutboundSa, key) <= 64);

/// For each number of padding octets these (RFC 4303 section 2.4: they count 1, 2, 3), pad length
/// and next header, and zeros.
const TRAILERS: [[u8; 8]; ALIGNMENT] = [
    [0, NEXT_HEADER_IPV4, 0, 0, 0, 0, 0, 0],
    [1, 1, NEXT_HEADER_IPV4, 0, 0, 0, 0, 0],
    [1, 2, 2, NEXT_HEADER_IPV4, 0, 0, 0, 0],
    [1, 2, 3, 3, NEXT_HEADER_IPV4, 0, 0, 0],
];
const _: () = assert!(TRAILER_LEN + ICV_LEN >= 8);

impl OutboundSa {
    /// The SA of a pair that sends, with the first numbers granted to it.
    #[must_use]
    pub fn new(parameters: &ChildSaParameters, mut range: SequenceRange) -> Self {
        let (key, salt) = parameters.outbound_key.expand();
        let width = Width::from_esn(parameters.esn);
        range.limit(width);
        Self {
            range,
            packets: 0,
            bytes: 0,
            spi: parameters.outbound_spi,
            salt,
            local: parameters.local,
            remote: parameters.remote,
            encapsulation: parameters.encapsulation,
            width,
            key,
        }
    }

    /// As if it had been made anew with these numbers, which must not have been used: forgets every
    /// packet, keeps the key.
    pub fn restart(&mut self, mut range: SequenceRange) {
        range.limit(self.width);
        self.range = range;
        (self.packets, self.bytes) = (0, 0);
    }

    /// Makes an ESP packet, still in clear, of the bare inner packet in `buf`: header and IV in
    /// front, the shortest possible padding, trailer and room for the ICV behind. Takes a sequence
    /// number.
    ///
    /// The packet must then be sealed with the [`Sealing`] returned, or be thrown away.
    ///
    /// # Errors
    /// [`DropReason::RangeExhausted`] until more is granted, [`DropReason::SequenceEnd`] for good,
    /// [`DropReason::NoRoom`] when the buffer is too small; `buf` is unchanged and no number is
    /// used up.
    #[inline]
    pub fn begin_seal<B: PacketBuf>(&mut self, buf: &mut B) -> Result<Sealing, DropReason> {
        if self.range.is_empty() {
            return Err(self.why_empty());
        }
        let inner_len = buf.bytes().len();
        let padding = padding_len(inner_len);
        grow(buf, ESP_HEADER_LEN, padding + TRAILER_LEN + ICV_LEN)?;
        let sequence = self.range.take().ok_or(DropReason::RangeExhausted)?;
        let iv = sequence.to_be_bytes();
        self.write_around(buf.bytes_mut(), padding, &iv);
        self.packets += 1;
        self.bytes += inner_len as u64;
        Ok(Sealing {
            input: AeadInput::new(self.spi, sequence, self.width, self.salt, iv),
            sequence,
        })
    }

    /// [`begin_seal`](Self::begin_seal) and the sealing itself for a single packet; returns its
    /// number.
    ///
    /// # Errors
    /// As [`begin_seal`](Self::begin_seal).
    pub fn seal<B: PacketBuf>(&mut self, buf: &mut B) -> Result<u64, DropReason> {
        if self.is_composed() {
            return self.seal_composed(buf).map(|sealing| sealing.sequence);
        }
        let sealing = self.begin_seal(buf)?;
        let job = sealing.job(self, buf.bytes_mut()).ok_or(DropReason::NoRoom)?;
        *job.tag =
            job.key.seal_one(&job.nonce, job.aad, job.data).map_err(|_| DropReason::TooBig)?;
        Ok(sealing.sequence)
    }

    /// Adds a committed grant. What it overlaps with earlier grants is not gained twice; numbers
    /// below a gap are given up, so that numbers only ever rise.
    pub fn grant(&mut self, mut granted: SequenceRange) {
        granted.limit(self.width);
        if granted.end() <= self.range.end() {
            return;
        }
        let follows = granted.next() <= self.range.end();
        let next = if follows { self.range.next() } else { granted.next() };
        self.range = SequenceRange::new(next, granted.end());
    }

    /// Reads what [`begin_seal`](Self::begin_seal) will, so that the misses of many SAs overlap. The
    /// result says nothing.
    #[must_use]
    #[inline]
    pub const fn touch(&self) -> u64 {
        self.packets
    }

    /// How many numbers are left of what was granted.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.range.len()
    }

    /// The numbers left of what was granted.
    #[must_use]
    pub const fn range(&self) -> &SequenceRange {
        &self.range
    }

    /// The expanded key.
    #[must_use]
    pub const fn key(&self) -> &AeadKey {
        &self.key
    }

    /// The SPI the peer gave this SA.
    #[must_use]
    pub const fn spi(&self) -> Spi {
        self.spi
    }

    /// How wide the sequence numbers are.
    #[must_use]
    pub const fn width(&self) -> Width {
        self.width
    }

    /// Source of the outer header.
    #[must_use]
    pub const fn local(&self) -> Ipv4Addr {
        self.local
    }

    /// Destination of the outer header.
    #[must_use]
    pub const fn remote(&self) -> Ipv4Addr {
        self.remote
    }

    /// Whether the ESP packet goes into UDP, and between which ports.
    #[must_use]
    pub const fn encapsulation(&self) -> Encapsulation {
        self.encapsulation
    }

    /// Packets that got a number from this SA.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.packets
    }

    /// Octets of the inner packets among them.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    const fn why_empty(&self) -> DropReason {
        if self.range.end() > self.width.last() {
            DropReason::SequenceEnd
        } else {
            DropReason::RangeExhausted
        }
    }

    #[inline]
    fn write_around(&self, esp: &mut [u8], padding: usize, iv: &[u8; 8]) {
        if let Some((spi, rest)) = esp.split_first_chunk_mut() {
            *spi = self.spi.get().to_be_bytes();
            if let (Some((low, rest)), Some(half)) =
                (rest.split_first_chunk_mut::<4>(), iv.last_chunk())
            {
                *low = *half;
                if let Some(front) = rest.first_chunk_mut() {
                    *front = *iv;
                }
            }
        }
        // Whole words are cheaper than the right number of octets; what is too much lies where the
        // ICV will be.
        let start = esp.len().saturating_sub(padding + TRAILER_LEN + ICV_LEN);
        let behind = esp.get_mut(start..).and_then(|behind| behind.first_chunk_mut());
        if let (Some(behind), Some(trailer)) = (behind, TRAILERS.get(padding)) {
            *behind = *trailer;
        }
    }
}

/// Room in front and behind, or nothing at all.
#[inline]
fn grow<B: PacketBuf>(buf: &mut B, in_front: usize, behind: usize) -> Result<(), DropReason> {
    buf.prepend(in_front).map_err(|_| DropReason::NoRoom)?;
    buf.append(behind).map_err(|_| {
        buf.trim_front(in_front);
        DropReason::NoRoom
    })
}

/// A packet between getting its number and being sealed.
#[derive(Debug)]
#[must_use = "a packet with a header in clear must be sealed or thrown away"]
pub struct Sealing {
    input: AeadInput,
    sequence: u64,
}

impl Sealing {
    /// The packet's sequence number.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The nonce to seal under.
    #[must_use]
    pub const fn nonce(&self) -> &[u8; NONCE_LEN] {
        &self.input.nonce
    }

    /// What is authenticated but not encrypted. With ESN it is not in the packet as such.
    #[must_use]
    pub fn aad(&self) -> &[u8] {
        self.input.aad()
    }

    /// What the AEAD has to do. `esp` is the whole ESP packet that `sa` began to seal; `None` when
    /// it is too short to be that.
    #[inline]
    #[must_use]
    pub fn job<'a>(&'a self, sa: &'a OutboundSa, esp: &'a mut [u8]) -> Option<SealJob<'a>> {
        let (data, tag) = esp::split_mut(esp)?;
        Some(SealJob { key: &sa.key, nonce: self.input.nonce, aad: self.input.aad(), data, tag })
    }
}

mod composed;
#[cfg(test)]
mod tests;
