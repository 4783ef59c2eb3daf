//! The owner dies or hands over, and the client's connections go on. Needs root.
//!
//! What must never happen is asserted; how long things took is printed, not asserted: this machine
//! may be busy.

mod common;

use common::{PATIENCE, Plan, Scene, programs};
use holdfast_bed::demo::{DemoOptions, run};
use holdfast_bed::error::BedError;
use holdfast_bed::member::Profile;
use holdfast_bed::peer::Connection;
use holdfast_bed::probe::Outage;
use holdfast_bed::time::Wall;
use holdfast_bed::wait::{let_pass, wait_until};
use holdfast_bed::wire::{OutsideWire, Sender};
use rustix::process::{Pid, Signal, kill_process};
use std::thread;
use std::time::Duration;

#[test]
fn a_download_survives_the_kill_of_its_owner_with_every_promise_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = DemoOptions {
        programs: programs(),
        profile: Profile::Relaxed,
        kills: 1,
        download_bytes: 48 << 20,
        keep: false,
        output: folder.path().to_owned(),
    };
    let report = run(&options, &mut |line: &str| println!("{line}")).expect("the demo runs");
    let broken: Vec<_> = report.promises.iter().filter(|promise| !promise.kept).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    println!("outage {:.1} ms", report.outage_median_ms);
}

/// Handovers in a row, and how many of them must lose nothing at all on a machine that may be busy.
const HANDOVERS: u8 = 10;
const CLEAN_MIN: usize = 9;

#[test]
fn a_handover_loses_no_probe_and_keeps_the_security_association() {
    let mut scene = Scene::connected(&Connection::default(), "").expect("the tunnel comes up");
    scene.expect_traffic();
    scene.cluster.wait_until_ready(PATIENCE).expect("every member is ready");
    let captures = scene.bed.start_captures().expect("captures start");
    let prober = scene.bed.start_prober().expect("the prober starts");
    let answered = || Ok((prober.answered() > 500).then_some(()));
    wait_until("answers to the prober", PATIENCE, answered).expect("the service answers");
    let began = Wall::now();
    let handovers: Result<Vec<(Wall, String)>, BedError> =
        (0..HANDOVERS).map(|_| hand_over(&mut scene)).collect();
    let handovers = handovers.expect("each handover moves the address");
    let_pass(AFTER_HANDOVER).expect("nothing interrupts");
    let ended = Wall::now();
    let probes = prober.finish().expect("the prober worked");
    let wires = captures.finish().expect("captures end");
    let outside = OutsideWire::read(&wires.outside).expect("captures are readable");

    let outages: Vec<Outage> = handovers
        .iter()
        .map(|(at, _)| probes.outage(Wall(at.0.saturating_sub(50_000_000)), at.plus_ms(900)))
        .collect();
    for (number, (outage, (_, answer))) in (1..).zip(outages.iter().zip(&handovers)) {
        println!(
            "{answer}\nhandover {number}: {} of {} probes lost, longest silence {:.1} ms (longest pause \
             between probes sent {:.1} ms)",
            outage.probes_lost, outage.probes_sent, outage.outage_ms, outage.longest_send_gap_ms
        );
    }
    println!("{} frames passed on outside", outside.passed_on);
    let members = scene.cluster.numbers().into_iter();
    let renewals: u64 = members.map(|n| outside.renewals(n, began, ended)).sum();
    assert_eq!(renewals, 0, "no renewal");
    assert_eq!(outside.negotiations(began, ended), 0, "no negotiation");
    expect_no_repeat(&outside);
    assert_eq!((outside.clear_packets, outside.target_packets), (0, 0));
    let clean = outages.iter().filter(|outage| outage.probes_lost == 0).count();
    if clean < CLEAN_MIN {
        scene.explain();
    }
    assert!(clean >= CLEAN_MIN, "{clean} of {HANDOVERS} handovers lost no probe");
    scene.expect_traffic();
    let sas = scene.client.list().expect("swanctl lists");
    assert!(sas.contains("home: #1, ESTABLISHED"), "the first IKE SA still stands: {sas}");
}

