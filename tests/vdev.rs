//! `dpdk-wrap` against DPDK's virtual devices: real environment, real drivers, no NIC.
//!
//! ```text
//!   net_ring    what is sent comes back            order, content, back-pressure, buffers
//!   net_pcap    frames from one file to another    content against an independent writer
//!   net_null    endless frames                     statistics
//!   net_af_packet on both ends of a veth pair      the kernel's path, in a namespace of its own
//! ```
#![cfg(dpdk)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test's helpers fail by panicking, and say aloud what they skip or measure"
)]

use arrayvec::ArrayVec;
use holdfast_dpdk_wrap::{
    Device, DpdkError, Eal, EalConfig, Hugepages, Mbuf, Mempool, MempoolOptions, Port, PortOptions,
    QueuePair, RegisteredThread, Started,
};
use holdfast_packet::{BURST, HeapBuf, MacAddr, PacketBuf, Port as PacketPort};
use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};
use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

mod own_process;
use own_process::{Namespace, in_own_process, in_own_process_through, succeeds};

type Burst = ArrayVec<Mbuf, BURST>;

/// How long a frame may take to cross a veth pair on a crowded machine.
const PATIENCE: Duration = Duration::from_secs(10);

// ---- the tests -----------------------------------------------------------------------------

#[test]
fn a_ring_gives_back_what_was_sent_in_order() {
    in_own_process("a_ring_gives_back_what_was_sent_in_order", || {
        let (pool, _port, mut queue) = one_port("net_ring0");
        let sent: Vec<Vec<u8>> = (0..200u32).map(|i| frame(i, 60 + i as usize)).collect();
        for chunk in sent.chunks(BURST) {
            let mut burst: Burst = chunk.iter().map(|bytes| filled(&mut queue, bytes)).collect();
            assert_eq!(queue.tx(&mut burst), chunk.len());
        }
        assert_eq!(receive(&mut queue, sent.len()), sent);
        assert_eq!(pool.in_use(), 0, "every buffer is back in its pool");
    });
}

#[test]
fn a_full_device_leaves_the_rest_with_the_sender() {
    in_own_process("a_full_device_leaves_the_rest_with_the_sender", || {
        let (pool, _port, mut queue) = one_port("net_ring0");
        let mut taken = 0;
        let left = loop {
            let mut burst: Burst = (0..BURST).filter_map(|_| queue.alloc(60)).collect();
            let before = burst.len();
            let sent = queue.tx(&mut burst);
            assert_eq!(sent + burst.len(), before);
            taken += sent;
            if !burst.is_empty() {
                break burst;
            }
        };
        assert_eq!(pool.in_use() as usize, taken + left.len());
        drop(left);
        assert_eq!(pool.in_use() as usize, taken, "dropping a burst frees it");
    });
}

#[test]
fn a_receive_never_exceeds_the_room_it_is_given() {
    in_own_process("a_receive_never_exceeds_the_room_it_is_given", || {
        let (_pool, _port, mut queue) = one_port("net_ring0");
        let mut burst: Burst = (0..BURST).filter_map(|_| queue.alloc(60)).collect();
        assert_eq!(queue.tx(&mut burst), BURST);
        for i in 0..BURST - 3 {
            burst.push(filled(&mut queue, &frame(i as u32, 60)));
        }
        assert_eq!(queue.rx(&mut burst), 3);
        assert_eq!(queue.rx(&mut burst), 0);
        burst.clear();
        assert_eq!(queue.rx(&mut burst), BURST - 3);
    });
}

