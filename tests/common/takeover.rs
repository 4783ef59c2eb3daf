//! Takeovers: how an owner is lost, who follows, and what the captures tell about it.

use super::{PATIENCE, Scene};
use holdfast_bed::fetch::short_connections;
use holdfast_bed::frame::Ike;
use holdfast_bed::links::{InnerPacket, Links, Wire};
use holdfast_bed::peer::StrongSwan;
use holdfast_bed::peers::{inner, outer};
use holdfast_bed::time::Wall;
use holdfast_bed::wait::wait_until;
use holdfast_bed::wire::{IkeMessage, OutsideWire, Sender};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;

/// How long an exchange after a takeover may take to be looked for in the captures, in milliseconds.
const AFTER_MS: u64 = 600_000;

/// One change of the owner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Takeover {
    /// When the former owner was lost.
    pub(crate) at: Wall,
    /// Who that was.
    pub(crate) from: u8,
    /// Who follows.
    pub(crate) to: u8,
}

impl Scene {
    /// The owner as the running members agree on it, with its epoch.
    pub(crate) fn owner(&mut self) -> (u8, u64) {
        let owner = self.cluster.wait_for_owner(PATIENCE).expect("an owner");
        let status = self.cluster.status(owner).expect("a status");
        let epoch = status.0.pointer("/cluster/owner/epoch").and_then(Value::as_u64);
        (owner, epoch.expect("an epoch"))
    }

    /// Kills a member and pulls its three cables: a host without power.
    pub(crate) fn power_off(&mut self, member: u8) -> Wall {
        let at = self.cluster.kill(member).expect("it runs");
        self.plug(member, false);
        self.cluster.bury(member).expect("it is gone");
        at
    }

    /// Brings a host that was powered off back, with the disk it had.
    pub(crate) fn power_on(&mut self, member: u8) {
        self.plug(member, true);
        self.cluster.start(&self.bed, member).expect("it starts");
    }

    /// Plugs the three cables of a member in or out.
    pub(crate) fn plug(&self, member: u8, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        let links =
            ["outside", "inside", "mgmt"].map(|link| format!("link set {link} {state}\n")).concat();
        let host = self.bed.topology.member(member).expect("a member");
        host.links(&links).expect("its links obey");
    }

    /// Waits until another member than `before` owns, by the word of those that run.
    pub(crate) fn wait_for_another(&self, before: u8) -> u8 {
        let next = wait_until("another owner", PATIENCE, || {
            let others = self.cluster.running().into_iter().filter(|member| *member != before);
            let owners: BTreeSet<Option<u8>> = others
                .map(|member| self.cluster.status(member).ok().and_then(|status| status.owner()))
                .collect();
            let agreed = owners.first().copied().flatten().filter(|_| owners.len() == 1);
            Ok(agreed.filter(|owner| *owner != before))
        });
        next.inspect_err(|_| self.explain()).expect("another member owns")
    }

    /// Powers the owner off and tells who follows.
    pub(crate) fn lose(&mut self, owner: u8) -> Takeover {
        let at = self.power_off(owner);
        let to = self.wait_for_another(owner);
        println!("member {owner} off, member {to} owns {:.0} ms later", Wall::now().ms_since(at));
        Takeover { at, from: owner, to }
    }

    /// What member `number` has logged.
    pub(crate) fn log_of(&self, member: u8) -> String {
        fs::read_to_string(self.cluster.log(member)).unwrap_or_default()
    }

    /// The line in which `member` tells that the owner `failed`, as told last.
    pub(crate) fn told_failure(&self, member: u8, failed: u8) -> String {
        let log = self.log_of(member);
        let of_it = format!(" member={failed} ");
        let told = log.lines().rev();
        let mut told = told.filter(|line| line.contains("event=\"owner_failed\""));
        let line = told.find(|line| format!("{line} ").contains(&of_it));
        if line.is_none() {
            self.explain();
        }
        let line = line.expect("the failure is told").to_owned();
        println!("{line}");
        line
    }

    /// Waits until charon has logged `words` at least `times`.
    pub(crate) fn wait_for_words(&self, swan: &StrongSwan, words: &str, times: usize) {
        self.wait_for(words, |_| {
            let log = fs::read_to_string(swan.log()).unwrap_or_default();
            log.matches(words).count() >= times
        });
    }

    /// Client `number`'s daemon.
    pub(crate) fn swan(&self, number: u8) -> &StrongSwan {
        let peer = self.peers.iter().find(|peer| peer.number == number);
        peer.map_or(&self.client, |peer| &peer.swan)
    }

    /// The IKE SAs of a client by the names `swanctl` has for them, each with its line.
    pub(crate) fn ike_sas(&self, number: u8) -> BTreeMap<String, String> {
        let list = self.swan(number).list().expect("swanctl lists");
        let named = |line: &str| {
            let (name, _) = line.split_once(',')?;
            (line.starts_with("home: #")).then(|| (name.to_owned(), line.trim_end().to_owned()))
        };
        list.lines().filter_map(named).collect()
    }

    /// Which IKE SAs these clients have now that are in the store as well. Of a negotiation that an
    /// owner died in a client may have one that nobody else knows.
    pub(crate) fn before(&self, clients: &[u8]) -> Before {
        let member = self.cluster.running().first().copied();
        let store = member.map(|member| self.store(member).expect("a store"));
        let known: BTreeSet<String> = store
            .iter()
            .flat_map(|store| store.of("ike_sa"))
            .map(|record| record.ike_spi.clone())
            .collect();
        let is_known =
            |line: &String| member.is_none() || known.iter().any(|spi| line.contains(spi));
        let named = |number: &u8| {
            let all = self.ike_sas(*number).into_iter();
            (*number, all.filter(|(_, line)| is_known(line)).map(|(name, _)| name).collect())
        };
        clients.iter().map(named).collect()
    }

