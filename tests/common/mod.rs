//! What the tests with real processes share: the bed with a running cluster and a connected client.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a test's helper fails its test")]

use holdfast_bed::bed::{Bed, BedOptions};
use holdfast_bed::error::BedError;
use holdfast_bed::fetch::short_connections;
use holdfast_bed::member::{Cluster, ClusterOptions, PROGRAMS_VARIABLE, Profile, Programs};
use holdfast_bed::peer::{Connection, StrongSwan};
use holdfast_bed::topology::Size;
use std::path::Path;
use std::time::Duration;

/// Long enough for a crowded machine; never a figure that is asserted.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// A cluster of three with its client, not yet connected.
pub(crate) struct Scene {
    // Order matters: what runs ends before the namespaces it runs in.
    pub(crate) client: StrongSwan,
    pub(crate) cluster: Cluster,
    pub(crate) bed: Bed,
}

/// The product's programs: those the environment names, else what cargo built for this test.
pub(crate) fn programs() -> Programs {
    let built = Path::new(env!("CARGO_BIN_EXE_holdfastd"));
    let built = built.parent().expect("a program lies in a folder");
    let named = std::env::var_os(PROGRAMS_VARIABLE);
    Programs::in_folder(named.as_ref().map_or(built, |folder| Path::new(folder)))
}

impl Scene {
    /// Builds everything; `settings` are lines of the members' `[[connection]]`.
    pub(crate) fn build(connection: &Connection, settings: &str) -> Result<Self, BedError> {
        let bed = Bed::build(&BedOptions {
            size: Size { members: 3, targets: 3 },
            large_file_bytes: 1 << 20,
            limit_bytes_per_s: 10 << 20,
        })?;
        let options = ClusterOptions {
            programs: programs(),
            profile: Profile::Relaxed,
            connection_settings: settings.to_owned(),
        };
        let mut cluster = Cluster::prepare(&bed, options)?;
        cluster.start_all(&bed)?;
        cluster.wait_for_owner(PATIENCE)?;
        let client = bed.start_client(connection)?;
        Ok(Self { client, cluster, bed })
    }

    /// As [`build`](Self::build), with the tunnel up.
    pub(crate) fn connected(connection: &Connection, settings: &str) -> Result<Self, BedError> {
        let scene = Self::build(connection, settings)?;
        scene.client.initiate().inspect_err(|_| scene.explain())?;
        Ok(scene)
    }

    /// Fails unless connections through the tunnel work.
    pub(crate) fn expect_traffic(&self) {
        let made = short_connections(&self.bed.topology.client, 30).expect("threads start");
        if !made.failures.is_empty() {
            self.explain();
        }
        assert_eq!(made.failures, Vec::<String>::new());
    }

    /// Prints what both ends said.
    pub(crate) fn explain(&self) {
        println!("client:\n{}", self.client.last_words(25));
        println!("members:\n{}", self.cluster.last_words(25));
    }
}