#[test]
fn an_mbuf_behaves_like_the_model_buffer() {
    in_own_process("an_mbuf_behaves_like_the_model_buffer", || {
        const SEED: u64 = 0x1dea;
        println!("seed {SEED}");
        let (pool, _port, _queue) = one_port("net_ring0");
        let mut random = SEED;
        for _ in 0..2_000 {
            compare_with_model(&pool, &mut random);
        }
        assert!(pool.alloc(2_049).is_none(), "longer than the data room");
        assert_eq!(pool.alloc(2_048).map(|mbuf| mbuf.tailroom()), Some(0));
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn a_pool_ends_and_recovers() {
    in_own_process("a_pool_ends_and_recovers", || {
        let eal = start(&["net_null0"]);
        let options = MempoolOptions { buffers: 63, thread_cache: 0, ..MempoolOptions::default() };
        let pool = Mempool::new(eal, "small", &options).unwrap();
        let held: Vec<Mbuf> = std::iter::from_fn(|| pool.alloc(60)).collect();
        assert_eq!((held.len(), pool.available()), (63, 0));
        drop(held);
        assert_eq!(pool.available(), 63);
        let again = Mempool::new(eal, "small", &options);
        assert!(matches!(again, Err(DpdkError::Refused { .. })), "{again:?}");
    });
}

#[test]
fn registered_threads_share_a_pool() {
    in_own_process("registered_threads_share_a_pool", || {
        let eal = start(&["net_null0"]);
        let pool = Mempool::new(eal, "pool", &MempoolOptions::default()).unwrap();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let _identity = RegisteredThread::register(eal).unwrap();
                    for _ in 0..1_000 {
                        let held: Vec<Mbuf> = (0..100).filter_map(|_| pool.alloc(60)).collect();
                        assert_eq!(held.len(), 100);
                    }
                });
            }
        });
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn frames_pass_from_file_to_file_unchanged() {
    in_own_process("frames_pass_from_file_to_file_unchanged", || {
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("in.pcap"), folder.path().join("out.pcap"));
        let frames: Vec<Vec<u8>> =
            (0..300u32).map(|i| frame(i, 60 + (i as usize * 7) % 1_440)).collect();
        write_pcap(&input, &frames);
        let files = format!("rx_pcap={},tx_pcap={}", input.display(), output.display());
        let (pool, port, mut queue) = one_port(&format!("net_pcap0,{files}"));
        let mut burst = Burst::new();
        while queue.rx(&mut burst) > 0 {
            while !burst.is_empty() {
                queue.tx(&mut burst);
            }
        }
        let statistics = port.statistics().unwrap();
        assert_eq!((statistics.rx_packets, statistics.tx_packets), (300, 300));
        assert_eq!(pool.in_use(), 0);
        drop((queue, port)); // closes the device, and so its file
        assert_eq!(read_pcap(&output), frames);
    });
}

