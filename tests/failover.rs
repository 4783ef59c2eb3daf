//! The owner dies or hands over, and the client's connections go on. Needs root.
//!
//! What must never happen is asserted; how long things took is printed, not asserted: this machine
//! may be busy.

mod common;

use common::{PATIENCE, Scene, programs};
use holdfast_bed::bed::{Bed, BedOptions};
use holdfast_bed::demo::{DemoOptions, run};
use holdfast_bed::error::BedError;
use holdfast_bed::member::{Cluster, ClusterOptions, Profile};
use holdfast_bed::peer::Connection;
use holdfast_bed::time::Wall;
use holdfast_bed::topology::Size;
use holdfast_bed::wait::wait_until;

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

#[test]
fn a_handover_moves_the_address_and_keeps_the_security_association() {
    let mut scene = Scene::connected(&Connection::default(), "").expect("the tunnel comes up");
    scene.expect_traffic();
    let before = scene.cluster.wait_until_ready(PATIENCE).expect("every member is ready");
    let next = scene.cluster.numbers().into_iter().find(|&n| n != before).expect("three members");
    let asked = Wall::now();
    scene
        .cluster
        .ask(before, &["handover", "--to", &next.to_string()])
        .expect("a handover is accepted");
    let moved = wait_until("the new owner", PATIENCE, || {
        let status = scene.cluster.status(next)?;
        Ok((status.owner() == Some(next)).then_some(()))
    });
    if moved.is_err() {
        scene.explain();
    }
    moved.expect("the address moves");
    println!("handed over in {:.1} ms", Wall::now().ms_since(asked));
    scene.expect_traffic();
    let sas = scene.client.list().expect("swanctl lists");
    assert!(sas.contains("home: #1, ESTABLISHED"), "the first IKE SA still stands: {sas}");
}

/// Members 1 and 2 own, member 3 votes.
const WITNESS: u8 = 3;

fn pair_with_witness() -> Result<Scene, BedError> {
    let bed = Bed::build(&BedOptions {
        size: Size { members: 3, targets: 3 },
        large_file_bytes: 1 << 20,
        limit_bytes_per_s: 10 << 20,
    })?;
    let options = ClusterOptions {
        programs: programs(),
        profile: Profile::Relaxed,
        connection_settings: String::new(),
    };
    let mut cluster = Cluster::prepare_with_witness(&bed, options, WITNESS)?;
    cluster.start_all(&bed)?;
    cluster.wait_for_owner(PATIENCE)?;
    let client = bed.start_client(&Connection::default())?;
    let scene = Scene { client, cluster, bed };
    scene.client.initiate().inspect_err(|_| scene.explain())?;
    Ok(scene)
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
