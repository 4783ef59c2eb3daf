//! Every level against the `aes-gcm` crate over random bursts: lengths, alignments, mixtures of keys,
//! AADs, forgeries.
//!
//! A fixed number of bursts runs with every change; `HOLDFAST_ORACLE_BURSTS=N` runs so many and
//! `HOLDFAST_ORACLE_SEED=S` begins at another seed (a burst has 48 packets on average).

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::{AeadAlgorithm, AeadBurst, AeadKey, Engine, Level, OpenJob, SealJob};

/// Bursts of a run that has no other number.
const BURSTS: u64 = 400;
/// Packets of a burst, at most; more than a worker's.
const BURST_MAX: usize = 96;
/// Keys of an algorithm.
const KEYS: usize = 5;
/// Room in front of and behind a packet, which must stay as it is.
const GUARD: usize = 64;

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    (rng.next_u64() % bound.max(1) as u64) as usize
}

fn octets(rng: &mut ChaCha8Rng, len: usize) -> Vec<u8> {
    let mut octets = vec![0; len];
    rng.fill_bytes(&mut octets);
    octets
}

/// One key at a level under test and at the oracle's.
struct Pair {
    tested: AeadKey,
    oracle: AeadKey,
}

impl Pair {
    fn random(rng: &mut ChaCha8Rng, levels: &[Level]) -> Self {
        let algorithm = AeadAlgorithm::GCM[below(rng, AeadAlgorithm::GCM.len())];
        let level = levels[below(rng, levels.len())];
        let key = octets(rng, algorithm.key_len());
        let at = |level| AeadKey::with_level(level, algorithm, &key).expect("available");
        Self { tested: at(level), oracle: at(Level::Portable) }
    }
}

#[derive(Clone)]
struct Packet {
    key: usize,
    nonce: [u8; 12],
    aad: Vec<u8>,
    room: Vec<u8>,
    start: usize,
    len: usize,
    tag: [u8; 16],
    /// Whether a bit is changed before it is opened.
    forged: bool,
}

impl Packet {
    fn random(rng: &mut ChaCha8Rng, keys: usize, sizes: Sizes) -> Self {
        let len = sizes.draw(rng);
        let start = GUARD + below(rng, 64);
        let aad_len = match below(rng, 8) {
            0 => 0,
            1 => below(rng, 17),
            2 => below(rng, 80),
            3 => 12,
            _ => 8,
        };
        let mut nonce = [0; 12];
        rng.fill_bytes(&mut nonce);
        Self {
            key: below(rng, keys),
            nonce,
            aad: octets(rng, aad_len),
            room: octets(rng, start + len + GUARD),
            start,
            len,
            tag: [0; 16],
            forged: below(rng, 4) == 0,
        }
    }

    fn data(&self) -> &[u8] {
        &self.room[self.start..self.start + self.len]
    }

    fn guards(&self) -> [&[u8]; 2] {
        [&self.room[..self.start], &self.room[self.start + self.len..]]
    }
}

/// What sizes a burst mixes.
#[derive(Clone, Copy)]
enum Sizes {
    /// All the same: those that run in lockstep.
    One(usize),
    /// Up to so many octets.
    UpTo(usize),
    /// As on the Internet, with jumbo frames among them.
    Mixed,
}

impl Sizes {
    fn random(rng: &mut ChaCha8Rng) -> Self {
        match below(rng, 6) {
            0 => Self::One(below(rng, 300)),
            1 | 2 => Self::UpTo(300),
            3 => Self::UpTo(1600),
            4 => Self::UpTo(9001),
            _ => Self::Mixed,
        }
    }

    fn draw(self, rng: &mut ChaCha8Rng) -> usize {
        match self {
            Self::One(len) => len,
            Self::UpTo(bound) => below(rng, bound),
            Self::Mixed => [40, 64, 66, 578, 1422, 1500, 4096, 9000][below(rng, 8)],
        }
    }
}

