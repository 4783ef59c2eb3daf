//! Holdfast under the bench: one cluster for the whole run, its owner killed again and again.

use super::parts::{cut, events};
use super::results::{Measured, Results, System};
use super::rival::recover;
use crate::bed::{Bed, BedOptions, Captures};
use crate::error::BedError;
use crate::member::{Cluster, ClusterOptions, Profile, Programs};
use crate::peer::{Connection, StrongSwan};
use crate::probe::{ProbeLog, Prober};
use crate::swarm::{Swarm, connection_table};
use crate::time::{Wall, rounded};
use crate::topology::Size;
use crate::wait::{let_pass, wait_until};
use crate::wire::OutsideWire;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Starting up with many SAs takes its time; anything longer has failed.
const SETTLE_LIMIT: Duration = Duration::from_secs(120);
/// Between the last thing done to the cluster and the next failure: its noise is over.
const QUIET: Duration = Duration::from_millis(600);
/// The window of a failure: until this long after it, before the killed member starts again.
const WINDOW_MS: u64 = 1_000;
const BEFORE_MS: u64 = 50;
/// After SAs were made, until the next failure: those made within 13 s before a takeover count as
/// active and are renewed at once, and here it counts what standing SAs cost.
const SETTLED: Duration = Duration::from_secs(15);
/// Steps of the pause before a failure, so that it meets heartbeats and ticks at any phase.
const PHASES: u64 = 13;

/// A failure that was caused, for the analysis at the end.
#[derive(Debug, Clone, Copy)]
struct Caused {
    kind: Kind,
    sas: u32,
    measured: Measured,
    end: Wall,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kill,
    Handover,
}

/// The cluster, its client, the prober, the captures, and the peers that only have SAs.
#[derive(Debug)]
pub(crate) struct Holdfast {
    // Order matters: what runs ends before the namespaces it runs in.
    prober: Option<Prober>,
    captures: Option<Captures>,
    _client: StrongSwan,
    swarm: Swarm,
    cluster: Cluster,
    bed: Bed,
    profile: Profile,
    caused: Vec<Caused>,
    sas: u32,
}

impl Holdfast {
    pub(crate) fn start(programs: &Programs, profile: Profile) -> Result<Self, BedError> {
        let bed = Bed::build(&BedOptions {
            size: Size { members: 3, targets: 1 },
            large_file_bytes: 1 << 10,
            limit_bytes_per_s: 1 << 20,
        })?;
        let options = ClusterOptions {
            programs: programs.clone(),
            profile,
            connection_settings: connection_table(),
        };
        let mut cluster = Cluster::prepare(&bed, options)?;
        let captures = bed.start_member_captures()?;
        cluster.start_all(&bed)?;
        cluster.wait_for_owner(SETTLE_LIMIT)?;
        let client = bed.start_client(&Connection::default())?;
        client.initiate()?;
        let prober = bed.start_prober()?;
        let swarm = Swarm::join(&bed.topology)?;
        let mut holdfast = Self {
            prober: Some(prober),
            captures: Some(captures),
            _client: client,
            swarm,
            cluster,
            bed,
            profile,
            caused: Vec::new(),
            sas: 1,
        };
        holdfast.cluster.wait_until_ready(SETTLE_LIMIT)?;
        Ok(holdfast)
    }

    /// Brings the number of Child SA pairs to `sas`, the probed client's included.
    pub(crate) fn grow_to(&mut self, sas: u32) -> Result<(), BedError> {
        let more = sas > self.sas;
        self.swarm.grow_to(sas.saturating_sub(1) as usize)?;
        self.sas = sas;
        self.cluster.wait_until_warm(SETTLE_LIMIT)?;
        if more { let_pass(SETTLED) } else { Ok(()) }
    }

    fn prober(&self) -> Result<&Prober, BedError> {
        self.prober.as_ref().ok_or(BedError::Interrupted)
    }

    /// Lets the machine calm down; the length differs from round to round.
    fn calm_down(&mut self) -> Result<u8, BedError> {
        let owner = self.cluster.wait_until_warm(SETTLE_LIMIT)?;
        let phase = Duration::from_millis(self.caused.len() as u64 % PHASES);
        let_pass(QUIET + phase)?;
        Ok(owner)
    }