#[test]
fn a_frame_longer_than_a_buffer_is_refused_and_counted() {
    in_own_process("a_frame_longer_than_a_buffer_is_refused_and_counted", || {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("in.pcap");
        write_pcap(&input, &[frame(1, 60), frame(2, 5_000), frame(3, 100)]);
        let (pool, port, mut queue) = one_port(&format!("net_pcap0,rx_pcap={}", input.display()));
        assert_eq!(receive(&mut queue, 2), [frame(1, 60), frame(3, 100)]);
        assert_eq!(port.statistics().unwrap().rx_multi_segment, 1);
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn a_null_device_is_counted() {
    in_own_process("a_null_device_is_counted", || {
        let (_pool, port, mut queue) = one_port("net_null0");
        let mut burst = Burst::new();
        assert_eq!(queue.rx(&mut burst), BURST);
        assert_eq!(queue.tx(&mut burst), BURST);
        let statistics = port.statistics().unwrap();
        assert_eq!((statistics.rx_packets, statistics.tx_packets), (64, 64));
        assert!(port.link().unwrap().up);
        assert_eq!(port.name(), "net_null0");
    });
}

#[test]
fn a_port_has_a_life_and_each_misuse_an_answer() {
    in_own_process("a_port_has_a_life_and_each_misuse_an_answer", || {
        let eal = start(&["net_null0", "net_ring0"]);
        let again = Eal::start(&EalConfig::new(Vec::new(), "again"));
        assert!(matches!(again, Err(DpdkError::AlreadyStarted)), "{again:?}");
        let unknown = Port::open(eal, "net_null7");
        assert!(matches!(unknown, Err(DpdkError::NoSuchPort { .. })), "{unknown:?}");

        let pool = Mempool::new(eal, "pool", &MempoolOptions::default()).unwrap();
        let stopped = Port::open(eal, "net_null0").unwrap();
        let twice = Port::open(eal, "net_null0");
        assert!(matches!(twice, Err(DpdkError::AlreadyOpen { .. })), "{twice:?}");

        let (started, mut queues) = stopped.start(&PortOptions::default(), pool).unwrap();
        let started = started.stop().expect_err("a queue pair is in use");
        queues.clear();
        let mut stopped = started.stop().expect("no queue pair is in use");
        let mac = MacAddr([2, 0, 0, 0, 0, 7]);
        stopped.set_mac(mac).unwrap();
        let two = PortOptions { queues: 2, ..PortOptions::default() };
        let (_started, queues) = stopped.start(&two, pool).unwrap();
        assert_eq!(queues.len(), 2);
        assert!(queues.iter().all(|queue| queue.mac() == mac && queue.mtu() == 1_500));

        let many = PortOptions { queues: 5_000, ..PortOptions::default() };
        let refused = Port::open(eal, "net_ring0").unwrap().start(&many, pool);
        let Err(DpdkError::TooFewQueues { asked: 5_000, available, .. }) = refused else {
            panic!("5000 queues were not refused as such")
        };
        assert!(available < 5_000);
    });
}

#[test]
fn frames_cross_the_kernel_on_a_veth_pair() {
    let Some(namespace) = Namespace::with_veths("dw-vdev", &[("dw-a", "dw-b")]) else { return };
    let name = "frames_cross_the_kernel_on_a_veth_pair";
    in_own_process_through(&namespace.prefix(), name, || {
        let eal = start(&["net_af_packet0,iface=dw-a", "net_af_packet1,iface=dw-b"]);
        let pool = Mempool::new(eal, "pool", &MempoolOptions::default()).unwrap();
        let (a_port, mut a) = started(eal, "net_af_packet0", pool);
        let (_b_port, mut b) = started(eal, "net_af_packet1", pool);
        assert!(a_port.link().unwrap().up);
        assert_eq!(a.mtu(), 1_500);
        assert_ne!(a.mac(), b.mac());

        let sent: Vec<Vec<u8>> = (0..150u32).map(|i| frame(i, 60 + i as usize * 9)).collect();
        for chunk in sent.chunks(50) {
            let mut burst: Burst = chunk.iter().map(|bytes| filled(&mut a, bytes)).collect();
            assert_eq!(a.tx(&mut burst), chunk.len());
        }
        assert_eq!(receive(&mut b, sent.len()), sent);
    });
}

#[test]
fn what_a_link_refuses_waits_in_the_ring_unless_the_interface_has_a_queue() {
    let pairs = [("dw-a", "dw-b"), ("dw-c", "dw-d")];
    let Some(namespace) = Namespace::with_veths("dw-ring", &pairs) else { return };
    let name = "what_a_link_refuses_waits_in_the_ring_unless_the_interface_has_a_queue";
    in_own_process_through(&namespace.prefix(), name, || {
        assert!(succeeds(&["tc", "qdisc", "add", "dev", "dw-a", "root", "pfifo"]), "a queue");
        let queued = "net_af_packet0,iface=dw-a".parse::<Device>().unwrap().queued().to_string();
        let far_ends = ["net_af_packet2,iface=dw-b", "net_af_packet3,iface=dw-d"];
        let eal = start(&[&queued, "net_af_packet1,iface=dw-c", far_ends[0], far_ends[1]]);
        let pool = Mempool::new(eal, "pool", &MempoolOptions::default()).unwrap();
        let [mut a, mut c, mut b, mut d] =
            [0, 1, 2, 3].map(|n| started(eal, &format!("net_af_packet{n}"), pool).1);
        let set_links = |state| {
            for end in ["dw-b", "dw-d"] {
                assert!(succeeds(&["ip", "link", "set", end, state]), "{end} {state}");
            }
        };
        let (stale, fresh) = (frame(1, 100), frame(2, 100));
        set_links("down");
        for port in [&mut a, &mut c] {
            let mut burst: Burst = std::iter::once(filled(port, &stale)).collect();
            assert_eq!(port.tx(&mut burst), 1, "taken, whatever becomes of it");
        }
        set_links("up");
        assert_eq!(first_to_arrive(&mut a, &mut b, &fresh), fresh, "behind a queue nothing waits");
        assert_eq!(first_to_arrive(&mut c, &mut d, &fresh), stale, "the driver's default: late");
    });
}

// ---- ports and frames ----------------------------------------------------------------------

/// An environment without hugepages: a test takes nothing from the machine that it keeps.
fn start(devices: &[&str]) -> Eal {
    let devices = devices.iter().map(|text| text.parse().unwrap()).collect();
    let config = EalConfig { hugepages: Hugepages::Off, ..EalConfig::new(devices, "vdev-test") };
    Eal::start(&config).unwrap()
}

fn one_port(device: &str) -> (Mempool, Port<Started>, QueuePair) {
    let eal = start(&[device]);
    let options = MempoolOptions { thread_cache: 0, ..MempoolOptions::default() };
    let pool = Mempool::new(eal, "pool", &options).unwrap();
    let name = device.split(',').next().unwrap_or(device);
    let (port, queue) = started(eal, name, pool);
    (pool, port, queue)
}

fn started(eal: Eal, name: &str, pool: Mempool) -> (Port<Started>, QueuePair) {
    let port = Port::open(eal, name).unwrap();
    let (port, mut queues) = port.start(&PortOptions::default(), pool).unwrap();
    (port, queues.remove(0))
}

fn filled(queue: &mut QueuePair, bytes: &[u8]) -> Mbuf {
    let mut mbuf = queue.alloc(bytes.len()).expect("the pool has a buffer");
    mbuf.bytes_mut().copy_from_slice(bytes);
    mbuf
}

/// Polls until `count` frames of ours came.
fn receive(queue: &mut QueuePair, count: usize) -> Vec<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut frames = Vec::new();
    while frames.len() < count && Instant::now() < deadline {
        let mut burst = Burst::new();
        queue.rx(&mut burst);
        let ours = burst.iter().filter(|mbuf| mbuf.bytes().get(12..14) == Some(&OUR_TYPE));
        frames.extend(ours.map(|mbuf| mbuf.bytes().to_vec()));
    }
    frames
}

/// Sends `bytes` again and again until a frame arrives, and yields the first that did.
fn first_to_arrive(from: &mut QueuePair, to: &mut QueuePair, bytes: &[u8]) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "nothing arrives");
        let mut burst: Burst = std::iter::once(filled(from, bytes)).collect();
        from.tx(&mut burst);
        burst.clear();
        to.rx(&mut burst);
        let ours = burst.iter().find(|mbuf| mbuf.bytes().get(12..14) == Some(&OUR_TYPE));
        if let Some(mbuf) = ours {
            return mbuf.bytes().to_vec();
        }
    }
}

