//! Messages as frames, so that a receiver knows how much it must be ready to hold.
//!
//! ```text
//!   +-+-------------------------------+----------------...
//!   |M|        length (31 bits)       | payload
//!   +-+-------------------------------+----------------...
//!   M: more frames of the same message follow
//! ```

use holdfast_replica::MessageBytes;

/// Longest payload of one frame; a longer message travels in several.
const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Bytes in front of a payload.
const HEADER_BYTES: usize = 4;

const MORE: u32 = 1 << 31;

/// The bytes are not frames of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// A message as frames, of which no more than one is ever made.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The present one, with its header.
    frame: Vec<u8>,
    taken_of_frame: usize,
    /// How much of the message is in frames by now, the present one included.
    framed: usize,
    ended: bool,
    begun: bool,
}

impl Frames {
    /// What is left of the present frame of `message`, or the whole next one; `None` when all of it was
    /// taken. The message must be the same until [`Frames::begin_anew`].
    pub(super) fn rest(&mut self, message: &MessageBytes) -> Option<&[u8]> {
        if self.taken_of_frame == self.frame.len() {
            if self.ended {
                return None;
            }
            self.make_next(message);
        }
        self.frame.get(self.taken_of_frame..)
    }

    fn make_next(&mut self, message: &MessageBytes) {
        let left = message.len().saturating_sub(self.framed);
        let length = left.min(FRAME_BYTES_MAX);
        // An empty message is one empty frame.
        self.ended = length == left;
        let more = if self.ended { 0 } else { MORE };
        let header = u32::try_from(length).unwrap_or(0) | more;
        self.frame.clear();
        self.frame.extend_from_slice(&header.to_be_bytes());
        message.copy_piece(self.framed, length, &mut self.frame);
        self.framed = self.framed.saturating_add(length);
        self.taken_of_frame = 0;
    }

    /// So much of what [`Frames::rest`] gave was taken.
    pub(super) fn advance(&mut self, taken: usize) {
        self.taken_of_frame = self.taken_of_frame.saturating_add(taken).min(self.frame.len());
        self.begun |= taken > 0;
    }

    /// Whether anything of the message was taken.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Another message is next.
    pub(super) fn begin_anew(&mut self) {
        *self = Self::default();
    }
}

/// Puts messages together again.
#[derive(Debug)]
pub(super) struct Assembler {
    received: Vec<u8>,
    /// Payloads of earlier frames of the message that is being received.
    message: Vec<u8>,
    message_bytes_max: usize,
}

impl Assembler {
    pub(super) const fn new(message_bytes_max: usize) -> Self {
        Self { received: Vec::new(), message: Vec::new(), message_bytes_max }
    }

    /// Allows messages of another length from now on.
    pub(super) const fn allow(&mut self, message_bytes_max: usize) {
        self.message_bytes_max = message_bytes_max;
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// The next whole message, if it is here.
    pub(super) fn next_message(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        loop {
            let Some((header, rest)) = self.received.split_first_chunk::<HEADER_BYTES>() else {
                return Ok(None);
            };
            let header = u32::from_be_bytes(*header);
            let length = usize::try_from(header & !MORE).map_err(|_| TooLong)?;
            let total = self.message.len().saturating_add(length);
            if length > FRAME_BYTES_MAX || total > self.message_bytes_max {
                return Err(TooLong);
            }
            let Some(payload) = rest.get(..length) else { return Ok(None) };
            self.message.extend_from_slice(payload);
            self.received.drain(..HEADER_BYTES.saturating_add(length));
            if header & MORE == 0 {
                return Ok(Some(std::mem::take(&mut self.message)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(message: &[u8]) -> Vec<u8> {
        let message = MessageBytes::from(message.to_vec());
        let (mut frames, mut bytes) = (Frames::default(), Vec::new());
        while let Some(rest) = frames.rest(&message) {
            // As TLS does, that takes so much at a time.
            let taken = &rest[..rest.len().min(65_536)];
            bytes.extend_from_slice(taken);
            let taken = taken.len();
            frames.advance(taken);
            assert!(frames.has_begun());
        }
        bytes
    }

    #[test]
    fn messages_of_every_awkward_length_survive_any_cut() {
        for length in [0, 1, FRAME_BYTES_MAX, FRAME_BYTES_MAX + 1, 3 * FRAME_BYTES_MAX] {
            let message: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let bytes = encoded(&message);
            for piece in [1_000_003, 65_536, bytes.len()] {
                let mut assembler = Assembler::new(usize::MAX);
                let mut received = Vec::new();
                for part in bytes.chunks(piece) {
                    assembler.push(part);
                    received.extend(assembler.next_message().unwrap());
                }
                assert_eq!(received.len(), 1, "{length} bytes in pieces of {piece}");
                assert!(received[0] == message, "{length} bytes in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_message_beyond_the_limit_is_refused_before_it_is_stored() {
        let mut assembler = Assembler::new(10);
        assembler.push(&11u32.to_be_bytes());
        assert_eq!(assembler.next_message(), Err(TooLong));

        // Ten allowed bytes, and the announcement of one more.
        let mut assembler = Assembler::new(10);
        assembler.push(&(MORE | 10).to_be_bytes());
        assembler.push(&[0; 10]);
        assert_eq!(assembler.next_message(), Ok(None));
        assembler.push(&1u32.to_be_bytes());
        assert_eq!(assembler.next_message(), Err(TooLong));
    }
}
