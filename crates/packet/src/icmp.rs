//! ICMP (RFC 792): echo, and the error a packet too big provokes (RFC 1191).
//!
//! ```text
//!   0      1      2             4             6             8
//!   +------+------+-------------+-------------+-------------+---------
//!   | type | code |  checksum   | identifier  |  sequence   |  data        echo
//!   +------+------+-------------+-------------+-------------+---------
//!   |  3   |  4   |  checksum   |    unused   | next-hop MTU|  packet      too big
//!   +------+------+-------------+-------------+-------------+---------
//! ```

use crate::WireError;
use crate::checksum::{self, Sum};
use crate::field::{put, rest, u8_at, u16_at};

/// Bytes before the data.
pub const HEADER_LEN: usize = 8;
/// Type of an echo reply.
pub const TYPE_ECHO_REPLY: u8 = 0;
/// Type of a destination unreachable error.
pub const TYPE_UNREACHABLE: u8 = 3;
/// Type of an echo request.
pub const TYPE_ECHO_REQUEST: u8 = 8;
/// Type of a time exceeded error.
pub const TYPE_TIME_EXCEEDED: u8 = 11;
/// Type of a parameter problem error.
pub const TYPE_PARAMETER_PROBLEM: u8 = 12;
/// Code of [`TYPE_UNREACHABLE`]: fragmentation needed and forbidden.
pub const CODE_FRAGMENTATION_NEEDED: u8 = 4;

/// A message with its length and checksum checked.
#[derive(Debug, Clone, Copy)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// # Errors
    /// [`WireError::Truncated`] below 8 bytes, [`WireError::BadChecksum`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() < HEADER_LEN {
            return Err(WireError::Truncated);
        }
        if !Sum::new().with(bytes).is_valid() {
            return Err(WireError::BadChecksum);
        }
        Ok(Self(bytes))
    }

    /// The kind of message.
    pub fn message_type(&self) -> u8 {
        u8_at(self.0, 0)
    }

    /// The kind within the type.
    pub fn code(&self) -> u8 {
        u8_at(self.0, 1)
    }

    /// The identifier of an echo.
    pub fn identifier(&self) -> u16 {
        u16_at(self.0, 4)
    }

    /// The sequence number of an echo; the next-hop MTU of a "fragmentation needed".
    pub fn sequence(&self) -> u16 {
        u16_at(self.0, 6)
    }

    /// Everything behind the header: echo data, or the packet an error is about.
    pub fn data(&self) -> &'a [u8] {
        rest(self.0, HEADER_LEN)
    }

    /// True for an echo request.
    pub fn is_echo_request(&self) -> bool {
        self.message_type() == TYPE_ECHO_REQUEST && self.code() == 0
    }

    /// True for messages that report on another packet, which they quote.
    pub fn is_error(&self) -> bool {
        matches!(
            self.message_type(),
            TYPE_UNREACHABLE | TYPE_TIME_EXCEEDED | TYPE_PARAMETER_PROBLEM
        )
    }
}

/// Turns the echo request in `message` into its reply in place; no effect on a runt.
pub fn answer_echo(message: &mut [u8]) {
    let old = u16_at(message, 0);
    let new = u16::from_be_bytes([TYPE_ECHO_REPLY, 0]);
    let sum = checksum::update(u16_at(message, 2), old, new);
    if message.len() >= HEADER_LEN {
        put(message, 0, &new.to_be_bytes());
        put(message, 2, &sum.to_be_bytes());
    }
}

/// The meaning of the messages this appliance originates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repr<'a> {
    /// A question whether somebody is there.
    EchoRequest {
        /// Names the asker's process.
        identifier: u16,
        /// Names the question.
        sequence: u16,
        /// To be returned.
        data: &'a [u8],
    },
    /// The answer.
    EchoReply {
        /// As in the request.
        identifier: u16,
        /// As in the request.
        sequence: u16,
        /// As in the request.
        data: &'a [u8],
    },
    /// A packet did not fit and forbade fragmentation (RFC 1191, 4).
    FragmentationNeeded {
        /// The largest packet that would have fitted, in bytes.
        mtu: u16,
        /// The beginning of the packet: its header and at least 8 bytes.
        packet: &'a [u8],
    },
}

