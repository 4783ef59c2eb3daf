//! The laws under everything that may go wrong.

use super::*;
use crate::testing::Random;
use holdfast_packet::Side;

#[test]
fn an_owner_cut_off_falls_silent_before_another_speaks() {
    for seed in seeds(5) {
        let mut world = connected(Setup { seed, ..Setup::default() });
        world.run_for_ms(200 + seed * 7);
        let cut_off = owner(&world);
        world.isolate(cut_off);
        let ms = takeover_ms(&mut world, cut_off);
        assert!(ms <= 80, "outage {ms} ms");
        world.run_for_ms(500);
        world.heal();
        world.run_for_ms(2_000);
        assert_lawful(&mut world);
    }
}

#[test]
fn a_frozen_owner_wakes_up_silent() {
    for frozen_ms in [30, 45, 60, 500, 20_000] {
        let mut world = connected(Setup { seed: frozen_ms, ..Setup::default() });
        world.run_for_ms(300);
        let frozen = owner(&world);
        world.freeze(frozen, true);
        world.run_for_ms(frozen_ms);
        world.freeze(frozen, false);
        world.run_for_ms(1_000);
        let start = world.now();
        world.run_for_ms(200);
        assert!(world.peers()[0].first_answer_since(start).is_some(), "frozen for {frozen_ms} ms");
        assert_lawful(&mut world);
    }
}

#[test]
fn a_stalled_controller_silences_its_workers() {
    let mut world = connected(Setup::default());
    world.run_for_ms(300);
    let stalled = owner(&world);
    world.stall_controller(stalled, true);
    let ms = takeover_ms(&mut world, stalled);
    assert!(ms <= 80, "outage {ms} ms");
    world.run_for_ms(300);
    world.stall_controller(stalled, false);
    world.run_for_ms(1_000);
    assert_lawful(&mut world);
}

#[test]
fn one_way_cuts_never_make_two_owners() {
    for seed in seeds(6) {
        let mut world = connected(Setup { seed, ..Setup::default() });
        let mut random = Random::new(seed);
        for _ in 0..20 {
            for _ in 0..2 {
                let [from, to] = [1 + random.below(3), 1 + random.below(3)].map(MemberId);
                world.cut(from, to);
            }
            world.run_for_ms(20 + random.below(150));
            if random.chance(600) {
                world.heal();
            }
            world.run_for_ms(random.below(80));
        }
        world.heal();
        world.run_for_ms(2_000);
        let start = world.now();
        world.run_for_ms(300);
        assert!(world.peers()[0].first_answer_since(start).is_some(), "seed {seed}: it recovers");
        assert_lawful(&mut world);
    }
}

#[test]
fn chaos_breaks_no_law() {
    for seed in seeds(6) {
        let mut world = connected(Setup {
            seed,
            loss_per_mille: seed * 5,
            jitter_us: 2_000,
            sync_us: 3_000,
            workers: 1 << (seed % 2),
            esn: seed % 3 == 0,
            ..Setup::default()
        });
        let mut random = Random::new(seed * 1_000);
        for _ in 0..25 {
            let id = MemberId(1 + random.below(3));
            match random.below(5) {
                0 => world.restart(id, random.chance(500)).unwrap(),
                1 => world.freeze(id, true),
                2 => world.isolate(id),
                3 => world.stall_controller(id, true),
                _ => world.replay_everything(),
            }
            world.run_for_ms(random.below(200));
            world.heal();
            for id in 1..=3 {
                world.freeze(MemberId(id), false);
            }
            world.run_for_ms(random.below(100));
        }
        world.run_for_ms(3_000);
        assert_lawful(&mut world);
    }
}

#[test]
fn nothing_replayed_passes_not_even_at_a_successor() {
    let mut world = connected(Setup { policy: TakeoverPolicy::Strict, ..Setup::default() });
    world.run_for_ms(300);
    world.replay_everything();
    world.run_for_ms(100);
    let first = owner(&world);
    world.kill(first);
    world.run_until(PATIENCE_MS, |world| world.owner().is_some_and(|owner| owner != first));
    for after_ms in [0, 1, 20, 100, 1_000] {
        world.run_for_ms(after_ms);
        world.replay_everything();
    }
    world.run_for_ms(100);
    assert_eq!(world.peers()[0].rekeys(), 0, "strict waits");
    assert_lawful(&mut world);
}

#[test]
fn what_cannot_be_committed_is_not_sent() {
    for seed in seeds(5) {
        let mut world = connected(Setup { seed, ..Setup::default() });
        world.run_for_ms(100 + seed);
        let cut_off = owner(&world);
        world.isolate(cut_off);
        let (now, sa) = (world.now(), world.peers()[0].sending());
        world.peers_mut()[0].rekey(now);
        world.run_for_ms(15);
        assert_eq!(world.owner(), Some(cut_off), "its lease still holds");
        assert_eq!(world.peers()[0].sending(), sa, "it answers nothing it cannot have recorded");
        takeover_ms(&mut world, cut_off);
        world.run_for_ms(2_000);
        let start = world.now();
        world.run_for_ms(100);
        assert!(world.peers()[0].first_answer_since(start).is_some(), "the successor answers");
        assert_lawful(&mut world);
    }
}

#[test]
fn a_port_without_link_moves_the_ownership() {
    for side in Side::ALL {
        let mut world = connected(Setup::default());
        world.run_for_ms(200);
        let before = owner(&world);
        world.set_port(before, side, false);
        let ms = takeover_ms(&mut world, before);
        assert!(ms <= 20, "{} port: outage {ms} ms", side.name());
        world.run_for_ms(500);
        assert_ne!(world.owner(), Some(before));
        assert_lawful(&mut world);
    }
}
