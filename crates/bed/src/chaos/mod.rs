//! A storm of faults over a cluster that serves: drawn from a seed, done to real processes, links
//! and disks, while strongSwan clients download, probe and rekey, and a stranger replays what it
//! heard.
//!
//! ```text
//!   Plan (seed) --> Faults --> members          clients --> downloads, probes, rekeys
//!                                  |               |
//!                       captures of what each sends and of what reaches the targets
//!                                  |               |
//!                Speech, OutsideWire, Deliveries (pure) --> Report: promises, outage per fault
//! ```
//!
//! One fault at a time (two for `kill_twice`), then everything must be well again: every member
//! caught up, every client served by the SAs it had. A long storm is cut into acts, each with a
//! cluster of its own, so that captures and memory stay bounded.
//!
//! The control is [`calm`]: no fault, full load, a lossy network between members, and no takeover.
//!
//! Members are captured at their own ports, outgoing: a capture at a link's far end would end with
//! the link.

pub mod calm;
pub mod client;
pub mod deliveries;
pub mod disk;
pub mod fault;
pub mod inflict;
pub mod report;
pub mod speech;

use crate::bed::{Bed, BedOptions};
use crate::capture::{Capture, CaptureFile, Direction};
use crate::demo::Progress;
use crate::error::BedError;
use crate::hostile::{Kind, Overheard, Stranger};
use crate::member::{Cluster, ClusterOptions, Profile, Programs};
use crate::peers::far_end;
use crate::report::Machine;
use crate::time::{Wall, rounded};
use crate::topology::Size;
use crate::wait::{check_interrupt, let_pass, wait_until};
use crate::wire::{OutsideWire, Sender, Tap};
use client::{CLIENTS, Client, Seen, Tally, connection_settings};
use deliveries::Deliveries;
use fault::{Fault, Plan, Turn};
use inflict::{Faults, restart_if_ended};
use report::{Episode, Report};
use speech::Speech;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An act is no longer: its captures stay within some hundred MiB.
const ACT: Duration = Duration::from_secs(8 * 60);
/// Anything that has not come up by then has failed.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// An SA must carry traffic so soon after its fault has ended; strongSwan repeats an unanswered
/// request after 4 s, and once more after 7 s.
const RECOVERY_LIMIT: Duration = Duration::from_secs(15);
/// An answer so recent means service.
const SERVED: Duration = Duration::from_millis(250);
/// Of each fault, this much is heard before and replayed after.
const HEARD: Duration = Duration::from_millis(200);
const REPLAYS_MAX: usize = 200;
/// A second kill waits so long for a successor.
const SUCCESSOR_LIMIT: Duration = Duration::from_secs(10);
const BEFORE_MS: u64 = 50;
/// Each download: some seconds, so that faults meet it in its middle.
const DOWNLOAD_BYTES: u64 = 4 << 20;
const DOWNLOAD_BYTES_PER_S: u64 = 512 << 10;

/// What the storm is asked to do.
#[derive(Debug, Clone)]
pub struct ChaosOptions {
    /// The product.
    pub programs: Programs,
    /// The members' timing.
    pub profile: Profile,
    /// Which faults, when, to whom.
    pub seed: u64,
    /// How long.
    pub time: Duration,
    /// Where logs and captures of the last act are kept, if they are.
    pub keep: Option<PathBuf>,
}

/// Lets it storm. Everything made for it is gone when this returns.
///
/// # Errors
/// When the bed fails or the product does not even come up. Broken promises are no error: they
/// stand in the report.
pub fn run(options: &ChaosOptions, progress: &mut dyn Progress) -> Result<Report, BedError> {
    let mut report = Report {
        seed: options.seed,
        profile: options.profile.name().to_owned(),
        not_done: vec![
            "a clock that jumps under a running process: the kernel has no such switch; \
             members are restarted under another clock instead"
                .to_owned(),
        ],
        ..Report::default()
    };
    progress.tell(&format!("seed {}, {} timing", options.seed, report.profile));
    let mut plan = Plan::new(options.seed);
    let begin = Instant::now();
    while begin.elapsed() < options.time {
        let left = options.time.saturating_sub(begin.elapsed()).min(ACT);
        let mut storm = Storm::set(options, progress)?;
        let played = storm.play(&mut plan, left, &mut report, progress);
        if played.is_err() {
            progress.tell(&format!("the members' last words:\n{}", storm.cluster.last_words(12)));
        }
        let kept = options.keep.as_ref().map_or(Ok(()), |folder| storm.keep(folder));
        played?;
        kept?;
        storm.finish(&mut report)?;
    }
    report.minutes = rounded(begin.elapsed().as_secs_f64() / 60.0);
    report.machine = Machine::this();
    report.judge();
    Ok(report)
}

