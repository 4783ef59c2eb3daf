//! ESP packets compared with scapy's, an implementation that shares nothing with ours.
//!
//! Both directions, every algorithm that encrypts (Debian's scapy knows no GMAC), with and without extended sequence numbers,
//! inner lengths around every padding case. `scripts/test` installs Debian's `python3-scapy`.

#![allow(clippy::expect_used, clippy::panic, reason = "a test reports by panicking")]

mod scapy;

use holdfast_crypto::{AeadAlgorithm, IntegrityAlgorithm};
use holdfast_ipsec::{
    ChildSaParameters, DropReason, Encapsulation, InboundSa, OutboundSa, SaKey, Selectors,
    SequenceRange, Spi, TrafficSelector,
};
use holdfast_packet::{HeapBuf, PacketBuf};
use scapy::{Scapy, hex, unhex};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

const SPI: u32 = 0x0001_2300;
const COMMON: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);

#[test]
fn scapy_opens_what_we_seal() {
    let mut scapy = Scapy::start();
    for case in cases() {
        let mut sa = OutboundSa::new(
            &case.parameters(),
            SequenceRange::new(case.sequence, case.sequence + 1),
        );
        let inner = inner_packet(case.inner_len, COMMON, PEER);
        let mut buf = HeapBuf::from_frame(&inner);
        assert_eq!(sa.seal(&mut buf), Ok(case.sequence), "{case:?}");
        let answer = scapy.ask(&case.question("open", "esp", buf.bytes()));
        assert_eq!(answer["inner"], hex(&inner), "{case:?}");
    }
}

#[test]
fn we_open_what_scapy_seals() {
    let mut scapy = Scapy::start();
    for case in cases() {
        let inner = inner_packet(case.inner_len, PEER, COMMON);
        let mut esp = case.sealed_by(&mut scapy, &inner);
        let opened =
            case.inbound().open(&mut esp).unwrap_or_else(|why| panic!("{why:?}: {case:?}"));
        assert_eq!(opened.sequence, case.sequence, "{case:?}");
        assert_eq!(&esp[opened.inner], inner, "{case:?}");
    }
}

#[test]
fn one_flipped_bit_anywhere_is_refused_by_both() {
    let mut scapy = Scapy::start();
    let case = Case {
        algorithm: AeadAlgorithm::Aes256Gcm16,
        esn: true,
        sequence: (5 << 32) + 9,
        inner_len: 61,
    };
    let inner = inner_packet(case.inner_len, PEER, COMMON);
    let sealed = case.sealed_by(&mut scapy, &inner);
    for bit in (64..sealed.len() * 8).step_by(7) {
        let mut forged = sealed.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        let theirs = scapy.ask(&case.question("open", "esp", &forged));
        assert_eq!(theirs["refused"], "integrity", "bit {bit}");
        assert_eq!(case.inbound().open(&mut forged), Err(DropReason::IcvMismatch), "bit {bit}");
    }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    algorithm: AeadAlgorithm,
    esn: bool,
    sequence: u64,
    inner_len: usize,
}

/// Lengths 48..=55 meet every padding; the others are a smallest, a usual and a largest packet.
fn cases() -> Vec<Case> {
    let lengths = [28, 48, 49, 50, 51, 52, 53, 54, 55, 576, 1400];
    let mut cases = Vec::new();
    for algorithm in AeadAlgorithm::every().filter(|algorithm| algorithm.encrypts()) {
        for (esn, sequence) in [(false, 7), (false, 0xffff_fff0), (true, 7), (true, (5 << 32) + 7)]
        {
            let new = |inner_len| Case { algorithm, esn, sequence, inner_len };
            cases.extend(lengths.into_iter().map(new));
        }
    }
    cases
}

impl Case {
    fn key_and_salt(&self) -> Vec<u8> {
        (0..u8::try_from(SaKey::keymat_len(self.algorithm)).expect("a short key")).collect()
    }

    fn parameters(&self) -> ChildSaParameters {
        let key = SaKey::new(self.algorithm, &self.key_and_salt()).expect("the right length");
        ChildSaParameters {
            inbound_spi: Spi::new(SPI).expect("above 255"),
            outbound_spi: Spi::new(SPI).expect("above 255"),
            inbound_key: key.clone(),
            outbound_key: key,
            esn: self.esn,
            window_packets: 1024,
            local: Ipv4Addr::new(192, 0, 2, 2),
            remote: Ipv4Addr::new(192, 0, 2, 1),
            encapsulation: Encapsulation::Esp,
            selectors: Selectors {
                local: vec![TrafficSelector::prefix(COMMON, 32)],
                remote: vec![TrafficSelector::prefix(PEER, 32)],
            },
            connection: "oracle".to_owned(),
        }
    }

    /// An SA whose window stands just below the number of the case, so that the high half is known.
    fn inbound(&self) -> InboundSa {
        InboundSa::new(&self.parameters(), self.sequence - 1, self.sequence + 1000)
    }

    fn question(&self, op: &str, octets_name: &str, octets: &[u8]) -> Value {
        let keymat = self.key_and_salt();
        let (key, integrity_key) = keymat.split_at(keymat.len() - integrity_len(self.algorithm));
        json!({
            "op": op, "algorithm": scapy_name(self.algorithm), "key_salt": hex(key), "spi": SPI,
            "integrity": scapy_integrity(self.algorithm), "integrity_key": hex(integrity_key),
            "sequence": self.sequence, "esn": self.esn, octets_name: hex(octets),
        })
    }

    fn sealed_by(&self, scapy: &mut Scapy, inner: &[u8]) -> Vec<u8> {
        let answer = scapy.ask(&self.question("seal", "inner", inner));
        unhex(answer["esp"].as_str().expect("scapy answers with a packet"))
    }
}

const fn scapy_name(algorithm: AeadAlgorithm) -> &'static str {
    match algorithm {
        AeadAlgorithm::ChaCha20Poly1305 => "CHACHA20-POLY1305",
        AeadAlgorithm::Composed(composition) if composition.mode.is_ctr() => "AES-CTR",
        AeadAlgorithm::Composed(_) => "AES-CBC",
        _ => "AES-GCM",
    }
}

const fn integrity_len(algorithm: AeadAlgorithm) -> usize {
    match algorithm {
        AeadAlgorithm::Composed(composition) => composition.integrity.key_len(),
        _ => 0,
    }
}

const fn scapy_integrity(algorithm: AeadAlgorithm) -> Option<&'static str> {
    let AeadAlgorithm::Composed(composition) = algorithm else { return None };
    Some(match composition.integrity {
        IntegrityAlgorithm::HmacSha256_128 => "SHA2-256-128",
        IntegrityAlgorithm::HmacSha384_192 => "SHA2-384-192",
        IntegrityAlgorithm::HmacSha512_256 => "SHA2-512-256",
    })
}

/// A UDP packet of `len` octets with valid checksums left to scapy's leniency: ESP does not look inside.
fn inner_packet(len: usize, src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
    let total = u16::try_from(len).expect("a packet fits 16 bits");
    let mut packet = vec![0x45, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0x12, 0x34, 0x40, 0, 64, 17, 0, 0]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    let sum = holdfast_packet::checksum::checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(4000_u16.to_be_bytes());
    packet.extend(5000_u16.to_be_bytes());
    packet.extend((total - 20).to_be_bytes());
    packet.extend([0, 0]);
    packet.resize(len, 0xa5);
    packet
}
