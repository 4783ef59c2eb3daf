//! A member so far behind that its leader sends it a whole snapshot: how long each call of its controller
//! takes from then on until it has everything ready.

use crate::takeover::{config, disk};
use crate::{Figure, cpu_ms};
use holdfast_cluster::MemberId;
use holdfast_member::{Input, Member, MemberConfig, Output};
use holdfast_packet::Nanos;
use holdfast_replica::{Lane, Recovered};
use std::collections::VecDeque;

const LEADER: MemberId = MemberId(1);
const BEHIND: MemberId = MemberId(2);

/// How long at most a hundred thousand SAs are made ready in slices after that, in the time of the members.
const WARMING_MS: u64 = 5_000;

/// Longest calls of the member that is behind, in ms.
#[derive(Default)]
struct Longest {
    received: f64,
    replaced: f64,
    other: f64,
    /// What another thread does.
    elsewhere: f64,
}

/// A leader and a follower, and what is on its way between them.
struct Pair {
    now: Nanos,
    members: [Member; 2],
    messages: VecDeque<(MemberId, MemberId, Lane, Vec<u8>)>,
    longest: Longest,
}

pub(crate) fn measure(sas: u32) -> Vec<Figure> {
    let mut pair = Pair::new(sas);
    while pair.member(BEHIND).state().children().len() < sas as usize {
        pair.step();
        assert!(pair.now < Nanos::from_secs(600), "a member that is behind catches up");
    }
    let warm = pair.now.plus_ms(WARMING_MS);
    while pair.now < warm {
        pair.step();
    }
    let figure =
        |name, value| Figure { section: "far behind", sas, name, value, unit: "ms", timed: true };
    let Longest { received, replaced, other, elsewhere } = pair.longest;
    vec![
        figure("call that takes the snapshot in", received),
        figure("another thread restores it", elsewhere),
        figure("call that replaces the state", replaced),
        figure("longest other call until every SA is ready", other),
    ]
}

impl Pair {
    fn new(sas: u32) -> Self {
        let now = Nanos::from_secs(1);
        let of = |id| MemberConfig { id, members: vec![LEADER, BEHIND], ..config() };
        let start = |id, disk| Member::new(of(id), disk, [3; 32], now).expect("a member");
        let members = [start(LEADER, disk(sas)), start(BEHIND, Recovered::default())];
        let mut pair =
            Self { now, members, messages: VecDeque::new(), longest: Longest::default() };
        pair.carry_out(LEADER);
        pair.carry_out(BEHIND);
        pair
    }

    fn member(&mut self, id: MemberId) -> &mut Member {
        let [leader, behind] = &mut self.members;
        if id == LEADER { leader } else { behind }
    }

    /// The next message, or the next moment of the member that wants to be called first.
    fn step(&mut self) {
        if let Some((from, to, lane, bytes)) = self.messages.pop_front() {
            let snapshot = lane == Lane::Snapshot;
            self.call(to, snapshot, |member, now| {
                member.handle(now, Input::PeerMessage { from, bytes });
            });
            if snapshot {
                let delivered = Input::SnapshotDelivered { to, delivered: true };
                self.call(from, false, |member, now| member.handle(now, delivered));
            }
            return;
        }
        let due = |member: &Member| member.next_deadline().unwrap_or(Nanos::MAX);
        let [leader, behind] = &self.members;
        let (id, at) =
            if due(leader) <= due(behind) { (LEADER, due(leader)) } else { (BEHIND, due(behind)) };
        self.now = self.now.max(at);
        self.call(id, false, Member::handle_timeout);
    }

    fn call(&mut self, id: MemberId, receives: bool, call: impl FnOnce(&mut Member, Nanos)) {
        let now = self.now;
        let records = |pair: &mut Self| pair.member(BEHIND).state().children().len();
        let before = records(self);
        let begin = cpu_ms();
        call(self.member(id), now);
        let took_ms = cpu_ms() - begin;
        let replaced = records(self) != before;
        if id == BEHIND {
            let longest = match (receives, replaced) {
                (true, _) => &mut self.longest.received,
                (_, true) => &mut self.longest.replaced,
                _ => &mut self.longest.other,
            };
            *longest = longest.max(took_ms);
        }
        self.carry_out(id);
    }

    fn carry_out(&mut self, id: MemberId) {
        let now = self.now;
        let mut stored = Vec::new();
        while let Some(output) = self.member(id).poll_output() {
            match output {
                Output::SendPeer { to, lane, bytes } => {
                    self.messages.push_back((id, to, lane, bytes.into_vec()));
                }
                Output::Persist(batch) => stored.push(batch),
                // Dropped here, where no call is timed.
                _ => {}
            }
        }
        for batch in stored {
            let number = batch.number;
            let begin = cpu_ms();
            if let Some(checkpoint) = &batch.checkpoint {
                checkpoint.snapshot.data.restore().expect("the leader's snapshot");
            }
            drop(batch);
            self.longest.elsewhere = self.longest.elsewhere.max(cpu_ms() - begin);
            self.call(id, false, |member, _| member.handle(now, Input::Persisted(number)));
        }
    }
}
