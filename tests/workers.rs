//! The workers' shell on real ports: three members on one machine, each in a namespace of its own.
//!
//! ```text
//!   kernel: ping ── peer-out 198.51.100.10 ~~ veth ~~ out0 ── net_af_packet0 ┐
//!                                                                            ├ worker 0
//!   kernel: ping ── peer-in  192.0.2.11    ~~ veth ~~ in0  ── net_af_packet1 ┘
//! ```
#![cfg(dpdk)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test's helpers fail by panicking, and say aloud what they skip or measure"
)]

use holdfast::clock;
use holdfast::config;
use holdfast::worker::{self, WorkerError, WorkerPlan, WorkerSet};
use holdfast_datapath::{
    LeaseCell, Metric, Prefix, Tables, TablesPublisher, WorkerCommand, WorkerEvent,
};
use holdfast_packet::{Nanos, Side};
use holdfast_replica::Timing;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

mod own_process;
use own_process::{Namespace, in_own_process, in_own_process_through, is_child, succeeds};

const COMMON: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);
const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
const PINGS: u32 = 50;
/// How long an event may take on a crowded machine.
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn three_members_serve_side_by_side_while_they_hold_a_lease() {
    let test = "three_members_serve_side_by_side_while_they_hold_a_lease";
    if is_child() {
        return serve_and_fall_silent();
    }
    let names = ["dw-m1", "dw-m2", "dw-m3"];
    let namespaces: Option<Vec<Namespace>> = names.map(member_namespace).into_iter().collect();
    let Some(namespaces) = namespaces else { return };
    thread::scope(|scope| {
        for namespace in &namespaces {
            scope.spawn(|| in_own_process_through(&namespace.prefix(), test, || {}));
        }
    });
}

#[test]
fn two_workers_share_the_ports() {
    let test = "two_workers_share_the_ports";
    in_own_process(test, || {
        let plan = |queues, memory_mb| WorkerPlan {
            outside: config::Port { device: "net_null0".into(), queues },
            inside: config::Port { device: "net_null1,no-rx=1".into(), queues },
            local: None,
            dpdk: dpdk(memory_mb),
            lease: LeaseCell::new(),
            timing: Timing::RELAXED,
            wake: Arc::new(|| {}),
        };
        let mut publisher = TablesPublisher::new();
        let little = worker::start(&plan(2, 8), &mut publisher);
        assert!(matches!(little, Err(WorkerError::TooLittleMemory { .. })), "{little:?}");

        let mut set = worker::start(&plan(2, 64), &mut publisher).unwrap();
        assert_eq!(set.count(), 2);
        let deadline = Instant::now() + PATIENCE;
        while set.counters().any(|c| c.metric(Metric::OutsideRxPackets) < 10_000) {
            assert!(Instant::now() < deadline, "a worker receives nothing");
            thread::yield_now();
        }
        assert!((0..2).all(|worker| !set.is_stuck(worker, clock::now())));
        let unknown = set.send(7, WorkerCommand::Clear);
        assert!(matches!(unknown, Err(WorkerCommand::Clear)), "there is no worker 7");
        set.stop();
    });
}

/// The body of one member.
fn serve_and_fall_silent() {
    for (end, address) in [("peer-out", "198.51.100.10/24"), ("peer-in", "192.0.2.11/24")] {
        assert!(succeeds(&["ip", "address", "add", address, "dev", end]));
    }
    let lease = LeaseCell::new();
    let (wake, woken) = mpsc::channel();
    let plan = WorkerPlan {
        outside: config::Port { device: "net_af_packet0,iface=out0".into(), queues: 1 },
        inside: config::Port { device: "net_af_packet1,iface=in0".into(), queues: 1 },
        local: None,
        dpdk: dpdk(64),
        lease: lease.clone(),
        timing: Timing::RELAXED,
        wake: Arc::new(move || {
            let _ = wake.send(());
        }),
    };
    let mut publisher = TablesPublisher::new();
    let began = Instant::now();
    let set = worker::start(&plan, &mut publisher).unwrap();
    println!("started in {:?}", began.elapsed());
    publisher.publish(Arc::new(tables(&set)));
    assert!(Side::ALL.iter().all(|&side| set.link_up(side)));

    assert!(!answers(COMMON, 1), "answers without a lease");
    assert!(punted_arp(&set, &woken), "a standby's controller sees ARP");
    lease.set(clock::now().plus_secs(3_600));
    assert!(answers(COMMON, PINGS) && answers(INSIDE, PINGS), "does not answer with a lease");
    let echoes: u64 = set.counters().map(|c| c.metric(Metric::EchoAnswered)).sum();
    // More when the kernel had kept the ping from before the lease.
    assert!(echoes >= 2 * u64::from(PINGS), "{echoes} echoes");
    assert!(set.port_statistics(Side::Outside).tx_packets > u64::from(PINGS));
    lease.set(Nanos::ZERO);
    assert!(!answers(COMMON, 1), "answers after the lease");
    assert!(succeeds(&["ip", "link", "set", "peer-in", "down"]));
    assert!(set.link_up(Side::Outside) && !set.link_up(Side::Inside), "a lost link is seen");
    set.stop();
}

/// Waits to be woken and looks for an ARP frame among the events.
fn punted_arp(set: &WorkerSet, woken: &Receiver<()>) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let _ = woken.recv_timeout(PATIENCE);
        while let Some(event) = set.receive(0) {
            if let WorkerEvent::Punt { side: Side::Outside, frame } = event {
                return frame.get(12..14) == Some(&[0x08, 0x06]);
            }
        }
    }
    false
}

/// Pings from the kernel's stack; true when every request is answered.
fn answers(address: Ipv4Addr, count: u32) -> bool {
    let count = count.to_string();
    let ping = ["-n", "-c", &count, "-i", "0.01", "-W", "2", &address.to_string()];
    let output = Command::new("ping").args(ping).output().expect("ping runs");
    println!("{}", String::from_utf8_lossy(&output.stdout).trim());
    String::from_utf8_lossy(&output.stdout).contains(" 0% packet loss")
}

fn tables(set: &WorkerSet) -> Tables {
    Tables {
        generation: 1,
        common: COMMON,
        service: COMMON,
        inside: INSIDE,
        outside_mac: set.outside_mac(),
        inside_mac: set.inside_mac(),
        outside_prefix: Prefix { address: Ipv4Addr::new(198, 51, 100, 0), length: 24 },
        ..Tables::empty()
    }
}

fn dpdk(memory_mb: u32) -> config::Dpdk {
    let (hugepages, idle) = (config::Hugepages::Off, config::Idle::Adaptive);
    config::Dpdk { hugepages, memory_mb, cpus: Vec::new(), idle, aead: None }
}

fn member_namespace(name: &str) -> Option<Namespace> {
    Namespace::with_veths(name, &[("out0", "peer-out"), ("in0", "peer-in")])
}
