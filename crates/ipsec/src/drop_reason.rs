//! Every reason the data plane drops a packet for: counter, metric label, trace word and manual
//! entry at once.

use std::fmt;

/// Declares the reasons densely, so that an index into a table of counters is the variant itself.
macro_rules! drop_reasons {
    ($($variant:ident, $name:literal, $description:literal;)+) => {
        /// Why a packet went no further. The value is its place in a table of [`DropReason::COUNT`]
        /// counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum DropReason {
            $(#[doc = $description] $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of [`index`](Self::index).
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The reason's name in counters, metrics and traces.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// One sentence for the manual.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => $description,)+
                }
            }
        }
    };
}

drop_reasons! {
    // Frames and outer headers.
    Runt, "runt", "The frame is shorter than the headers it should have.";
    NotUnicast, "not_unicast", "The frame is for another host's MAC address, or for a group that no one here belongs to.";
    NotIpv4, "not_ipv4", "The frame carries neither IPv4 nor ARP.";
    Ipv4Malformed, "ipv4_malformed", "The IPv4 header contradicts itself or the length of the packet.";
    BadChecksum, "bad_checksum", "An IPv4, UDP or ICMP checksum does not add up.";
    Fragment, "fragment", "The packet is an IP fragment where only whole packets can be processed.";
    FragmentRepeated, "fragment_repeated", "The fragment of an outer packet is here already.";
    FragmentOverlap, "fragment_overlap", "The fragments of an outer packet overlap or contradict each other.";
    ReassemblyFull, "reassembly_full", "More fragments of outer packets are under way than are kept.";
    ReassemblyExpired, "reassembly_expired", "The other fragments of the outer packet did not come in time.";
    NotForUs, "not_for_us", "The packet is for an address that this cluster does not serve.";
    ProtocolUnsupported, "protocol_unsupported", "The packet is for the common address but neither ESP, UDP nor ICMP.";
    UdpMalformed, "udp_malformed", "The UDP header contradicts the length of the packet.";
    UdpPort, "udp_port", "The UDP packet is for a port that nothing listens on.";
    KeepAlive, "keep_alive", "A NAT keepalive was received; it is ignored, as RFC 3948 section 2.3 advises.";
    IkeTruncated, "ike_truncated", "The packet on an IKE port is too short for an IKE header.";
    IcmpMalformed, "icmp_malformed", "The ICMP message is too short or contradicts itself.";
    IcmpIgnored, "icmp_ignored", "The ICMP message is none that is answered here.";
    ArpMalformed, "arp_malformed", "The ARP packet is not a well-formed one for IPv4 over Ethernet.";
    ArpIgnored, "arp_ignored", "The ARP packet is a request for another host's address.";
    // Ownership.
    NotOwner, "not_owner", "This member is not the owner, so it stays silent.";
    LeaseExpired, "lease_expired", "This member's lease has run out, so it may no longer speak as the owner.";
    ForwardedTwice, "forwarded_twice", "Another member passed the frame on already, and it is not passed on again.";
    HoldFull, "hold_full", "More frames arrive than are kept for the ownership that is about to come, or for SAs that are being loaded.";
    HoldExpired, "hold_expired", "The frame was kept for an ownership or an SA that did not come in time.";
    // From outside: ESP.
    EspMalformed, "esp_malformed", "The ESP packet is too short, or its encrypted part does not end on a 4-octet boundary.";
    UnknownSpi, "unknown_spi", "No inbound SA has the SPI of the packet.";
    Replayed, "replayed", "A packet with this sequence number was accepted before.";
    TooOld, "too_old", "The sequence number is left of the replay window.";
    Ambiguous, "ambiguous", "The packet is authentic, but a predecessor may have accepted its sequence number already; the SA is to be renewed.";
    HorizonExceeded, "horizon_exceeded", "The packet is authentic, but its sequence number is above the committed horizon.";
    IcvMismatch, "icv_mismatch", "The packet is not authentic.";
    BadPadding, "bad_padding", "The padding is longer than the packet or not 1, 2, 3 and so on.";
    NextHeader, "next_header", "The packet carries something other than tunnelled IPv4.";
    DummyPacket, "dummy_packet", "The packet is a dummy that hides the flow of traffic; it is discarded as intended.";
    InnerMalformed, "inner_malformed", "The inner packet is not a well-formed IPv4 packet.";
    SelectorMismatch, "selector_mismatch", "The inner packet is none that the SA's traffic selectors allow.";
    EcnCongested, "ecn_congested", "The tunnel marks congestion for an inner packet that does not take part in ECN (RFC 6040 section 4.2).";
    FragmentAlone, "fragment_alone", "The first fragment of the datagram, which names its connection, did not come in time.";
    FragmentsFull, "fragments_full", "More fragments wait for the first of their datagram than are kept.";
    // Between: forwarding and distribution.
    TtlExpired, "ttl_expired", "The packet has no hops left.";
    TooBig, "too_big", "The packet does not fit the link or tunnel it has to take.";
    NoTarget, "no_target", "No target is in service.";
    NeighbourUnresolved, "neighbour_unresolved", "The MAC address of the next hop or target is not known yet.";
    MarkKeyMissing, "mark_key_missing", "The target takes marked packets only, and the key of this epoch is not agreed upon yet.";
    // From inside.
    NoPolicy, "no_policy", "No outbound policy takes the packet, so it must not leave.";
    NoSa, "no_sa", "The policy's SA is not installed on this worker.";
    RangeExhausted, "range_exhausted", "The granted sequence numbers are used up and the next grant is not committed yet.";
    SequenceEnd, "sequence_end", "The SA has used its last sequence number and must be renewed.";
    NoRoom, "no_room", "The packet buffer has no room for the ESP headers.";
    // Resources.
    NoBuffer, "no_buffer", "No packet buffer is free.";
    TxFull, "tx_full", "The port's transmit queue is full.";
    HandoffFull, "handoff_full", "The ring to the worker that has the SA is full.";
    PuntFull, "punt_full", "The ring to the controller is full.";
    RateLimited, "rate_limited", "Packets of this kind come faster than they are answered.";
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The reason's place in a table of counters, below [`COUNT`](Self::COUNT).
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The reason at a place in a table of counters.
    #[must_use]
    pub fn from_index(index: usize) -> Option<Self> {
        Self::ALL.get(index).copied()
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn indices_are_dense_and_lead_back() {
        for (index, &reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), index);
            assert_eq!(DropReason::from_index(index), Some(reason));
        }
        assert_eq!(DropReason::from_index(DropReason::COUNT), None);
    }

    #[test]
    fn names_are_distinct_and_the_variants_in_snake_case() {
        let names: BTreeSet<&str> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
        for reason in DropReason::ALL {
            let camel: String = reason.name().split('_').map(capitalised).collect();
            assert_eq!(camel, format!("{reason:?}"));
        }
    }

    #[test]
    fn each_description_is_one_sentence() {
        for reason in DropReason::ALL {
            let text = reason.description();
            assert!(text.ends_with('.') && text.matches(". ").count() == 0, "{text}");
        }
    }

    fn capitalised(word: &str) -> String {
        let mut letters = word.chars();
        letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
    }
}
