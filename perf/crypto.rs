//! AES-GCM by itself: every level of this crate's engine, aws-lc-rs and ipsec-mb in one interleaved
//! run. `./perf/crypto` builds and starts it; see perf/README.md.
//!
//! Bursts of 64 packets in place, laid out like mbufs, 8 octets of AAD. Each burst is timed by
//! itself, after its packets were written anew; job descriptors and keys are made beforehand.

#![allow(clippy::print_stdout, reason = "a bench prints its table")]
#![allow(clippy::expect_used, reason = "a bench has nobody to report an impossible setup to")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

#[cfg(feature = "aws-lc-rs")]
use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use holdfast_crypto::{AeadAlgorithm, AeadBurst, AeadKey, Engine, Level, OpenJob, SealJob};

/// Packets of a burst.
const BURST: usize = 64;
/// Bursts an implementation runs at a stretch: every packet of 1000 SAs once.
const STRETCH: usize = 16;
/// Stretches an implementation has in a row of the table, unless told otherwise.
const ROUNDS: usize = 40;
/// Sizes of the data in octets.
const SIZES: [usize; 6] = [64, 256, 512, 1024, 1420, 9000];
/// How many keys take turns.
const SAS: [usize; 2] = [1, 1000];
/// Where the data begins in a buffer, and how far the buffers lie apart.
const HEAD: usize = 128 + 50;
const ROOM: usize = 16_384;
const TAG: usize = 16;
const NONCE: [u8; 12] = [1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const AAD: [u8; 8] = [4, 5, 6, 0, 0, 0, 0, 0];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Encrypt,
    Decrypt,
}

impl Direction {
    const fn name(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
        }
    }
}

/// What is timed for one row of every implementation.
#[derive(Clone, Copy)]
struct Case {
    direction: Direction,
    algorithm: AeadAlgorithm,
    size: usize,
    sas: usize,
}

/// An implementation, with keys for one algorithm.
trait Candidate {
    fn name(&self) -> String;
    /// Nanoseconds of each burst of a stretch.
    fn stretch(&mut self, case: Case) -> Vec<f64>;
}

fn key_octets(algorithm: AeadAlgorithm, index: usize) -> Vec<u8> {
    let mut key = vec![index as u8; algorithm.key_len()];
    key[0] = (index >> 8) as u8;
    key
}

/// Packet buffers, and what they are written anew from.
struct Packets {
    rooms: Vec<u8>,
    images: Vec<Vec<u8>>,
}

impl Packets {
    /// `seal` makes an image what a peer with key number so and so would send.
    fn new(case: Case, seal: impl Fn(usize, &mut [u8], &mut [u8; TAG])) -> Self {
        let images = (0..case.sas)
            .map(|at| {
                let mut image = vec![0x5A; case.size + TAG];
                if case.direction == Direction::Decrypt {
                    let (data, tag) = image.split_last_chunk_mut().expect("long enough");
                    seal(at, data, tag);
                }
                image
            })
            .collect();
        Self { rooms: vec![0; BURST * ROOM], images }
    }

    /// The packets of burst `number`, as new.
    fn burst(&mut self, number: usize) -> impl Iterator<Item = (usize, &mut [u8])> {
        let images = &self.images;
        self.rooms.chunks_mut(ROOM).enumerate().map(move |(at, room)| {
            let sa = (number * BURST + at) % images.len();
            let packet = &mut room[HEAD..HEAD + images[sa].len()];
            packet.copy_from_slice(&images[sa]);
            (sa, packet)
        })
    }
}

/// This crate, at one level.
struct Ours {
    level: Level,
    keys: Vec<AeadKey>,
    packets: Option<Packets>,
}

impl Candidate for Ours {
    fn name(&self) -> String {
        match self.level {
            Level::Portable => "aes-gcm".to_owned(),
            level => format!("holdfast-{level}"),
        }
    }