    /// The longest gap between answers while nothing is done for `time`.
    pub(crate) fn quiet_gap_ms(&mut self, time: Duration) -> Result<f64, BedError> {
        self.calm_down()?;
        let from = Wall::now();
        let_pass(time)?;
        let log = self.prober()?.log();
        Ok(rounded(log.outage(from, Wall::now()).outage_ms))
    }

    /// Kills the owner, waits for the recovery, brings the killed member back.
    pub(crate) fn kill_owner(&mut self) -> Result<f64, BedError> {
        let owner = self.calm_down()?;
        let at = self.cluster.kill(owner)?;
        let measured = recover(self.prober()?, at)?;
        self.cluster.bury(owner)?;
        let end = self.end_window(at)?;
        self.caused.push(Caused { kind: Kind::Kill, sas: self.sas, measured, end });
        self.cluster.start(&self.bed, owner)?;
        Ok(measured.outage_ms)
    }

    /// Hands the ownership over to the next member on purpose.
    pub(crate) fn hand_over(&mut self) -> Result<f64, BedError> {
        let owner = self.calm_down()?;
        let numbers = self.cluster.numbers();
        let place = numbers.iter().position(|number| *number == owner).unwrap_or(0);
        let next = numbers.get((place + 1) % numbers.len()).copied().unwrap_or(owner);
        let at = Wall::now();
        self.cluster.ask(owner, &["handover", "--to", &next.to_string()])?;
        wait_until("the handover", SETTLE_LIMIT, || {
            Ok((self.cluster.status(next)?.owner() == Some(next)).then_some(()))
        })?;
        let measured = recover(self.prober()?, at)?;
        let end = self.end_window(at)?;
        self.caused.push(Caused { kind: Kind::Handover, sas: self.sas, measured, end });
        Ok(measured.outage_ms)
    }

    fn end_window(&self, at: Wall) -> Result<Wall, BedError> {
        let end = at.plus_ms(WINDOW_MS).max(Wall::now());
        wait_until("the end of the window", SETTLE_LIMIT, || {
            Ok((Wall::now() >= end).then_some(()))
        })?;
        Ok(end)
    }

    /// Ends everything and adds what was found to `results`.
    pub(crate) fn finish(mut self, results: &mut Results) -> Result<(), BedError> {
        let probes = match self.prober.take() {
            Some(prober) => prober.finish()?,
            None => ProbeLog::default(),
        };
        let wire = match self.captures.take() {
            Some(captures) => OutsideWire::read(&captures.finish()?.outside)?,
            None => OutsideWire::default(),
        };
        let logs: BTreeMap<u8, _> = self
            .cluster
            .numbers()
            .into_iter()
            .map(|number| {
                let text = fs::read_to_string(self.cluster.log(number)).unwrap_or_default();
                (number, events(&text))
            })
            .collect();
        for caused in &self.caused {
            let Caused { kind, sas, mut measured, end } = *caused;
            let outage = probes.outage(measured.at.minus_ms(BEFORE_MS), end);
            measured.outage_ms = rounded(outage.outage_ms);
            measured.probes_lost = outage.probes_lost;
            measured.longest_send_gap_ms = rounded(outage.longest_send_gap_ms);
            let successor = wire.owner_at(end);
            let log = successor.and_then(|member| logs.get(&member).map(|log| (member, log)));
            let system = match kind {
                Kind::Handover => System::HoldfastHandover,
                Kind::Kill => {
                    let killed = if self.profile == Profile::Brisk {
                        System::HoldfastBrisk
                    } else {
                        System::HoldfastKill
                    };
                    let parts =
                        |(member, log): (u8, &Vec<_>)| cut(measured.at, end, member, log, &wire);
                    measured.parts = log.and_then(parts);
                    killed
                }
            };
            results.add(system, sas, measured);
        }
        Ok(())
    }

    /// The end of every member's log, and the client's.
    pub(crate) fn last_words(&self) -> String {
        self.cluster.last_words(12)
    }

    /// Copies captures and logs to `folder`.
    pub(crate) fn keep(&self, folder: &Path) -> Result<(), BedError> {
        self.bed.keep_files(folder).map(drop)
    }
}
