//! What one seed means: a cluster, its surroundings, and a list of faults in time.
//!
//! The list is explicit, so that a failure can be replayed with some of its faults left out.

use holdfast_cluster::MemberId;
use holdfast_ike::{SyncSupport, TakeoverPolicy};
use holdfast_member::testing::{DiskHealth, Network, Random, Setup, Weather};
use holdfast_member::{SuccessionPolicy, Takeback};
use holdfast_packet::Side;
use holdfast_replica::Timing;
use std::fmt;

/// Faults of a plan: enough to meet each other, few enough to be shrunk by hand.
const FAULTS_MIN: u64 = 2;
const FAULTS_MAX: u64 = 12;

/// Faults begin within this time after the tunnels stand.
const SAFETY_MS: u64 = 1_200;

/// Time a calm kill has for itself before the other faults begin.
const CALM_US: u64 = 300_000;

/// Before this seed, handing an SA to a worker takes no time: `tests/mutations.rs` states within how many
/// of these a broken law is noticed, some by a single one.
pub const LOAD_FROM_SEED: u64 = 4_001;

/// The most that handing an SA to a worker takes where it takes time: a heartbeat.
const LOAD_US_MAX: u64 = 5_000;

/// Peers, at least, where it does, so that it takes as long as an election or longer.
const LOAD_PEERS_MIN: u8 = 3;

/// The longest time a fault lasts.
const FAULT_MS_MAX: u64 = 350;

/// One thing that goes wrong, or that somebody does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The process ends; what it wrote is on disk.
    Kill(MemberId),
    /// The machine loses power; what it did not sync is gone.
    PowerLoss(MemberId),
    /// The owner, whoever it is, is killed.
    KillOwner,
    /// All machines lose power at once and come back.
    Blackout,
    /// The process is stopped and goes on later (SIGSTOP, SIGCONT).
    Freeze(MemberId),
    /// The owner, whoever it is, is stopped and goes on later.
    FreezeOwner,
    /// The controller gets no processor time; its workers go on.
    StallController(MemberId),
    /// The controller of the owner gets no processor time.
    StallOwner,
    /// The process is restarted on the spot.
    Restart(MemberId),
    /// One direction of the management network is cut.
    Cut(MemberId, MemberId),
    /// The owner cannot send to this member on the management network.
    CutOwnerTo(MemberId),
    /// Nothing passes between the owner and this member on the management network.
    PartOwnerFrom(MemberId),
    /// All but the owner and this member are restarted on the spot.
    RestartOthers(MemberId),
    /// Both directions between this member and all others are cut.
    Isolate(MemberId),
    /// The owner is cut off from all others.
    IsolateOwner,
    /// One direction of the management network takes longer.
    Slow(MemberId, MemberId, u64),
    /// A network carries badly.
    Weather(Network, Weather),
    /// A port has no link.
    PortDown(MemberId, Side),
    /// The disk is slow, or no sync comes to its end.
    Disk(MemberId, DiskHealth),
    /// The disk takes nothing any more, the member is told and ends; it comes back with its disk.
    DiskFailed(MemberId),
    /// A worker does not poll for a while.
    WorkerStalled(MemberId),
    /// The disks of all members.
    AllDisks(DiskHealth),
    /// The clock of a member jumps forward by so many milliseconds, where law 1 allows for it.
    ClockJump(MemberId, u64),
    /// The operator has the owner hand over.
    Handover(Option<MemberId>),
    /// An attacker sends everything ever seen on the outside wire again.
    Replay,
    /// A peer rekeys its Child SA.
    RekeyChild(usize),
    /// A peer rekeys its IKE SA.
    RekeyIke(usize),
    /// A peer deletes its Child SA, and connects again.
    DeleteChild(usize),
    /// A peer deletes its IKE SA, and connects again.
    DeleteIke(usize),
    /// A peer is not heard of for a while.
    Silence(usize),
    /// A peer pauses its traffic.
    Pause(usize),
    /// A peer sends as fast as it can for a while.
    Rush(usize),
    /// A peer sends packets its selectors do not allow.
    Spoof(usize),
    /// A target is off for a while.
    TargetOff(usize),
}

/// An action, when it begins after the tunnels stand, and how long it lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its number in the plan, for `--keep`.
    pub number: usize,
    /// When it begins.
    pub at_us: u64,
    /// How long it lasts; what happens in an instant ignores it.
    pub lasts_us: u64,
    /// What happens.
    pub action: Action,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, at_us, lasts_us, action } = self;
        let [at_ms, lasts_ms] = [at_us, lasts_us].map(|us| *us as f64 / 1_000.0);
        write!(f, "{number:>3}: at {at_ms:8.3} ms for {lasts_ms:7.3} ms {action:?}")
    }
}

/// Everything a run is a function of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed it was drawn from.
    pub seed: u64,
    /// The cluster.
    pub setup: Setup,
    /// Microseconds between two requests of each peer.
    pub interval_us: u64,
    /// What goes wrong, by the time it begins.
    pub faults: Vec<Fault>,
}