    /// Waits until each of these clients has an IKE SA that the members' side began, and none of those
    /// it had `before`: by `swanctl`, `reestablish` is done.
    pub(crate) fn wait_until_reestablished(&self, before: &Before) {
        for (number, old) in before {
            self.wait_for("a new IKE SA in place of the old one", |scene| {
                let now = scene.ike_sas(*number);
                let ours = |line: &String| line.contains("ESTABLISHED") && line.ends_with("_r*");
                now.keys().all(|name| !old.contains(name)) && now.values().any(ours)
            });
        }
    }

    /// Packets that `member` dropped for the reason of that name.
    pub(crate) fn dropped(&self, member: u8, name: &str) -> u64 {
        let reasons = self.cluster.ask(member, &["drop-reasons"]).expect("reasons");
        let reasons = reasons["reasons"].as_array().cloned().unwrap_or_default();
        let of_it = reasons.iter().find(|reason| reason["name"] == name);
        of_it.and_then(|reason| reason["packets"].as_u64()).unwrap_or(0)
    }

    /// Fails unless new connections of client `number` through its tunnel work.
    pub(crate) fn expect_traffic_of(&self, number: u8) {
        let peer = self.peers.iter().find(|peer| peer.number == number);
        let host = peer.map_or(&self.bed.topology.client, |peer| &peer.host);
        let made = short_connections(host, 5).expect("threads start");
        if !made.failures.is_empty() {
            self.explain();
        }
        assert_eq!(made.failures, Vec::<String>::new(), "client {number}");
    }
}

/// IKE SAs of clients by name.
pub(crate) type Before = BTreeMap<u8, BTreeSet<String>>;

impl Takeover {
    /// Claim 1 (c): the first IKE message about each of these clients behind the failure is the new
    /// owner's own, and begins a negotiation.
    pub(crate) fn expect_restarted(&self, outside: &OutsideWire, clients: &[u8]) {
        for number in clients {
            let first = self.first_ike(outside, outer(*number)).expect("IKE after the failure");
            println!(
                "client {number}: {} of member {} {:.0} ms after the failure",
                first.header.exchange_name(),
                self.to,
                first.at.ms_since(self.at)
            );
            assert_eq!(first.sender, Sender::Member(self.to), "not the client begins: {first:?}");
            let header = first.header;
            assert!(header.exchange == Ike::SA_INIT && !header.response, "{first:?}");
        }
    }

    /// The first IKE message to or from a client behind the failure.
    pub(crate) fn first_ike<'a>(
        &self,
        outside: &'a OutsideWire,
        client: Ipv4Addr,
    ) -> Option<&'a IkeMessage> {
        let mut behind = outside.window(self.at, self.at.plus_ms(AFTER_MS));
        behind.find(|message| message.peer == client)
    }

    /// Claim 1 (e), on the wire: the new owner sends ESP.
    pub(crate) fn expect_esp(&self, outside: &OutsideWire) {
        let first = outside.first_esp_after(self.to, self.at).expect("ESP of the new owner");
        println!("ESP {:.0} ms after the failure", first.ms_since(self.at));
    }

    /// Claim 1 (d): behind the takeover everything between client `number` and its services goes
    /// through the new owner, both ways, and nothing of it is on another wire.
    pub(crate) fn expect_routed(&self, links: &Links, number: u8, members: u8) {
        let of_client = |packet: &InnerPacket| packet.client == inner(number);
        let inside = links.inner_packets(Wire::Inside).expect("captures");
        let inside: Vec<InnerPacket> = inside.into_iter().filter(of_client).collect();
        let own =
            |packet: &&InnerPacket| packet.sender == Sender::Member(self.to) && packet.at > self.at;
        let since = inside.iter().filter(own).map(|packet| packet.at).next();
        let since = since.expect("the new owner forwards");
        let behind = || inside.iter().filter(|packet| packet.at >= since);
        let inbound: BTreeSet<Sender> =
            behind().filter(|packet| packet.from_client).map(|packet| packet.sender).collect();
        assert_eq!(inbound, BTreeSet::from([Sender::Member(self.to)]), "inbound through it only");
        // What a target sent before it heard of the new owner went to the old one, and was lost.
        let outbound: Vec<Option<u8>> = behind()
            .filter(|packet| !packet.from_client)
            .map(|packet| packet.to_member(members))
            .collect();
        let settled = outbound.iter().rev().take_while(|to| **to == Some(self.to)).count();
        println!("client {number}: {settled} of {} answers through it", outbound.len());
        assert!(settled > 0 && outbound.iter().all(Option::is_some), "never around the members");
        let strays = outbound.len() - settled;
        assert!(outbound[..strays].iter().all(|to| *to == Some(self.from)), "then to the new one");
        let elsewhere = links.inner_packets(Wire::Management).expect("captures");
        let elsewhere = elsewhere.iter().filter(|packet| of_client(packet)).count();
        assert_eq!(elsewhere, 0, "nothing of it on the management wire");
    }
}

/// What must hold of every capture of the outside wire, whatever happened.
pub(crate) fn expect_lawful(outside: &OutsideWire) {
    let repeats = &outside.repeats;
    let told = repeats.told(Wall::default());
    assert_eq!((repeats.duplicate_numbers, repeats.duplicate_ivs), (0, 0), "{told:#?}");
    assert_eq!(outside.clear_packets, 0, "in clear");
    assert_eq!(outside.target_packets, 0, "around the members");
    assert_eq!(outside.esp_from_non_owner(), 0, "ESP of who does not own");
    assert_eq!(outside.ike_from_non_owner(), 0, "IKE of who does not own");
}
