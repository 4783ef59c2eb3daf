//! Real daemons on loopback: a cluster forms, survives the kill of its owner, hands over when it
//! stops, and refuses what it must refuse.
//!
//! The ports are DPDK's `net_null` without any traffic, so no namespace and no privilege is needed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing helper fails its test")]

use holdfast_api::{
    Client, ClusterStatus, ClusterStatusRequest, Handover, RequestKind, ResponseKind, Role,
    StatusRequest, TargetListRequest, TargetSet,
};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const DAEMON: &str = env!("CARGO_BIN_EXE_holdfastd");
const TOOL: &str = env!("CARGO_BIN_EXE_holdfast");
/// Long enough for any machine; only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(30);
const KEY: &str = "swordfish-swordfish";

/// Three members in one folder, and a fourth that may join, on loopback addresses of their own.
struct Cluster {
    folder: tempfile::TempDir,
    network: u8,
    daemons: [Option<Child>; 4],
}

impl Cluster {
    /// `network` keeps tests of one machine apart.
    fn new(network: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        holdfast::pki::init(&folder.path().join("pki"), "test", &[1, 2, 3]).unwrap();
        let cluster = Self { folder, network, daemons: [None, None, None, None] };
        for member in 1..=3 {
            fs::write(cluster.config(member), cluster.configuration(member, "pki")).unwrap();
        }
        cluster
    }

    /// Lets member 4 in: a certificate, a configuration that joins, a daemon.
    fn start_fourth(&mut self) {
        holdfast::pki::issue(&self.path("pki"), 4).unwrap();
        let address = self.address(4);
        let mut text = self.configuration(4, "pki");
        text = text.replace("[cluster]\n", "[cluster]\njoin = true\n");
        text += &format!("[[cluster.member]]\nid = 4\naddress = \"{address}\"\n");
        fs::write(self.config(4), text).unwrap();
        self.start(4);
    }

    /// Runs the operator's tool against a member; exit code and all it said.
    fn tool(&self, member: u8, arguments: &[&str]) -> (Option<i32>, String) {
        let socket = self.path(&format!("socket-{member}"));
        let output =
            Command::new(TOOL).arg("--socket").arg(socket).args(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }

    fn started(network: u8) -> Self {
        let mut cluster = Self::new(network);
        for member in 1..=3 {
            cluster.start(member);
        }
        cluster
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, member: u8) -> PathBuf {
        self.path(&format!("member-{member}.toml"))
    }

    fn log(&self, member: u8) -> String {
        fs::read_to_string(self.path(&format!("log-{member}"))).unwrap_or_default()
    }

    fn address(&self, member: u8) -> String {
        format!("127.{}.7.{member}:7000", self.network)
    }

    fn configuration(&self, member: u8, pki: &str) -> String {
        let mut text = format!(
            r#"
[member]
id = {member}
data_dir = "data-{member}"
socket = "socket-{member}"
[cluster]
timing = "relaxed"
ca = "{pki}/ca.pem"
certificate = "{pki}/member-{member}.pem"
key = "{pki}/member-{member}.key"
[addresses]
common = "198.51.100.100"
inside = "192.0.2.100"
outside_prefix = "198.51.100.0/24"
inside_prefix = "192.0.2.0/24"
[outside]
device = "net_null0,no-rx=1"
[inside]
device = "net_null1,no-rx=1"
[dpdk]
hugepages = "off"
[[connection]]
name = "road"
psk = "{KEY}"
remote_ts = ["10.77.0.0/16"]
[[target]]
name = "web1"
address = "192.0.2.11"
"#
        );
        for other in 1..=3 {
            let address = self.address(other);
            text += &format!("[[cluster.member]]\nid = {other}\naddress = \"{address}\"\n");
        }
        text
    }

    fn start(&mut self, member: u8) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path(&format!("log-{member}")))
            .unwrap();
        let daemon = Command::new(DAEMON)
            .arg("--config")
            .arg(self.config(member))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemons[usize::from(member) - 1] = Some(daemon);
    }

    fn kill(&mut self, member: u8) {
        let mut daemon = self.daemons[usize::from(member) - 1].take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    fn signal(&self, member: u8, signal: Signal) {
        let daemon = self.daemons[usize::from(member) - 1].as_ref().unwrap();
        kill_process(Pid::from_child(daemon), signal).unwrap();
    }

    /// Asks a member to stop and waits for its exit code.
    fn stop(&mut self, member: u8) -> Option<i32> {
        self.signal(member, Signal::TERM);
        let mut daemon = self.daemons[usize::from(member) - 1].take().unwrap();
        daemon.wait().unwrap().code()
    }

    fn ask(&self, member: u8, question: RequestKind) -> Option<ResponseKind> {
        let socket = self.path(&format!("socket-{member}"));
        Client::connect(&socket, PATIENCE).ok()?.call(question).ok()
    }

    fn cluster_status(&self, member: u8) -> Option<ClusterStatus> {
        match self.ask(member, RequestKind::ClusterStatus(ClusterStatusRequest {}))? {
            ResponseKind::ClusterStatus(status) => Some(*status),
            other => panic!("{other:?}"),
        }
    }

    /// The member all of `members` see as a connected owner.
    fn agreed_owner(&self, members: &[u8]) -> Option<u8> {
        let seen = |member: &u8| {
            let status = self.cluster_status(*member)?;
            let owner = status.members.iter().find(|info| info.role == Role::Owner as i32)?;
            owner.connected.then_some(owner.member)
        };
        let owners: Option<Vec<u64>> = members.iter().map(seen).collect();
        let (first, rest) = owners.as_ref()?.split_first()?;
        let agreed = rest.iter().all(|owner| owner == first);
        agreed.then(|| u8::try_from(*first).unwrap())
    }

    fn wait_for_owner(&self, members: &[u8]) -> u8 {
        self.wait("an owner", || self.agreed_owner(members))
    }

    /// Tries until `probe` finds something; shows the logs when it never does.
    fn wait<T>(&self, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = probe() {
                return found;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "never saw {what}\n{}\n{}\n{}",
                self.log(1),
                self.log(2),
                self.log(3)
            );
            // A pause between two looks; nothing is taken for granted because of it.
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().flatten() {
            daemon.kill().ok();
            daemon.wait().ok();
        }
    }
}

