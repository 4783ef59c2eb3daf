//! What arrives: windows, floors, horizons, forgeries and every malformation.

use holdfast_crypto::{AeadAlgorithm, AeadBurst, Portable};
use holdfast_packet::{HeapBuf, PacketBuf};
use proptest::prelude::*;

use super::*;
use crate::testing::{CLIENT, SERVICE, Tunnel, inner, parameters, with_trailer};
use crate::{OutboundSa, SaKey, SequenceRange, TrafficSelector};

/// Opens a packet that must be refused, and sees that nothing of the inner packet is left of it.
fn refused(mut esp: Vec<u8>, receiver: &mut InboundSa) -> DropReason {
    let before = esp.clone();
    let reason = receiver.open(&mut esp).expect_err("the packet is to be refused");
    let untouched = esp == before;
    let wiped = esp.iter().skip(ESP_HEADER_LEN).all(|&octet| octet == 0);
    assert!(untouched || wiped, "{reason}: still ciphertext, or zeroes");
    reason
}

fn accepted(mut esp: Vec<u8>, receiver: &mut InboundSa) -> u64 {
    let opened = receiver.open(&mut esp).expect("the packet is to be accepted");
    assert_eq!(esp[opened.inner], inner(100));
    opened.sequence
}

#[test]
fn what_was_sealed_opens() {
    for algorithm in AeadAlgorithm::every() {
        for esn in [false, true] {
            let parameters = parameters(algorithm, esn);
            let mut sender = OutboundSa::new(&parameters, SequenceRange::new(1, 1000));
            let mut receiver = InboundSa::new(&parameters, 0, 1000);
            for len in 28..130 {
                let mut buf = HeapBuf::from_frame(&inner(len));
                let sequence = sender.seal(&mut buf).expect("a number is granted");
                let opened = receiver.open(buf.bytes_mut()).expect("honest");
                assert_eq!(opened.sequence, sequence);
                assert_eq!((opened.flow.src, opened.flow.dst), (CLIENT, SERVICE));
                assert_eq!(buf.bytes().get(opened.inner), Some(&inner(len)[..]));
            }
            assert_eq!((receiver.packets(), receiver.right_edge()), (102, 102));
        }
    }
}

/// RFC 7634, appendix A.
#[test]
fn the_packet_of_rfc_7634_opens() {
    let mut esp = hex::decode(concat!(
        "0102030400000005101112131415161724039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d4",
        "66ef407ae5c614ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3cbec163f",
        "ac469b502773f6fb94e664da9165b82829f641e076aaa8266b7fb0f7b11b369907e1ad43",
    ))
    .expect("hex");
    let algorithm = AeadAlgorithm::ChaCha20Poly1305;
    let keymat: Vec<u8> = (0x80_u8..=0xA3).collect();
    let mut parameters = parameters(algorithm, false);
    parameters.inbound_spi = Spi::new(0x0102_0304).expect("not reserved");
    parameters.inbound_key = SaKey::new(algorithm, &keymat).expect("the length fits");
    let everybody = vec![TrafficSelector::prefix(Ipv4Addr::UNSPECIFIED, 0)];
    parameters.selectors = Selectors { local: everybody.clone(), remote: everybody };
    let opened = InboundSa::new(&parameters, 0, 1000).open(&mut esp).expect("the RFC says so");
    assert_eq!((opened.sequence, opened.inner.len()), (5, 84));
    assert_eq!(opened.flow.src, Ipv4Addr::new(198, 51, 100, 5));
}

