//! One run of a plan: connect, let things go wrong, heal, see that all is well.

use crate::outage::Outage;
use crate::plan::{Action, Fault, Plan};
use holdfast_cluster::MemberId;
use holdfast_ike::TakeoverPolicy;
use holdfast_member::testing::{DiskHealth, Life, Network, Peer, Violation, Weather, World};
use holdfast_member::{MemberEvent, OperatorRequest};
use holdfast_packet::{Nanos, Side};
use holdfast_replica::Timing;
use std::collections::BTreeMap;

/// How long a healthy cluster may take to connect its peers.
const CONNECT_MS: u64 = 3_000;

/// The stated time after healing within which every SA carries traffic in both directions: the
/// longest pause between two repetitions of a peer's IKE message within the safety phase, an
/// exchange or two, and an election.
pub const LIVENESS_MS: u64 = 8_000;

/// Time between the requests of a peer that rushes.
const RUSH_US: u64 = 200;

/// Time between the requests of peers that have to count beyond a horizon.
const COUNTING_US: u64 = 1_000;

/// How long nothing may have been wrong before a kill whose outage counts.
pub const QUIET_MS: u64 = 60;

/// A killed member is started again after this long at least.
const BOOT_US: u64 = 5_000;

/// What a run showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What was broken; nothing, one hopes.
    pub failures: Vec<String>,
    /// A digest of everything that happened.
    pub trace_hash: u64,
    /// Things that happened.
    pub steps: u64,
    /// Times a member took the address from another one.
    pub takeovers: u64,
    /// Virtual outages of the unplanned takeovers in an otherwise healthy cluster.
    pub outages: Vec<Outage>,
    /// What the members said, and how they stood at the end; for a person to read.
    pub log: Vec<String>,
}

/// What ends a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Begin(Fault),
    End(Fault),
}

struct Run<'a> {
    plan: &'a Plan,
    world: World,
    /// By time and order.
    events: BTreeMap<(Nanos, usize), Event>,
    scheduled: usize,
    /// Whom a fault of the owner hit.
    hit: BTreeMap<usize, MemberId>,
    failures: Vec<String>,
    /// Faults under way, and when something was wrong last.
    under_way: usize,
    disturbed: Nanos,
    /// When an owner was killed in a healthy cluster, until something else happens.
    killed: Option<Nanos>,
    outages: Vec<Outage>,
}

/// Runs a plan.
#[must_use]
pub fn run(plan: &Plan) -> Outcome {
    run_all(plan, false)
}

/// Runs a plan and tells what happened also when all is well.
#[must_use]
pub fn tell(plan: &Plan) -> Outcome {
    run_all(plan, true)
}