impl<'a> Repr<'a> {
    /// # Errors
    /// Those of [`View::parse`], and [`WireError::Unsupported`] for other messages.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let view = View::parse(bytes)?;
        let (identifier, sequence, data) = (view.identifier(), view.sequence(), view.data());
        match (view.message_type(), view.code()) {
            (TYPE_ECHO_REQUEST, 0) => Ok(Self::EchoRequest { identifier, sequence, data }),
            (TYPE_ECHO_REPLY, 0) => Ok(Self::EchoReply { identifier, sequence, data }),
            (TYPE_UNREACHABLE, CODE_FRAGMENTATION_NEEDED) => {
                Ok(Self::FragmentationNeeded { mtu: sequence, packet: data })
            }
            _ => Err(WireError::Unsupported),
        }
    }

    /// Bytes [`Repr::emit`] writes: header and data.
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN + self.data().len()
    }

    /// Writes the message with its checksum at the front of `into`.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when `into` is shorter than [`Repr::buffer_len`].
    pub fn emit(&self, into: &mut [u8]) -> Result<(), WireError> {
        let (message_type, code, third, fourth) = match *self {
            Self::EchoRequest { identifier, sequence, .. } => {
                (TYPE_ECHO_REQUEST, 0, identifier, sequence)
            }
            Self::EchoReply { identifier, sequence, .. } => {
                (TYPE_ECHO_REPLY, 0, identifier, sequence)
            }
            Self::FragmentationNeeded { mtu, .. } => {
                (TYPE_UNREACHABLE, CODE_FRAGMENTATION_NEEDED, 0, mtu)
            }
        };
        let message = into.get_mut(..self.buffer_len()).ok_or(WireError::Truncated)?;
        put(message, 0, &[message_type, code, 0, 0]);
        put(message, 4, &third.to_be_bytes());
        put(message, 6, &fourth.to_be_bytes());
        put(message, HEADER_LEN, self.data());
        let sum = checksum::checksum(message);
        put(message, 2, &sum.to_be_bytes());
        Ok(())
    }

    const fn data(&self) -> &'a [u8] {
        match *self {
            Self::EchoRequest { data, .. }
            | Self::EchoReply { data, .. }
            | Self::FragmentationNeeded { packet: data, .. } => data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn emitted(repr: &Repr<'_>) -> Vec<u8> {
        let mut bytes = vec![0; repr.buffer_len()];
        repr.emit(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_corrupt_message_is_refused() {
        let mut bytes = emitted(&Repr::EchoRequest { identifier: 1, sequence: 2, data: b"x" });
        bytes[8] ^= 1;
        assert_eq!(Repr::parse(&bytes), Err(WireError::BadChecksum));
    }

    proptest! {
        #[test]
        fn round_trips(kind in 0u8..3, identifier: u16, sequence: u16, data: Vec<u8>) {
            let data = data.as_slice();
            let repr = match kind {
                0 => Repr::EchoRequest { identifier, sequence, data },
                1 => Repr::EchoReply { identifier, sequence, data },
                _ => Repr::FragmentationNeeded { mtu: sequence, packet: data },
            };
            let bytes = emitted(&repr);
            prop_assert_eq!(Repr::parse(&bytes), Ok(repr));
            for len in 0..HEADER_LEN {
                prop_assert_eq!(Repr::parse(&bytes[..len]), Err(WireError::Truncated));
            }
        }

        #[test]
        fn the_answer_in_place_is_the_reply(identifier: u16, sequence: u16, data: Vec<u8>) {
            let data = data.as_slice();
            let mut bytes = emitted(&Repr::EchoRequest { identifier, sequence, data });
            answer_echo(&mut bytes);
            prop_assert_eq!(Repr::parse(&bytes), Ok(Repr::EchoReply { identifier, sequence, data }));
        }

        #[test]
        fn any_bytes_are_safe(mut bytes: Vec<u8>) {
            let _ = Repr::parse(&bytes);
            answer_echo(&mut bytes);
        }
    }
}