/// RFC 4303 section 3.4.3 and 2.2.1, whatever the algorithm: copies, changed bits and another high half.
#[test]
fn a_composition_refuses_copies_changed_bits_and_the_wrong_high_half() {
    for composition in holdfast_crypto::Composition::all() {
        let parameters = parameters(AeadAlgorithm::Composed(composition), true);
        let next = (7 << 32) + 5;
        let mut sender = OutboundSa::new(&parameters, SequenceRange::new(next, u64::MAX));
        let mut receiver = InboundSa::new(&parameters, next - 1, u64::MAX);
        let mut buf = HeapBuf::from_frame(&inner(61));
        assert_eq!(sender.seal(&mut buf), Ok(next));
        let sealed = buf.bytes().to_vec();
        for bit in (64..sealed.len() * 8).step_by(5) {
            let mut forged = sealed.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(refused(forged, &mut receiver), DropReason::IcvMismatch, "bit {bit}");
        }
        let mut elsewhere = InboundSa::new(&parameters, (8 << 32) + 4, u64::MAX);
        assert_eq!(refused(sealed.clone(), &mut elsewhere), DropReason::IcvMismatch);
        assert!(receiver.open(&mut sealed.clone()).is_ok(), "{composition:?}");
        assert_eq!(receiver.open(&mut sealed.clone()), Err(DropReason::Replayed));
        for len in 0..sealed.len() {
            let cut = sealed.get(..len).unwrap_or_default().to_vec();
            assert!(receiver.open(&mut cut.clone()).is_err(), "cut to {len}");
        }
    }
}

#[test]
fn copies_in_one_burst_pass_once() {
    let mut tunnel = Tunnel::new(false);
    let packet = tunnel.packet();
    let mut copies = vec![packet; 32];
    let openings: Vec<Opening> = copies
        .iter()
        .map(|esp| tunnel.receiver.prepare(esp).expect("not seen before this burst"))
        .collect();
    let mut jobs: Vec<OpenJob<'_>> = openings
        .iter()
        .zip(&mut copies)
        .filter_map(|(opening, esp)| opening.job(&tunnel.receiver, esp))
        .collect();
    Portable.open(&mut jobs);
    let authentic: Vec<bool> = jobs.iter().map(|job| job.ok).collect();
    assert_eq!(authentic, [true; 32]);

    let verdicts: Vec<_> = openings
        .into_iter()
        .zip(&mut copies)
        .map(|(opening, esp)| tunnel.receiver.finish(opening, true, esp).map(|_| ()))
        .collect();
    assert_eq!(verdicts[0], Ok(()));
    assert!(verdicts[1..].iter().all(|verdict| *verdict == Err(DropReason::Replayed)));
    assert!(copies[31][ESP_HEADER_LEN..].iter().all(|&octet| octet == 0), "wiped");
}

#[test]
fn a_replay_is_told_from_a_number_left_behind() {
    for esn in [false, true] {
        let mut tunnel = Tunnel::new(esn);
        let packets: Vec<Vec<u8>> = (0..100).map(|_| tunnel.packet()).collect();
        for packet in &packets {
            accepted(packet.clone(), &mut tunnel.receiver);
        }
        for (index, packet) in packets.into_iter().enumerate() {
            let expected = if index < 36 { DropReason::TooOld } else { DropReason::Replayed };
            assert_eq!(refused(packet, &mut tunnel.receiver), expected, "esn {esn}, {index}");
        }
    }
}

#[test]
fn a_forgery_moves_nothing() {
    let mut tunnel = Tunnel::new(false);
    accepted(tunnel.numbered(10), &mut tunnel.receiver);
    let mut forged = tunnel.numbered(1000);
    forged[20] ^= 1;
    assert_eq!(refused(forged, &mut tunnel.receiver), DropReason::IcvMismatch);
    assert_eq!(tunnel.receiver.right_edge(), 10);
    assert_eq!(tunnel.receiver.highest_authenticated(), 10);
    assert_eq!(accepted(tunnel.numbered(5), &mut tunnel.receiver), 5);
}

#[test]
fn each_flipped_bit_is_a_forgery_and_leaves_zeroes() {
    let mut tunnel = Tunnel::new(true);
    let packet = tunnel.packet();
    // The SPI finds the SA; every other octet is covered by the ICV or the window.
    for bit in 32..packet.len() * 8 {
        let mut forged = packet.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        let reason = refused(forged, &mut tunnel.receiver);
        assert!(
            matches!(reason, DropReason::IcvMismatch | DropReason::Replayed),
            "{bit}: {reason}"
        );
    }
    accepted(packet, &mut tunnel.receiver);
}

