//! The replicated state by itself.

use crate::{Figure, cpu_ms};
use holdfast_cluster::{
    Command, Epoch, IkeSpi, Incarnation, MemberId, Owner, State, StateChange, limits,
};
use holdfast_crypto::{AeadAlgorithm, SecretBytes};
use holdfast_ike::testing::{ClientConfig, Pair};
use holdfast_ike::{Connection, Identity, IkeConfig};
use holdfast_ipsec::{ChildSaParameters, Encapsulation, SaKey, Selectors, Spi, TrafficSelector};
use std::net::Ipv4Addr;

pub(crate) const COMMON: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
const PSK: &[u8] = b"a pre-shared key of the bench";

pub(crate) fn owner(epoch: u64) -> Owner {
    Owner { member: MemberId(9), incarnation: Incarnation(1), epoch: Epoch(epoch) }
}

/// What one handshake leaves of its IKE SA, as `ike` exports it.
fn exported_ike_sa() -> Vec<u8> {
    let mut config = IkeConfig::new(COMMON, Identity::Ipv4(COMMON));
    let connection = Connection::new("road", SecretBytes::new(PSK.to_vec()));
    config.connections.push(connection);
    let client = ClientConfig::new(CLIENT, COMMON, SecretBytes::new(PSK.to_vec()));
    let mut pair = Pair::new(config, client, 1);
    assert!(pair.connect(), "a handshake");
    let exported = pair.committed.ike_sas.values().next().expect("an IKE SA");
    exported.as_bytes().to_vec()
}

/// SPIs as the owner draws them: spread over the whole space.
pub(crate) fn spi(number: u32) -> Spi {
    Spi::new(0x0001_0000 + number.wrapping_mul(0x9e37)).expect("an SPI")
}

fn child(number: u32) -> ChildSaParameters {
    let key = || SaKey::new(AeadAlgorithm::Aes256Gcm16, &[7; 36]).expect("a key");
    ChildSaParameters {
        inbound_spi: spi(number),
        outbound_spi: spi(number + 1),
        inbound_key: key(),
        outbound_key: key(),
        esn: true,
        window_packets: 128,
        local: COMMON,
        remote: Ipv4Addr::from_bits(0xcb00_7100 + number),
        encapsulation: Encapsulation::Udp { local_port: 4500, remote_port: 4500 },
        selectors: Selectors {
            local: vec![TrafficSelector::host(COMMON)],
            remote: vec![TrafficSelector::host(Ipv4Addr::from_bits(0x0a00_0000 + number))],
        },
        connection: "road".into(),
    }
}

/// A state with `sas` IKE SAs of one Child SA each, and the index of its last entry.
pub(crate) fn state(sas: u32) -> (State, u64) {
    let exported = exported_ike_sa();
    let (mut state, mut index) = (State::new(), 1);
    state.apply(index, &Command::TakeOwnership { owner: owner(1) });
    let numbers: Vec<u32> = (0..sas).collect();
    for numbers in numbers.chunks(limits::CHANGES_MAX / 2) {
        let changes = numbers.iter().flat_map(|number| {
            let ike = IkeSpi(u64::from(*number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            let state = SecretBytes::new(exported.clone());
            let parameters = Box::new(child(*number));
            [
                StateChange::PutIkeSa { spi: ike, connection: "road".into(), state },
                StateChange::PutChildSa { ike, parameters, replaces: None },
            ]
        });
        index += 1;
        state.apply(index, &Command::Ike { owner: owner(1), changes: changes.collect() });
    }
    assert_eq!(state.children().len(), sas as usize, "every SA has its SPI");
    (state, index)
}

/// Resident memory of this process in bytes.
pub(crate) fn resident_bytes() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok());
    pages.unwrap_or(0.0) * 4_096.0
}

pub(crate) fn measure(sas: u32) -> Vec<Figure> {
    let figure =
        |name, value, unit, timed| Figure { section: "records", sas, name, value, unit, timed };
    let before = resident_bytes();
    let (mut state, index) = state(sas);
    let memory = resident_bytes() - before;
    let mut figures = vec![figure("memory per SA", memory / f64::from(sas), "bytes", true)];
    let mut time = |name, work: &mut dyn FnMut() -> f64| {
        let begin = cpu_ms();
        let found = work();
        figures.push(figure(name, cpu_ms() - begin, "ms", true));
        found
    };
    time("apply TakeOwnership", &mut || {
        state.apply(index + 1, &Command::TakeOwnership { owner: owner(2) });
        0.0
    });
    time("hash", &mut || state.hash() as f64);
    let mut frozen = None;
    time("freeze for a snapshot (controller)", &mut || {
        frozen = Some(state.freeze());
        0.0
    });
    time("apply TakeOwnership while a snapshot is encoded", &mut || {
        state.apply(index + 2, &Command::TakeOwnership { owner: owner(3) });
        0.0
    });
    let mut snapshot = None;
    let size = time("encode snapshot (storage thread)", &mut || {
        snapshot = frozen.take().map(|frozen| frozen.encode());
        snapshot.as_ref().map_or(0.0, |bytes| bytes.len() as f64)
    });
    time("restore snapshot", &mut || {
        let bytes = snapshot.as_ref().expect("encoded above");
        State::restore(bytes).expect("its own snapshot").records() as f64
    });
    figures.push(figure("disk per SA (snapshot)", size / f64::from(sas), "bytes", false));
    figures
}
