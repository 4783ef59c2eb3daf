//! Logs and entries of other releases.

use super::{ONE, THREE, TWO, drain};
use crate::envelope::Envelope;
use crate::testing::WAL_KEY;
use crate::wal::{NamedBytes, WalKey, recover};
use crate::{Config, MessageError, Output, Recovered, Replica, ReplicaError, Timing};
use holdfast_cluster::{CodecError, Command, IkeSpi, Incarnation, State, TargetId, level};
use holdfast_packet::Nanos;
use raft::eraftpb::{Entry, Message, MessageType};

/// What the first release left on a disk: a snapshot up to entry 6 and five entries behind it.
const SEGMENT: &[u8] = include_bytes!("first-format/log-0000000000000002.hfl");
const SNAPSHOT: &[u8] = include_bytes!("first-format/snapshot-0000000000000006.hfs");

fn config() -> Config {
    Config::new(ONE, vec![ONE, TWO, THREE], Timing::DEFAULT, Incarnation(2))
}

#[test]
fn a_log_of_the_first_release_is_read_in_full() {
    let files = [
        NamedBytes { name: "log-0000000000000002.hfl", bytes: SEGMENT },
        NamedBytes { name: "snapshot-0000000000000006.hfs", bytes: SNAPSHOT },
    ];
    let recovery = recover(&WalKey::new(&WAL_KEY), &files).unwrap();
    let Recovered { snapshot, entries, .. } = &recovery.recovered;
    let mut state = State::restore(&snapshot.as_ref().unwrap().data).unwrap();
    assert_eq!(state.applied(), 6);
    for entry in entries {
        state.apply(entry.index, &Command::decode(&entry.data).unwrap());
    }
    assert_eq!(state.applied(), 11);
    for target in [1, 2, 3, 4, 9] {
        assert!(state.is_draining(TargetId(target)), "target {target}");
    }
    for spi in 0xabc1..=0xabc4 {
        assert_eq!(state.ike_sa(IkeSpi(spi)).unwrap().state.as_bytes(), b"an exported IKE SA");
    }
    assert_eq!(state.membership().level(), level::FIRST, "nobody has shown more yet");
    let replica = Replica::new(config(), recovery.recovered, Nanos::ZERO).unwrap();
    assert_eq!(replica.configuration().voters.len(), 3, "who votes is what the file says");
}

/// A follower to which member 2, in term 2, sends one committed entry.
fn follower_with(data: Vec<u8>) -> (Replica, Vec<Output>) {
    let mut replica = Replica::new(config(), Recovered::default(), Nanos::ZERO).unwrap();
    let mut entry = Entry::default();
    (entry.term, entry.index, entry.data) = (2, 1, data.into());
    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgAppend);
    (message.from, message.to, message.term, message.commit) = (TWO.0, ONE.0, 2, 1);
    message.set_entries(vec![entry].into());
    let promise_ns = Timing::DEFAULT.promise_ns();
    let sent = Nanos::from_ms(100);
    let envelope =
        Envelope { from: TWO, term: 2, sent, echo: None, promise_ns, note: None, message };
    replica.handle_message(sent, TWO, envelope.encode().unwrap().into_vec()).unwrap();
    let mut outputs = Vec::new();
    while let Some(output) = replica.poll_output() {
        if let Output::Persist(batch) = &output {
            replica.persisted(sent, batch.number);
        }
        outputs.push(output);
    }
    (replica, outputs)
}

#[test]
fn an_entry_with_an_unknown_field_is_applied_and_stored_as_it_came() {
    let mut data = drain(7).encode().unwrap().to_vec();
    // Field 999, length-delimited: a later release's addition.
    data.extend_from_slice(&[0xba, 0x3e, 3, b'n', b'e', b'w']);
    let (replica, outputs) = follower_with(data.clone());
    assert!(replica.state().is_draining(TargetId(7)));
    let stored = outputs.iter().find_map(|output| match output {
        Output::Persist(batch) => batch.entries.first().map(|entry| entry.data.to_vec()),
        _ => None,
    });
    assert_eq!(stored, Some(data), "a member that falls behind gets it with the field");
}

#[test]
fn an_entry_of_a_newer_format_halts_this_member_with_the_remedy() {
    let mut data = drain(7).encode().unwrap().to_vec();
    assert_eq!(data.get(..2), Some(&[8, 1][..]), "the format is the first field");
    data[1] = 2;
    let (mut replica, outputs) = follower_with(data);
    let error = outputs.iter().find_map(|output| match output {
        Output::Halted(error) => Some(error.clone()),
        _ => None,
    });
    let error = error.expect("it halts");
    let newer = CodecError::Newer { found: 2, known: 1 };
    assert_eq!(error, ReplicaError::Entry { index: 1, error: newer });
    assert!(error.to_string().contains("upgrade this member"), "{error}");
    assert!(!replica.state().is_draining(TargetId(7)), "nothing of it is applied");
    assert_eq!(
        replica.handle_message(Nanos::from_ms(200), TWO, Vec::new()),
        Err(MessageError::Halted),
        "it says nothing any more, like a member that crashed"
    );
}