fn run_all(plan: &Plan, tell: bool) -> Outcome {
    match World::new(plan.setup.clone()) {
        Ok(world) => Run::new(plan, world).all(tell),
        Err(error) => Outcome {
            failures: vec![format!("the world cannot begin: {error}")],
            trace_hash: 0,
            steps: 0,
            takeovers: 0,
            outages: Vec::new(),
            log: Vec::new(),
        },
    }
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, mut world: World) -> Self {
        world.record_outside();
        Self {
            plan,
            world,
            events: BTreeMap::new(),
            scheduled: 0,
            hit: BTreeMap::new(),
            failures: Vec::new(),
            under_way: 0,
            disturbed: Nanos::ZERO,
            killed: None,
            outages: Vec::new(),
        }
    }

    fn all(mut self, tell: bool) -> Outcome {
        if self.connect() {
            self.safety();
            self.heal();
            self.liveness();
        }
        self.finish(tell)
    }

    fn connect(&mut self) -> bool {
        let world = &mut self.world;
        let owned = world.run_until(CONNECT_MS, |world| world.owner().is_some());
        let now = world.now();
        for peer in world.peers_mut() {
            peer.persist();
            peer.connect(now);
        }
        let connected =
            world.run_until(CONNECT_MS, |world| world.peers().iter().all(Peer::is_connected));
        let now = world.now();
        for peer in world.peers_mut() {
            peer.set_traffic(now, Some(self.plan.interval_us));
        }
        if owned.is_none() || connected.is_none() {
            self.failures.push("a healthy cluster does not connect its peers".to_owned());
        }
        self.failures.is_empty()
    }

    fn safety(&mut self) {
        let start = self.world.now();
        for fault in self.plan.faults.clone() {
            let begin = start.plus_us(fault.at_us);
            self.schedule(begin, Event::Begin(fault));
        }
        while let Some(((at, _), event)) = self.events.pop_first() {
            self.run_to(at);
            match event {
                Event::Begin(fault) => self.begin(fault),
                Event::End(fault) => self.end(&fault),
            }
            if !self.world.checks().violations().is_empty() {
                break;
            }
        }
    }

    fn run_to(&mut self, at: Nanos) {
        let us = at.since(self.world.now()) / 1_000;
        self.world.run_for_us(us);
    }

    fn schedule(&mut self, at: Nanos, event: Event) {
        self.scheduled += 1;
        self.events.insert((at, self.scheduled), event);
    }

    fn begin(&mut self, fault: Fault) {
        self.note_outage();
        let now = self.world.now();
        if fault.action == Action::KillOwner && self.is_calm(now) {
            self.killed = Some(now);
        }
        self.act(&fault);
        self.under_way += usize::from(ends(&fault.action));
        self.disturbed = now;
        let end = self.world.now().plus_us(fault.lasts_us.max(BOOT_US));
        if ends(&fault.action) {
            self.schedule(end, Event::End(fault));
        }
    }

    fn is_calm(&self, now: Nanos) -> bool {
        self.under_way == 0
            && now.ms_since(self.disturbed) >= QUIET_MS
            && self.plan.setup.timing == Timing::DEFAULT
            && self.plan.setup.loss_per_mille == 0
            && self.plan.setup.load_us == 0
            && self.plan.setup.members > 2
            && self.world.owner().is_some()
            && self.world.peers().iter().all(Peer::is_connected)
    }

    /// Counts the outage of the last kill when a peer was answered before anything else happened.
    fn note_outage(&mut self) {
        let Some(killed) = self.killed.take() else { return };
        self.outages.extend(Outage::since(&self.world, killed));
    }

    /// The member a fault is about.
    fn victim(&mut self, fault: &Fault) -> Option<MemberId> {
        let id = match &fault.action {
            Action::Kill(id)
            | Action::DiskFailed(id)
            | Action::PowerLoss(id)
            | Action::Freeze(id)
            | Action::StallController(id)
            | Action::Restart(id)
            | Action::Isolate(id) => Some(*id),
            Action::KillOwner
            | Action::FreezeOwner
            | Action::StallOwner
            | Action::CutOwnerTo(_)
            | Action::PartOwnerFrom(_)
            | Action::RestartOthers(_)
            | Action::IsolateOwner => {
                let known = self.hit.get(&fault.number).copied();
                known.or_else(|| self.world.owner())
            }
            _ => None,
        };
        if let Some(id) = id {
            self.hit.insert(fault.number, id);
        }
        id
    }

    fn act(&mut self, fault: &Fault) {
        let victim = self.victim(fault);
        let world = &mut self.world;
        let now = world.now();
        match (&fault.action, victim) {
            (Action::Kill(_) | Action::PowerLoss(_) | Action::KillOwner, Some(id)) => {
                world.kill(id)
            }
            (Action::Freeze(_) | Action::FreezeOwner, Some(id)) => {
                self.set_life(id, Life::Frozen);
            }
            (Action::StallController(_) | Action::StallOwner, Some(id)) => {
                self.set_life(id, Life::ControllerStalled);
            }
            (Action::Restart(_), Some(id)) => self.restart(id, false),
            (Action::CutOwnerTo(to), Some(from)) => world.cut(from, *to),
            (Action::PartOwnerFrom(other), Some(owner)) => {
                world.cut(owner, *other);
                world.cut(*other, owner);
            }
            (Action::RestartOthers(other), Some(owner)) => {
                let ids: Vec<MemberId> = world.nodes().map(|(id, _)| id).collect();
                let others = ids.into_iter().filter(|id| id != other && *id != owner);
                others.for_each(|id| self.restart(id, false));
            }
            (Action::AllDisks(health), _) => self.set_disks(*health),
            (Action::DiskFailed(id), _) => world.fail_disk(*id),
            (Action::WorkerStalled(id), _) => world.stall_worker(*id, 0, true),
            (Action::Isolate(_) | Action::IsolateOwner, Some(id)) => world.isolate(id),
            (Action::Blackout, _) => {
                let ids: Vec<MemberId> = world.nodes().map(|(id, _)| id).collect();
                ids.into_iter().for_each(|id| self.restart(id, true));
            }
            (Action::Cut(from, to), _) => world.cut(*from, *to),
            (Action::Slow(from, to, extra_us), _) => world.set_slow(*from, *to, *extra_us),
            (Action::Weather(network, weather), _) => world.set_weather(*network, *weather),
            (Action::PortDown(id, side), _) => world.set_port(*id, *side, false),
            (Action::Disk(id, health), _) => world.set_disk(*id, *health),
            (Action::ClockJump(id, ms), _) => {
                world.jump_clock(*id, *ms);
            }
            (Action::Handover(to), _) => {
                if let Some(owner) = world.owner() {
                    world.ask(owner, OperatorRequest::Handover { to: *to });
                }
            }
            (Action::Replay, _) => world.replay_recorded(),
            (Action::TargetOff(number), _) => {
                if let Some(target) = world.target_mut(*number) {
                    target.on = false;
                }
            }
            (action, _) => act_on_peer(world, now, action),
        }
    }

    fn end(&mut self, fault: &Fault) {
        self.note_outage();
        self.under_way = self.under_way.saturating_sub(1);
        self.disturbed = self.world.now();
        let victim = self.hit.get(&fault.number).copied();
        let interval_us = self.plan.interval_us;
        let world = &mut self.world;
        let now = world.now();
        match (&fault.action, victim) {
            (Action::Kill(_) | Action::KillOwner, Some(id)) => self.start(id, false),
            (Action::PowerLoss(_), Some(id)) => self.start(id, true),
            (Action::Freeze(_) | Action::FreezeOwner, Some(id)) => self.go_on(id, Life::Frozen),
            (Action::StallController(_) | Action::StallOwner, Some(id)) => {
                self.go_on(id, Life::ControllerStalled);
            }
            (Action::Cut(from, to), _) | (Action::Slow(from, to, _), _) => world.mend(*from, *to),
            (Action::CutOwnerTo(to), Some(from)) => world.mend(from, *to),
            (Action::PartOwnerFrom(other), Some(owner)) => {
                world.mend(owner, *other);
                world.mend(*other, owner);
            }
            (Action::AllDisks(_), _) => self.set_disks(DiskHealth::Good),
            (Action::WorkerStalled(id), _) => world.stall_worker(*id, 0, false),
            // It may not have got so far: an operator looks after it.
            (Action::DiskFailed(id), _) => self.restart(*id, false),
            (Action::Isolate(_) | Action::IsolateOwner, Some(id)) => {
                let others: Vec<MemberId> = world.nodes().map(|(id, _)| id).collect();
                for other in others {
                    world.mend(id, other);
                    world.mend(other, id);
                }
            }
            (Action::Weather(network, _), _) => world.set_weather(*network, Weather::default()),
            (Action::PortDown(id, side), _) => world.set_port(*id, *side, true),
            (Action::Disk(id, _), _) => world.set_disk(*id, DiskHealth::Good),
            (Action::TargetOff(number), _) => {
                if let Some(target) = world.target_mut(*number) {
                    target.on = true;
                }
            }
            (Action::Silence(peer), _) => {
                if let Some(peer) = world.peers_mut().get_mut(*peer) {
                    peer.set_silent(false);
                }
            }
            (Action::Pause(peer) | Action::Rush(peer), _) => {
                if let Some(peer) = world.peers_mut().get_mut(*peer) {
                    peer.set_traffic(now, Some(interval_us));
                }
            }
            _ => {}
        }
    }

    fn set_disks(&mut self, health: DiskHealth) {
        let ids: Vec<MemberId> = self.world.nodes().map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| self.world.set_disk(id, health));
    }

    fn life(&self, id: MemberId) -> Option<Life> {
        self.world.node(id).map(|node| node.life())
    }

    /// Stops a running member; others are worse off already.
    fn set_life(&mut self, id: MemberId, life: Life) {
        if self.life(id) == Some(Life::Running) {
            match life {
                Life::Frozen => self.world.freeze(id, true),
                _ => self.world.stall_controller(id, true),
            }
        }
    }

    fn go_on(&mut self, id: MemberId, from: Life) {
        if self.life(id) == Some(from) {
            self.world.freeze(id, false);
        }
    }

    fn start(&mut self, id: MemberId, power_loss: bool) {
        if self.life(id) == Some(Life::Dead) {
            self.restart(id, power_loss);
        }
    }

    fn restart(&mut self, id: MemberId, power_loss: bool) {
        if let Err(error) = self.world.restart(id, power_loss) {
            self.failures.push(format!("member {id} does not start: {error}"));
        }
    }

    fn heal(&mut self) {
        let world = &mut self.world;
        world.heal();
        for network in [Network::Management, Network::Outside, Network::Inside] {
            world.set_weather(network, Weather::default());
        }
        world.set_loss(0);
        let ids: Vec<MemberId> = world.nodes().map(|(id, _)| id).collect();
        for id in ids {
            self.world.set_disk(id, DiskHealth::Good);
            self.world.stall_worker(id, 0, false);
            for side in Side::ALL {
                self.world.set_port(id, side, true);
            }
            match self.life(id) {
                Some(Life::Dead) => self.restart(id, false),
                Some(Life::Running) | None => {}
                Some(_) => self.world.freeze(id, false),
            }
        }
    }

    fn liveness(&mut self) {
        self.note_outage();
        if !self.is_well() {
            return;
        }
        let healed = self.world.now();
        // Under the strict policy a peer is answered once it has counted beyond the horizon.
        if self.plan.setup.policy == TakeoverPolicy::Strict {
            let peers = self.world.peers_mut().iter_mut();
            peers.for_each(|peer| peer.set_traffic(healed, Some(COUNTING_US)));
        }
        let served = |world: &World| {
            world
                .peers()
                .iter()
                .all(|peer| peer.is_connected() && peer.first_answer_since(healed).is_some())
        };
        if self.world.run_until(LIVENESS_MS, served).is_none() {
            self.failures.push(format!("no traffic {LIVENESS_MS} ms after healing"));
        }
    }

    fn is_well(&self) -> bool {
        self.failures.is_empty() && self.world.checks().violations().is_empty()
    }

    fn finish(mut self, tell: bool) -> Outcome {
        let violations = self.world.verdict();
        self.failures.extend(violations.iter().map(Violation::to_string));
        Outcome {
            trace_hash: self.world.trace_hash(),
            steps: self.world.steps(),
            takeovers: takeovers(&self.world),
            outages: self.outages,
            log: if tell || !self.failures.is_empty() { log(&self.world) } else { Vec::new() },
            failures: self.failures,
        }
    }
}

