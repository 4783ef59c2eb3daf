//! Keys that were cleared are gone from every file, even for who has the key that seals them.

use super::{ONE, drain, settled};
use crate::Compaction;
use crate::testing::{Conditions, Network, WAL_KEY};
use crate::wal::{WalKey, open_everything};
use holdfast_cluster::{Command, IkeSpi, MemberId, Owner, StateChange};
use holdfast_crypto::SecretBytes;

const CLEARED: [u8; 32] = *b"the key of an SA that is deleted";
const KEPT: [u8; 32] = *b"the key of an SA that is carried";

/// From the deletion until no file holds the key; a tick and a sync more than it is due after.
const GONE_WITHIN_MS: u64 = 10_100;

fn put(spi: u64, key: [u8; 32]) -> StateChange {
    StateChange::PutIkeSa {
        spi: IkeSpi(spi),
        connection: "road".to_owned(),
        state: SecretBytes::new(key.to_vec()),
    }
}

fn change(network: &mut Network, owner: MemberId, change: StateChange) {
    let claim: Owner = network.replica(owner).unwrap().owner_claim();
    let command = Command::Ike { owner: claim, changes: vec![change] };
    network.propose(owner, &command).unwrap();
    network.run_for_ms(50);
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// Whether any file of a member shows `wanted` to who has the sealing key.
fn readable(network: &mut Network, id: MemberId, wanted: &[u8]) -> bool {
    let key = WalKey::new(&WAL_KEY);
    let disk = network.disk_mut(id);
    disk.files().iter().any(|file| contains(&open_everything(&key, file), wanted))
}

/// Whether the raw bytes of any file show `wanted`.
fn in_plain(network: &mut Network, id: MemberId, wanted: &[u8]) -> bool {
    network.disk_mut(id).files().iter().any(|file| contains(file.bytes, wanted))
}

#[test]
fn the_key_of_a_deleted_sa_is_gone_from_every_file_of_every_member_within_ten_seconds() {
    let (mut network, owner) = settled(61, Conditions::default());
    change(&mut network, owner, put(1, CLEARED));
    change(&mut network, owner, put(2, KEPT));
    for id in network.members() {
        assert!(readable(&mut network, id, &CLEARED), "the test finds what is there");
        assert!(!in_plain(&mut network, id, &CLEARED), "but not without the key");
    }
    change(&mut network, owner, StateChange::DeleteIkeSa { spi: IkeSpi(1), under: None });
    network.run_for_ms(GONE_WITHIN_MS);
    for id in network.members() {
        assert!(!readable(&mut network, id, &CLEARED), "member {id} still has the key");
        assert!(readable(&mut network, id, &KEPT), "member {id} lost a key that is in use");
        for key in [CLEARED, KEPT] {
            assert!(!in_plain(&mut network, id, &key));
        }
    }
    // And what is left is a whole log.
    for id in network.members() {
        network.crash(id);
        network.start(id);
    }
    network.run_until_owned();
    network.run_for_ms(50);
    let state = network.replica(ONE).unwrap().state();
    assert_eq!(state.ike_sas().map(|(spi, _)| spi).collect::<Vec<_>>(), [IkeSpi(2)]);
}

#[test]
fn a_member_that_was_away_forgets_the_key_too_once_it_is_back() {
    let (mut network, owner) = settled(62, Conditions::default());
    change(&mut network, owner, put(1, CLEARED));
    let away = super::others(&network, owner)[0];
    network.crash(away);
    change(&mut network, owner, StateChange::DeleteIkeSa { spi: IkeSpi(1), under: None });
    network.run_for_ms(GONE_WITHIN_MS);
    assert!(readable(&mut network, away, &CLEARED), "it could not know");
    network.start(away);
    network.run_for_ms(100 + GONE_WITHIN_MS);
    assert!(!readable(&mut network, away, &CLEARED));
}

#[test]
fn an_entry_with_a_key_that_was_never_committed_is_forgotten_too() {
    let (mut network, owner) = settled(63, Conditions::default());
    network.isolate(owner);
    let claim = network.replica(owner).unwrap().owner_claim();
    let command = Command::Ike { owner: claim, changes: vec![put(1, CLEARED)] };
    network.propose(owner, &command).unwrap();
    network.run_for_ms(5);
    assert!(readable(&mut network, owner, &CLEARED));
    network.run_for_ms(200);
    let successor = network.run_until_owned();
    assert_ne!(successor, owner);
    for target in 0..5 {
        network.propose(successor, &drain(target)).unwrap();
    }
    network.heal();
    network.run_for_ms(200 + GONE_WITHIN_MS);
    assert!(!readable(&mut network, owner, &CLEARED));
}

#[test]
fn many_deletions_rewrite_the_log_no_more_often_than_stated() {
    let (mut network, owner) = settled(64, Conditions::default());
    let mut snapshots = std::collections::BTreeSet::new();
    for number in 0..600 {
        change(&mut network, owner, put(number, CLEARED));
        change(&mut network, owner, StateChange::DeleteIkeSa { spi: IkeSpi(number), under: None });
        let disk = network.disk_mut(owner);
        let names = disk.files().iter().map(|file| file.name.to_owned()).collect::<Vec<_>>();
        snapshots.extend(names.into_iter().filter(|name| name.starts_with("snapshot-")));
    }
    // A minute of ten deletions a second.
    assert!((5..=6).contains(&snapshots.len()), "{snapshots:?}");
}

#[test]
fn without_the_rule_the_key_stays_for_minutes() {
    let compaction = Compaction { keys_gone_ms: u64::MAX, ..Compaction::default() };
    let (mut network, owner) = settled(61, Conditions { compaction, ..Conditions::default() });
    change(&mut network, owner, put(1, CLEARED));
    change(&mut network, owner, StateChange::DeleteIkeSa { spi: IkeSpi(1), under: None });
    network.run_for_ms(GONE_WITHIN_MS);
    assert!(readable(&mut network, owner, &CLEARED), "so the tests above do bite");
}