/// Exit code and standard error output of a daemon that does not start.
fn refused(config: &Path) -> (Option<i32>, String) {
    let output = Command::new(DAEMON).arg("--config").arg(config).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn others(member: u8) -> Vec<u8> {
    (1..=3).filter(|other| *other != member).collect()
}

#[test]
fn a_cluster_forms_survives_the_kill_of_its_owner_and_takes_it_back() {
    let mut cluster = Cluster::started(71);
    let first = cluster.wait_for_owner(&[1, 2, 3]);
    let before = cluster.cluster_status(first).unwrap().owner.unwrap();

    cluster.kill(first);
    let rest = others(first);
    let second =
        cluster.wait("a new owner", || cluster.agreed_owner(&rest).filter(|owner| *owner != first));
    let after = cluster.cluster_status(second).unwrap().owner.unwrap();
    assert!(after.epoch > before.epoch);

    cluster.start(first);
    assert_eq!(cluster.wait_for_owner(&[1, 2, 3]), second, "a member that returns takes nothing");
    let back = cluster.wait("the member that came back", || cluster.cluster_status(first));
    assert_eq!(back.incarnation, before.incarnation + 1);

    cluster.wait("equal states", || {
        let states: Option<Vec<_>> = (1..=3)
            .map(|member| cluster.cluster_status(member).map(|s| (s.applied_index, s.state_hash)))
            .collect();
        states.filter(|states| states.windows(2).all(|pair| pair[0] == pair[1]))
    });
}

#[test]
fn the_operator_hands_over_drains_and_is_told_whom_to_ask() {
    let mut cluster = Cluster::started(72);
    let owner = cluster.wait_for_owner(&[1, 2, 3]);
    let to = others(owner)[0];

    let wrong = cluster.ask(to, RequestKind::Handover(Handover { to: None })).unwrap();
    let ResponseKind::Failure(failure) = wrong else { panic!("{wrong:?}") };
    assert!(failure.next_action.contains(&owner.to_string()), "{failure:?}");

    let handover = RequestKind::Handover(Handover { to: Some(u64::from(to)) });
    let done = cluster.wait("a handover", || match cluster.ask(owner, handover.clone())? {
        ResponseKind::Done(done) => Some(done),
        // The standby may not be up to date yet.
        ResponseKind::Failure(_) => None,
        other => panic!("{other:?}"),
    });
    assert!(done.operation > 0);
    cluster.wait("the new owner", || cluster.agreed_owner(&[1, 2, 3]).filter(|o| *o == to));

    let drain = RequestKind::TargetSet(TargetSet { name: "web1".into(), draining: true });
    let drained = cluster.wait("a drained target", || cluster.ask(to, drain.clone()));
    assert!(matches!(drained, ResponseKind::Done(_)), "{drained:?}");
    cluster.wait("the drained target everywhere", || {
        let list = RequestKind::TargetList(TargetListRequest {});
        match cluster.ask(owner, list)? {
            ResponseKind::TargetList(list) => list.targets[0].draining.then_some(()),
            other => panic!("{other:?}"),
        }
    });

    // Asked to stop, an owner hands over first and leaves in peace.
    assert_eq!(cluster.stop(to), Some(0));
    cluster.wait_for_owner(&others(to));
    assert!(cluster.log(to).contains("stopped"));
}

#[test]
fn a_hangup_changes_nothing_and_says_so() {
    let cluster = Cluster::started(78);
    let owner = cluster.wait_for_owner(&[1, 2, 3]);
    let before = cluster.cluster_status(owner).unwrap().owner;
    cluster.signal(owner, Signal::HUP);
    cluster.wait("the word", || cluster.log(owner).contains("SIGHUP is ignored").then_some(()));
    assert_eq!(cluster.cluster_status(owner).unwrap().owner, before);
}

#[test]
fn the_counters_can_be_read_without_the_daemons_help() {
    let mut cluster = Cluster::started(79);
    cluster.wait_for_owner(&[1, 2, 3]);
    let path = holdfast::stats::path_beside(&cluster.path("socket-1"));
    assert!(!holdfast::stats::Segment::read(&path).unwrap().drop_reasons().reasons.is_empty());
    cluster.kill(1);
    assert!(holdfast::stats::Segment::read(&path).is_ok(), "not even a dead one's");
}

#[test]
fn no_answer_and_no_log_line_contains_a_key() {
    let cluster = Cluster::started(73);
    let owner = cluster.wait_for_owner(&[1, 2, 3]);
    let status = cluster.ask(owner, RequestKind::Status(StatusRequest {})).unwrap();
    assert!(!format!("{status:?}").contains(KEY));
    for member in 1..=3 {
        assert!(!cluster.log(member).contains(KEY));
    }
}

#[test]
fn a_member_of_another_cluster_is_refused_by_name_and_disturbs_nobody() {
    let mut cluster = Cluster::new(74);
    holdfast::pki::init(&cluster.path("foreign"), "other", &[1, 2, 3]).unwrap();
    fs::write(cluster.config(3), cluster.configuration(3, "foreign")).unwrap();
    for member in 1..=3 {
        cluster.start(member);
    }
    let owner = cluster.wait_for_owner(&[1, 2]);
    let count = cluster.wait("the refusal", || {
        let refusals = cluster.cluster_status(owner)?.refusals;
        refusals.iter().find(|r| r.reason == "foreign_certificate").map(|r| r.count)
    });
    assert!(count > 0);
    assert!(cluster.log(owner).contains("foreign_certificate"));
    let status = cluster.ask(owner, RequestKind::Status(StatusRequest {})).unwrap();
    let ResponseKind::Status(status) = status else { panic!("{status:?}") };
    let problem = status.problems.iter().find(|p| p.what == "member 3 is not connected");
    assert!(problem.is_some(), "{:?}", status.problems);
    assert_ne!(cluster.agreed_owner(&[3]), Some(3));
}

#[test]
fn strangers_on_the_members_port_disturb_nobody() {
    let cluster = Cluster::started(75);
    let owner = cluster.wait_for_owner(&[1, 2, 3]);
    let epoch = cluster.cluster_status(owner).unwrap().owner.unwrap().epoch;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 2_000], &[0x16, 3, 1, 0, 5, 1, 2]] {
        let mut stream = TcpStream::connect(cluster.address(owner)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(garbage).unwrap();
        // Closed by the other side, or reset; the last one looks like the beginning of something.
        stream.shutdown(std::net::Shutdown::Write).ok();
        stream.read_to_end(&mut Vec::new()).ok();
    }
    let refusals = cluster.cluster_status(owner).unwrap().refusals;
    assert!(refusals.iter().any(|r| r.reason == "tls_malformed" && r.count >= 2), "{refusals:?}");
    assert_eq!(cluster.cluster_status(owner).unwrap().owner.unwrap().epoch, epoch);
}

