//! What the tests with real processes share: the bed with a running cluster and its clients.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    dead_code,
    unused_imports,
    reason = "a test's helper fails its test; no test uses all of them"
)]

mod keys;
mod records;
mod takeover;
mod targets;

pub(crate) use keys::{log_keys, logged_key};
pub(crate) use records::{Record, Store};
pub(crate) use takeover::{Takeover, expect_lawful};
pub(crate) use targets::{MARK_PORT, marked_by_nobody, pinned_to};

use holdfast_bed::bed::{Bed, BedOptions};
use holdfast_bed::error::BedError;
use holdfast_bed::fetch::short_connections;
use holdfast_bed::follower::{Delivery, Followers};
use holdfast_bed::links::{EveryLink, Links};
use holdfast_bed::member::{Cluster, ClusterOptions, PROGRAMS_VARIABLE, Profile, Programs};
use holdfast_bed::peer::{Connection, Daemon, StrongSwan};
use holdfast_bed::peers::{Peer, connection_tables};
use holdfast_bed::topology::Size;
use holdfast_bed::wait::wait_until;
use std::path::Path;
use std::time::Duration;

/// Long enough for a crowded machine; never a figure that is asserted.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// What a scene is made of.
#[derive(Clone)]
pub(crate) struct Plan {
    /// Members and targets.
    pub(crate) size: Size,
    /// Members that vote and never own.
    pub(crate) witnesses: Vec<u8>,
    /// Clients, the bed's own one included.
    pub(crate) clients: u8,
    /// Length of the file the targets serve.
    pub(crate) large_file_bytes: u64,
    /// Pace of a download of it.
    pub(crate) limit_bytes_per_s: u64,
    /// Lines of every client's `[[connection]]` at the members.
    pub(crate) settings: String,
    /// How the first client connects; the others use defaults.
    pub(crate) connection: Connection,
    /// Settings of the first client's daemon.
    pub(crate) daemon: Daemon,
    /// Has `holdfast-target` run on every target, and packets come to it this way.
    pub(crate) delivery: Option<Delivery>,
    /// The member that is a target as well, and its pace.
    pub(crate) serving: Option<(u8, u64)>,
    /// Has every link captured from before the first member starts.
    pub(crate) captured: bool,
    /// The product.
    pub(crate) programs: Programs,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            size: Size { members: 3, targets: 3 },
            witnesses: Vec::new(),
            clients: 1,
            large_file_bytes: 1 << 20,
            limit_bytes_per_s: 10 << 20,
            settings: String::new(),
            connection: Connection::default(),
            daemon: Daemon::default(),
            delivery: None,
            serving: None,
            captured: false,
            programs: programs(),
        }
    }
}

/// A running cluster with its clients.
pub(crate) struct Scene {
    // Order matters: what runs ends before the namespaces it runs in.
    pub(crate) client: StrongSwan,
    /// The clients from number 2.
    pub(crate) peers: Vec<Peer>,
    pub(crate) followers: Option<Followers>,
    /// Captures of every link.
    pub(crate) links: Option<EveryLink>,
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

impl Plan {
    /// Builds everything; no client is connected yet.
    pub(crate) fn build(&self) -> Result<Scene, BedError> {
        self.build_with(|cluster, bed| cluster.start_all(bed))
    }

    /// As [`build`](Self::build), with another way of starting the members.
    pub(crate) fn build_with(
        &self,
        start: impl FnOnce(&mut Cluster, &Bed) -> Result<(), BedError>,
    ) -> Result<Scene, BedError> {
        let mut bed = Bed::build(&BedOptions {
            size: self.size,
            large_file_bytes: self.large_file_bytes,
            limit_bytes_per_s: self.limit_bytes_per_s,
        })?;
        if let Some((member, pace)) = self.serving {
            bed.add_member_target(member, pace)?;
        }
        let options = ClusterOptions {
            programs: self.programs.clone(),
            profile: Profile::Relaxed,
            connection_settings: format!(
                "{}\n{}",
                self.settings,
                connection_tables(self.clients, &self.settings)
            ),
        };
        let mut cluster = Cluster::prepare_with(&bed, options, &self.witnesses, self.delivery)?;
        let followers = self
            .delivery
            .map(|delivery| Followers::prepare(&bed, &cluster, &self.programs, delivery));
        let mut followers = followers.transpose()?;
        let (host, folder) = (&bed.topology.client, bed.folder("client"));
        let client = StrongSwan::start_client_with(host, &folder, &self.connection, &self.daemon)?;
        let more = |number| Peer::start(&bed, number, &Connection::default(), &Daemon::default());
        let peers = (2..=self.clients).map(more).collect::<Result<_, _>>()?;
        let links = self.captured.then(|| EveryLink::start(&bed, self.clients)).transpose()?;
        start(&mut cluster, &bed)?;
        cluster.wait_for_owner(PATIENCE)?;
        if let Some(followers) = &mut followers {
            followers.start_all(&bed, PATIENCE)?;
        }
        Ok(Scene { client, peers, followers, links, cluster, bed })
    }

    /// Builds everything, with every tunnel up.
    pub(crate) fn connected(&self) -> Result<Scene, BedError> {
        let scene = self.build()?;
        scene.connect_all()?;
        Ok(scene)
    }
}

impl Scene {
    /// Builds everything with one client; `settings` are lines of the members' `[[connection]]`.
    pub(crate) fn build(connection: &Connection, settings: &str) -> Result<Self, BedError> {
        let (connection, settings) = (connection.clone(), settings.to_owned());
        Plan { connection, settings, ..Plan::default() }.build()
    }

    /// As [`build`](Self::build), with the tunnel up.
    pub(crate) fn connected(connection: &Connection, settings: &str) -> Result<Self, BedError> {
        let scene = Self::build(connection, settings)?;
        scene.connect_all()?;
        Ok(scene)
    }

    /// Connects every client.
    pub(crate) fn connect_all(&self) -> Result<(), BedError> {
        let all = std::iter::once(&self.client).chain(self.peers.iter().map(|peer| &peer.swan));
        for swan in all {
            swan.initiate().inspect_err(|_| self.explain())?;
        }
        Ok(())
    }

    /// Ends the captures of every link.
    pub(crate) fn captured(&mut self) -> Links {
        let links = self.links.take().expect("every link is captured");
        links.finish().expect("whole captures")
    }

    /// Fails unless connections through the tunnel work.
    pub(crate) fn expect_traffic(&self) {
        let made = short_connections(&self.bed.topology.client, 30).expect("threads start");
        if !made.failures.is_empty() {
            self.explain();
        }
        assert_eq!(made.failures, Vec::<String>::new());
    }

    /// Looks until it is true, or fails the test with what everybody said.
    pub(crate) fn wait_for(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let met = wait_until(what, PATIENCE, || Ok(condition(self).then_some(())));
        met.inspect_err(|_| self.explain()).expect("in time");
    }

    /// Prints what all ends said.
    pub(crate) fn explain(&self) {
        println!("client:\n{}", self.client.last_words(25));
        for peer in &self.peers {
            println!("client {}:\n{}", peer.number, peer.swan.last_words(15));
        }
        println!("members:\n{}", self.cluster.last_words(25));
        if let Some(followers) = &self.followers {
            println!("targets:\n{}", followers.last_words(15));
            for number in followers.numbers() {
                println!("target {number}: {:#?}", followers.status(number));
            }
        }
    }
}