/// IEEE 802 local experimental Ethernet type.
const OUR_TYPE: [u8; 2] = [0x88, 0xb5];

/// A broadcast frame of `len` bytes that differs from every other number's.
fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1]);
    frame.extend(OUR_TYPE);
    frame.extend(number.to_be_bytes());
    frame.extend((frame.len()..len).map(|i| (i as u32 ^ number) as u8));
    frame
}

/// Applies the same random steps to an mbuf and to the model.
fn compare_with_model(pool: &Mempool, random: &mut u64) {
    let bytes = frame(*random as u32, 60 + draw(random, 1_400));
    let mut mbuf = pool.alloc(bytes.len()).unwrap();
    mbuf.bytes_mut().copy_from_slice(&bytes);
    let mut model = HeapBuf::with_room(&bytes, mbuf.headroom(), mbuf.tailroom());
    assert_eq!(mbuf.headroom(), holdfast_packet::HEADROOM);
    for _ in 0..draw(random, 12) {
        let n = draw(random, 300);
        match draw(random, 4) {
            0 => {
                assert_eq!(mbuf.prepend(n), model.prepend(n));
                mark(&mut mbuf, &mut model, n as u8);
            }
            1 => {
                assert_eq!(mbuf.append(n), model.append(n));
                mark(&mut mbuf, &mut model, n as u8);
            }
            2 => {
                mbuf.trim_front(n);
                model.trim_front(n);
            }
            _ => {
                mbuf.trim_back(n);
                model.trim_back(n);
            }
        }
        assert_eq!(mbuf.bytes(), model.bytes());
        assert_eq!((mbuf.headroom(), mbuf.tailroom()), (model.headroom(), model.tailroom()));
    }
}

/// Bytes gained are unspecified: writes the same into both.
fn mark(mbuf: &mut Mbuf, model: &mut HeapBuf, value: u8) {
    mbuf.bytes_mut().fill(value);
    model.bytes_mut().fill(value);
}

/// A number below `bound` from a 64 bit linear congruential generator (Knuth's constants).
fn draw(random: &mut u64, bound: u64) -> usize {
    *random =
        random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    ((*random >> 33) % bound) as usize
}

fn write_pcap(path: &Path, frames: &[Vec<u8>]) {
    let mut writer = PcapWriter::new(File::create(path).unwrap()).unwrap();
    for frame in frames {
        let packet = PcapPacket::new(Duration::ZERO, frame.len() as u32, frame);
        writer.write_packet(&packet).unwrap();
    }
}

fn read_pcap(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = PcapReader::new(File::open(path).unwrap()).unwrap();
    std::iter::from_fn(|| reader.next_packet().map(|packet| packet.unwrap().data.into_owned()))
        .collect()
}