    fn stretch(&mut self, case: Case) -> Vec<f64> {
        let Self { level, keys, packets } = self;
        let packets = packets.get_or_insert_with(|| {
            let key =
                |at| AeadKey::with_level(*level, case.algorithm, &key_octets(case.algorithm, at));
            *keys = (0..case.sas).map(|at| key(at).expect("the level is available")).collect();
            Packets::new(case, |at, data, tag| {
                *tag = keys[at].seal_one(&NONCE, &AAD, data).expect("short");
            })
        });
        (0..STRETCH)
            .map(|number| match case.direction {
                Direction::Encrypt => {
                    let mut jobs: Vec<SealJob<'_>> = packets
                        .burst(number)
                        .map(|(sa, packet)| {
                            let (data, tag) = packet.split_last_chunk_mut().expect("long enough");
                            SealJob { key: &keys[sa], nonce: NONCE, aad: &AAD, data, tag }
                        })
                        .collect();
                    timed(|| Engine.seal(&mut jobs))
                }
                Direction::Decrypt => {
                    let mut jobs: Vec<OpenJob<'_>> = packets
                        .burst(number)
                        .map(|(sa, packet)| {
                            let (data, tag) = packet.split_last_chunk_mut().expect("long enough");
                            OpenJob {
                                key: &keys[sa],
                                nonce: NONCE,
                                aad: &AAD,
                                data,
                                tag,
                                ok: false,
                            }
                        })
                        .collect();
                    let elapsed_ns = timed(|| Engine.open(&mut jobs));
                    assert!(jobs.iter().all(|job| job.ok), "a packet was refused");
                    elapsed_ns
                }
            })
            .collect()
    }
}

/// aws-lc-rs as its users call it.
#[cfg(feature = "aws-lc-rs")]
struct AwsLc {
    keys: Vec<LessSafeKey>,
    packets: Option<Packets>,
}

#[cfg(feature = "aws-lc-rs")]
impl AwsLc {
    fn seal(key: &LessSafeKey, data: &mut [u8], tag: &mut [u8; TAG]) {
        let nonce = Nonce::assume_unique_for_key(NONCE);
        let sealed = key.seal_in_place_separate_tag(nonce, Aad::from(AAD), data);
        tag.copy_from_slice(sealed.expect("short").as_ref());
    }
}

#[cfg(feature = "aws-lc-rs")]
impl Candidate for AwsLc {
    fn name(&self) -> String {
        "aws-lc-rs".to_owned()
    }

    fn stretch(&mut self, case: Case) -> Vec<f64> {
        let Self { keys, packets } = self;
        let packets = packets.get_or_insert_with(|| {
            let algorithm = match case.algorithm {
                AeadAlgorithm::Aes128Gcm16 => &AES_128_GCM,
                AeadAlgorithm::Aes192Gcm16 => &AES_192_GCM,
                _ => &AES_256_GCM,
            };
            let key = |at| UnboundKey::new(algorithm, &key_octets(case.algorithm, at));
            *keys = (0..case.sas).map(|at| LessSafeKey::new(key(at).expect("a key"))).collect();
            Packets::new(case, |at, data, tag| Self::seal(&keys[at], data, tag))
        });
        (0..STRETCH)
            .map(|number| {
                let mut jobs: Vec<(usize, &mut [u8])> = packets.burst(number).collect();
                match case.direction {
                    Direction::Encrypt => timed(|| {
                        for (sa, packet) in &mut jobs {
                            let (data, tag) = packet.split_last_chunk_mut().expect("long enough");
                            Self::seal(&keys[*sa], data, tag);
                        }
                    }),
                    Direction::Decrypt => timed(|| {
                        for (sa, packet) in &mut jobs {
                            let nonce = Nonce::assume_unique_for_key(NONCE);
                            let opened = keys[*sa].open_in_place(nonce, Aad::from(AAD), packet);
                            assert!(opened.is_ok(), "a packet was refused");
                        }
                    }),
                }
            })
            .collect()
    }
}

/// ipsec-mb's direct call, in another process on the same processor (perf/ipsec_mb.c).
struct IpsecMb {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl IpsecMb {
    fn start(program: &str) -> Self {
        let mut process = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("ipsec-mb's program starts");
        let orders = process.stdin.take().expect("piped");
        let answers = BufReader::new(process.stdout.take().expect("piped"));
        Self { process, orders, answers }
    }

