//! What leaves: layout, numbers, ranges.

use std::collections::BTreeSet;

use holdfast_crypto::{AeadAlgorithm, AeadBurst, Portable};
use holdfast_packet::HeapBuf;
use proptest::prelude::*;

use super::*;
use crate::ESP_OVERHEAD_MAX;
use crate::testing::{inner, parameters};

fn sa(esn: bool, range: SequenceRange) -> OutboundSa {
    OutboundSa::new(&parameters(AeadAlgorithm::Aes128Gcm16, esn), range)
}

/// Every number the SA gives out until it refuses, and why it does.
fn drain(sa: &mut OutboundSa) -> (Vec<u64>, DropReason) {
    let mut numbers = Vec::new();
    loop {
        match sa.seal(&mut HeapBuf::from_frame(&inner(40))) {
            Ok(number) => numbers.push(number),
            Err(reason) => return (numbers, reason),
        }
    }
}

#[test]
fn a_packet_is_laid_out_as_the_rfcs_say() {
    for (&algorithm, esn) in AeadAlgorithm::ALL.iter().flat_map(|a| [(a, false), (a, true)]) {
        let parameters = parameters(algorithm, esn);
        let number = 0x0000_0001_0203_0405 & if esn { u64::MAX } else { 0xFFFF_FFFF };
        let mut sa = OutboundSa::new(&parameters, SequenceRange::new(number, number + 1));
        let mut buf = HeapBuf::from_frame(&inner(49));
        assert_eq!(sa.seal(&mut buf), Ok(number));

        let keymat = parameters.outbound_key.key_and_salt();
        let (key, salt) = keymat.as_bytes().split_at(algorithm.key_len());
        let (header, rest) = buf.bytes().split_at(ESP_HEADER_LEN);
        let (data, icv) = rest.split_at(rest.len() - ICV_LEN);
        let (spi, low) = (0x1000_u32.to_be_bytes(), 0x0203_0405_u32.to_be_bytes());
        assert_eq!(header, [&spi[..], &low, &number.to_be_bytes()].concat());

        // RFC 4106 section 4: salt and IV; section 5: SPI and the whole number.
        let nonce: [u8; 12] =
            [salt, &number.to_be_bytes()].concat().try_into().expect("4 and 8 octets");
        let whole = number.to_be_bytes();
        let aad = [&spi[..], if esn { &whole } else { &low }].concat();
        let mut plain = data.to_vec();
        let key = AeadKey::new(algorithm, key).expect("the length fits");
        key.open_one(&nonce, &aad, &mut plain, icv.try_into().expect("16 octets"))
            .expect("authentic under the hand-made nonce and AAD");
        // 49 octets, one of padding, pad length and next header.
        assert_eq!(plain, [&inner(49)[..], &[1, 1, 4]].concat());
    }
}

#[test]
fn a_composition_pads_to_its_boundary_and_no_further() {
    for composition in holdfast_crypto::Composition::all() {
        let parameters = parameters(AeadAlgorithm::Composed(composition), true);
        let mut sa = OutboundSa::new(&parameters, SequenceRange::new(1, 1000));
        for len in 28..100 {
            let mut buf = HeapBuf::from_frame(&inner(len));
            sa.seal(&mut buf).expect("a number is granted");
            let esp_len = buf.bytes().len();
            let encrypted = esp_len - 8 - composition.iv_len() - composition.icv_len();
            assert_eq!(encrypted % composition.alignment(), 0, "{composition:?} {len}");
            assert!((len + 2..len + 2 + composition.alignment()).contains(&encrypted));
            assert!(sa.inner_len_max(esp_len) >= len && sa.inner_len_max(esp_len - 1) < len);
        }
    }
}

#[test]
fn padding_is_as_short_as_can_be() {
    for len in 28..100 {
        let mut buf = HeapBuf::from_frame(&inner(len));
        sa(true, SequenceRange::new(1, 2)).seal(&mut buf).expect("a number is granted");
        let encrypted = buf.bytes().len() - ESP_HEADER_LEN - ICV_LEN;
        assert_eq!(encrypted % 4, 0, "inner length {len}");
        assert!((len + 2..len + 6).contains(&encrypted), "inner length {len}");
        assert!(buf.bytes().len() <= len + ESP_OVERHEAD_MAX);
    }
}