/// Three members that have a connection for every client.
fn prepare_cluster(bed: &Bed, programs: &Programs, profile: Profile) -> Result<Cluster, BedError> {
    let (programs, connection_settings) = (programs.clone(), connection_settings());
    Cluster::prepare(bed, ClusterOptions { programs, profile, connection_settings })
}

/// One act's cluster, clients, stranger and captures.
struct Storm {
    // Order matters: what runs ends before the namespaces it runs in.
    captures: Captures,
    clients: Vec<Client>,
    stranger: Stranger,
    cluster: Cluster,
    faults: Faults,
    bed: Bed,
    begin: Wall,
    episodes: Vec<Episode>,
}

struct Captures {
    outside: Vec<(Sender, Capture)>,
    inside: Vec<(Sender, Capture)>,
    deliveries: Vec<Capture>,
}

impl Storm {
    fn set(options: &ChaosOptions, progress: &mut dyn Progress) -> Result<Self, BedError> {
        progress.tell("building namespaces, targets and disks; starting 3 members ...");
        let bed = Bed::build(&BedOptions {
            size: Size { members: 3, targets: 3 },
            large_file_bytes: DOWNLOAD_BYTES,
            limit_bytes_per_s: DOWNLOAD_BYTES_PER_S,
        })?;
        let mut cluster = prepare_cluster(&bed, &options.programs, options.profile)?;
        let faults = Faults::prepare(&bed)?;
        // Members are captured before they run, so that the first owner's announcement is seen too;
        // clients as soon as they are.
        let mut captures = Captures::of_members(&bed)?;
        cluster.start_all(&bed)?;
        cluster.wait_for_owner(SETTLE_LIMIT)?;
        let stranger = Stranger::join(&bed.topology)?;
        let mut clients = Vec::new();
        for number in 1..=CLIENTS {
            let folder = bed.folder(&format!("client{number}"));
            clients.push(Client::connect(&bed, number, folder)?);
            captures.add_client(&bed, number)?;
        }
        progress.tell(&format!("{CLIENTS} strongSwan clients probe and download"));
        let begin = Wall::now();
        let episodes = Vec::new();
        Ok(Self { captures, clients, stranger, cluster, faults, bed, begin, episodes })
    }

    fn play(
        &mut self,
        plan: &mut Plan,
        time: Duration,
        report: &mut Report,
        progress: &mut dyn Progress,
    ) -> Result<(), BedError> {
        let end = Instant::now() + time;
        self.settle(None, report)?;
        while Instant::now() < end {
            let turn = plan.next_turn();
            self.wait(Duration::from_millis(turn.pause_ms))?;
            let Some(settled) = self.turn(turn, report, progress)? else {
                // Without a whole cluster a further fault proves nothing.
                break;
            };
            self.expect_service(settled, turn.fault, report, progress)?;
        }
        Ok(())
    }