#[test]
fn an_unknown_length_or_spi_is_refused_before_any_decryption() {
    let mut tunnel = Tunnel::new(false);
    let packet = tunnel.packet();
    for len in 0..36 {
        assert_eq!(refused(packet[..len].to_vec(), &mut tunnel.receiver), DropReason::EspMalformed);
    }
    let mut unaligned = packet.clone();
    unaligned.push(0);
    assert_eq!(refused(unaligned, &mut tunnel.receiver), DropReason::EspMalformed);
    let mut foreign = packet;
    foreign[3] ^= 1;
    assert_eq!(refused(foreign, &mut tunnel.receiver), DropReason::UnknownSpi);
}

#[test]
fn authentic_nonsense_is_refused_and_wiped_but_its_number_is_spent() {
    let good = with_trailer(inner(100), 4);
    let with = |index: usize, octet: u8| {
        let mut plain = with_trailer(inner(101), 4);
        let at = plain.len() - 1 - index;
        plain[at] = octet;
        plain
    };
    let mut not_ipv4 = inner(100);
    not_ipv4[0] = 0x60;
    let mut longer_than_it_is = inner(100);
    longer_than_it_is[3] = 0xFF;
    let mut foreign = inner(100);
    foreign[19] ^= 1;
    let cases = [
        (with(1, 0xFF), DropReason::BadPadding),
        (with(2, 9), DropReason::BadPadding),
        (with(0, 41), DropReason::NextHeader),
        (with(0, 59), DropReason::DummyPacket),
        (with_trailer(not_ipv4, 4), DropReason::InnerMalformed),
        (with_trailer(longer_than_it_is, 4), DropReason::InnerMalformed),
        (with_trailer(vec![], 4), DropReason::InnerMalformed),
        (with_trailer(vec![0xEE; 7], 59), DropReason::DummyPacket),
        (with_trailer(foreign, 4), DropReason::SelectorMismatch),
    ];
    let mut tunnel = Tunnel::new(false);
    for (sequence, (plain, reason)) in (1..).zip(cases) {
        let packet = tunnel.craft(sequence, &plain);
        assert_eq!(refused(packet, &mut tunnel.receiver), reason);
        assert_eq!(tunnel.receiver.right_edge(), sequence);
        let again = tunnel.craft(sequence, &good);
        assert_eq!(refused(again, &mut tunnel.receiver), DropReason::Replayed);
    }
}

#[test]
fn padding_that_hides_the_length_is_stripped() {
    let mut tunnel = Tunnel::new(false);
    let mut padded = inner(100);
    padded.extend([0xEE; 1111]);
    accepted(tunnel.craft(1, &with_trailer(padded, 4)), &mut tunnel.receiver);
    // Padding proper may be longer than it needs to be.
    let mut plain = inner(100);
    plain.extend(1..=254);
    plain.extend([254, 4]);
    accepted(tunnel.craft(2, &plain), &mut tunnel.receiver);
}

#[test]
fn numbers_up_to_the_floor_are_ambiguous_when_authentic() {
    for esn in [false, true] {
        let tunnel = Tunnel::new(esn);
        let mut receiver = InboundSa::new(&tunnel.parameters, 100_000, 100_200);
        // However far below the floor: the peer may have been this far when the predecessor died.
        for sequence in [100_000, 99_990, 99_000, 50_000, 1] {
            let packet = tunnel.numbered(sequence);
            assert_eq!(refused(packet.clone(), &mut receiver), DropReason::Ambiguous, "{sequence}");
            let mut forged = packet;
            forged[30] ^= 1;
            assert_eq!(refused(forged, &mut receiver), DropReason::IcvMismatch);
        }
        assert_eq!((receiver.right_edge(), receiver.packets()), (100_000, 0));

        assert_eq!(accepted(tunnel.numbered(100_005), &mut receiver), 100_005);
        assert_eq!(refused(tunnel.numbered(99_999), &mut receiver), DropReason::Ambiguous);
        assert_eq!(refused(tunnel.numbered(50_000), &mut receiver), DropReason::TooOld);
        assert_eq!(accepted(tunnel.numbered(100_001), &mut receiver), 100_001);
    }
}

