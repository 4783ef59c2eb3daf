//! What members tell each other beside the replication: how they are, and who is to take over.
//!
//! None of it is agreed upon or kept: it is true at the moment it is sent, and old news is no news.
//! It travels like the replica's messages, in the lane of the heartbeats, and is told from them by
//! its first octet, which is no version of the replica's envelope. A release that does not know it
//! refuses it as a message of an unknown version and goes on.
//!
//! ```text
//!    0      1 ...
//!    'H'    protobuf Message { bulletin | offer | answer }
//! ```

use holdfast_cluster::Incarnation;
use holdfast_datapath::Stations;
use holdfast_packet::{MacAddr, Side};
use prost::{Message as _, Oneof};
use std::fmt;

/// The first octet of everything here; versions of the replica's envelope count up from 1.
const FIRST_OCTET: u8 = b'H';

/// The largest message: a few hundred octets at most.
const BYTES_MAX: usize = 4_096;

/// The longest reason shown to an operator.
const REASON_BYTES_MAX: usize = 256;

/// Something one member tells another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MemberMessage {
    /// How the sender is. To everybody, at every change and now and then.
    Bulletin(Bulletin),
    /// The owner asks the receiver to take over: keep what arrives from now on, and answer.
    Offer {
        /// Names the handover.
        number: u64,
    },
    /// The answer to an offer.
    Answer {
        /// Which one.
        number: u64,
        /// Why not; `None` when the sender is ready and keeps what arrives.
        refusal: Option<String>,
    },
}

/// How a member is, by its own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bulletin {
    /// The boot that speaks.
    pub(crate) incarnation: Incarnation,
    /// Its ports.
    pub(crate) stations: Stations,
    /// Whether it could serve.
    pub(crate) fitness: Fitness,
}

/// Whether a member could serve, and if not, what is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fitness {
    /// The outside port has a link.
    pub outside_up: bool,
    /// The inside port has a link.
    pub inside_up: bool,
    /// Workers that do not poll.
    pub stalled_workers: u32,
    /// It may vote, its tables are built, and its neighbours are known or known to be silent.
    pub warm: bool,
}

impl Fitness {
    /// Nothing is in the way.
    #[must_use]
    pub fn is_fit(&self) -> bool {
        self.outside_up && self.inside_up && self.stalled_workers == 0 && self.warm
    }

    /// Whether a port has a link.
    #[must_use]
    pub const fn is_up(&self, side: Side) -> bool {
        match side {
            Side::Outside => self.outside_up,
            Side::Inside => self.inside_up,
        }
    }
}

impl fmt::Display for Fitness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = [
            (!self.outside_up).then_some("outside port down"),
            (!self.inside_up).then_some("inside port down"),
            (self.stalled_workers > 0).then_some("worker stalled"),
            (!self.warm).then_some("warming up"),
        ];
        let reasons: Vec<&str> = reasons.into_iter().flatten().collect();
        f.write_str(if reasons.is_empty() { "fit" } else { "" })?;
        f.write_str(&reasons.join(", "))
    }
}

impl MemberMessage {
    /// Whether these bytes are for [`Self::decode`] rather than for the replica.
    pub(crate) fn recognises(bytes: &[u8]) -> bool {
        bytes.first() == Some(&FIRST_OCTET)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let body = match self {
            Self::Bulletin(bulletin) => Body::Bulletin(bulletin.to_wire()),
            Self::Offer { number } => Body::Offer(OfferWire { number: *number }),
            Self::Answer { number, refusal } => {
                Body::Answer(AnswerWire { number: *number, refusal: refusal.clone() })
            }
        };
        let mut bytes = vec![FIRST_OCTET];
        bytes.extend(MessageWire { body: Some(body) }.encode_to_vec());
        bytes
    }

