//! What travels between members around each Raft message.
//!
//! ```text
//!    0        1       2          4       12     20        28       36            44
//!    version  flags   reserved   from    term   sent_ns   echo_ns  promise_ns    raft message
//! ```
//! All numbers little endian. What members tell each other beside Raft ([`Note`]) rides in
//! heartbeats and their answers, as field 1000 of the Raft message, which raft-rs does not know and
//! earlier releases ignore. The content of a snapshot comes last, so that it can be sent without being
//! copied into the message ([`MessageBytes`]). The transport under it is mutual TLS: the peer is authenticated,
//! but its bytes are checked all the same.

use crate::MessageBytes;
use crate::output::Lane;
use bytes::Bytes;
use holdfast_cluster::MemberId;
use holdfast_packet::Nanos;
use prost::Message as _;
use prost::encoding::encode_varint;
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType, Snapshot};
use std::fmt;
use zeroize::Zeroizing;

const VERSION: u8 = 1;
const HEADER_LEN: usize = 44;
const FLAG_ECHO: u8 = 1;

/// The field of a Raft message that raft-rs leaves to others.
const NOTE_FIELD: u32 = 1_000;

/// The field of a Raft message that holds a snapshot, and that of a snapshot which holds its content, each
/// with the wire type of what has a length.
const SNAPSHOT_KEY: u8 = 9 << 3 | 2;
const SNAPSHOT_DATA_KEY: u8 = 1 << 3 | 2;

/// Bytes of the largest message: a snapshot with its header.
pub const ENVELOPE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Messages of this length and beyond share their content with what is made of them. No append is as long: its
/// entries would keep each other.
const SHARED_BYTES_MIN: usize = 8 * 1024 * 1024;

/// Why a message of a peer was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Shorter than the header or longer than allowed.
    #[error("{0} bytes are no message")]
    Length(usize),
    /// Another format: a member of another release.
    #[error(
        "it speaks format {0} and this release knows up to {VERSION}: one of the two is too old; \
         upgrade the older one (`holdfast cluster status` shows every member's release)"
    )]
    Version(u8),
    /// The Raft message inside is broken.
    #[error("malformed")]
    Malformed,
    /// The message does not come from or go to whom it says.
    #[error("misdirected: says from {from} to {to}")]
    Misdirected {
        /// The sender it names.
        from: u64,
        /// The receiver it names.
        to: u64,
    },
    /// The sender is this member, or nobody.
    #[error("member {0} cannot be another member")]
    Stranger(MemberId),
    /// The sender was removed from the cluster.
    #[error(
        "member {0} was removed from the cluster, or was left behind by force-quorum; empty its \
         data directory and add it under a new id"
    )]
    Retired(MemberId),
    /// A kind of message that members do not send each other.
    #[error("unexpected kind of message")]
    Kind,
    /// The replica stopped after an error.
    #[error("halted")]
    Halted,
}

/// What a member tells of itself beside Raft. Fields are only ever added.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Note {
    /// The release of its program, for people.
    #[prost(string, tag = "50")]
    pub(crate) release: String,
    /// What it can read and write: [`holdfast_cluster::level`].
    #[prost(uint32, tag = "51")]
    pub(crate) level: u32,
    /// Where it listens for the others.
    #[prost(string, tag = "52")]
    pub(crate) address: String,
}

impl Note {
    fn put_into(&self, message: &mut Message) {
        message.unknown_fields.add_length_delimited(NOTE_FIELD, self.encode_to_vec());
    }

    fn take_from(message: &mut Message) -> Option<Self> {
        let fields = std::mem::take(&mut message.unknown_fields);
        let values = fields.get(NOTE_FIELD)?;
        Self::decode(values.length_delimited.first()?.as_slice()).ok()
    }
}

