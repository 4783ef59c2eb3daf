//! A member and a target over real sockets on loopback.

use super::NoticeListener;
use crate::clock;
use crate::notice::{FromTargetBody, Report, StaleNotice};
use crate::pki::{self, Credentials};
use crate::target::Links;
use crate::transport::Refusal;
use holdfast_cluster::{Epoch, Incarnation, MemberId, Owner, TargetId};
use holdfast_datapath::MarkKey;
use holdfast_member::{OwnerNotice, TargetEvent};
use holdfast_packet::MacAddr;
use mio::{Events, Poll, Token};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

const NAME: &str = "web 1";
const TARGET: TargetId = TargetId(77);
/// Only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(30);
const LINKS_FIRST: usize = 16;
const LISTENER_FIRST: usize = 1 << 20;

/// Member 1 and one program that says it is the target.
struct Bench {
    poll: Poll,
    listener: NoticeListener,
    links: Links,
    heard: Vec<(TargetId, TargetEvent)>,
}

impl Bench {
    /// The target shows the certificate of the files that begin with `stem`.
    fn new(stem: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        pki::init(folder.path(), "test", &[1]).unwrap();
        pki::issue_target(folder.path(), "test", NAME).unwrap();
        pki::issue_target(folder.path(), "test", "web 2").unwrap();
        let poll = Poll::new().unwrap();
        let registry = || poll.registry().try_clone().unwrap();
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let targets = BTreeMap::from([(NAME.to_owned(), TARGET.0)]);
        let own = credentials(folder.path(), "member-1");
        let listener =
            NoticeListener::new(1, any, targets, own, registry(), LISTENER_FIRST).unwrap();
        let members = [(1, listener.local_address().unwrap())];
        let shown = credentials(folder.path(), stem);
        let links = Links::new(NAME, &members, shown, registry(), LINKS_FIRST);
        Self { poll, listener, links, heard: Vec::new() }
    }

    /// Runs both ends until `done`.
    fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        let mut events = Events::with_capacity(16);
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
            let now = clock::now();
            self.links.handle_timeout(now);
            self.listener.handle_timeout(now);
            self.poll.poll(&mut events, Some(Duration::from_millis(10))).unwrap();
            for event in &events {
                match event.token() {
                    token @ Token(LISTENER_FIRST..) => self.listener.handle_event(now, token),
                    token => self.links.handle_event(now, token),
                }
            }
            self.listener.handle_unread();
            self.heard.extend(std::iter::from_fn(|| self.listener.poll_event()));
        }
    }
}

fn credentials(folder: &Path, stem: &str) -> Credentials {
    let file = |name: String| folder.join(name);
    let (certificate, key) = (file(format!("{stem}.pem")), file(format!("{stem}.key")));
    Credentials::load(&folder.join("ca.pem"), &certificate, &key).unwrap()
}

fn notice() -> OwnerNotice {
    OwnerNotice {
        owner: Owner { member: MemberId(1), incarnation: Incarnation(2), epoch: Epoch(3) },
        common: Ipv4Addr::new(198, 51, 100, 100),
        inside: Ipv4Addr::new(192, 0, 2, 100),
        inside_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        key: MarkKey::new(&[5; 16]),
    }
}

#[test]
fn a_notice_reaches_its_target_and_what_the_target_says_comes_back() {
    let mut bench = Bench::new("target-web 1");
    bench.run_until("joined", |bench| bench.heard.contains(&(TARGET, TargetEvent::Joined)));
    bench.listener.send(TARGET, &notice());
    let mut received = None;
    bench.run_until("told", |bench| {
        received = bench.links.poll_received();
        received.is_some()
    });
    let (from, message) = received.unwrap();
    let read = crate::target::Notice::read(from, &message).unwrap();
    assert_eq!(
        (read.owner, read.inside, read.key),
        (notice().owner, notice().inside, notice().key)
    );
    assert!(!format!("{message:?}").contains("05"), "a key is not printed");

    let report = Report { healthy: true, load_percent: 7, ..Report::default() };
    let stale = StaleNotice { epoch: 3, known_epoch: 4 };
    for body in [
        FromTargetBody::Acknowledged(3),
        FromTargetBody::Stale(stale),
        FromTargetBody::Report(report),
    ] {
        bench.links.send(clock::now(), 1, body);
    }
    bench.run_until("heard", |bench| bench.heard.len() >= 4);
    let events: Vec<TargetEvent> = bench.heard.iter().skip(1).map(|(_, event)| *event).collect();
    assert_eq!(
        events,
        [
            TargetEvent::Acknowledged { epoch: Epoch(3) },
            TargetEvent::Refused { epoch: Epoch(3), known: Epoch(4) },
            TargetEvent::Report(report.into()),
        ]
    );
}

#[test]
fn neither_a_member_nor_another_target_is_taken_for_the_target() {
    for stem in ["member-1", "target-web 2"] {
        let mut bench = Bench::new(stem);
        let refused = |bench: &Bench| bench.listener.refusals().count(Refusal::WrongTarget);
        bench.run_until(stem, |bench| refused(bench) > 0);
        assert_eq!(bench.heard, []);
    }
}
