//! Length-prefixed frames.

/// Longest message either side accepts: a list of some ten thousand SAs.
pub const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

const PREFIX_BYTES: usize = 4;

/// The other side does not speak this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame longer than [`FRAME_BYTES_MAX`].
    #[error("a frame of {0} bytes exceeds the {FRAME_BYTES_MAX} bytes allowed")]
    TooLong(usize),
}

/// `message` with its length in front.
///
/// # Errors
/// [`FrameError::TooLong`] if the message exceeds [`FRAME_BYTES_MAX`].
pub fn encode_frame(message: &impl prost::Message) -> Result<Vec<u8>, FrameError> {
    let length = message.encoded_len();
    let too_long = FrameError::TooLong(length);
    if length > FRAME_BYTES_MAX {
        return Err(too_long);
    }
    let prefix = u32::try_from(length).map_err(|_| too_long)?;
    let mut frame = Vec::with_capacity(PREFIX_BYTES.saturating_add(length));
    frame.extend_from_slice(&prefix.to_be_bytes());
    frame.extend_from_slice(&message.encode_to_vec());
    Ok(frame)
}

/// Puts frames together again from pieces of any size.
#[derive(Debug, Default)]
pub struct FrameReader {
    bytes: Vec<u8>,
}

impl FrameReader {
    /// Takes what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, if it has arrived.
    ///
    /// # Errors
    /// [`FrameError::TooLong`]: close the connection, nothing after it can be understood.
    pub fn next_message(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let Some((prefix, rest)) = self.bytes.split_first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong(length));
        }
        let Some(message) = rest.get(..length).map(<[u8]>::to_vec) else { return Ok(None) };
        self.bytes.drain(..PREFIX_BYTES.saturating_add(length));
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Request, RequestKind, StatusRequest};
    use prost::Message;

    fn request() -> Request {
        Request { kind: Some(RequestKind::Status(StatusRequest {})) }
    }

    #[test]
    fn a_message_survives_arrival_byte_by_byte() {
        let mut reader = FrameReader::default();
        let frame = encode_frame(&request()).unwrap();
        for byte in &frame[..frame.len() - 1] {
            reader.push(&[*byte]);
            assert_eq!(reader.next_message(), Ok(None));
        }
        reader.push(&frame[frame.len() - 1..]);
        let message = reader.next_message().unwrap().unwrap();
        assert_eq!(Request::decode(message.as_slice()).unwrap(), request());
        assert_eq!(reader.next_message(), Ok(None));
    }

    #[test]
    fn two_messages_in_one_piece_come_out_in_order() {
        let mut reader = FrameReader::default();
        reader.push(&[0, 0, 0, 1, 7, 0, 0, 0, 2, 8, 9]);
        assert_eq!(reader.next_message(), Ok(Some(vec![7])));
        assert_eq!(reader.next_message(), Ok(Some(vec![8, 9])));
    }

    #[test]
    fn an_absurd_length_is_refused_before_any_of_it_is_stored() {
        let mut reader = FrameReader::default();
        reader.push(&[0xff; 4]);
        assert_eq!(reader.next_message(), Err(FrameError::TooLong(u32::MAX as usize)));
    }
}