/// One message between members.
#[derive(Clone, PartialEq)]
pub(crate) struct Envelope {
    pub(crate) from: MemberId,
    pub(crate) term: u64,
    /// When it was made, by the sender's clock.
    pub(crate) sent: Nanos,
    /// The newest send time stepped from the receiver, where the receiver leads.
    pub(crate) echo: Option<Nanos>,
    /// How long the sender keeps the promise that goes with an echo.
    pub(crate) promise_ns: u64,
    /// What the sender tells of itself.
    pub(crate) note: Option<Note>,
    pub(crate) message: Message,
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.message.get_msg_type();
        write!(f, "Envelope({kind:?} of {} in term {})", self.from, self.term)
    }
}

impl Envelope {
    pub(crate) fn encode(mut self) -> Result<MessageBytes, MessageError> {
        if let Some(note) = self.note.take() {
            note.put_into(&mut self.message);
        }
        let mut snapshot = self.message.snapshot.take();
        let body_len = self.message.compute_size() as usize;
        let mut bytes = Vec::with_capacity(HEADER_LEN.saturating_add(body_len));
        let flags = if self.echo.is_some() { FLAG_ECHO } else { 0 };
        bytes.extend_from_slice(&[VERSION, flags, 0, 0]);
        let echo = self.echo.map_or(0, |echo| echo.0);
        for number in [self.from.0, self.term, self.sent.0, echo, self.promise_ns] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        self.message.write_to_vec(&mut bytes).map_err(|_| MessageError::Malformed)?;
        let tail = match &mut snapshot {
            Some(snapshot) => put_snapshot(snapshot, &mut bytes)?,
            None => Bytes::new(),
        };
        Ok(MessageBytes::new(bytes, tail))
    }

    pub(crate) fn decode(bytes: Vec<u8>) -> Result<Self, MessageError> {
        let length = MessageError::Length(bytes.len());
        if bytes.len() > ENVELOPE_BYTES_MAX {
            return Err(length);
        }
        let head = *bytes.first_chunk::<HEADER_LEN>().ok_or(length)?;
        let (&[version, flags, ..], numbers) =
            head.split_first_chunk::<4>().ok_or(MessageError::Malformed)?;
        if version != VERSION {
            return Err(MessageError::Version(version));
        }
        let (numbers, _) = numbers.as_chunks::<8>();
        let &[from, term, sent, echo, promise_ns] = numbers else {
            return Err(MessageError::Malformed);
        };
        let mut message = parse(bytes).map_err(|_| MessageError::Malformed)?;
        Ok(Self {
            note: Note::take_from(&mut message),
            from: MemberId(u64::from_le_bytes(from)),
            term: u64::from_le_bytes(term),
            sent: Nanos(u64::from_le_bytes(sent)),
            echo: (flags & FLAG_ECHO != 0).then_some(Nanos(u64::from_le_bytes(echo))),
            promise_ns: u64::from_le_bytes(promise_ns),
            message,
        })
    }
}

/// The Raft message behind the header. The content of a snapshot stays where it is, and is wiped there: a
/// copy of it takes longer than a tick.
fn parse(bytes: Vec<u8>) -> protobuf::ProtobufResult<Message> {
    if bytes.len() < SHARED_BYTES_MIN {
        return Message::parse_from_bytes(bytes.get(HEADER_LEN..).unwrap_or_default());
    }
    let bytes = Bytes::from_owner(Zeroizing::new(bytes));
    Message::parse_from_carllerche_bytes(&bytes.slice(HEADER_LEN..))
}

/// Ends a message with a snapshot, but for the snapshot's content, which is given back and belongs behind
/// it.
fn put_snapshot(snapshot: &mut Snapshot, bytes: &mut Vec<u8>) -> Result<Bytes, MessageError> {
    let data = std::mem::take(&mut snapshot.data);
    // What is empty is not written: this is all but the content.
    let rest = snapshot.write_to_bytes().map_err(|_| MessageError::Malformed)?;
    let mut data_head = vec![SNAPSHOT_DATA_KEY];
    encode_varint(data.len() as u64, &mut data_head);
    let length = rest.len().saturating_add(data_head.len()).saturating_add(data.len());
    bytes.push(SNAPSHOT_KEY);
    encode_varint(length as u64, bytes);
    bytes.extend(rest);
    bytes.extend(data_head);
    Ok(data)
}