    /// One fault from begin to end. `None` when the cluster did not become whole again.
    fn turn(
        &mut self,
        turn: Turn,
        report: &mut Report,
        progress: &mut dyn Progress,
    ) -> Result<Option<Wall>, BedError> {
        let Some(owner) = self.settle(None, report)? else { return Ok(None) };
        let others: Vec<u8> = self.cluster.numbers().into_iter().filter(|n| *n != owner).collect();
        let other = others.get(usize::from(turn.choice)).copied().unwrap_or(owner);
        let member = if turn.meets_owner { owner } else { other };
        let mut overheard = Overheard::start(&self.bed)?;
        self.wait(HEARD)?;
        if let Some(client) = self.clients.get(usize::from(turn.choice)) {
            client.rekey(turn.rekey);
        }
        let lasts = Duration::from_millis(turn.lasts_ms);
        let begun = self.faults.begin(&self.bed, &mut self.cluster, member, turn.fault, lasts);
        let at = match begun {
            Ok(at) => at,
            Err(error @ BedError::Tool { .. }) => {
                // This machine cannot do it: say so once, and go on.
                let words = format!("{}: {error}", turn.fault.name());
                if !report.not_done.contains(&words) {
                    report.not_done.push(words);
                }
                overheard.stop();
                return Ok(Some(Wall::now()));
            }
            Err(other) => return Err(other),
        };
        report.count(turn.fault);
        match turn.fault {
            Fault::Handover => self.hand_over(owner, other, report)?,
            Fault::KillTwice => self.kill_successor(member)?,
            Fault::StuckWorker => {}
            _ => self.wait(lasts)?,
        }
        self.faults.end(&self.bed, &mut self.cluster, member, turn.fault)?;
        let ended = Wall::now();
        let is_settled = self.settle(Some(turn.fault), report)?.is_some();
        let end = Wall::now();
        report.replays_sent += self.replay(&overheard)?;
        overheard.stop();
        let probes = self.clients.first().map(Client::probes).unwrap_or_default();
        let outage = probes.outage(at.minus_ms(BEFORE_MS), end);
        let met_owner = member == owner;
        self.episodes.push(Episode {
            fault: turn.fault.name(),
            member,
            met_owner,
            at_s: rounded(at.s_since(self.begin)),
            outage_ms: rounded(outage.outage_ms),
            probes_lost: outage.probes_lost,
            settled_after_ms: rounded(end.ms_since(ended)),
            at,
            end,
        });
        progress.tell(&format!(
            "{:7.2} s  {:<20} member {member} ({}), {} ms: outage {:.1} ms, settled in {:.0} ms",
            at.s_since(self.begin),
            turn.fault.name(),
            if met_owner { "owner" } else { "standby" },
            turn.lasts_ms,
            outage.outage_ms,
            end.ms_since(ended),
        ));
        Ok(is_settled.then_some(end))
    }

    fn hand_over(&mut self, owner: u8, to: u8, report: &mut Report) -> Result<(), BedError> {
        let asked = self.cluster.ask(owner, &["handover", "--to", &to.to_string()]);
        let moved = asked.and_then(|_| {
            wait_until("the handover", SUCCESSOR_LIMIT, || {
                Ok((self.cluster.status(to)?.owner() == Some(to)).then_some(()))
            })
        });
        match moved {
            Ok(()) => Ok(()),
            Err(BedError::Interrupted) => Err(BedError::Interrupted),
            Err(error) => {
                report.handovers_refused += 1;
                let at_s = Wall::now().s_since(self.begin);
                report.troubles.push(format!("{at_s:.2} s: handover to member {to}: {error}"));
                Ok(())
            }
        }
    }

    /// Starts the killed member again at once, and kills whoever took over from it.
    fn kill_successor(&mut self, killed: u8) -> Result<(), BedError> {
        self.cluster.bury(killed)?;
        self.cluster.start(&self.bed, killed)?;
        let numbers = self.cluster.numbers();
        let found = wait_until("a successor", SUCCESSOR_LIMIT, || {
            let others = numbers.iter().copied().filter(|number| *number != killed);
            let claims = |number: &u8| {
                self.cluster.status(*number).ok().and_then(|status| status.owner()) == Some(*number)
            };
            Ok(others.into_iter().find(claims))
        });
        let successor = match found {
            Ok(successor) => successor,
            Err(BedError::Timeout { .. }) => return Ok(()),
            Err(other) => return Err(other),
        };
        self.cluster.kill(successor)?;
        self.cluster.bury(successor)?;
        self.cluster.start(&self.bed, successor)
    }

