//! Crashes of disks and processes: what was acknowledged is there again.

use super::{ONE, drain, others, settled};
use crate::EntryKind;
use crate::envelope::Envelope;
use crate::testing::{Conditions, Network, Prng};
use crate::{
    Compaction, Config, HardState, LogEntry, Output, Recovered, Replica, ReplicaError, Timing,
};
use holdfast_cluster::{Incarnation, MemberId, TargetId};
use holdfast_packet::Nanos;
use raft::eraftpb::{Entry, Message, MessageType};

fn small_log() -> Compaction {
    Compaction { entries: 40, bytes: 1 << 20, retained_entries: 5, ..Compaction::default() }
}

#[test]
fn committed_entries_survive_the_power_failure_of_all_members() {
    for seed in 0..40 {
        let conditions = Conditions { compaction: small_log(), ..Conditions::default() };
        let (mut network, owner) = settled(seed, conditions);
        let mut committed = Vec::new();
        for target in 0..100 {
            let proposal = network.propose(owner, &drain(target)).unwrap();
            network.run_for_ms(target % 3);
            if network.applied(owner).contains(&(proposal.index, proposal.term)) {
                committed.push(target);
            }
        }
        for id in network.members() {
            network.crash(id);
        }
        for id in network.members() {
            network.start(id);
        }
        let owner = network.run_until_owned();
        network.run_for_ms(50);
        assert!(committed.len() > 20, "seed {seed}: {} committed in time", committed.len());
        for target in committed {
            let state = network.replica(owner).unwrap().state();
            assert!(state.is_draining(TargetId(target)), "seed {seed}: target {target} is lost");
        }
    }
}

#[test]
fn members_crash_and_return_all_the_time_and_agree_in_the_end() {
    for seed in 0..60 {
        let conditions = Conditions {
            compaction: small_log(),
            loss_per_mille: seed % 20,
            ..Conditions::default()
        };
        let mut network = Network::new(3, seed, conditions);
        let mut prng = Prng::new(seed);
        for round in 0..60u64 {
            let id = MemberId(prng.between(1, 3));
            match network.replica(id) {
                Some(_) if prng.chance(300) => network.crash(id),
                None => network.start(id),
                Some(_) => {}
            }
            for target in 0..5 {
                for member in network.members() {
                    let _refused = network.propose(member, &drain(round * 5 + target));
                }
            }
            network.run_for_ms(prng.between(0, 60));
        }
        network.conditions_mut().loss_per_mille = 0;
        for id in network.members() {
            if network.replica(id).is_none() {
                network.start(id);
            }
        }
        network.run_until_owned();
        network.run_until("all equal", 5_000, |network| {
            let hash = |id: &MemberId| network.replica(*id).map(|replica| replica.state().hash());
            let hashes: Vec<_> = network.members().iter().map(hash).collect();
            hashes.windows(2).all(|pair| pair[0] == pair[1])
        });
    }
}

#[test]
fn nothing_is_acknowledged_before_it_is_stored() {
    let (mut network, owner) = settled(5, Conditions::default());
    for other in others(&network, owner) {
        network.set_disk_answers(other, false);
    }
    let proposal = network.propose(owner, &drain(1)).unwrap();
    network.run_for_ms(200);
    let commit = network.replica(owner).unwrap().status().commit;
    assert!(commit < proposal.index, "two of three disks do not answer");
    assert_eq!(network.owner(), Some(owner), "heartbeats go on: the lease does not wait for disks");
}

/// The kinds of the messages among outputs.
fn sent(replica: &mut Replica) -> Vec<MessageType> {
    let kind = |output| match output {
        Output::Send { bytes, .. } => {
            Some(Envelope::decode(bytes.into_vec()).unwrap().message.get_msg_type())
        }
        _ => None,
    };
    std::iter::from_fn(|| replica.poll_output()).filter_map(kind).collect()
}

