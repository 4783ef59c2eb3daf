//! The claims, and what their tests share.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test's helper fails its test and tells times"
)]

mod backups;
mod peers;
mod restart;
mod store;
mod targets;

use crate::common::{Plan, Scene, Store};
use holdfast_bed::fetch::{Download, DownloadLog};
use holdfast_bed::topology::Size;
use std::collections::BTreeSet;

/// The new owner negotiates anew from the records; nothing else stirs an SA.
const REESTABLISH: &str = "policy = \"reestablish\"\nliveness_s = 0\n";

/// Three members, two targets, one client, every link captured.
fn plan() -> Plan {
    Plan {
        size: Size { members: 3, targets: 2 },
        large_file_bytes: 5 << 20,
        limit_bytes_per_s: 1 << 20,
        settings: REESTABLISH.to_owned(),
        captured: true,
        ..Plan::default()
    }
}

/// "c1": the first client downloads from the first target, and is under way.
fn c1(scene: &Scene) -> Download {
    let download = scene.bed.start_download_from("target1").expect("a download");
    scene.wait_for("the download to run", |_| download.bytes() > 256 << 10);
    download
}

/// Waits until it goes on.
fn expect_progress(scene: &Scene, download: &Download) {
    let goal = download.bytes() + (256 << 10);
    scene.wait_for("the download to go on", |_| download.bytes() > goal);
}

/// Waits for its end: whole, and right.
fn expect_whole(scene: &Scene, download: Download) -> DownloadLog {
    let log = download.finish().expect("the download ends");
    if log.failure.is_some() {
        scene.explain();
    }
    assert_eq!(log.failure, None, "the connection was never reset");
    assert_eq!(log.sha256, scene.bed.content.sha256);
    log
}

/// Fails unless the store names exactly the Child SAs that `owner` runs, each with its relation.
fn expect_one_record_for_each_sa(scene: &Scene, owner: u8, store: &Store) {
    let running = scene.running_sas(owner);
    for kind in ["child_sa", "relation"] {
        let recorded: BTreeSet<(String, String)> =
            store.of(kind).into_iter().map(|r| (r.ike_spi.clone(), r.child_spi.clone())).collect();
        assert_eq!(recorded, running, "{kind}");
    }
    let parents: BTreeSet<String> = running.into_iter().map(|(ike, _)| ike).collect();
    let recorded: BTreeSet<String> =
        store.of("ike_sa").into_iter().map(|record| record.ike_spi.clone()).collect();
    assert_eq!(recorded, parents, "ike_sa");
}

fn names(connections: &[&str]) -> BTreeSet<String> {
    connections.iter().map(|name| (*name).to_owned()).collect()
}