fn log(world: &World) -> Vec<String> {
    let events = world.nodes().flat_map(|(id, node)| {
        node.events().iter().map(move |(at, event)| (at.0 / 1_000, id, event.to_string()))
    });
    let mut events: Vec<_> = events.collect();
    events.sort();
    let mut lines: Vec<String> = Vec::new();
    lines.extend(events.iter().map(|(us, id, text)| format!("{us:>9} us member {id}: {text}")));
    for (id, node) in world.nodes() {
        lines.push(format!("member {id}: {node:?}"));
        for child in node.member().state().children() {
            let (spi, outbound) = (child.parameters.inbound_spi, child.outbound());
            let (floor, horizon) = (child.floor, child.horizon);
            lines.push(format!("  {spi}: outbound {outbound:?}, floor {floor}, horizon {horizon}"));
        }
        lines.push(format!("  {:?}", node.member().ike_counters()));
        lines.extend(node.counters().map(|counters| format!("  {counters:?}")));
    }
    lines.extend(world.peers().iter().map(|peer| format!("{peer:?}")));
    lines
}

fn takeovers(world: &World) -> u64 {
    let events = world.nodes().flat_map(|(_, node)| node.events());
    let taken = events.filter(|(_, event)| {
        matches!(event, MemberEvent::OwnershipTaken { previous: Some(_), .. })
    });
    taken.count() as u64
}

