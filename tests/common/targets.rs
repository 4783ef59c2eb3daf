//! Targets that run `holdfast-target`: whom they follow, which way connections go.

use super::{PATIENCE, Scene};
use holdfast::notice::NoticeListener;
use holdfast::pki::Credentials;
use holdfast_bed::capture::{Capture, Direction, read_frames};
use holdfast_bed::fetch::Download;
use holdfast_bed::follower::Followers;
use holdfast_bed::hostile::{InsideStranger, udp_between};
use holdfast_bed::topology::{
    CLIENT_INNER, COMMON, ECHO_PORT, INSIDE, NOTICE_PORT, management_address, member_inside_mac,
    member_target_address,
};
use holdfast_bed::wait::wait_until;
use holdfast_cluster::{Epoch, Incarnation, MemberId, Owner, TargetId};
use holdfast_member::{OwnerNotice, TargetEvent};
use holdfast_packet::{MacAddr, gue};
use mio::{Events, Poll};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::{Duration, Instant};

/// What marked packets go to.
pub(crate) const MARK_PORT: u16 = 6080;
/// How much of a download a capture lasts.
const WINDOW_BYTES: u64 = 1 << 20;

impl Scene {
    /// The programs on the targets.
    pub(crate) fn followers(&self) -> &Followers {
        self.followers.as_ref().expect("targets that run the program")
    }

    /// The same, to start and stop them.
    pub(crate) fn followers_mut(&mut self) -> &mut Followers {
        self.followers.as_mut().expect("targets that run the program")
    }

    /// Waits until every target follows the owner that the members know, and tells it.
    pub(crate) fn wait_until_followed(&mut self) -> (u8, u64) {
        self.wait_until_followed_after(0)
    }

    /// The same for an ownership later than `before`.
    pub(crate) fn wait_until_followed_after(&mut self, before: u64) -> (u8, u64) {
        let numbers = self.followers().numbers();
        self.wait_until_followed_by(&numbers, before)
    }

    /// The same for these targets only.
    pub(crate) fn wait_until_followed_by(&mut self, targets: &[u8], before: u64) -> (u8, u64) {
        let agreed = wait_until("every target to follow the owner", PATIENCE, || {
            self.followers_mut().expect_running()?;
            let Some(&one) = self.cluster.running().first() else { return Ok(None) };
            let status = self.cluster.status(one)?;
            let epoch = status.0.pointer("/cluster/owner/epoch").and_then(Value::as_u64);
            let later = epoch.filter(|epoch| *epoch > before);
            let Some((owner, epoch)) = status.owner().zip(later) else { return Ok(None) };
            let expected = Some((u64::from(owner), epoch));
            let all = targets.iter().all(|number| self.followers().owner(*number) == expected);
            Ok(all.then_some((owner, epoch)))
        });
        agreed.inspect_err(|_| self.explain()).expect("every target follows")
    }

    /// Asks until it is done: a member that has just taken over may not be ready to give back.
    pub(crate) fn ask_to_hand_over(&self, from: u8, to: u8) {
        self.wait_for("a handover", |scene| {
            let moved = scene.cluster.status(to).is_ok_and(|status| status.owner() == Some(to));
            if !moved {
                // A refusal names its reason in the member's log; it is asked again.
                let _ = scene.cluster.ask(from, &["handover", "--to", &to.to_string()]);
            }
            moved
        });
    }

    /// As [`Self::ask_to_hand_over`], until every target follows.
    pub(crate) fn hand_over(&mut self, from: u8, to: u8) {
        self.ask_to_hand_over(from, to);
        let (owner, _) = self.wait_until_followed();
        assert_eq!(owner, to);
    }

    /// Waits until every connection to `target` goes that way by the flow list of `owner`, which
    /// fills again with the first packets after a takeover.
    pub(crate) fn expect_way(&self, owner: u8, target: &str, way: &str) {
        self.wait_for("the connection in the flow list", |scene| {
            let Ok(list) = scene.cluster.ask(owner, &["flow", "list"]) else { return false };
            let flows = list["flows"].as_array().cloned().unwrap_or_default();
            let of_it = |flow: &&Value| flow["target"] == target && flow["protocol"] == "tcp";
            let ways: Vec<&Value> = flows.iter().filter(of_it).map(|flow| &flow["way"]).collect();
            !ways.is_empty() && ways.iter().all(|found| *found == way)
        });
    }

    /// Frames of one link that match `filter` while the download makes progress.
    pub(crate) fn frames_on(
        &self,
        link: &str,
        direction: Direction,
        filter: &str,
        download: &Download,
    ) -> u64 {
        let file = self.bed.memory_path("window.pcap");
        let wires = &self.bed.topology.wires;
        let capture =
            Capture::start_short(wires, link, direction, filter, &file).expect("a capture");
        let goal = download.bytes() + WINDOW_BYTES;
        self.wait_for("the download to go on", |_| download.bytes() >= goal);
        let captured = capture.finish().expect("a whole capture");
        assert_eq!(captured.dropped_frames, 0);
        let mut frames = 0;
        read_frames(&captured.path, |_, _| frames += 1).expect("a capture file");
        frames
    }