fn seal_tested(keys: &[Pair], packets: &mut [Packet]) {
    let mut jobs: Vec<SealJob<'_>> = packets
        .iter_mut()
        .map(|packet| SealJob {
            key: &keys[packet.key].tested,
            nonce: packet.nonce,
            aad: &packet.aad,
            data: &mut packet.room[packet.start..packet.start + packet.len],
            tag: &mut packet.tag,
        })
        .collect();
    Engine.seal(&mut jobs);
}

fn open_tested(keys: &[Pair], packets: &mut [Packet]) -> Vec<bool> {
    let mut jobs: Vec<OpenJob<'_>> = packets
        .iter_mut()
        .map(|packet| OpenJob {
            key: &keys[packet.key].tested,
            nonce: packet.nonce,
            aad: &packet.aad,
            data: &mut packet.room[packet.start..packet.start + packet.len],
            tag: &packet.tag,
            ok: false,
        })
        .collect();
    Engine.open(&mut jobs);
    jobs.iter().map(|job| job.ok).collect()
}

/// Changes one bit of what is authenticated, wherever it is.
fn forge(rng: &mut ChaCha8Rng, packet: &mut Packet) {
    let (len, aad_len) = (packet.len, packet.aad.len());
    let bit = below(rng, 8 * (len + aad_len + 16 + 12));
    let flip = |octets: &mut [u8], at: usize| octets[at] ^= 1 << (bit % 8);
    match bit / 8 {
        at if at < len => flip(&mut packet.room[packet.start..], at),
        at if at < len + aad_len => flip(&mut packet.aad, at - len),
        at if at < len + aad_len + 16 => flip(&mut packet.tag, at - len - aad_len),
        at => flip(&mut packet.nonce, at - len - aad_len - 16),
    }
}

/// One burst, sealed and opened; gives how many packets it had.
fn burst(seed: u64, levels: &[Level]) -> usize {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let keys: Vec<Pair> =
        (0..=below(&mut rng, KEYS)).map(|_| Pair::random(&mut rng, levels)).collect();
    let sizes = Sizes::random(&mut rng);
    let count = below(&mut rng, BURST_MAX + 1);
    let plain: Vec<Packet> =
        (0..count).map(|_| Packet::random(&mut rng, keys.len(), sizes)).collect();

    let mut sealed = plain.clone();
    seal_tested(&keys, &mut sealed);
    for (at, (plain, sealed)) in plain.iter().zip(&sealed).enumerate() {
        let what = format!("seed {seed}, packet {at} of {count}, {} octets", plain.len);
        let mut expected = plain.data().to_vec();
        let key = &keys[plain.key].oracle;
        let tag = key.seal_one(&plain.nonce, &plain.aad, &mut expected).expect("short");
        assert!(sealed.data() == expected, "{what}: ciphertext");
        assert_eq!(sealed.tag, tag, "{what}: tag");
        assert!(sealed.guards() == plain.guards(), "{what}: octets around it changed");
    }

    let mut opened = sealed;
    for packet in opened.iter_mut().filter(|packet| packet.forged) {
        forge(&mut rng, packet);
    }
    let verdicts = open_tested(&keys, &mut opened);
    for (at, ((plain, opened), ok)) in plain.iter().zip(&opened).zip(verdicts).enumerate() {
        let what = format!("seed {seed}, packet {at} of {count}, {} octets", plain.len);
        assert_eq!(ok, !opened.forged, "{what}: verdict");
        if ok {
            assert!(opened.data() == plain.data(), "{what}: plaintext");
        } else {
            assert!(opened.data().iter().all(|&octet| octet == 0), "{what}: not wiped");
        }
        assert!(opened.guards() == plain.guards(), "{what}: octets around it changed");
    }
    count
}

fn available() -> Vec<Level> {
    Level::ALL.iter().copied().filter(|level| level.is_available()).collect()
}

#[test]
fn every_level_does_what_the_oracle_does_in_any_mixture() {
    let seed = setting("HOLDFAST_ORACLE_SEED", 1);
    let bursts = setting("HOLDFAST_ORACLE_BURSTS", BURSTS);
    let levels = available();
    let packets: usize = (seed..seed + bursts).map(|seed| burst(seed, &levels)).sum();
    eprintln!(
        "levels {levels:?}: {packets} packets in bursts of seeds {seed} to {}",
        seed + bursts - 1
    );
    assert!(bursts < BURSTS || packets as u64 > 30 * bursts);
}