fn ends(action: &Action) -> bool {
    !matches!(
        action,
        Action::Restart(_)
            | Action::RestartOthers(_)
            | Action::Blackout
            | Action::ClockJump(..)
            | Action::Handover(_)
            | Action::Replay
            | Action::RekeyChild(_)
            | Action::RekeyIke(_)
            | Action::DeleteChild(_)
            | Action::DeleteIke(_)
            | Action::Spoof(_)
    )
}

fn act_on_peer(world: &mut World, now: Nanos, action: &Action) {
    let (Action::RekeyChild(number)
    | Action::RekeyIke(number)
    | Action::DeleteChild(number)
    | Action::DeleteIke(number)
    | Action::Silence(number)
    | Action::Pause(number)
    | Action::Rush(number)
    | Action::Spoof(number)) = action
    else {
        return;
    };
    let Some(peer) = world.peers_mut().get_mut(*number) else { return };
    match action {
        Action::RekeyChild(_) => peer.rekey(now),
        Action::RekeyIke(_) => peer.rekey_ike(now),
        Action::DeleteChild(_) => peer.delete_child(now),
        Action::DeleteIke(_) => peer.delete_ike(now),
        Action::Silence(_) => peer.set_silent(true),
        Action::Pause(_) => peer.set_traffic(now, None),
        Action::Rush(_) => peer.set_traffic(now, Some(RUSH_US)),
        _ => peer.spoof(now),
    }
}