impl Plan {
    /// The plan of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x686f_6c64_6661_7374);
        let setup = setup(seed, &mut random);
        let interval_us = 2_000 << random.below(4);
        let start_us = if random.chance(300) { CALM_US } else { 0 };
        let mut draw =
            Draw { random, members: setup.members, peers: u64::from(setup.peers), start_us };
        let mut faults = draw.faults();
        if plan_load_us(seed) > 0 {
            let at_us = start_us + draw.random.below(SAFETY_MS * 1_000);
            draw.while_filling(at_us, &mut faults);
        }
        faults.sort_by_key(|fault| fault.at_us);
        for (number, fault) in faults.iter_mut().enumerate() {
            fault.number = number;
        }
        Self { seed, setup, interval_us, faults }
    }

    /// The same with only the faults of these numbers.
    #[must_use]
    pub fn keep(&self, numbers: &[usize]) -> Self {
        let mut plan = self.clone();
        plan.faults.retain(|fault| numbers.contains(&fault.number));
        plan
    }

    /// The numbers of its faults.
    #[must_use]
    pub fn numbers(&self) -> Vec<usize> {
        self.faults.iter().map(|fault| fault.number).collect()
    }
}

fn setup(seed: u64, random: &mut Random) -> Setup {
    let members = match random.below(10) {
        0 => 5,
        1 => 2,
        _ => 3,
    };
    let policy = match random.below(10) {
        0 => TakeoverPolicy::Strict,
        1 => TakeoverPolicy::Sync,
        2 => TakeoverPolicy::Reestablish,
        _ => TakeoverPolicy::Renew,
    };
    let load_us = plan_load_us(seed);
    let setup = Setup {
        seed,
        members,
        workers: if random.chance(250) { 2 } else { 1 },
        peers: if random.chance(300) { 2 } else { 1 },
        targets: 2,
        timing: if random.chance(150) { Timing::RELAXED } else { Timing::DEFAULT },
        delay_us: 50 + random.below(400),
        jitter_us: random.below(200),
        loss_per_mille: if random.chance(250) { random.below(20) } else { 0 },
        sync_us: 100 + random.below(2_000),
        lan_us: 20 + random.below(100),
        esn: random.chance(500),
        policy,
        peer_sync: SyncSupport::BOTH,
        succession: succession(random),
        witnesses: if members == 3 && random.chance(150) { 1 } else { 0 },
        small_numbers: random.chance(600),
        mutation: None,
        load_us,
        ..Setup::default()
    };
    if load_us == 0 {
        return setup;
    }
    let peers = LOAD_PEERS_MIN + u8::try_from(seed % 4).unwrap_or(0);
    Setup { peers, small_numbers: true, ..setup }
}

/// What handing an SA to a worker takes, in every fourth plan from [`LOAD_FROM_SEED`] on.
fn plan_load_us(seed: u64) -> u64 {
    let mut random = Random::new(seed ^ 0x6669_6c6c_696e_6721);
    let takes_time = seed >= LOAD_FROM_SEED && random.chance(250);
    if takes_time { 200 + random.below(LOAD_US_MAX) } else { 0 }
}

/// Mostly nobody is preferred; else the last member gets the address back soon.
fn succession(random: &mut Random) -> SuccessionPolicy {
    if random.chance(900) {
        return SuccessionPolicy::default();
    }
    SuccessionPolicy {
        takeback: Takeback::Now,
        preference: vec![MemberId(3)],
        hold_down_ms: 100 + random.below(400),
        idle_ms: 100,
    }
}

/// Draws faults.
struct Draw {
    random: Random,
    members: u64,
    peers: u64,
    /// The others begin after this, the kill of an owner in a calm cluster before.
    start_us: u64,
}

impl Draw {
    fn faults(&mut self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.start_us > 0 {
            let at_us = 80_000 + self.random.below(40_000);
            let lasts_us = self.start_us - at_us;
            faults.push(Fault { number: 0, at_us, lasts_us, action: Action::KillOwner });
        }
        let count = FAULTS_MIN + self.random.below(FAULTS_MAX - FAULTS_MIN + 1);
        for _ in 0..count {
            let at_us = self.start_us + self.random.below(SAFETY_MS * 1_000);
            let action = self.action();
            let lasts_us = self.lasting_us();
            faults.push(Fault { number: 0, at_us, lasts_us, action });
            // Faults that meet within a few milliseconds are the ones that find something.
            if self.random.chance(400) {
                let near = Fault {
                    number: 0,
                    at_us: at_us + self.random.below(5_000),
                    lasts_us: self.lasting_us(),
                    action: self.action(),
                };
                faults.push(near);
            }
        }
        if self.random.chance(350) {
            let at_us = self.start_us + self.random.below(SAFETY_MS * 1_000);
            self.meeting(at_us, &mut faults);
        }
        // What was ever seen comes back at the end in any case.
        let action = Action::Replay;
        let at_us = self.start_us + SAFETY_MS * 1_000;
        faults.push(Fault { number: 0, at_us, lasts_us: 0, action });
        faults
    }