/// Seals and opens one packet alone and in lockstep with its like, at one level.
fn every_way(level: Level, algorithm: AeadAlgorithm, len: usize, offset: usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(len as u64);
    let key = octets(&mut rng, algorithm.key_len());
    let at = |level| AeadKey::with_level(level, algorithm, &key).expect("available");
    let keys = [Pair { tested: at(level), oracle: at(Level::Portable) }];
    let mut packets: Vec<Packet> =
        (0..5).map(|_| Packet::random(&mut rng, 1, Sizes::One(len))).collect();
    for packet in &mut packets {
        packet.start = GUARD + offset;
        packet.room.resize(packet.start + len + GUARD, 0xA5);
    }
    let mut sealed = packets.clone();
    seal_tested(&keys, &mut sealed);
    for (plain, sealed) in packets.iter().zip(&sealed) {
        let mut expected = plain.data().to_vec();
        let tag = keys[0].oracle.seal_one(&plain.nonce, &plain.aad, &mut expected).expect("short");
        assert!(
            sealed.data() == expected && sealed.tag == tag,
            "{level} {algorithm:?} {len} {offset}"
        );
        assert!(sealed.guards() == plain.guards(), "{level} {algorithm:?} {len} {offset}");
    }
    assert_eq!(open_tested(&keys, &mut sealed), [true; 5], "{level} {algorithm:?} {len} {offset}");
    for (plain, opened) in packets.iter().zip(&sealed) {
        assert!(opened.data() == plain.data(), "{level} {algorithm:?} {len} {offset}");
    }
}

#[test]
fn every_length_up_to_1600_and_around_every_kilobyte_up_to_9000_is_right() {
    for level in available() {
        for &algorithm in AeadAlgorithm::GCM {
            for len in (0..1600).chain((2..10).flat_map(|kilo| kilo * 1000 - 40..=kilo * 1000)) {
                every_way(level, algorithm, len, len * 7 % 64);
            }
        }
    }
}

#[test]
fn every_alignment_is_right() {
    for level in available() {
        for &algorithm in AeadAlgorithm::GCM {
            for (offset, len) in
                (0..64).flat_map(|offset| [40, 64, 200, 1420].map(|len| (offset, len)))
            {
                every_way(level, algorithm, len, offset);
            }
        }
    }
}

#[test]
fn a_packet_with_any_one_bit_changed_is_refused_and_wiped() {
    for level in available() {
        for &algorithm in AeadAlgorithm::ALL {
            let key = AeadKey::with_level(level, algorithm, &vec![7; algorithm.key_len()])
                .expect("available");
            for len in [1, 64, 100, 300] {
                let mut sealed = vec![0xEE; len];
                let tag = key.seal_one(&[1; 12], b"eight by", &mut sealed).expect("short");
                // Four at a time, so that short ones run in lockstep.
                let bits: Vec<usize> = (0..8 * (len + 16)).collect();
                for bits in bits.chunks(4) {
                    let mut packets: Vec<(Vec<u8>, [u8; 16])> =
                        bits.iter().map(|_| (sealed.clone(), tag)).collect();
                    for ((data, tag), bit) in packets.iter_mut().zip(bits) {
                        let octet = data.iter_mut().chain(tag).nth(bit / 8).expect("in range");
                        *octet ^= 1 << (bit % 8);
                    }
                    let mut jobs: Vec<OpenJob<'_>> = packets
                        .iter_mut()
                        .map(|(data, tag)| OpenJob {
                            key: &key,
                            nonce: [1; 12],
                            aad: b"eight by",
                            data,
                            tag,
                            ok: true,
                        })
                        .collect();
                    Engine.open(&mut jobs);
                    assert!(jobs.iter().all(|job| !job.ok), "{level} {algorithm:?} {len} {bits:?}");
                    let left = jobs.iter().flat_map(|job| job.data.iter()).any(|&octet| octet != 0);
                    assert!(!left, "{level} {algorithm:?} {len} {bits:?}: plaintext left");
                }
            }
        }
    }
}
