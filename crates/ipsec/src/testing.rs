//! Two ends of a Child SA for tests, and packets no honest sender makes.

use holdfast_crypto::AeadAlgorithm;
use holdfast_packet::{HeapBuf, PacketBuf, frame};
use std::net::Ipv4Addr;

use crate::esp::AeadInput;
use crate::{
    ChildSaParameters, Encapsulation, InboundSa, OutboundSa, SaKey, Selectors, SequenceRange, Spi,
    TrafficSelector, Width,
};

pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
pub(crate) const SERVICE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);

/// Our end's parameters; both directions have the same key, so that one end serves as its own peer.
pub(crate) fn parameters(algorithm: AeadAlgorithm, esn: bool) -> ChildSaParameters {
    let keymat: Vec<u8> = (0_u8..).take(SaKey::keymat_len(algorithm)).collect();
    let key = SaKey::new(algorithm, &keymat).expect("the length fits");
    ChildSaParameters {
        inbound_spi: Spi::new(0x1000).expect("not reserved"),
        outbound_spi: Spi::new(0x1000).expect("not reserved"),
        inbound_key: key.clone(),
        outbound_key: key,
        esn,
        window_packets: 64,
        local: Ipv4Addr::new(198, 51, 100, 100),
        remote: Ipv4Addr::new(198, 51, 100, 10),
        encapsulation: Encapsulation::Esp,
        selectors: Selectors {
            local: vec![TrafficSelector::host(SERVICE)],
            remote: vec![TrafficSelector::host(CLIENT)],
        },
        connection: "test".to_owned(),
    }
}

/// The client's end and ours, with every number granted and acceptable.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) parameters: ChildSaParameters,
    pub(crate) sender: OutboundSa,
    pub(crate) receiver: InboundSa,
}

impl Tunnel {
    pub(crate) fn new(esn: bool) -> Self {
        Self::starting_at(esn, 1)
    }

    /// The sender's first number is `next`, and nothing below it was accepted.
    pub(crate) fn starting_at(esn: bool, next: u64) -> Self {
        let parameters = parameters(AeadAlgorithm::Aes128Gcm16, esn);
        Self {
            sender: OutboundSa::new(&parameters, SequenceRange::new(next, u64::MAX)),
            receiver: InboundSa::new(&parameters, next - 1, u64::MAX),
            parameters,
        }
    }

    /// The next honest packet.
    pub(crate) fn packet(&mut self) -> Vec<u8> {
        let mut buf = HeapBuf::from_frame(&inner(100));
        self.sender.seal(&mut buf).expect("numbers are granted");
        buf.bytes().to_vec()
    }

    /// An authentic packet of any number with any plaintext, trailer included.
    pub(crate) fn craft(&self, sequence: u64, plaintext: &[u8]) -> Vec<u8> {
        let (key, salt) = self.parameters.inbound_key.expand();
        let (spi, width) = (self.parameters.inbound_spi, Width::from_esn(self.parameters.esn));
        let iv = [0x77; 8];
        let input = AeadInput::new(spi, sequence, width, salt, iv);
        let mut data = plaintext.to_vec();
        let tag = key.seal_one(&input.nonce, input.aad(), &mut data).expect("not 64 GiB");
        let low = (sequence as u32).to_be_bytes();
        [&spi.get().to_be_bytes()[..], &low, &iv, &data, &tag].concat()
    }

    /// An authentic, honest-looking packet of any number.
    pub(crate) fn numbered(&self, sequence: u64) -> Vec<u8> {
        self.craft(sequence, &with_trailer(inner(100), 4))
    }
}

/// A packet from the client to the service of so many octets, at least 28.
pub(crate) fn inner(len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0_u8..=255).cycle().take(len - 28).collect();
    frame::udp_packet(CLIENT, 40_000, SERVICE, 80, &payload)
}

/// Honest padding and a next header behind a payload.
pub(crate) fn with_trailer(mut payload: Vec<u8>, next_header: u8) -> Vec<u8> {
    let padding = crate::esp::padding_len(payload.len()) as u8;
    payload.extend(1..=padding);
    payload.extend([padding, next_header]);
    payload
}