    /// Lets time pass while the clients go on.
    fn wait(&mut self, time: Duration) -> Result<(), BedError> {
        for client in &mut self.clients {
            client.keep_busy(&self.bed)?;
        }
        let_pass(time)
    }

    /// Waits until every member runs, knows the same owner and has applied what is committed, and
    /// every SA can be taken over. Tells the owner, if that came.
    fn settle(
        &mut self,
        fault: Option<Fault>,
        report: &mut Report,
    ) -> Result<Option<u8>, BedError> {
        let end = Instant::now() + SETTLE_LIMIT;
        loop {
            check_interrupt()?;
            for number in self.cluster.numbers() {
                if restart_if_ended(&self.bed, &mut self.cluster, number)? {
                    self.note_end(number, fault, report);
                }
            }
            if let Some(owner) = self.agreed_owner() {
                return Ok(Some(owner));
            }
            if Instant::now() >= end {
                report.unsettled += 1;
                let words = self.cluster.last_words(8);
                let name = fault.map_or("a quiet time", Fault::name);
                report.troubles.push(format!("not settled after {name}:\n{words}"));
                return Ok(None);
            }
            self.wait(Duration::from_millis(50))?;
        }
    }

    /// A member that cannot write its log ends by itself, and says so.
    fn note_end(&self, number: u8, fault: Option<Fault>, report: &mut Report) {
        if matches!(fault, Some(Fault::FullDisk | Fault::FailingDisk)) {
            return;
        }
        report.unexpected_ends += 1;
        let words = crate::process::tail(&self.cluster.log(number), 6);
        let name = fault.map_or("a quiet time", Fault::name);
        report.troubles.push(format!("member {number} ended by itself after {name}:\n{words}"));
    }

    fn agreed_owner(&self) -> Option<u8> {
        let statuses: Vec<_> = self
            .cluster
            .numbers()
            .into_iter()
            .map(|number| self.cluster.status(number).ok().map(|status| (number, status)))
            .collect::<Option<_>>()?;
        let owner = statuses.first()?.1.owner()?;
        let (_, of_owner) = statuses.iter().find(|(number, _)| *number == owner)?;
        let (children, ready) = of_owner.child_sas();
        let agreed = statuses.iter().all(|(_, status)| {
            status.owner() == Some(owner) && status.applied_index() >= of_owner.commit_index()
        });
        (agreed && children == ready).then_some(owner)
    }

    /// Every client must be served by the SAs it has. One that is not begins anew, so that the
    /// storm can go on.
    fn expect_service(
        &mut self,
        settled: Wall,
        fault: Fault,
        report: &mut Report,
        progress: &mut dyn Progress,
    ) -> Result<(), BedError> {
        let bed = &self.bed;
        for client in &mut self.clients {
            let served = wait_until("service", RECOVERY_LIMIT, || {
                Ok(client.is_served(SERVED).then_some(()))
            });
            match served {
                Ok(()) => continue,
                Err(BedError::Timeout { .. }) => {}
                Err(other) => return Err(other),
            }
            report.unrecovered_sas += 1;
            let trouble = format!(
                "client {} not served {:.1} s after {}:\n{}",
                client.number,
                Wall::now().s_since(settled),
                fault.name(),
                client.last_words()
            );
            progress.tell(&trouble);
            report.troubles.push(trouble);
            client.begin_anew()?;
            client.keep_busy(bed)?;
        }
        Ok(())
    }

    /// Sends again what was heard around the fault, evenly chosen, the newest included.
    fn replay(&self, overheard: &Overheard) -> Result<u64, BedError> {
        let heard = overheard.messages(Kind::Esp)?;
        let step = heard.len().div_ceil(REPLAYS_MAX).max(1);
        let chosen: Vec<_> =
            heard.into_iter().rev().step_by(step).map(|message| message.packet).collect();
        let count = chosen.len() as u64;
        self.stranger.send(chosen)?;
        Ok(count)
    }