#[test]
fn a_run_of_packets_is_sealed_in_one_go() {
    let mut sa = sa(false, SequenceRange::new(1, 100));
    let mut bufs: Vec<HeapBuf> = (28..60).map(|len| HeapBuf::from_frame(&inner(len))).collect();
    let sealings: Vec<Sealing> =
        bufs.iter_mut().map(|buf| sa.begin_seal(buf).expect("a number is granted")).collect();
    let mut jobs: Vec<SealJob<'_>> = sealings
        .iter()
        .zip(&mut bufs)
        .filter_map(|(sealing, buf)| sealing.job(&sa, buf.bytes_mut()))
        .collect();
    assert_eq!(jobs.len(), 32);
    Portable.seal(&mut jobs);

    let mut one_by_one = self::sa(false, SequenceRange::new(1, 100));
    for (buf, len) in bufs.iter().zip(28..) {
        let mut single = HeapBuf::from_frame(&inner(len));
        one_by_one.seal(&mut single).expect("a number is granted");
        assert_eq!(buf.bytes(), single.bytes());
    }
    assert_eq!((sa.packets(), sa.remaining()), (32, 99 - 32));
}

#[test]
fn a_buffer_without_room_costs_no_number() {
    let mut sa = sa(false, SequenceRange::new(1, 3));
    for (headroom, tailroom) in [(15, 100), (100, 17), (0, 0)] {
        let mut buf = HeapBuf::with_room(&inner(30), headroom, tailroom);
        assert_eq!(sa.seal(&mut buf), Err(DropReason::NoRoom));
        assert_eq!(buf.bytes(), inner(30), "unchanged");
    }
    assert_eq!((sa.remaining(), sa.packets()), (2, 0));
}

#[test]
fn a_range_is_never_overrun() {
    let mut sa = sa(true, SequenceRange::new(10, 13));
    assert_eq!(drain(&mut sa), (vec![10, 11, 12], DropReason::RangeExhausted));
    sa.grant(SequenceRange::new(13, 15));
    assert_eq!(drain(&mut sa), (vec![13, 14], DropReason::RangeExhausted));
}

#[test]
fn thirty_two_bits_stop_at_their_last_number() {
    let last = u64::from(u32::MAX);
    let mut sa = sa(false, SequenceRange::new(last - 1, last + 1000));
    assert_eq!(drain(&mut sa), (vec![last - 1, last], DropReason::SequenceEnd));
    sa.grant(SequenceRange::new(last + 1, last + 2000));
    sa.grant(SequenceRange::new(1, 500));
    assert_eq!(drain(&mut sa), (vec![], DropReason::SequenceEnd), "for good");
}

#[test]
fn extended_numbers_go_on_past_thirty_two_bits() {
    let mut sa = sa(true, SequenceRange::new((1 << 32) - 1, (1 << 32) + 2));
    let (numbers, _) = drain(&mut sa);
    assert_eq!(numbers, [(1 << 32) - 1, 1 << 32, (1 << 32) + 1]);
}

#[test]
fn a_gap_is_jumped_and_nothing_below_it_comes_back() {
    let mut sa = sa(true, SequenceRange::new(1, 5));
    sa.grant(SequenceRange::new(100, 102));
    sa.grant(SequenceRange::new(5, 90));
    assert_eq!(drain(&mut sa).0, [100, 101]);
}

proptest! {
    #[test]
    fn no_number_is_used_twice_or_without_a_grant(
        first in (0..50_u64, 0..50_u64),
        steps in prop::collection::vec(
            prop_oneof![
                (0..200_u64, 0..60_u64).prop_map(Some),
                Just(None),
            ],
            0..60,
        ),
        esn: bool,
        near_the_end: bool,
    ) {
        let base = if near_the_end { u64::from(u32::MAX) - 100 } else { 0 };
        let range = |(next, len): (u64, u64)| SequenceRange::new(base + next, base + next + len);
        let granted_numbers = |(next, len): (u64, u64)| (base + next).max(1)..base + next + len;

        let mut sa = sa(esn, range(first));
        let mut granted: BTreeSet<u64> = granted_numbers(first).collect();
        let mut used = Vec::new();
        for step in steps {
            match step {
                Some(grant) => {
                    sa.grant(range(grant));
                    granted.extend(granted_numbers(grant));
                }
                None => {
                    let mut buf = HeapBuf::from_frame(&inner(28));
                    used.extend(sa.seal(&mut buf).ok());
                }
            }
        }
        used.extend(drain(&mut sa).0);
        prop_assert!(used.windows(2).all(|pair| pair[0] < pair[1]), "numbers rise: {:?}", used);
        prop_assert!(used.iter().all(|number| granted.contains(number)));
        prop_assert!(esn || used.iter().all(|&number| number <= u64::from(u32::MAX)));
    }

    #[test]
    fn any_inner_bytes_can_be_sealed(inner in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut buf = HeapBuf::from_frame(&inner);
        prop_assert_eq!(sa(true, SequenceRange::new(1, 2)).seal(&mut buf), Ok(1));
    }
}