/// No number and no IV was used twice.
fn expect_no_repeat(outside: &OutsideWire) {
    let repeats = &outside.repeats;
    let told = repeats.told(Wall::default());
    assert_eq!((repeats.duplicate_numbers, repeats.duplicate_ivs), (0, 0), "{told:#?}");
}

/// The quiet time behind each handover, in which a probe would be missed.
const AFTER_HANDOVER: Duration = Duration::from_secs(1);

/// Has the owner hand over to whom it likes, and tells when that was asked and what was answered.
fn hand_over(scene: &mut Scene) -> Result<(Wall, String), BedError> {
    let before = scene.cluster.wait_until_ready(PATIENCE)?;
    let_pass(AFTER_HANDOVER)?;
    let (mut asked, mut answer) = (Wall::now(), String::new());
    wait_until("another owner", PATIENCE, || {
        if scene.cluster.status(before)?.owner() == Some(before) {
            asked = Wall::now();
            answer = scene.cluster.ask(before, &["handover"])?.to_string();
        }
        Ok((scene.cluster.status(before)?.owner() != Some(before)).then_some(()))
    })
    .inspect_err(|_| scene.explain())?;
    Ok((asked, answer))
}

/// Members 1 and 2 own, member 3 votes.
const WITNESS: u8 = 3;

fn pair_with_witness() -> Result<Scene, BedError> {
    Plan { witnesses: vec![WITNESS], ..Plan::default() }.connected()
}

#[test]
fn a_pair_with_a_witness_survives_the_kill_of_its_owner() {
    let mut scene = pair_with_witness().expect("the tunnel comes up");
    scene.expect_traffic();
    let before = scene.cluster.wait_until_ready(PATIENCE).expect("every member is ready");
    assert_ne!(before, WITNESS);
    let roles = scene.cluster.ask(WITNESS, &["status"]).expect("the witness answers");
    assert_eq!(roles.pointer("/role").and_then(|role| role.as_str()), Some("witness"));
    let killed = scene.cluster.kill(before).expect("the owner runs");
    scene.cluster.bury(before).expect("it is gone");
    let next = 3 - before;
    let moved = wait_until("the other full member owns", PATIENCE, || {
        Ok((scene.cluster.status(next)?.owner() == Some(next)).then_some(()))
    });
    if moved.is_err() {
        scene.explain();
    }
    moved.expect("the address moves");
    println!("taken over within {:.1} ms", Wall::now().ms_since(killed));
    scene.expect_traffic();
    let sas = scene.client.list().expect("swanctl lists");
    assert!(sas.contains("home: #1, ESTABLISHED"), "the first IKE SA still stands: {sas}");
}

#[test]
fn an_owner_whose_link_goes_down_on_either_side_hands_over() {
    for port in ["outside", "inside"] {
        let mut scene = Scene::connected(&Connection::default(), "").expect("the tunnel comes up");
        scene.expect_traffic();
        let before = scene.cluster.wait_until_ready(PATIENCE).expect("every member is ready");
        let_pass(AFTER_HANDOVER).expect("nothing interrupts");
        let link = |state| {
            let member = scene.bed.topology.members.get(usize::from(before) - 1);
            member.expect("its namespace").run(&["ip", "link", "set", port, state])
        };
        let cut = Wall::now();
        link("down").expect("the link goes down");
        let next = scene.wait_for_another(before);
        println!("{port} down: member {next} owns {:.0} ms later", Wall::now().ms_since(cut));
        scene.expect_traffic();
        link("up").expect("the link comes up");
        let_pass(AFTER_HANDOVER).expect("nothing interrupts");
        assert_eq!(scene.cluster.status(next).expect("a status").owner(), Some(next));
        scene.expect_traffic();
        let sas = scene.client.list().expect("swanctl lists");
        assert!(sas.contains("home: #1, ESTABLISHED"), "the first IKE SA still stands: {sas}");
    }
}

