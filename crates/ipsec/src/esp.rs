//! The layout of an ESP packet (RFC 4303 section 2), under AES-GCM (RFC 4106 sections 3 to 6) and
//! what has the same shape; that of a composition differs in the lengths of IV and ICV, in the
//! boundary, and in what is authenticated ([`Layout`]).
//!
//! ```text
//!    0                8              16                              len-16        len
//!    | SPI | seq (low) |  IV (8)      | inner packet | TFC | pad | pad len | next |  ICV  |
//!    '------ AAD ------'              '------------- encrypted, multiple of 4 ----'
//! ```

use arrayvec::ArrayVec;
use holdfast_crypto::Composition;
use holdfast_crypto::aead::{NONCE_LEN, TAG_LEN};

use crate::parameters::SALT_LEN;
use crate::{Spi, Width};

/// SPI, sequence number and IV.
pub const ESP_HEADER_LEN: usize = 16;
/// The ICV, a full GCM tag (RFC 4106 section 6).
pub const ICV_LEN: usize = TAG_LEN;
/// Pad length and next header.
pub(crate) const TRAILER_LEN: usize = 2;
/// The trailer ends on a 4-octet boundary (RFC 4303 section 2.4); AES-GCM asks for nothing more.
pub(crate) const ALIGNMENT: usize = 4;
/// Most octets ESP adds around an inner packet: header, padding, trailer, ICV.
pub const ESP_OVERHEAD_MAX: usize = ESP_HEADER_LEN + (ALIGNMENT - 1) + TRAILER_LEN + ICV_LEN;
/// The shortest packet that can be right: nothing but padding, as a dummy may be.
pub(crate) const ESP_LEN_MIN: usize = ESP_HEADER_LEN + ALIGNMENT + ICV_LEN;

/// Next header of a tunnelled IPv4 packet (RFC 4303 section 2.6).
pub(crate) const NEXT_HEADER_IPV4: u8 = 4;
/// Next header of a dummy packet, to be discarded (RFC 4303 section 2.6).
pub(crate) const NEXT_HEADER_NONE: u8 = 59;

/// The lengths of an algorithm's packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// SPI, sequence number and IV.
    pub(crate) header_len: usize,
    pub(crate) icv_len: usize,
    pub(crate) alignment: usize,
}

/// SPI and the half of the sequence number that is in the packet.
pub(crate) const NUMBERS_LEN: usize = 8;

impl Layout {
    /// That of the algorithms which are one transform.
    pub(crate) const AEAD: Self =
        Self { header_len: ESP_HEADER_LEN, icv_len: ICV_LEN, alignment: ALIGNMENT };

    pub(crate) const fn of(composition: Composition) -> Self {
        Self {
            header_len: NUMBERS_LEN + composition.iv_len(),
            icv_len: composition.icv_len(),
            alignment: composition.alignment(),
        }
    }

    /// As [`padding_len`].
    pub(crate) const fn padding_len(self, inner_len: usize) -> usize {
        (self.alignment - (inner_len + TRAILER_LEN) % self.alignment) % self.alignment
    }

    /// SPI and number, IV, what is encrypted, and ICV; `None` when the packet cannot be one by its
    /// length.
    pub(crate) fn split(self, esp: &mut [u8]) -> Option<Parts<'_>> {
        let encrypted = esp.len().checked_sub(self.header_len + self.icv_len)?;
        if encrypted == 0 || encrypted % self.alignment != 0 {
            return None;
        }
        let (numbers, rest) = esp.split_first_chunk_mut()?;
        let (iv, rest) = rest.split_at_mut_checked(self.header_len - NUMBERS_LEN)?;
        let (data, icv) = rest.split_at_mut_checked(encrypted)?;
        Some(Parts { numbers, iv, data, icv })
    }
}

/// A composition's packet taken apart.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) numbers: &'a mut [u8; NUMBERS_LEN],
    pub(crate) iv: &'a mut [u8],
    pub(crate) data: &'a mut [u8],
    pub(crate) icv: &'a mut [u8],
}

/// The half of an extended number that is authenticated though it is not in the packet (RFC 4303
/// section 2.2.1); nothing without ESN.
pub(crate) fn implicit_half(sequence: u64, width: Width) -> ArrayVec<u8, 4> {
    let high = ((sequence >> 32) as u32).to_be_bytes();
    match width {
        Width::Bits32 => ArrayVec::new(),
        Width::Esn => ArrayVec::from(high),
    }
}

/// What the AEAD needs beside the packet: the nonce, and the AAD which with ESN is not in the
/// packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AeadInput {
    pub(crate) nonce: [u8; NONCE_LEN],
    aad: [u8; AAD_LEN_MAX],
    aad_len: usize,
}

/// SPI and 64-bit sequence number.
const AAD_LEN_MAX: usize = 12;

impl AeadInput {
    #[inline]
    pub(crate) fn new(
        spi: Spi,
        sequence: u64,
        width: Width,
        salt: [u8; SALT_LEN],
        iv: [u8; 8],
    ) -> Self {
        // Word by word, not octet by octet: this is done for each packet.
        let (mut nonce, mut aad) = ([0; NONCE_LEN], [0; AAD_LEN_MAX]);
        if let Some((front, rest)) = nonce.split_first_chunk_mut() {
            *front = salt;
            rest.copy_from_slice(&iv);
        }
        // RFC 4106 section 5: the 64-bit number goes in whole, high half first.
        let (number, aad_len) = match width {
            Width::Bits32 => (sequence << 32, AAD_LEN_MAX - 4),
            Width::Esn => (sequence, AAD_LEN_MAX),
        };
        if let Some((front, rest)) = aad.split_first_chunk_mut() {
            *front = spi.get().to_be_bytes();
            rest.copy_from_slice(&number.to_be_bytes());
        }
        Self { nonce, aad, aad_len }
    }

    #[inline]
    pub(crate) fn aad(&self) -> &[u8] {
        self.aad.get(..self.aad_len).unwrap_or_default()
    }
}

/// A received packet taken apart.
#[derive(Debug)]
pub(crate) struct Fields {
    pub(crate) spi: u32,
    pub(crate) sequence_low: u32,
    pub(crate) iv: [u8; 8],
}

impl Fields {
    /// Reads the fields in front; `None` when the packet cannot be an AES-GCM ESP packet by its
    /// length.
    #[inline]
    pub(crate) fn parse(esp: &[u8]) -> Option<Self> {
        let encrypted = esp.len().checked_sub(ESP_HEADER_LEN + ICV_LEN)?;
        if esp.len() < ESP_LEN_MIN || encrypted % ALIGNMENT != 0 {
            return None;
        }
        let (spi, rest) = esp.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (iv, _) = rest.split_first_chunk()?;
        Some(Self {
            spi: u32::from_be_bytes(*spi),
            sequence_low: u32::from_be_bytes(*sequence),
            iv: *iv,
        })
    }
}

/// The encrypted part and the ICV behind it, to change in place.
#[inline]
pub(crate) fn split_mut(esp: &mut [u8]) -> Option<(&mut [u8], &mut [u8; ICV_LEN])> {
    esp.get_mut(ESP_HEADER_LEN..)?.split_last_chunk_mut()
}

/// Octets of padding so that the trailer ends on the boundary, and no more (RFC 4106 section 3.2).
#[inline]
pub(crate) const fn padding_len(inner_len: usize) -> usize {
    (ALIGNMENT - (inner_len + TRAILER_LEN) % ALIGNMENT) % ALIGNMENT
}