    fn ask(&mut self, order: &str) -> Vec<f64> {
        writeln!(self.orders, "{order}").expect("it listens");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it answers");
        line.split_whitespace().map(|figure| figure.parse().expect("a number")).collect()
    }
}

impl Drop for IpsecMb {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Candidate for IpsecMb {
    fn name(&self) -> String {
        "ipsec-mb".to_owned()
    }

    fn stretch(&mut self, case: Case) -> Vec<f64> {
        let (direction, bits) = (case.direction.name(), case.algorithm.key_len() * 8);
        self.ask(&format!("{direction} {bits} {} {} {STRETCH}", case.size, case.sas))
    }
}

/// Nanoseconds that something takes.
fn timed(what: impl FnOnce()) -> f64 {
    let start = Instant::now();
    what();
    start.elapsed().as_secs_f64() * 1e9
}

/// What reading the clock twice takes, at least.
fn clock_ns() -> f64 {
    (0..1000).map(|_| timed(|| ())).fold(f64::INFINITY, f64::min)
}

/// Cycles of the time stamp counter in a nanosecond: the kernel reports twice its megahertz.
fn cycles_per_ns() -> f64 {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let bogomips = cpus.lines().find_map(|line| line.strip_prefix("bogomips")?.split(": ").nth(1));
    bogomips.and_then(|figure| figure.trim().parse::<f64>().ok()).map_or(f64::NAN, |f| f / 2000.0)
}

struct Options {
    json: Option<String>,
    ipsec_mb: Option<String>,
    rounds: usize,
    sizes: Vec<usize>,
    sas: Vec<usize>,
}

impl Options {
    fn read() -> Self {
        let mut options = Self {
            json: None,
            ipsec_mb: std::env::var("HOLDFAST_IPSEC_MB").ok(),
            rounds: ROUNDS,
            sizes: SIZES.to_vec(),
            sas: SAS.to_vec(),
        };
        let numbers = |text: String| text.split(',').filter_map(|n| n.parse().ok()).collect();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--json" => options.json = arguments.next(),
                "--rounds" => {
                    options.rounds =
                        arguments.next().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
                }
                "--sizes" => options.sizes = arguments.next().map(numbers).unwrap_or_default(),
                "--sas" => options.sas = arguments.next().map(numbers).unwrap_or_default(),
                // cargo's own.
                _ => {}
            }
        }
        options
    }
}

/// A line of the table.
struct Row {
    case: Case,
    implementation: String,
    /// Cycles a packet, sorted.
    cycles: Vec<f64>,
    bound: Option<f64>,
}

impl Row {
    fn at(&self, part: f64) -> f64 {
        let index = (self.cycles.len().saturating_sub(1) as f64 * part) as usize;
        self.cycles.get(index).copied().unwrap_or(f64::NAN)
    }

    fn mpps(&self, cycles_per_ns: f64) -> f64 {
        1000.0 * cycles_per_ns / self.at(0.5)
    }

    fn print(&self, cycles_per_ns: f64) {
        let Case { direction, algorithm, size, sas } = self.case;
        println!(
            "| {} | {algorithm:?} | {size} | {sas} | {} | {:.1} | {:.1} | {:.1} | {:.2} | {} |",
            direction.name(),
            self.implementation,
            self.at(0.0),
            self.at(0.5),
            self.at(1.0),
            self.mpps(cycles_per_ns),
            self.bound.map_or_else(String::new, |bound| format!("{bound:.0}")),
        );
    }

    fn json(&self, into: &mut String, cycles_per_ns: f64) {
        let Case { direction, algorithm, size, sas } = self.case;
        let comma = if into.ends_with('[') { "" } else { "," };
        let _ = write!(
            into,
            "{comma}\n{{\"bench\":\"crypto\",\"direction\":\"{}\",\"aead\":\"{algorithm:?}\",\"size\":{size},\"sas\":{sas},\"flows\":null,\"implementation\":\"{}\",\"cycles_min\":{:.1},\"cycles_p50\":{:.1},\"cycles_max\":{:.1},\"mpps_p50\":{:.3},\"cycles_bound\":{}}}",
            direction.name(),
            self.implementation,
            self.at(0.0),
            self.at(0.5),
            self.at(1.0),
            self.mpps(cycles_per_ns),
            self.bound.map_or_else(|| "null".to_owned(), |bound| format!("{bound:.1}")),
        );
    }
}