#[test]
fn a_corrupt_log_is_refused_with_its_offset_and_the_others_carry_on() {
    let mut cluster = Cluster::started(76);
    let owner = cluster.wait_for_owner(&[1, 2, 3]);
    let victim = others(owner)[0];
    cluster.kill(victim);
    let data = cluster.path(&format!("data-{victim}"));
    let segment = fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "hfl"))
        .unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    bytes[60] ^= 0x80;
    fs::write(&segment, &bytes).unwrap();

    let (code, complaint) = refused(&cluster.config(victim));
    assert_eq!(code, Some(1));
    assert!(complaint.contains("is damaged at byte"), "{complaint}");
    assert_eq!(fs::read(&segment).unwrap(), bytes, "left as it was");
    let rest = others(victim);
    assert_eq!(cluster.wait_for_owner(&rest), owner);

    // Emptied, it would have forgotten what it promised; the others know better.
    fs::remove_dir_all(&data).unwrap();
    let (code, complaint) = refused(&cluster.config(victim));
    assert_eq!(code, Some(1));
    assert!(complaint.contains("its disk lost data"), "{complaint}");
    assert_eq!(cluster.wait_for_owner(&rest), owner);
}

#[test]
fn a_wrong_configuration_is_refused_with_its_place() {
    let cluster = Cluster::new(77);
    let text = cluster.configuration(1, "pki").replace("timing =", "timin =");
    fs::write(cluster.config(1), &text).unwrap();
    let (code, complaint) = refused(&cluster.config(1));
    assert_eq!(code, Some(2));
    let line = 1 + text.lines().position(|line| line.starts_with("timin")).unwrap();
    let expected =
        format!(":{line}:1: unknown key \"timin\" in [cluster]; did you mean \"timing\"?");
    assert!(complaint.contains(&expected), "{complaint}");
}

