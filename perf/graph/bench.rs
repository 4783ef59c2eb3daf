//! One worker between two ports, and rounds of packets through it.

use crate::port::{LoopPort, PooledBuf};
use crate::support::clock::Tsc;
use crate::support::frames::{Frames, INSIDE_MAC, Load, OUTSIDE_MAC};
use crate::support::setup::{self, Direction};
use holdfast_crypto::{AeadBurst, OpenJob, SealJob};
use holdfast_datapath::{Controls, Worker};
use holdfast_packet::{BURST, Nanos, Side};
use std::time::Instant;

/// Packets of one timed round: as many as a vector of the comparison, so that their buffers stay in
/// the second level cache.
pub(crate) const PACKETS_PER_ROUND: usize = 256;
/// Rounds of a run. A run counts as its median round, which a busy neighbour does not move.
pub(crate) const ROUNDS_PER_RUN: usize = 60;
/// Time that passes in a poll: twelve million packets a second.
const POLL_US: u64 = 5;

/// No cryptography at all: what is left is the graph's own.
pub(crate) struct NoAead;

impl AeadBurst for NoAead {
    fn seal(&self, _jobs: &mut [SealJob<'_>]) {}

    fn open(&self, jobs: &mut [OpenJob<'_>]) {
        for job in jobs {
            job.ok = true;
        }
    }

    fn name(&self) -> &'static str {
        "none"
    }
}

/// A worker with its SAs, and the frames it will be given.
pub(crate) struct Bench {
    worker: Worker<LoopPort>,
    controls: Controls,
    now: Nanos,
    direction: Direction,
    frames: Frames,
    next: usize,
    pool: Vec<PooledBuf>,
}

impl Bench {
    /// Every flow has been seen once when it is ready.
    pub(crate) fn new(
        direction: Direction,
        load: &Load,
        aead: Box<dyn AeadBurst>,
        runs: usize,
    ) -> Self {
        let warm_up = load.sas.max(load.flows).max(16_384) as usize;
        let timed = runs * ROUNDS_PER_RUN * PACKETS_PER_ROUND;
        let frames = match direction {
            Direction::Encrypt => Frames::plain(load),
            Direction::Decrypt => Frames::esp(
                load,
                (warm_up + timed).next_multiple_of(PACKETS_PER_ROUND),
                aead.name() != "none",
            ),
        };
        let (outside, inside) = (LoopPort::new(OUTSIDE_MAC), LoopPort::new(INSIDE_MAC));
        let (parts, controls) = setup::parts(outside, inside, load, aead);
        let mut bench = Self {
            worker: Worker::new(parts),
            controls,
            now: Nanos::from_secs(1),
            direction,
            frames,
            next: 0,
            pool: Vec::new(),
        };
        bench.install(load);
        for _ in 0..warm_up.div_ceil(PACKETS_PER_ROUND) {
            bench.round();
        }
        bench
    }

    fn install(&mut self, load: &Load) {
        for sa in 0..load.sas {
            let command = self.direction.installation(load, sa);
            self.controls.commands.push(command).expect("the ring has room");
            while self.worker.has_work() {
                self.worker.poll(self.now);
            }
        }
    }

    /// Cycles a packet: the median round of a run.
    pub(crate) fn run(&mut self, tsc: Tsc) -> f64 {
        let mut rounds: Vec<f64> = (0..ROUNDS_PER_RUN)
            .map(|_| tsc.cycles(self.round()) / PACKETS_PER_ROUND as f64)
            .collect();
        rounds.sort_by(f64::total_cmp);
        rounds[ROUNDS_PER_RUN / 2]
    }

    /// Fills the buffers, and times only what the worker does with them.
    fn round(&mut self) -> std::time::Duration {
        let (from, metric) = (self.direction.from(), self.direction.metric());
        let to = match from {
            Side::Inside => Side::Outside,
            Side::Outside => Side::Inside,
        };
        for _ in 0..PACKETS_PER_ROUND {
            let frame = self.frames.get(self.next);
            self.next = if self.next + 1 < self.frames.len() { self.next + 1 } else { 0 };
            self.worker.port_mut(from).put(frame, &mut self.pool);
        }
        self.worker.port_mut(from).ready();
        let before = self.worker.counters().metric(metric);
        let start = Instant::now();
        for _ in 0..PACKETS_PER_ROUND / BURST {
            self.now = self.now.plus_us(POLL_US);
            self.worker.poll(self.now);
        }
        let elapsed = start.elapsed();
        let done = self.worker.counters().metric(metric) - before;
        let sent = self.worker.port_mut(to).take_sent(&mut self.pool);
        assert_eq!(
            (done, sent),
            (PACKETS_PER_ROUND as u64, PACKETS_PER_ROUND),
            "lost: {:?}",
            self.worker.counters()
        );
        while self.controls.events.pop().is_some() {}
        elapsed
    }
}
