//! Properties over random inputs: what is sealed opens, what is changed does not, and no bytes
//! panic.

use proptest::prelude::*;
use rand_core::{TryCryptoRng, TryRng};

use crate::{
    AeadAlgorithm, AeadBurst, AeadKey, CbcKey, Group, IntegrityAlgorithm, OpenJob, Portable,
    PrivateKey, SealJob, SecretBytes,
};

/// A generator for tests: counts, so that runs repeat.
#[derive(Debug)]
struct Counter(u64);

impl TryRng for Counter {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        self.try_next_u64().map(|number| number as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        Ok(self.0 ^ (self.0 >> 33))
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), Self::Error> {
        for octet in into {
            *octet = (self.try_next_u64()? >> 24) as u8;
        }
        Ok(())
    }
}

impl TryCryptoRng for Counter {}

#[test]
fn both_sides_arrive_at_the_same_secret() {
    for &group in Group::ALL {
        let (ours, theirs) = (
            PrivateKey::generate(group, &mut Counter(1)),
            PrivateKey::generate(group, &mut Counter(2)),
        );
        assert_eq!(ours.public_bytes().len(), group.public_len());
        assert_ne!(ours.public_bytes(), theirs.public_bytes());
        let shared = ours.agree(&theirs.public_bytes()).expect("a public value");
        assert_eq!(theirs.agree(&ours.public_bytes()), Ok(shared.clone()));

        let successor = PrivateKey::from_bytes(group, ours.to_bytes().as_bytes()).expect("stored");
        assert_eq!(successor.agree(&theirs.public_bytes()), Ok(shared));
        assert_eq!(Group::from_transform_id(group.transform_id()), Some(group));
    }
    assert_eq!(Group::from_transform_id(2), None);
}

#[test]
fn keys_print_nothing_of_themselves() {
    let secret = [0x5A; 32];
    let printed = [
        format!("{:?}", AeadKey::aes_256(&secret)),
        format!("{:?}", CbcKey::new(&secret).expect("32 octets")),
        format!("{:?}", PrivateKey::from_bytes(Group::Curve25519, &secret).expect("32 octets")),
        format!("{:?}", SecretBytes::from(&secret[..])),
    ];
    for text in printed {
        assert!(!text.contains("90") && !text.to_lowercase().contains("5a"), "{text}");
    }
}

#[test]
fn a_key_of_the_wrong_length_is_refused() {
    assert!(AeadKey::new(AeadAlgorithm::Aes128Gcm16, &[0; 32]).is_err());
    assert!(AeadKey::new(AeadAlgorithm::Aes256Gcm16, &[0; 36]).is_err());
    for &group in Group::ALL {
        assert!(PrivateKey::from_bytes(group, &[1; 5]).is_err());
    }
    assert!(PrivateKey::from_bytes(Group::Ecp256, &[0; 32]).is_err(), "zero is no private value");
    assert!(PrivateKey::from_bytes(Group::Ecp256, &[0xFF; 32]).is_err(), "above the order");
}

#[derive(Debug)]
struct Packet {
    key: usize,
    plain: Vec<u8>,
    data: Vec<u8>,
    tag: [u8; 16],
    nonce: [u8; 12],
}

fn packets() -> impl Strategy<Value = Vec<Packet>> {
    let packet = (0..2_usize, prop::collection::vec(any::<u8>(), 0..200), any::<[u8; 12]>());
    prop::collection::vec(packet, 0..20).prop_map(|packets| {
        packets
            .into_iter()
            .map(|(key, plain, nonce)| Packet {
                key,
                data: plain.clone(),
                plain,
                tag: [0; 16],
                nonce,
            })
            .collect()
    })
}

fn seal(keys: &[AeadKey; 2], packets: &mut [Packet]) {
    let mut jobs: Vec<SealJob<'_>> = packets
        .iter_mut()
        .map(|packet| SealJob {
            key: &keys[packet.key],
            nonce: packet.nonce,
            aad: b"aad",
            data: &mut packet.data,
            tag: &mut packet.tag,
        })
        .collect();
    Portable.seal(&mut jobs);
}

fn open(keys: &[AeadKey; 2], packets: &mut [Packet]) -> Vec<bool> {
    let mut jobs: Vec<OpenJob<'_>> = packets
        .iter_mut()
        .map(|packet| OpenJob {
            key: &keys[packet.key],
            nonce: packet.nonce,
            aad: b"aad",
            data: &mut packet.data,
            tag: &packet.tag,
            ok: false,
        })
        .collect();
    Portable.open(&mut jobs);
    jobs.iter().map(|job| job.ok).collect()
}

proptest! {
    #[test]
    fn a_burst_with_forgeries_loses_only_those(
        mut packets in packets(),
        forged in prop::collection::vec(any::<Option<prop::sample::Index>>(), 20),
    ) {
        let keys = [AeadKey::aes_128(&[1; 16]), AeadKey::aes_256(&[2; 32])];
        seal(&keys, &mut packets);
        for (packet, forgery) in packets.iter_mut().zip(&forged) {
            let bits = (packet.data.len() + packet.tag.len()) * 8;
            if let Some(bit) = forgery.map(|index| index.index(bits)) {
                let mut octets = packet.data.iter_mut().chain(&mut packet.tag);
                if let Some(octet) = octets.nth(bit / 8) {
                    *octet ^= 1 << (bit % 8);
                }
            }
        }
        let verdicts = open(&keys, &mut packets);
        for ((packet, ok), forgery) in packets.iter().zip(verdicts).zip(&forged) {
            prop_assert_eq!(ok, forgery.is_none());
            if ok {
                prop_assert_eq!(&packet.data, &packet.plain);
            } else {
                prop_assert!(packet.data.iter().all(|&octet| octet == 0));
            }
        }
    }

    #[test]
    fn no_bytes_from_a_peer_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for &group in Group::ALL {
            let key = PrivateKey::generate(group, &mut Counter(7));
            let _ = key.agree(&bytes);
            let mut exact = bytes.clone();
            exact.resize(group.public_len(), 0);
            let _ = key.agree(&exact);
            let _ = PrivateKey::from_bytes(group, &bytes);
        }
        let _ = IntegrityAlgorithm::HmacSha256_128.verify(&bytes, &[&bytes], &bytes);
        let mut data = bytes.clone();
        if let Ok(key) = CbcKey::new(&[3; 16]) {
            let _ = key.decrypt(&[0; 16], &mut data);
        }
        let opened = AeadKey::aes_128(&[0; 16]).open_one(&[0; 12], &bytes, &mut data, &[0; 16]);
        prop_assert!(opened.is_err());
    }
}
