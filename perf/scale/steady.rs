//! Steady replication: so many SAs under full load, in virtual time.
//!
//! Ten million packets a second in each direction, spread evenly over all SAs. A worker asks when half
//! of what it has is gone, as the datapath does; the member batches, proposes and grants. Counted
//! are the entries of the log and their bytes.

use crate::takeover::{config, disk};
use crate::{Figure, cpu_ms};
use holdfast_datapath::{WorkerCommand, WorkerEvent};
use holdfast_ipsec::Spi;
use holdfast_member::{Input, Member, Output};
use holdfast_packet::Nanos;
use std::collections::BTreeMap;

const PACKETS_PER_SECOND: u64 = 10_000_000;
const SECONDS: u64 = 10;
/// Virtual time between two looks at the numbers.
const STEP_US: u64 = 1_000;

/// One SA as its worker sees it.
struct Sa {
    worker: u32,
    out_next: u64,
    out_end: u64,
    out_granted: u64,
    out_asked: bool,
    in_edge: u64,
    horizon: u64,
    span: u64,
    in_asked: bool,
    starved: u64,
}

#[derive(Default)]
struct Log {
    entries: u64,
    bytes: u64,
    items: u64,
    persisted: Option<u64>,
}

pub(crate) fn measure(sas: u32) -> Vec<Figure> {
    let mut now = Nanos::from_secs(1);
    let mut member = Member::new(config(), disk(sas), [3; 32], now).expect("a member");
    let (mut known, mut log) = (BTreeMap::new(), Log::default());
    settle(&mut member, now, &mut known, &mut log);
    while known.len() < sas as usize || member.next_deadline().is_some_and(|due| due <= now) {
        now = member.next_deadline().expect("more to do").max(now);
        member.handle_timeout(now);
        settle(&mut member, now, &mut known, &mut log);
    }
    let rate_pps = PACKETS_PER_SECOND / u64::from(sas).max(1);
    spread(&mut known);
    let (mut owed_out, mut busy) = (0.0f64, 0.0f64);
    let mut log = Log::default();
    for _ in 0..SECONDS * 1_000_000 / STEP_US {
        now = now.plus_ns(STEP_US * 1_000);
        owed_out += rate_pps as f64 * STEP_US as f64 / 1e6;
        let packets = owed_out as u64;
        owed_out -= packets as f64;
        let asks: Vec<(u32, WorkerEvent)> =
            known.iter_mut().flat_map(|(spi, sa)| sa.forward(*spi, packets, rate_pps)).collect();
        let begin = cpu_ms();
        for (worker, event) in asks {
            member.handle(now, Input::Worker { worker, event });
            settle(&mut member, now, &mut known, &mut log);
        }
        if member.next_deadline().is_some_and(|due| due <= now) {
            member.handle_timeout(now);
        }
        settle(&mut member, now, &mut known, &mut log);
        busy += (cpu_ms() - begin) / 1e3;
    }
    let starved: u64 = known.values().map(|sa| sa.starved).sum();
    let per_second = |count: u64| count as f64 / SECONDS as f64;
    let figure =
        |name, value, unit, timed| Figure { section: "steady", sas, name, value, unit, timed };
    vec![
        figure("entries per second", per_second(log.entries), "1/s", false),
        figure("bytes of entries per second", per_second(log.bytes), "bytes/s", false),
        figure("grants per second", per_second(log.items), "1/s", false),
        figure("packets that waited for a number", per_second(starved), "1/s", false),
        figure("controller busy", busy / SECONDS as f64 * 100.0, "% of a core", true),
    ]
}

/// Not all SAs run low at the same moment.
fn spread(known: &mut BTreeMap<Spi, Sa>) {
    for (at, sa) in known.values_mut().enumerate() {
        let share = at as u64 % 97;
        sa.out_next += (sa.out_end - sa.out_next) * share / 200;
        sa.in_edge += (sa.horizon - sa.in_edge) * share / 200;
    }
}

impl Sa {
    fn forward(&mut self, spi: Spi, packets: u64, rate_pps: u64) -> Vec<(u32, WorkerEvent)> {
        let mut events = Vec::new();
        let sent = packets.min(self.out_end - self.out_next);
        self.out_next += sent;
        self.starved += packets - sent;
        let remaining = self.out_end - self.out_next;
        if remaining <= self.out_granted / 2 && !self.out_asked {
            self.out_asked = true;
            events.push((self.worker, WorkerEvent::RangeLow { id: spi, remaining, rate_pps }));
        }
        self.in_edge += packets;
        if self.horizon.saturating_sub(self.in_edge) < self.span / 2 && !self.in_asked {
            self.in_asked = true;
            let (right_edge, horizon) = (self.in_edge, self.horizon);
            let event = WorkerEvent::HorizonLow { spi, right_edge, horizon, rate_pps };
            events.push((self.worker, event));
        }
        events
    }
}

fn settle(member: &mut Member, now: Nanos, known: &mut BTreeMap<Spi, Sa>, log: &mut Log) {
    loop {
        while let Some(output) = member.poll_output() {
            carry_out(output, known, log);
        }
        let Some(number) = log.persisted.take() else { return };
        member.handle(now, Input::Persisted(number));
    }
}

fn carry_out(output: Output, known: &mut BTreeMap<Spi, Sa>, log: &mut Log) {
    match output {
        Output::Persist(batch) => {
            log.persisted = Some(batch.number);
            log.entries += batch.entries.len() as u64;
            log.bytes += batch.entries.iter().map(|entry| entry.data.len() as u64).sum::<u64>();
        }
        Output::Worker { worker, command: WorkerCommand::InstallOutbound { id, sa } } => {
            let end = 1 + sa.remaining();
            known.insert(
                id,
                Sa {
                    worker,
                    out_next: 1,
                    out_end: end,
                    out_granted: sa.remaining(),
                    out_asked: false,
                    in_edge: 0,
                    horizon: 128,
                    span: 128,
                    in_asked: false,
                    starved: 0,
                },
            );
        }
        Output::Worker { command: WorkerCommand::Grant { id, range }, .. } => {
            log.items += 1;
            if let Some(sa) = known.get_mut(&id) {
                sa.out_end += range.len();
                sa.out_granted = sa.out_end - sa.out_next;
                sa.out_asked = false;
            }
        }
        Output::Worker { command: WorkerCommand::Horizon { spi, horizon }, .. } => {
            log.items += 1;
            if let Some(sa) = known.get_mut(&spi) {
                // Counted from where this takeover began.
                sa.horizon = horizon.saturating_sub(128);
                sa.span = sa.horizon.saturating_sub(sa.in_edge);
                sa.in_asked = false;
            }
        }
        _ => {}
    }
}