#[test]
fn after_a_takeover_extended_numbers_are_found_across_a_wrap() {
    let wrap = 1 << 32;
    let tunnel = Tunnel::new(true);
    let mut receiver = InboundSa::new(&tunnel.parameters, wrap + 500, wrap + 1000);
    assert_eq!(refused(tunnel.numbered(wrap - 5000), &mut receiver), DropReason::Ambiguous);
    assert_eq!(accepted(tunnel.numbered(wrap + 501), &mut receiver), wrap + 501);

    let mut receiver = InboundSa::new(&tunnel.parameters, wrap - 10, wrap + 1000);
    assert_eq!(accepted(tunnel.numbered(wrap + 7), &mut receiver), wrap + 7);
    assert_eq!(accepted(tunnel.numbered(wrap - 3), &mut receiver), wrap - 3);
}

#[test]
fn numbers_above_the_horizon_wait_for_it() {
    for esn in [false, true] {
        let tunnel = Tunnel::new(esn);
        let mut receiver = InboundSa::new(&tunnel.parameters, 0, 128);
        assert_eq!(accepted(tunnel.numbered(128), &mut receiver), 128);
        assert_eq!(refused(tunnel.numbered(129), &mut receiver), DropReason::HorizonExceeded);
        assert_eq!(refused(tunnel.numbered(70_000), &mut receiver), DropReason::HorizonExceeded);
        let mut forged = tunnel.numbered(90_000);
        forged[30] ^= 1;
        assert_eq!(refused(forged, &mut receiver), DropReason::IcvMismatch);
        assert_eq!((receiver.right_edge(), receiver.highest_authenticated()), (128, 70_000));

        receiver.extend_horizon(70_100);
        receiver.extend_horizon(10);
        assert_eq!(receiver.horizon(), 70_100);
        assert_eq!(accepted(tunnel.numbered(129), &mut receiver), 129);
        assert_eq!(accepted(tunnel.numbered(70_000), &mut receiver), 70_000);
    }
}

#[test]
fn a_packet_prepared_before_the_edge_moved_is_judged_where_it_is_now() {
    let mut tunnel = Tunnel::new(false);
    let mut early = tunnel.numbered(1);
    let opening = tunnel.receiver.prepare(&early).expect("acceptable yet");
    accepted(tunnel.numbered(500), &mut tunnel.receiver);
    let job = opening.job(&tunnel.receiver, &mut early).expect("long enough");
    job.key.open_one(&job.nonce, job.aad, job.data, job.tag).expect("authentic");
    let verdict = tunnel.receiver.finish(opening, true, &mut early);
    assert_eq!(verdict, Err(DropReason::TooOld));
    assert!(early[ESP_HEADER_LEN..].iter().all(|&octet| octet == 0));
}

#[test]
fn number_zero_is_no_number() {
    for esn in [false, true] {
        let mut tunnel = Tunnel::new(esn);
        assert_eq!(refused(tunnel.numbered(0), &mut tunnel.receiver), DropReason::Replayed);
    }
}

/// One step of the attacker's or the network's: deliver a packet the peer has sent, again or first.
fn deliveries() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(prop_oneof![1..400_u64, 150..260_u64], 1..200)
}