#[test]
fn a_frozen_owner_that_wakes_up_sends_nothing_as_the_owner() {
    let mut scene = Scene::connected(&Connection::default(), "").expect("the tunnel comes up");
    scene.expect_traffic();
    let before = scene.cluster.wait_until_ready(PATIENCE).expect("every member is ready");
    let captures = scene.bed.start_captures().expect("captures start");
    let prober = scene.bed.start_prober().expect("the prober starts");
    let_pass(AFTER_HANDOVER).expect("nothing interrupts");
    scene.cluster.freeze(before, true).expect("it stops");
    let next = scene.wait_for_another(before);
    let_pass(AFTER_HANDOVER).expect("nothing interrupts");
    let woken = scene.cluster.freeze(before, false).expect("it goes on");
    let_pass(AFTER_HANDOVER).expect("nothing interrupts");
    assert_eq!(scene.cluster.status(next).expect("a status").owner(), Some(next));
    prober.finish().expect("the prober worked");
    let wires = captures.finish().expect("captures end");
    let outside = OutsideWire::read(&wires.outside).expect("captures are readable");

    let sealed = outside.first_esp_after(before, woken);
    let announced = outside.announcements.iter().any(|a| a.member == before && a.at > woken);
    let spoke = outside.ike.iter().any(|m| m.sender == Sender::Member(before) && m.at > woken);
    assert!(sealed.is_none() && !announced && !spoke, "the zombie spoke: {sealed:?}");
    expect_no_repeat(&outside);
    assert!(outside.first_esp_after(next, woken).is_some(), "the new owner carries on");
}

/// When the successor stops, after the request: before its answer, in the transfer, and behind it.
const STOPPED_AFTER_MS: [u64; 5] = [0, 5, 10, 20, 40];

/// Has `before` hand over to `to`, whose process stops on the way, and tells what the operator was told.
fn hand_over_to_one_that_stops(
    scene: &mut Scene,
    before: u8,
    to: u8,
    after_ms: u64,
) -> Result<String, BedError> {
    let id = scene.cluster.process_id(to).and_then(|id| i32::try_from(id).ok());
    let process = id.and_then(Pid::from_raw).ok_or(BedError::Interrupted)?;
    let stop = move || {
        let_pass(Duration::from_millis(after_ms))?;
        kill_process(process, Signal::STOP)
            .map_err(|e| BedError::io("stop the successor", e.into()))
    };
    let (answer, stopped) = thread::scope(|scope| {
        let stopping = scope.spawn(stop);
        let answer = scene.cluster.ask(before, &["handover", "--to", &to.to_string()]);
        (answer, stopping.join().unwrap_or(Err(BedError::Interrupted)))
    });
    stopped?;
    Ok(answer.map_or_else(|refused| refused.to_string(), |done| done.to_string()))
}

#[test]
fn a_handover_whose_successor_stops_on_the_way_leaves_one_owner_and_repeats_nothing() {
    let mut scene = Scene::connected(&Connection::default(), "").expect("the tunnel comes up");
    scene.expect_traffic();
    let captures = scene.bed.start_captures().expect("captures start");
    let prober = scene.bed.start_prober().expect("the prober starts");
    let mut carried_on = 0;
    for after_ms in STOPPED_AFTER_MS {
        let before = scene.cluster.wait_until_ready(PATIENCE).expect("every member is ready");
        let_pass(AFTER_HANDOVER).expect("nothing interrupts");
        let to = before % 3 + 1;
        let answer = hand_over_to_one_that_stops(&mut scene, before, to, after_ms);
        let answer = answer.expect("the successor stops");
        let third = 6 - before - to;
        wait_until("an owner that runs", PATIENCE, || {
            let owner = scene.cluster.status(third)?.owner();
            Ok(owner.filter(|&owner| owner != to).map(drop))
        })
        .inspect_err(|_| scene.explain())
        .expect("a member that runs owns");
        scene.cluster.freeze(to, false).expect("it goes on");
        let owner = scene.cluster.wait_until_ready(PATIENCE).expect("every member is ready");
        println!("{to} stopped after {after_ms} ms: {owner} owns after {before}; {answer}");
        carried_on += u64::from(owner == before);
        scene.expect_traffic();
    }
    prober.finish().expect("the prober worked");
    let wires = captures.finish().expect("captures end");
    expect_no_repeat(&OutsideWire::read(&wires.outside).expect("captures are readable"));
    assert!(carried_on > 0, "one that stops before its answer is not handed to");
    let sas = scene.client.list().expect("swanctl lists");
    assert!(sas.contains("home: #1, ESTABLISHED"), "the first IKE SA still stands: {sas}");
}