/// The lane a message travels in, so that a long append does not delay a heartbeat; `None` for
/// kinds members do not exchange (forwarded proposals, reads, local ones).
pub(crate) fn lane_of(kind: MessageType) -> Option<Lane> {
    match kind {
        MessageType::MsgHeartbeat
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse
        | MessageType::MsgTimeoutNow => Some(Lane::Heartbeat),
        MessageType::MsgAppend | MessageType::MsgAppendResponse => Some(Lane::Append),
        MessageType::MsgSnapshot => Some(Lane::Snapshot),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Envelope {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgHeartbeatResponse);
        message.from = 2;
        message.to = 1;
        message.term = 9;
        Envelope {
            from: MemberId(2),
            term: 9,
            sent: Nanos(123),
            echo: Some(Nanos(0)),
            promise_ns: 25_000_000,
            note: Some(Note { release: "1.2".to_owned(), level: 7, address: "a:1".to_owned() }),
            message,
        }
    }

    #[test]
    fn an_envelope_survives_the_wire() {
        let envelope = sample();
        let bytes = envelope.clone().encode().unwrap().into_vec();
        assert_eq!(Envelope::decode(bytes).unwrap(), envelope);
    }

    #[test]
    fn a_snapshot_is_at_the_end_of_its_message_and_not_copied_into_it() {
        for length in [0, 1, 127, 128, 100_000, SHARED_BYTES_MIN] {
            let mut envelope = sample();
            envelope.note = None;
            envelope.message.set_msg_type(MessageType::MsgSnapshot);
            let content = Bytes::from(vec![7; length]);
            let snapshot = envelope.message.mut_snapshot();
            snapshot.data = content.clone();
            snapshot.mut_metadata().index = 300;
            snapshot.mut_metadata().mut_conf_state().voters = vec![1, 2];
            let bytes = envelope.clone().encode().unwrap();
            let mut tail = Vec::new();
            bytes.copy_piece(bytes.len() - length, length, &mut tail);
            assert_eq!(tail, content);
            let bytes = bytes.into_vec();
            assert!(Envelope::decode(bytes.clone()).unwrap() == envelope, "{length} bytes");
            // And as the releases before wrote it.
            let plain = envelope.message.write_to_bytes().unwrap();
            assert_eq!(Message::parse_from_bytes(&plain).unwrap(), envelope.message);
            assert_eq!(bytes.len() - HEADER_LEN, plain.len() + usize::from(length == 0) * 2);
        }
    }

    #[test]
    fn a_note_is_a_field_that_earlier_releases_skip() {
        let bytes = sample().encode().unwrap().into_vec();
        let (_, body) = bytes.split_first_chunk::<HEADER_LEN>().unwrap();
        let mut message = Message::parse_from_bytes(body).unwrap();
        assert!(message.unknown_fields.get(NOTE_FIELD).is_some());
        message.unknown_fields = protobuf::UnknownFields::new();
        assert_eq!(message, sample().message);
        // And a message without one, as they send it, is taken.
        let bytes = Envelope { note: None, ..sample() }.encode().unwrap().into_vec();
        assert_eq!(Envelope::decode(bytes).unwrap().note, None);
    }

    #[test]
    fn every_truncation_and_a_foreign_version_are_refused_or_differ() {
        let bytes = sample().encode().unwrap().into_vec();
        for length in 0..HEADER_LEN {
            assert!(Envelope::decode(bytes[..length].to_vec()).is_err(), "{length} bytes");
        }
        let mut other = bytes;
        other[0] = 2;
        assert_eq!(Envelope::decode(other), Err(MessageError::Version(2)));
    }
}