    /// `None` for what is broken, and for what only a newer release says.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&first, body) = bytes.split_first()?;
        if first != FIRST_OCTET || body.len() > BYTES_MAX {
            return None;
        }
        Some(match MessageWire::decode(body).ok()?.body? {
            Body::Bulletin(wire) => Self::Bulletin(Bulletin::from_wire(&wire)?),
            Body::Offer(OfferWire { number }) => Self::Offer { number },
            Body::Answer(AnswerWire { number, refusal }) => {
                let fits = refusal.as_ref().is_none_or(|text| text.len() <= REASON_BYTES_MAX);
                let refusal = if fits { refusal } else { Some("not ready".to_owned()) };
                Self::Answer { number, refusal }
            }
        })
    }
}

impl Bulletin {
    fn to_wire(self) -> BulletinWire {
        BulletinWire {
            incarnation: self.incarnation.0,
            outside_mac: self.stations.outside.0.to_vec(),
            inside_mac: self.stations.inside.0.to_vec(),
            outside_up: self.fitness.outside_up,
            inside_up: self.fitness.inside_up,
            stalled_workers: self.fitness.stalled_workers,
            warm: self.fitness.warm,
        }
    }

    fn from_wire(wire: &BulletinWire) -> Option<Self> {
        let mac = |octets: &[u8]| octets.try_into().ok().map(MacAddr);
        Some(Self {
            incarnation: Incarnation(wire.incarnation),
            stations: Stations { outside: mac(&wire.outside_mac)?, inside: mac(&wire.inside_mac)? },
            fitness: Fitness {
                outside_up: wire.outside_up,
                inside_up: wire.inside_up,
                stalled_workers: wire.stalled_workers,
                warm: wire.warm,
            },
        })
    }
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct MessageWire {
    #[prost(oneof = "Body", tags = "1, 2, 3")]
    body: Option<Body>,
}

#[derive(Clone, PartialEq, Eq, Oneof)]
enum Body {
    #[prost(message, tag = "1")]
    Bulletin(BulletinWire),
    #[prost(message, tag = "2")]
    Offer(OfferWire),
    #[prost(message, tag = "3")]
    Answer(AnswerWire),
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct BulletinWire {
    #[prost(uint64, tag = "1")]
    incarnation: u64,
    #[prost(bytes = "vec", tag = "2")]
    outside_mac: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    inside_mac: Vec<u8>,
    #[prost(bool, tag = "4")]
    outside_up: bool,
    #[prost(bool, tag = "5")]
    inside_up: bool,
    #[prost(uint32, tag = "6")]
    stalled_workers: u32,
    #[prost(bool, tag = "7")]
    warm: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct OfferWire {
    #[prost(uint64, tag = "1")]
    number: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct AnswerWire {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(string, optional, tag = "2")]
    refusal: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIT: Fitness =
        Fitness { outside_up: true, inside_up: true, stalled_workers: 0, warm: true };

    #[test]
    fn messages_survive_the_wire() {
        let stations =
            Stations { outside: MacAddr([2, 0, 0, 0, 0, 1]), inside: MacAddr([2, 0, 0, 0, 0, 2]) };
        let bulletin = Bulletin { incarnation: Incarnation(7), stations, fitness: FIT };
        for message in [
            MemberMessage::Bulletin(bulletin),
            MemberMessage::Offer { number: 9 },
            MemberMessage::Answer { number: 9, refusal: None },
            MemberMessage::Answer { number: 9, refusal: Some("warming up".to_owned()) },
        ] {
            let bytes = message.encode();
            assert!(MemberMessage::recognises(&bytes));
            assert_eq!(MemberMessage::decode(&bytes), Some(message));
        }
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        assert_eq!(FIT.to_string(), "fit");
        let unfit = Fitness { inside_up: false, stalled_workers: 2, ..FIT };
        assert_eq!(unfit.to_string(), "inside port down, worker stalled");
        assert!(FIT.is_fit() && !unfit.is_fit());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _message = MemberMessage::decode(&[&[FIRST_OCTET], bytes.as_slice()].concat());
        }
    }
}
