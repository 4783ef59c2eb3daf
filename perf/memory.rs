//! What an SA, a policy and a flow take of memory. `cargo bench --bench memory -- [--json FILE]`.
//!
//! A counting allocator counts, so the figures are exact and repeat: octets asked for, without what
//! the allocator itself adds.

#![allow(clippy::print_stdout, reason = "a bench prints its table")]
#![allow(clippy::expect_used, reason = "a bench has nobody to report an impossible setup to")]

use allocation_counter::measure;
use holdfast_crypto::{AeadAlgorithm, Portable};
use holdfast_datapath::{SaRef, Worker, WorkerLimits, WorkerParts};
use holdfast_ipsec::{
    ChildSaParameters, Encapsulation, InboundSa, OutboundSa, SaKey, Selectors, SequenceRange, Spd,
    Spi, TrafficSelector,
};
use holdfast_packet::{MacAddr, MemoryPort};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// How many of each are made, so that what they share counts for little.
const MANY: u32 = 65_536;
const WINDOWS: [u32; 3] = [64, 1024, 131_072];

struct Figure {
    what: &'static str,
    aead: Option<&'static str>,
    window: Option<u32>,
    octets: f64,
}

fn main() {
    let mut words = std::env::args().skip(1);
    let json = words.find(|word| word == "--json").and_then(|_| words.next());
    let mut figures = Vec::new();
    for (algorithm, aead) in
        [(AeadAlgorithm::Aes128Gcm16, "aes-128-gcm"), (AeadAlgorithm::Aes256Gcm16, "aes-256-gcm")]
    {
        figures.extend(sas(algorithm, aead));
    }
    figures.extend(places());
    for Figure { what, aead, window, octets } in &figures {
        let window = window.map(|packets| format!(", window of {packets}")).unwrap_or_default();
        println!("{what} {}{window}: {octets:.0} octets", aead.unwrap_or_default());
    }
    if let Some(file) = json {
        let rows: Vec<Value> = figures.iter().map(as_json).collect();
        let text = serde_json::to_string_pretty(&rows).unwrap_or_default();
        std::fs::write(file, text + "\n").expect("the JSON can be written");
    }
}

fn as_json(figure: &Figure) -> Value {
    json!({
        "bench": "memory", "direction": null, "aead": figure.aead, "size": null, "sas": null,
        "flows": null, "implementation": figure.what, "window": figure.window,
        "octets": figure.octets, "cycles_min": null, "cycles_p50": null, "cycles_max": null,
        "mpps_p50": null,
    })
}

/// One SA of each direction, with all that hangs on it.
fn sas(algorithm: AeadAlgorithm, aead: &'static str) -> Vec<Figure> {
    let outbound = || Box::new(OutboundSa::new(&parameters(algorithm, 1, 64), range()));
    let mut figures = vec![Figure {
        what: "outbound SA",
        aead: Some(aead),
        window: None,
        octets: kept(outbound),
    }];
    for window in WINDOWS {
        let parameters = parameters(algorithm, 1, window);
        let octets = kept(|| Box::new(InboundSa::new(&parameters, 0, u64::MAX)));
        figures.push(Figure { what: "inbound SA", aead: Some(aead), window: Some(window), octets });
    }
    figures
}

/// What a worker keeps ready for each pair and each flow, and what a policy for a host takes.
fn places() -> Vec<Figure> {
    let few = WorkerLimits { sas: 64, flows: 64 };
    let none = kept(|| worker(few));
    let pairs = kept(|| worker(WorkerLimits { sas: MANY as usize, ..few })) - none;
    let flows = kept(|| worker(WorkerLimits { flows: MANY as usize, ..few })) - none;
    let policies = kept(|| {
        let mut spd = Spd::new();
        for n in 0..MANY {
            let parameters = parameters(AeadAlgorithm::Aes128Gcm16, n, 64);
            spd.insert(parameters.selectors, SaRef { worker: 0, spi: parameters.inbound_spi });
        }
        spd
    });
    let figure = |what, octets: f64| Figure {
        what,
        aead: None,
        window: None,
        octets: octets / f64::from(MANY),
    };
    vec![
        figure("place for a pair of SAs in a worker", pairs),
        figure("place for a flow in a worker", flows),
        figure("policy for a host", policies),
    ]
}

/// Octets that what is made keeps.
fn kept<T>(make: impl FnOnce() -> T) -> f64 {
    let mut made = None;
    let counted = measure(|| made = Some(make()));
    drop(made);
    counted.bytes_current as f64
}

fn worker(limits: WorkerLimits) -> Worker<MemoryPort> {
    let port = || MemoryPort::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500);
    let (parts, _controls) = WorkerParts::alone(port(), port(), Box::new(Portable), limits);
    Worker::new(parts)
}

fn range() -> SequenceRange {
    SequenceRange::new(1, u64::from(u32::MAX))
}

fn parameters(algorithm: AeadAlgorithm, n: u32, window_packets: u32) -> ChildSaParameters {
    let octets = vec![7; SaKey::keymat_len(algorithm)];
    let key = || SaKey::new(algorithm, &octets).expect("the right length");
    let spi = Spi::new(0x10000 + n).expect("not reserved");
    ChildSaParameters {
        inbound_spi: spi,
        outbound_spi: spi,
        inbound_key: key(),
        outbound_key: key(),
        esn: false,
        window_packets,
        local: Ipv4Addr::new(198, 51, 100, 1),
        remote: Ipv4Addr::new(100, 64, 0, 1),
        encapsulation: Encapsulation::Esp,
        selectors: Selectors {
            local: vec![TrafficSelector::host(Ipv4Addr::new(192, 0, 2, 2))],
            remote: vec![TrafficSelector::host(Ipv4Addr::from_bits(0x0a00_0000 + n))],
        },
        connection: "bench".to_owned(),
    }
}