#[test]
fn a_member_that_lost_its_machine_is_replaced_under_a_new_id() {
    let mut cluster = Cluster::started(93);
    let owner = cluster.wait_for_owner(&[1, 2, 3]);
    cluster.wait("all members to be recorded", || {
        cluster.cluster_status(owner).filter(|status| status.level >= 2)
    });
    let lost = (1..=3).find(|member| *member != owner).unwrap();
    cluster.kill(lost);
    cluster.start_fourth();
    let replacement = format!("4={}", cluster.address(4));
    let (code, said) =
        cluster.tool(owner, &["cluster", "replace", &lost.to_string(), &replacement]);
    assert_eq!(code, Some(0), "{said}");
    let status = cluster.wait("the new member to vote", || {
        let status = cluster.cluster_status(owner)?;
        let votes = status.members.iter().any(|m| m.member == 4 && m.standing == "voter");
        (votes && status.change.is_empty()).then_some(status)
    });
    assert_eq!(status.members.len(), 3);
    assert_eq!(status.retired, [u64::from(lost)]);
    assert!(status.members.iter().all(|member| !member.release.is_empty()));
    // It is as good as any other: the owner may go now.
    cluster.kill(owner);
    let left = (1..=3).find(|member| ![lost, owner].contains(member)).unwrap();
    let next = cluster.wait_for_owner(&[left, 4]);
    assert!(next == left || next == 4);
    // The lost one comes back with its disk and is refused by name.
    cluster.start(lost);
    cluster.wait("the refusal", || {
        let log = cluster.log(left) + &cluster.log(4);
        log.contains("it was removed from the cluster and is refused").then_some(())
    });
    let (code, said) = cluster.tool(next, &["cluster", "add", &format!("{lost}=127.0.0.1:1")]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("was used before"), "{said}");
}

#[test]
fn a_survivor_is_made_the_whole_cluster_by_its_operator_only() {
    let mut cluster = Cluster::started(94);
    cluster.wait_for_owner(&[1, 2, 3]);
    let config = cluster.config(2).display().to_string();
    let force = ["cluster", "force-quorum", "--config", &config, "--survivor", "2"];
    let (code, said) = cluster.tool(2, &force);
    assert_eq!(code, Some(2), "without the confirmation: {said}");
    let sure = [&force[..], &["--i-know-the-others-are-dead"]].concat();
    let (code, said) = cluster.tool(2, &sure);
    assert_eq!(code, Some(1), "it runs: {said}");
    assert!(said.contains("in use by another daemon"), "{said}");
    for member in 1..=3 {
        cluster.kill(member);
    }
    cluster.start(2);
    let alone = cluster.wait("an answer", || cluster.cluster_status(2));
    assert_eq!(alone.leader, None, "one of three is fenced");
    cluster.kill(2);
    let (code, said) = cluster.tool(2, &sure);
    assert_eq!(code, Some(0), "{said}");
    cluster.start(2);
    assert_eq!(cluster.wait_for_owner(&[2]), 2);
    let status = cluster.cluster_status(2).unwrap();
    assert_eq!((status.members.len(), status.generation), (1, 1));
    assert_eq!(status.retired, [1, 3]);
    // One of the others comes back: it is refused by name and gets nowhere.
    cluster.start(1);
    cluster.wait("the refusal", || {
        cluster.log(2).contains("it was removed from the cluster and is refused").then_some(())
    });
    assert_eq!(cluster.wait_for_owner(&[2]), 2);
}