    /// Faults that chance rarely brings together in the right order.
    fn meeting(&mut self, at_us: u64, faults: &mut Vec<Fault>) {
        let mut add = |at_us, lasts_us, action| {
            faults.push(Fault { number: 0, at_us, lasts_us, action });
        };
        let (member, lasts_us) = (self.member(), 60_000 + self.random.below(240_000));
        let later_us = at_us + self.random.below(100_000);
        match self.random.below(6) {
            0 => {
                add(at_us, lasts_us, Action::AllDisks(DiskHealth::Stuck));
                add(later_us, 50_000, Action::Blackout);
            }
            1 => {
                add(at_us, lasts_us, Action::AllDisks(DiskHealth::Stuck));
                add(later_us, 50_000, Action::KillOwner);
            }
            2 => {
                // Without traffic the log rests, and who is cut off may still be elected.
                add(at_us, lasts_us + 50_000, Action::Pause(0));
                add(at_us + 10_000, lasts_us, Action::PartOwnerFrom(member));
                let mut restart_us = at_us + 30_000;
                for _ in 0..8 {
                    restart_us += 2_000 + self.random.below(12_000);
                    add(restart_us, 0, Action::RestartOthers(member));
                }
            }
            3 => {
                // A range runs out while nothing can be committed.
                add(at_us, 80_000, Action::Rush(0));
                add(at_us + self.random.below(20_000), lasts_us, Action::IsolateOwner);
            }
            4 => {
                add(at_us, lasts_us, Action::PartOwnerFrom(member));
                add(at_us + self.random.below(3_000), 0, Action::Handover(None));
            }
            _ => {
                add(at_us, 0, Action::Handover(None));
                add(at_us + self.random.below(3_000), lasts_us, Action::StallOwner);
            }
        }
    }

    /// Something happens while the successor of a handover, or of a killed owner, has not loaded its SAs.
    fn while_filling(&mut self, at_us: u64, faults: &mut Vec<Fault>) {
        let first =
            if self.random.chance(700) { Action::Handover(None) } else { Action::KillOwner };
        let later_us = at_us + 3_000 + self.random.below(90_000);
        let second = match self.random.below(7) {
            0..=2 => Action::Handover(None),
            3 => Action::KillOwner,
            4 => Action::FreezeOwner,
            5 => Action::RekeyChild(self.peer()),
            _ => Action::DeleteChild(self.peer()),
        };
        for (at_us, action) in [(at_us, first), (later_us, second)] {
            faults.push(Fault { number: 0, at_us, lasts_us: self.lasting_us(), action });
        }
    }

    fn lasting_us(&mut self) -> u64 {
        let short = self.random.chance(500);
        let most_ms = if short { 60 } else { FAULT_MS_MAX };
        1_000 + self.random.below(most_ms * 1_000)
    }

    fn member(&mut self) -> MemberId {
        MemberId(1 + self.random.below(self.members))
    }

    fn peer(&mut self) -> usize {
        usize::try_from(self.random.below(self.peers)).unwrap_or(0)
    }

    fn action(&mut self) -> Action {
        match self.random.below(48) {
            0 => Action::Kill(self.member()),
            1 => Action::PowerLoss(self.member()),
            2..=5 => Action::KillOwner,
            6 => Action::Blackout,
            7 => Action::Freeze(self.member()),
            8..=9 => Action::FreezeOwner,
            10 => Action::StallController(self.member()),
            11..=12 => Action::StallOwner,
            13..=14 => Action::Restart(self.member()),
            15..=16 => Action::Cut(self.member(), self.member()),
            17..=18 => Action::CutOwnerTo(self.member()),
            19 => Action::Isolate(self.member()),
            20..=21 => Action::IsolateOwner,
            22 => Action::Slow(self.member(), self.member(), 1_000 + self.random.below(30_000)),
            23..=24 => self.weather(),
            25 => Action::PortDown(self.member(), Side::Outside),
            26 => Action::PortDown(self.member(), Side::Inside),
            27 => Action::Disk(self.member(), DiskHealth::Slow(1_000 + self.random.below(40_000))),
            28 => Action::Disk(self.member(), DiskHealth::Stuck),
            29 => Action::ClockJump(self.member(), 1 + self.random.below(5_000)),
            30..=32 => Action::Handover(None),
            33 => Action::Handover(Some(self.member())),
            34..=35 => Action::Replay,
            36..=37 => Action::RekeyChild(self.peer()),
            38..=39 => Action::RekeyIke(self.peer()),
            40 => Action::DeleteChild(self.peer()),
            41 => Action::DeleteIke(self.peer()),
            42 => Action::Silence(self.peer()),
            43 => Action::Pause(self.peer()),
            44 => Action::Spoof(self.peer()),
            45 => Action::DiskFailed(self.member()),
            46 => Action::WorkerStalled(self.member()),
            _ => Action::TargetOff(0),
        }
    }

    fn weather(&mut self) -> Action {
        let network = match self.random.below(3) {
            0 => Network::Management,
            1 => Network::Outside,
            _ => Network::Inside,
        };
        let weather = Weather {
            loss_per_mille: self.random.below(200),
            duplicate_per_mille: self.random.below(200),
            corrupt_per_mille: self.random.below(60),
            jitter_us: self.random.below(5_000),
        };
        Action::Weather(network, weather)
    }
}