#[test]
fn a_heartbeat_is_answered_at_once_unless_its_term_is_not_stored_yet() {
    let members = vec![MemberId(1), MemberId(2), MemberId(3)];
    let config = Config::new(ONE, members, Timing::DEFAULT, Incarnation(1));
    let mut replica = Replica::new(config, Recovered::default(), Nanos::ZERO).unwrap();
    let now = Nanos::from_ms(100);
    let leader = MemberId(2);
    let of_leader = |kind, entries: Vec<Entry>| {
        let mut message = Message::default();
        message.set_msg_type(kind);
        (message.from, message.to, message.term) = (leader.0, ONE.0, 5);
        message.set_entries(entries.into());
        let promise_ns = Timing::DEFAULT.promise_ns();
        let envelope = Envelope {
            from: leader,
            term: 5,
            sent: now,
            echo: None,
            promise_ns,
            note: None,
            message,
        };
        envelope.encode().unwrap().into_vec()
    };
    let heartbeat = of_leader(MessageType::MsgHeartbeat, Vec::new());
    replica.handle_message(now, leader, heartbeat.clone()).unwrap();
    assert_eq!(sent(&mut replica), [], "term 5 is not stored");
    replica.persisted(now, 1);
    assert_eq!(sent(&mut replica), [MessageType::MsgHeartbeatResponse]);
    let mut entry = Entry::default();
    (entry.term, entry.index) = (5, 1);
    let append = of_leader(MessageType::MsgAppend, vec![entry]);
    replica.handle_message(now, leader, append).unwrap();
    assert_eq!(sent(&mut replica), [], "the entry is not stored");
    replica.handle_message(now, leader, heartbeat).unwrap();
    assert_eq!(sent(&mut replica), [MessageType::MsgHeartbeatResponse]);
    replica.persisted(now, 2);
    assert_eq!(sent(&mut replica), [MessageType::MsgAppendResponse]);
}

#[test]
fn the_leader_does_not_wait_for_its_own_disk_to_commit_but_to_apply() {
    let (mut network, owner) = settled(6, Conditions::default());
    network.set_disk_answers(owner, false);
    let proposal = network.propose(owner, &drain(1)).unwrap();
    network.run_for_ms(20);
    assert_eq!(network.replica(owner).unwrap().status().commit, proposal.index);
    assert!(network.replica(owner).unwrap().state().applied() < proposal.index);
}

#[test]
fn a_member_whose_disk_lost_what_it_acknowledged_stops() {
    let (mut network, owner) = settled(7, Conditions::default());
    let victim = others(&network, owner)[0];
    for target in 0..10 {
        network.propose(owner, &drain(target)).unwrap();
    }
    network.run_for_ms(50);
    let (id, now) = (victim, network.local_now(victim));
    let amnesiac = |recovered| {
        let members = vec![MemberId(1), MemberId(2), MemberId(3)];
        let config = Config::new(id, members, Timing::DEFAULT, Incarnation(2));
        Replica::new(config, recovered, now).unwrap()
    };
    let mut replica = amnesiac(Recovered::default());
    let heartbeats = network
        .with_replica(owner, |leader, _| {
            let at = leader.poll_timeout().unwrap();
            leader.handle_timeout(at);
            std::iter::from_fn(|| leader.poll_output()).collect::<Vec<_>>()
        })
        .unwrap();
    for output in heartbeats {
        if let Output::Send { to, bytes, .. } = output
            && to == victim
        {
            let _refused = replica.handle_message(now, owner, bytes.into_vec());
        }
    }
    let last = std::iter::from_fn(|| replica.poll_output()).last();
    assert!(matches!(last, Some(Output::Halted(ReplicaError::LogLost { .. }))), "{last:?}");
    assert_eq!(replica.poll_timeout(), None);
}

#[test]
fn a_stored_log_with_a_hole_or_a_lost_end_is_refused() {
    let start = |recovered| {
        let config = Config::new(ONE, vec![ONE], Timing::DEFAULT, Incarnation(1));
        Replica::new(config, recovered, Nanos::ZERO).map(|_| ())
    };
    let entry =
        |index| LogEntry { term: 1, index, kind: EntryKind::Command, data: bytes::Bytes::new() };
    let hard_state = HardState { term: 1, vote: 1, commit: 2 };
    let whole = Recovered { hard_state, snapshot: None, entries: vec![entry(1), entry(2)] };
    assert_eq!(start(whole.clone()), Ok(()));
    let hole = Recovered { entries: vec![entry(1), entry(3)], ..whole.clone() };
    assert!(matches!(start(hole), Err(ReplicaError::Log(_))));
    let short = Recovered { entries: vec![entry(1)], ..whole };
    assert!(matches!(start(short), Err(ReplicaError::Log(_))));
}

#[test]
fn unusable_configurations_are_refused() {
    let start = |id, members: Vec<u64>, timing| {
        let members = members.into_iter().map(MemberId).collect();
        let config = Config::new(MemberId(id), members, timing, Incarnation(1));
        Replica::new(config, Recovered::default(), Nanos::ZERO).map(|_| ())
    };
    assert_eq!(start(1, vec![3, 1, 2], Timing::DEFAULT), Ok(()));
    for (id, members) in [(1, vec![]), (1, vec![2, 3]), (1, vec![1, 1]), (0, vec![0, 1])] {
        assert_eq!(start(id, members, Timing::DEFAULT), Err(ReplicaError::Members));
    }
    let bad = Timing { tick_ms: 0, ..Timing::DEFAULT };
    assert!(matches!(start(1, vec![1], bad), Err(ReplicaError::Timing(_))));
}
