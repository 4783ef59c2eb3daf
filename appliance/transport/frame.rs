//! Messages as frames, so that a receiver knows how much it must be ready to hold.
//!
//! ```text
//!   +-+-------------------------------+----------------...
//!   |M|        length (31 bits)       | payload
//!   +-+-------------------------------+----------------...
//!   M: more frames of the same message follow
//! ```

/// Longest payload of one frame; a longer message travels in several.
pub(super) const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Bytes in front of a payload.
pub(super) const HEADER_BYTES: usize = 4;

const MORE: u32 = 1 << 31;

/// The bytes are not frames of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// The headers and payloads of `message`, in order.
pub(super) fn frames(message: &[u8]) -> impl Iterator<Item = ([u8; HEADER_BYTES], &[u8])> {
    // An empty message is one empty frame.
    let count = message.len().div_ceil(FRAME_BYTES_MAX).max(1);
    (0..count).map(move |number| {
        let start = number.saturating_mul(FRAME_BYTES_MAX);
        let end = start.saturating_add(FRAME_BYTES_MAX).min(message.len());
        let payload = message.get(start..end).unwrap_or_default();
        let length = u32::try_from(payload.len()).unwrap_or(0);
        let more = if number.saturating_add(1) < count { MORE } else { 0 };
        ((length | more).to_be_bytes(), payload)
    })
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
        frames(message).flat_map(|(header, payload)| [&header[..], payload].concat()).collect()
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