proptest! {
    #[test]
    fn no_number_is_delivered_twice_over_a_takeover(
        before in deliveries(), after in deliveries(), horizon in 1..300_u64, esn: bool,
    ) {
        let tunnel = Tunnel::new(esn);
        let deliver = |receiver: &mut InboundSa, numbers: Vec<u64>| -> Vec<u64> {
            numbers
                .into_iter()
                .filter(|&number| receiver.open(&mut tunnel.numbered(number)).is_ok())
                .collect()
        };
        let mut first = InboundSa::new(&tunnel.parameters, 0, horizon);
        let mut delivered = deliver(&mut first, before);
        // The successor knows nothing but the horizon that was committed.
        let mut second = InboundSa::new(&tunnel.parameters, horizon, horizon + 128);
        delivered.extend(deliver(&mut second, after));

        prop_assert!(delivered.iter().all(|&number| number <= horizon + 128));
        let count = delivered.len();
        delivered.sort_unstable();
        delivered.dedup();
        prop_assert_eq!(delivered.len(), count);
    }

    #[test]
    fn no_bytes_panic(
        mut esp in prop::collection::vec(any::<u8>(), 0..200), esn: bool, floor: u64, horizon: u64,
        with_spi: bool,
    ) {
        let tunnel = Tunnel::new(esn);
        let mut receiver = InboundSa::new(&tunnel.parameters, floor, horizon);
        if let (true, Some(spi)) = (with_spi, esp.get_mut(..4)) {
            spi.copy_from_slice(&tunnel.parameters.inbound_spi.get().to_be_bytes());
        }
        prop_assert!(receiver.open(&mut esp).is_err());
    }

    #[test]
    fn no_authentic_bytes_panic(
        mut plain in prop::collection::vec(any::<u8>(), 1..60), next: bool,
    ) {
        let mut tunnel = Tunnel::new(false);
        plain.resize(plain.len().next_multiple_of(4), 0);
        if let (true, Some(last)) = (next, plain.last_mut()) {
            *last = 4;
        }
        let packet = tunnel.craft(1, &plain);
        refused(packet, &mut tunnel.receiver);
    }
}

#[test]
fn an_sa_that_is_started_again_is_as_a_new_one_with_these_numbers() {
    let parameters = parameters(AeadAlgorithm::Aes256Gcm16, true);
    let mut sender = OutboundSa::new(&parameters, SequenceRange::new(1, 1_000));
    let mut receiver = InboundSa::new(&parameters, 0, 5);
    let packets: Vec<Vec<u8>> = (0..12)
        .map(|_| {
            let mut buf = HeapBuf::from_frame(&inner(100));
            sender.seal(&mut buf).expect("a number is granted");
            buf.bytes().to_vec()
        })
        .collect();
    for packet in &packets[..5] {
        accepted(packet.clone(), &mut receiver);
    }
    assert_eq!(refused(packets[7].clone(), &mut receiver), DropReason::HorizonExceeded);
    assert_eq!((receiver.packets(), receiver.highest_authenticated()), (5, 8));

    let edge = ReplayEdge { right_edge: 9, unseen: vec![(8, 8)] };
    receiver.restart(6, &edge, 11);
    assert_eq!((receiver.packets(), receiver.bytes()), (0, 0));
    assert_eq!((receiver.floor(), receiver.horizon(), receiver.right_edge()), (6, 11, 9));
    assert_eq!(receiver.highest_authenticated(), 9);
    assert_eq!(receiver.replay_edge(), edge);
    assert_eq!(refused(packets[5].clone(), &mut receiver), DropReason::Ambiguous);
    assert_eq!(refused(packets[6].clone(), &mut receiver), DropReason::Replayed);
    assert_eq!(accepted(packets[7].clone(), &mut receiver), 8);
    assert_eq!(accepted(packets[10].clone(), &mut receiver), 11);
    assert_eq!(refused(packets[11].clone(), &mut receiver), DropReason::HorizonExceeded);

    sender.restart(SequenceRange::new(2_000, 2_001));
    assert_eq!((sender.packets(), sender.remaining()), (0, 1));
    let mut buf = HeapBuf::from_frame(&inner(100));
    assert_eq!(sender.seal(&mut buf).expect("one is left"), 2_000);
    assert!(sender.seal(&mut HeapBuf::from_frame(&inner(100))).is_err());
}