    fn keep(&self, folder: &Path) -> Result<(), BedError> {
        self.bed.keep_files(folder)?;
        for client in &self.clients {
            let source = self.bed.folder(&format!("client{}", client.number)).join("charon.log");
            let copy = folder.join(format!("client{}-charon.log", client.number));
            std::fs::copy(&source, &copy).map_err(|e| BedError::file("copy", &source, e))?;
        }
        Ok(())
    }

    /// Ends everything and adds what the act showed.
    fn finish(self, report: &mut Report) -> Result<(), BedError> {
        let Self { captures, clients, stranger, mut cluster, faults, bed, begin, episodes } = self;
        let seen: Vec<Seen> = clients.into_iter().map(Client::finish).collect::<Result<_, _>>()?;
        let end = Wall::now();
        cluster.stop();
        let tally = Tally::of(&seen, &bed.content)?;
        report.tcp_resets += tally.tcp_resets;
        report.capture_dropped_frames += tally.capture_dropped_frames;
        report.downloads += tally.downloads;
        report.downloads_failed += tally.downloads_failed;
        report.sha256_mismatches += tally.sha256_mismatches;
        let (outside, inside, deliveries) = captures.finish(report)?;
        let wire = OutsideWire::read(&outside)?;
        let mut speech = Speech::read(&outside, &inside)?;
        let delivered: Vec<&Path> = deliveries.iter().map(|file| file.path.as_path()).collect();
        report.add_wires(begin, &wire, &speech.owners(), &Deliveries::read(&delivered)?);
        report.negotiations += wire.negotiations(begin, end);
        report.rekeys += wire.rekeys();
        report.episodes.extend(episodes);
        drop((cluster, stranger, faults, bed));
        Ok(())
    }
}

impl Captures {
    fn of_members(bed: &Bed) -> Result<Self, BedError> {
        let mut captures = Self { outside: Vec::new(), inside: Vec::new(), deliveries: Vec::new() };
        for number in (1..).take(bed.topology.members.len()) {
            let start = |side: &str| {
                let file = bed.memory_path(&format!("m{number}-{side}.pcap"));
                let namespace = bed.topology.member(number)?;
                Capture::start(namespace, side, Direction::Out, "", &file)
            };
            captures.outside.push((Sender::Member(number), start("outside")?));
            captures.inside.push((Sender::Member(number), start("inside")?));
        }
        for number in (1..).take(bed.topology.targets.len()) {
            let end = format!("t{number}-in");
            let file = bed.memory_path(&format!("{end}.pcap"));
            let wires = &bed.topology.wires;
            let filter = "udp dst port 7";
            captures.deliveries.push(Capture::start(wires, &end, Direction::Out, filter, &file)?);
        }
        Ok(captures)
    }

    fn add_client(&mut self, bed: &Bed, number: u8) -> Result<(), BedError> {
        let end = far_end(number);
        let file = bed.memory_path(&format!("{end}.pcap"));
        let capture = Capture::start(&bed.topology.wires, &end, Direction::In, "", &file)?;
        self.outside.push((Sender::Client, capture));
        Ok(())
    }

    #[allow(clippy::type_complexity, reason = "three kinds of captures, taken apart at once")]
    fn finish(
        self,
        report: &mut Report,
    ) -> Result<(Vec<Tap>, Vec<Tap>, Vec<CaptureFile>), BedError> {
        let finish = |captures: Vec<(Sender, Capture)>| {
            let taps = captures
                .into_iter()
                .map(|(sender, capture)| Ok(Tap { sender, file: capture.finish()? }));
            taps.collect::<Result<Vec<_>, BedError>>()
        };
        let (outside, inside) = (finish(self.outside)?, finish(self.inside)?);
        let deliveries: Vec<CaptureFile> =
            self.deliveries.into_iter().map(Capture::finish).collect::<Result<_, _>>()?;
        let dropped = outside.iter().chain(&inside).map(|tap| tap.file.dropped_frames);
        report.capture_dropped_frames +=
            dropped.sum::<u64>() + deliveries.iter().map(|file| file.dropped_frames).sum::<u64>();
        Ok((outside, inside, deliveries))
    }
}