    /// Where each target's kernel sends replies.
    pub(crate) fn stations(&self) -> BTreeSet<String> {
        let targets = self.bed.topology.targets.iter();
        let neighbour = |target: &holdfast_bed::namespace::Namespace| {
            target.run(&["ip", "neigh", "show", &INSIDE.to_string()]).expect("ip neigh")
        };
        targets.map(neighbour).map(|line| line.trim().to_owned()).collect()
    }

    /// Marks as they were right a moment ago, from a revived owner or a stranger, to the target
    /// `number` on the host of `member`, which owns now.
    pub(crate) fn what_was_distributed_before_is_refused(&self, number: u8, member: u8) {
        let stranger = InsideStranger::join(&self.bed.topology).expect("a stranger");
        let own = member_target_address(member);
        let (_, epoch) = self.followers().owner(number).expect("an owner");
        let refused = |scene: &Self| scene.followers().count(number, "/marks/refused/local");
        let before = refused(self);
        let packets = [epoch - 1, epoch].map(|epoch| marked_by_nobody(epoch, own)).to_vec();
        stranger.send(own, packets).expect("sent");
        self.wait_for("both to be refused", |scene| refused(scene) == before + 2);
    }

    /// In the place of a dead owner, with its certificate, speaks somebody who still believes in its
    /// epoch. Every target refuses and counts that.
    pub(crate) fn a_revived_owner_is_refused(&self, member: u8, epoch: u64) {
        let folder = self.bed.folder("cluster");
        let names = self.bed.target_names();
        let wanted = names.len();
        let targets: BTreeMap<String, u64> = names.into_iter().zip(1..).collect();
        let namespace = self.bed.topology.member(member).expect("a member");
        let revived = namespace
            .spawn("revived", move || tell_stale(&folder, member, epoch, targets))
            .expect("a thread");
        let refusals = revived.join().expect("no panic").expect("entered");
        assert_eq!(refusals.len(), wanted, "every target refused: {refusals:?}");
        assert!(refusals.values().all(|known| known.0 > epoch));
        for number in (1..).take(wanted) {
            self.wait_for("the refusal to be shown", |scene| {
                scene.followers().count(number, "/notices_refused_stale") >= 1
            });
        }
    }
}

/// How a target's neighbour table shows that it follows that member.
pub(crate) fn pinned_to(member: u8) -> String {
    let mac = MacAddr(member_inside_mac(member));
    format!("{INSIDE} dev inside lladdr {mac} PERMANENT")
}

/// A mark without a right tag, as from the inside address.
pub(crate) fn marked_by_nobody(epoch: u64, target: Ipv4Addr) -> Vec<u8> {
    let from = SocketAddrV4::new(CLIENT_INNER, 5555);
    let inner = udp_between(from, SocketAddrV4::new(COMMON, ECHO_PORT), b"marked by nobody");
    let header = gue::Repr { epoch, tag: 0x1234_5678_9abc_def0 };
    let payload = [header.bytes().as_slice(), &inner].concat();
    let from = SocketAddrV4::new(INSIDE, 50_000);
    udp_between(from, SocketAddrV4::new(target, MARK_PORT), &payload)
}

/// Tells every target that comes of an ownership that has passed; what epoch each knows instead.
fn tell_stale(
    folder: &Path,
    member: u8,
    epoch: u64,
    targets: BTreeMap<String, u64>,
) -> BTreeMap<TargetId, Epoch> {
    let wanted = targets.len();
    let file = |end: &str| folder.join(format!("member-{member}.{end}"));
    let credentials = Credentials::load(&folder.join("ca.pem"), &file("pem"), &file("key"))
        .expect("certificates");
    let mut poll = Poll::new().expect("poll");
    let registry = poll.registry().try_clone().expect("registry");
    let at = (management_address(member), NOTICE_PORT).into();
    let number = u64::from(member);
    let mut listener =
        NoticeListener::new(number, at, targets, credentials, registry, 0).expect("a listener");
    let notice = OwnerNotice {
        owner: Owner { member: MemberId(number), incarnation: Incarnation(1), epoch: Epoch(epoch) },
        common: COMMON,
        inside: INSIDE,
        inside_mac: MacAddr(member_inside_mac(member)),
        key: None,
    };
    let mut refusals = BTreeMap::new();
    let mut events = Events::with_capacity(64);
    let start = Instant::now();
    while refusals.len() < wanted && start.elapsed() < PATIENCE {
        poll.poll(&mut events, Some(Duration::from_millis(50))).expect("poll");
        for event in &events {
            listener.handle_event(holdfast::clock::now(), event.token());
        }
        while let Some((target, event)) = listener.poll_event() {
            match event {
                TargetEvent::Joined => listener.send(target, &notice),
                TargetEvent::Refused { known, .. } => drop(refusals.insert(target, known)),
                _ => {}
            }
        }
    }
    refusals
}