/// Nanoseconds of one VAES round and one carry-less product of 512 bits, as measured.
#[derive(Clone, Copy)]
struct Units {
    aes_ns: f64,
    product_ns: f64,
}

impl Units {
    /// The longer of what the two units need for a packet when nothing else costs anything: rounds
    /// over its counter blocks and the tag's, and four products for each four blocks hashed.
    fn bound_ns(self, algorithm: AeadAlgorithm, size: usize) -> f64 {
        let blocks = size.div_ceil(16) as f64;
        let rounds = (algorithm.key_len() / 4 + 6) as f64;
        let aes = (blocks + 1.0) / 4.0 * rounds * self.aes_ns;
        aes.max((blocks + 2.0) * self.product_ns)
    }
}

fn candidates(ipsec_mb: Option<&str>) -> Vec<Box<dyn Candidate>> {
    let mut candidates: Vec<Box<dyn Candidate>> = Vec::new();
    for &level in Level::ALL.iter().filter(|level| level.is_available()) {
        candidates.push(Box::new(Ours { level, keys: Vec::new(), packets: None }));
    }
    #[cfg(feature = "aws-lc-rs")]
    candidates.push(Box::new(AwsLc { keys: Vec::new(), packets: None }));
    if let Some(program) = ipsec_mb {
        candidates.push(Box::new(IpsecMb::start(program)));
    }
    candidates
}

/// All implementations in turn, round after round.
fn measure(case: Case, options: &Options, clock_ns: f64, cycles_per_ns: f64) -> Vec<Row> {
    let mut candidates = candidates(options.ipsec_mb.as_deref());
    let mut cycles: Vec<Vec<f64>> = candidates.iter().map(|_| Vec::new()).collect();
    for round in 0..=options.rounds {
        for (candidate, cycles) in candidates.iter_mut().zip(&mut cycles) {
            let bursts = candidate.stretch(case);
            // The first round warms up.
            if round > 0 {
                let per_packet = |ns: f64| (ns - clock_ns) * cycles_per_ns / BURST as f64;
                cycles.extend(bursts.into_iter().map(per_packet));
            }
        }
    }
    candidates
        .iter()
        .zip(cycles)
        .map(|(candidate, mut cycles)| {
            cycles.sort_by(f64::total_cmp);
            Row { case, implementation: candidate.name(), cycles, bound: None }
        })
        .collect()
}

fn main() {
    let options = Options::read();
    let (clock_ns, cycles_per_ns) = (clock_ns(), cycles_per_ns());
    let units = options.ipsec_mb.as_deref().and_then(|program| {
        let answer = IpsecMb::start(program).ask("bound 0 0 0 0");
        let &[aes, product, _] = answer.as_slice() else { return None };
        Some(Units { aes_ns: aes / 1000.0, product_ns: product / 1000.0 })
    });
    println!("cycles of a time stamp counter of {:.0} MHz per packet", cycles_per_ns * 1000.0);
    println!(
        "| direction | aead | octets | SAs | implementation | min | median | max | Mpps | bound |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut json = "[".to_owned();
    for &algorithm in AeadAlgorithm::GCM {
        for direction in [Direction::Encrypt, Direction::Decrypt] {
            for (&sas, &size) in
                options.sas.iter().flat_map(|sas| options.sizes.iter().map(move |size| (sas, size)))
            {
                let case = Case { direction, algorithm, size, sas };
                for mut row in measure(case, &options, clock_ns, cycles_per_ns) {
                    row.bound = units.map(|units| units.bound_ns(algorithm, size) * cycles_per_ns);
                    row.print(cycles_per_ns);
                    row.json(&mut json, cycles_per_ns);
                }
            }
        }
    }
    json.push_str("\n]\n");
    if let Some(file) = options.json {
        std::fs::write(file, json).expect("the file can be written");
    }
}
