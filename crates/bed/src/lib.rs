//! The test bed: a small network in namespaces with a real IPsec client, real web servers, the
//! product's own daemons, and instruments that believe none of them.
//!
//! What it is: development only, for the demo and for the tests of the root package. What it is
//! not: part of the product, or a simulation. Everything on its wires is sent by real programs.
//!
//! ```text
//!  client namespace                 members' namespaces                 targets' namespaces
//!  strongSwan (ESP in user space)   holdfastd (DPDK on the ports)       nginx, UDP echo
//!  prober, download, connections            |                                |
//!        |                                  |                                |
//!   =====+================ outside =========+============ inside ============+=====
//!        |                                  |                                |
//!     capture                            captures                         captures
//!        '----------------> one file per sender --> wire (pure) <------------'
//!                                                    |
//!   probe log, download log ----------------------> report --> promises, JSON, picture
//! ```
//!
//! Contract:
//! * the bed needs root, `ip`, `ethtool`, `tcpdump`, strongSwan and nginx; it touches nothing
//!   outside its own namespaces and temporary folders;
//! * every guard removes what it made on drop, in the order in which that is possible; a killed
//!   bed's leftovers are found by their names and removed by `holdfast-demo cleanup`;
//! * a figure comes from a capture or from the client's side, never from the daemon's word;
//! * each frame is captured where its sender's link ends, so it counts once and its sender is
//!   known by the port;
//! * the product's crates are not used, but for [`swarm`], whose peers only have to be many;
//! * findings are computed by pure code with tests of its own: [`wire`], [`probe`], [`report`],
//!   [`failover::parts`], [`failover::stats`], [`chaos::fault`], [`chaos::speech`],
//!   [`chaos::deliveries`].
#![forbid(unsafe_code)]

pub mod bed;
pub mod capture;
pub mod chaos;
pub mod cuts;
pub mod demo;
pub mod error;
pub mod failover;
pub mod fetch;
pub mod follower;
pub mod frame;
pub mod hostile;
pub mod leftovers;
pub mod links;
pub mod member;
pub mod namespace;
pub mod peer;
pub mod peers;
pub mod picture;
pub mod probe;
pub mod process;
pub mod report;
pub mod swarm;
pub mod time;
pub mod tool;
pub mod topology;
pub mod wait;
pub mod web;
pub mod wire;
