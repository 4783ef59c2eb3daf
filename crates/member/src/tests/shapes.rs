//! Clusters of every shape: a pair with a witness, three, five.

use super::{ask, assert_lawful, connected, owner, seeds, takeover_ms};
use crate::testing::Setup;
use crate::{MemberRole, OperatorReply, OperatorRequest, RefusedKind};
use holdfast_cluster::MemberId;

const WITNESS: MemberId = MemberId(3);

fn pair_with_witness(seed: u64) -> Setup {
    Setup { seed, members: 3, witnesses: 1, ..Setup::default() }
}

#[test]
fn every_shape_survives_the_kill_of_its_owner() {
    for seed in seeds(8) {
        let shapes = [
            pair_with_witness(seed),
            Setup { seed, ..Setup::default() },
            Setup { seed, members: 5, ..Setup::default() },
            Setup { seed, members: 5, witnesses: 2, ..Setup::default() },
        ];
        for setup in shapes {
            let witnesses = setup.members - setup.witnesses + 1..=setup.members;
            let mut world = connected(setup);
            let before = owner(&world);
            world.kill(before);
            let took_ms = takeover_ms(&mut world, before);
            assert!(took_ms <= 50, "seed {seed}: {took_ms} ms");
            assert!(!witnesses.contains(&owner(&world).0), "seed {seed}: a witness owns");
            world.run_for_ms(500);
            assert_lawful(&mut world);
        }
    }
}

#[test]
fn a_pair_with_a_witness_carries_on_after_one_death_after_the_other() {
    for seed in seeds(8) {
        let mut world = connected(pair_with_witness(seed));
        for _ in 0..4 {
            let before = owner(&world);
            world.kill(before);
            takeover_ms(&mut world, before);
            assert_ne!(owner(&world), WITNESS, "seed {seed}");
            world.restart(before, true).unwrap();
            world.run_for_ms(500);
        }
        assert_lawful(&mut world);
    }
}

#[test]
fn a_witness_orders_no_worker_and_says_what_it_is() {
    let mut world = connected(pair_with_witness(1));
    world.run_for_ms(200);
    let OperatorReply::Status(status) = ask(&mut world, WITNESS, OperatorRequest::Status) else {
        panic!("a status");
    };
    assert_eq!(status.role, MemberRole::Witness);
    assert_eq!(status.problems, []);
    let before = owner(&world);
    let request = OperatorRequest::Handover { to: Some(WITNESS) };
    let OperatorReply::Refused(refused) = ask(&mut world, before, request) else {
        panic!("a refusal");
    };
    assert_eq!(refused.kind, RefusedKind::Degraded);
    assert!(refused.message.contains("is a witness"), "{}", refused.message);
    assert_eq!(owner(&world), before);
}

#[test]
fn the_owner_is_not_ready_for_a_takeover_while_only_the_witness_is_there() {
    let mut world = connected(pair_with_witness(2));
    let before = owner(&world);
    let other = MemberId(3 - before.0);
    world.kill(other);
    world.run_for_ms(500);
    let OperatorReply::Status(status) = ask(&mut world, before, OperatorRequest::Status) else {
        panic!("a status");
    };
    let readiness = &status.child_sas[0].takeover;
    assert!(!readiness.ready, "{readiness:?}");
}
