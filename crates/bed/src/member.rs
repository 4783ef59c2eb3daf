//! The members: the product's own daemon and tool, run as an operator would run them.

use crate::bed::Bed;
use crate::error::BedError;
use crate::follower::Delivery;
use crate::peer::{CLIENT_IDENTITY, GATEWAY_IDENTITY, PRE_SHARED_KEY};
use crate::process::{Process, finish, finish_with};
use crate::time::Wall;
use crate::topology::{
    CLIENT_INNER, COMMON, INSIDE, LOCAL_DEVICES, NOTICE_PORT, RAFT_PORT, management_address,
    member_target_address, target_address,
};
use crate::wait::wait_until;
use rustix::process::Signal;
use serde_json::Value;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where the product's programs are, when they are not beside the running one.
pub const PROGRAMS_VARIABLE: &str = "HOLDFAST_PROGRAMS";

/// How `holdfast status` exits when it answered and something is wrong, such as a dead member.
pub(crate) const EXIT_DEGRADED: i32 = 3;

/// The product's programs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The daemon.
    pub holdfastd: PathBuf,
    /// The operator's tool.
    pub holdfast: PathBuf,
    /// What runs on targets.
    pub holdfast_target: PathBuf,
}

impl Programs {
    /// The programs in `folder`.
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            holdfastd: folder.join("holdfastd"),
            holdfast: folder.join("holdfast"),
            holdfast_target: folder.join("holdfast-target"),
        }
    }

    /// The programs named by [`PROGRAMS_VARIABLE`], else those beside the running program.
    ///
    /// # Errors
    /// When they are not there.
    pub fn find() -> Result<Self, BedError> {
        let named = std::env::var_os(PROGRAMS_VARIABLE).map(PathBuf::from);
        let own = std::env::current_exe().ok();
        let beside = own.and_then(|path| path.parent().map(Path::to_owned));
        let folder = named.or(beside).unwrap_or_default();
        let programs = Self::in_folder(&folder);
        if programs.holdfastd.exists() && programs.holdfast.exists() {
            return Ok(programs);
        }
        Err(BedError::Answer {
            program: "holdfastd".to_owned(),
            detail: format!("is not in {}; set {PROGRAMS_VARIABLE}", folder.display()),
        })
    }
}

/// How fast members notice each other's death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// The product's default timing.
    Default,
    /// For crowded machines.
    Relaxed,
    /// For isolated cores.
    Brisk,
}

impl Profile {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Relaxed => "relaxed",
            Self::Brisk => "brisk",
        }
    }
}

/// Settings of the cluster under test.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The programs.
    pub programs: Programs,
    /// The timing.
    pub profile: Profile,
    /// Settings of the client's connection, one a line, in addition to those the bed needs.
    pub connection_settings: String,
}

/// The cluster: one daemon a member, each in its namespace.
#[derive(Debug)]
pub struct Cluster {
    options: ClusterOptions,
    /// How packets reach targets that run the product's program, if they do.
    delivery: Option<Delivery>,
    folder: PathBuf,
    members: Vec<Member>,
    /// The members that vote and never own.
    witnesses: Vec<u8>,
}

#[derive(Debug)]
struct Member {
    number: u8,
    socket: PathBuf,
    config: PathBuf,
    process: Option<Process>,
}

/// What `holdfast --json status` says.
#[derive(Debug, Clone)]
pub struct Status(pub Value);

impl Status {
    /// The owner of the common address, as this member knows it.
    pub fn owner(&self) -> Option<u8> {
        self.number("/cluster/owner/member").and_then(|member| u8::try_from(member).ok())
    }

    /// The epoch of that ownership.
    pub fn epoch(&self) -> Option<u64> {
        self.number("/cluster/owner/epoch")
    }

    /// The newest log entry this member has applied.
    pub fn applied_index(&self) -> u64 {
        self.number("/cluster/applied_index").unwrap_or(0)
    }

    /// The newest log entry this member knows to be committed.
    pub fn commit_index(&self) -> u64 {
        self.number("/cluster/commit_index").unwrap_or(0)
    }

    /// How many Child SAs there are, and how many of them another member could take over now.
    pub fn child_sas(&self) -> (usize, usize) {
        let list = self.0.pointer("/child_sas").and_then(Value::as_array);
        let ready = |sa: &&Value| sa.get("takeover_ready").and_then(Value::as_bool) == Some(true);
        list.map_or((0, 0), |all| (all.len(), all.iter().filter(ready).count()))
    }

    /// Whether every member that may own said that it is fit: its ports have links, its workers
    /// poll, and every SA is made ready there.
    pub fn all_fit(&self) -> bool {
        let members = self.0.pointer("/cluster/members").and_then(Value::as_array);
        let text =
            |member: &Value, name| member.get(name).and_then(Value::as_str).map(str::to_owned);
        let witness = |member: &Value| member.get("witness").and_then(Value::as_bool) == Some(true);
        members.is_some_and(|members| {
            members.iter().all(|m| witness(m) || text(m, "fitness").as_deref() == Some("fit"))
        })
    }

    fn number(&self, pointer: &str) -> Option<u64> {
        self.0.pointer(pointer).and_then(Value::as_u64)
    }
}

impl Cluster {
    /// Creates the cluster's certificates and every member's configuration. Starts nothing.
    ///
    /// # Errors
    /// When the tool refuses.
    pub fn prepare(bed: &Bed, options: ClusterOptions) -> Result<Self, BedError> {
        Self::prepare_with(bed, options, &[], None)
    }

    /// Like [`Self::prepare`], with member `witness` a witness: it has no use for its ports.
    ///
    /// # Errors
    /// When the tool refuses.
    pub fn prepare_with_witness(
        bed: &Bed,
        options: ClusterOptions,
        witness: u8,
    ) -> Result<Self, BedError> {
        Self::prepare_with(bed, options, &[witness], None)
    }

    /// Like [`Self::prepare`], for targets that run [`crate::follower::Followers`].
    ///
    /// # Errors
    /// When the tool refuses.
    pub fn prepare_with_followers(
        bed: &Bed,
        options: ClusterOptions,
        delivery: Delivery,
    ) -> Result<Self, BedError> {
        Self::prepare_with(bed, options, &[], Some(delivery))
    }

    /// Like [`Self::prepare`], with any number of witnesses, and for targets that run
    /// [`crate::follower::Followers`] if `delivery` says how packets reach them.
    ///
    /// # Errors
    /// When the tool refuses.
    pub fn prepare_with(
        bed: &Bed,
        options: ClusterOptions,
        witnesses: &[u8],
        delivery: Option<Delivery>,
    ) -> Result<Self, BedError> {
        let folder = bed.folder("cluster");
        let members = (1..).take(bed.topology.members.len());
        let witnesses = witnesses.to_vec();
        let mut cluster = Self { options, delivery, folder, members: Vec::new(), witnesses };
        cluster.make_certificates(bed.topology.members.len())?;
        for number in members {
            let member = cluster.configure(bed, number)?;
            cluster.members.push(member);
        }
        Ok(cluster)
    }

    fn make_certificates(&self, members: usize) -> Result<(), BedError> {
        let mut command = Command::new(&self.options.programs.holdfast);
        command.args(["cluster", "init", "--members", &members.to_string(), "--dir"]);
        finish("holdfast cluster init", command.arg(&self.folder), None).map(drop)
    }

    fn configure(&self, bed: &Bed, number: u8) -> Result<Member, BedError> {
        let folder = bed.folder(&format!("m{number}"));
        let write = |e| BedError::file("prepare", &folder, e);
        fs::create_dir_all(&folder).map_err(write)?;
        let config = folder.join("holdfast.toml");
        let socket = bed.memory_path(&format!("m{number}.socket"));
        let text = self.configuration(bed, number, &folder, &socket);
        fs::write(&config, text).map_err(write)?;
        Ok(Member { number, socket, config, process: None })
    }

    fn configuration(&self, bed: &Bed, number: u8, folder: &Path, socket: &Path) -> String {
        let (folder, shared, socket) = (folder.display(), self.folder.display(), socket.display());
        let profile = self.options.profile.name();
        let settings = &self.options.connection_settings;
        let role = self.role(number);
        let mut text = format!(
            "[member]
id = {number}
role = \"{role}\"
data_dir = \"{folder}/data\"
socket = \"{socket}\"

[cluster]
timing = \"{profile}\"
ca = \"{shared}/ca.pem\"
certificate = \"{shared}/member-{number}.pem\"
key = \"{shared}/member-{number}.key\"
"
        );
        for member in (1..).take(bed.topology.members.len()) {
            let (address, role) = (management_address(member), self.role(member));
            let _ = write!(
                text,
                "\n[[cluster.member]]\nid = {member}\naddress = \"{address}:{RAFT_PORT}\"\n\
                 role = \"{role}\"\n"
            );
        }
        if self.witnesses.contains(&number) {
            return text;
        }
        let _ = write!(
            text,
            "
[addresses]
common = \"{COMMON}\"
inside = \"{INSIDE}\"
outside_prefix = \"198.51.100.0/24\"
inside_prefix = \"192.0.2.0/24\"

[outside]
device = \"net_af_packet0,iface=outside\"

[inside]
device = \"net_af_packet1,iface=inside\"

[dpdk]
memory_mb = 64

[ike]
local_id = \"{GATEWAY_IDENTITY}\"

[[connection]]
name = \"bed\"
remote_id = \"{CLIENT_IDENTITY}\"
psk = \"{PRE_SHARED_KEY}\"
remote_ts = [\"{CLIENT_INNER}/32\"]
{settings}
"
        );
        for (target, name) in (1..).zip(bed.target_names()) {
            let address = target_address(target);
            let _ = write!(text, "\n[[target]]\nname = \"{name}\"\naddress = \"{address}\"\n");
            if let Some(delivery) = self.delivery {
                let _ = writeln!(text, "delivery = \"{}\"", delivery.name());
            }
        }
        if let Some((member, name)) = bed.member_target() {
            let address = member_target_address(member);
            let _ = write!(
                text,
                "\n[[target]]\nname = \"{name}\"\naddress = \"{address}\"\nmember = {member}\n\
                 delivery = \"marked\"\n"
            );
            if member == number {
                let [host, own] = LOCAL_DEVICES;
                let _ = write!(
                    text,
                    "\n[local]\ndevice = \"net_af_packet2,iface={own}\"\ninterface = \"{host}\"\n"
                );
            }
        }
        if self.delivery.is_some() {
            let own = management_address(number);
            let _ = write!(text, "\n[targets]\nlisten = \"{own}:{NOTICE_PORT}\"\n");
        }
        text
    }

    fn role(&self, number: u8) -> &'static str {
        if self.witnesses.contains(&number) { "witness" } else { "full" }
    }

    /// Starts member `number`, or starts it again after a kill.
    ///
    /// # Errors
    /// When the daemon cannot start.
    pub fn start(&mut self, bed: &Bed, number: u8) -> Result<(), BedError> {
        self.start_under(bed, number, &[])
    }

    /// As [`start`](Self::start), by way of a program that replaces itself by the daemon.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn start_under(&mut self, bed: &Bed, number: u8, way: &[&str]) -> Result<(), BedError> {
        let namespace = bed.topology.member(number)?;
        let log = self.log(number);
        let holdfastd = self.options.programs.holdfastd.clone();
        let member = self.member(number)?;
        let mut arguments: Vec<&OsStr> = way.iter().map(OsStr::new).collect();
        arguments.extend([holdfastd.as_os_str(), "--config".as_ref(), member.config.as_os_str()]);
        let name = format!("holdfastd {number}");
        member.process = Some(Process::start(namespace, &name, &log, &[], &arguments)?);
        Ok(())
    }

    /// Starts every member.
    ///
    /// # Errors
    /// When a daemon cannot start.
    pub fn start_all(&mut self, bed: &Bed) -> Result<(), BedError> {
        let all = self.numbers();
        all.into_iter().try_for_each(|number| self.start(bed, number))
    }

    /// Kills member `number` with SIGKILL and tells when.
    ///
    /// # Errors
    /// When there is no such member or it does not run.
    pub fn kill(&mut self, number: u8) -> Result<Wall, BedError> {
        let member = self.member(number)?;
        let process = member.process.as_mut().filter(|process| process.id() > 0);
        let process = process.ok_or_else(|| no_member(number))?;
        process.expect_running()?;
        let at = Wall::now();
        process.kill_now();
        Ok(at)
    }

    /// Sends `signal` to member `number` and tells when.
    ///
    /// # Errors
    /// When there is no such member or it does not run.
    pub fn signal(&mut self, number: u8, signal: Signal) -> Result<Wall, BedError> {
        let process = self.member(number)?.process.as_mut().ok_or_else(|| no_member(number))?;
        let at = Wall::now();
        process.signal(signal);
        Ok(at)
    }

    /// The process id of member `number`, while it runs.
    pub fn process_id(&mut self, number: u8) -> Option<u32> {
        let process = self.member(number).ok()?.process.as_mut()?;
        process.runs().then(|| process.id())
    }

    /// Stops member `number`, all its threads, and tells when; or lets it go on.
    ///
    /// # Errors
    /// As [`signal`](Self::signal).
    pub fn freeze(&mut self, number: u8, frozen: bool) -> Result<Wall, BedError> {
        self.signal(number, if frozen { Signal::STOP } else { Signal::CONT })
    }

    /// Asks member `number` for its status.
    ///
    /// # Errors
    /// When it does not answer, or not in JSON.
    pub fn status(&self, number: u8) -> Result<Status, BedError> {
        self.ask(number, &["status"]).map(Status)
    }

    /// Runs the operator's tool against member `number` and yields its JSON. A question is answered by
    /// a degraded member too; an order it refuses as degraded was not carried out.
    ///
    /// # Errors
    /// When the tool fails or answers no JSON.
    pub fn ask(&self, number: u8, request: &[&str]) -> Result<Value, BedError> {
        let member = self.members.iter().find(|member| member.number == number);
        let member = member.ok_or_else(|| no_member(number))?;
        let mut command = Command::new(&self.options.programs.holdfast);
        command.arg("--json").arg("--socket").arg(&member.socket).args(request);
        let order = request.first() == Some(&"handover");
        let well: &[i32] = if order { &[0] } else { &[0, EXIT_DEGRADED] };
        let answer = finish_with("holdfast", &mut command, None, well)?;
        serde_json::from_str(&answer).map_err(|e| BedError::Answer {
            program: format!("holdfast {}", request.join(" ")),
            detail: format!("{e}: {answer}"),
        })
    }

    /// Waits until every running member names the same owner, and tells it.
    ///
    /// # Errors
    /// When that does not happen within `limit`, or a member has ended.
    pub fn wait_for_owner(&mut self, limit: Duration) -> Result<u8, BedError> {
        let found = wait_until("one owner that all members know", limit, || {
            self.expect_running()?;
            let running = self.running();
            let owners: Vec<Option<u8>> = running
                .iter()
                .map(|&number| self.status(number).ok().and_then(|status| status.owner()))
                .collect();
            let first = owners.first().copied().flatten();
            Ok(first.filter(|owner| {
                running.contains(owner) && owners.iter().all(|other| *other == first)
            }))
        });
        self.explain(found)
    }

    /// Waits until every member runs, has applied what is committed, and every Child SA of the
    /// owner can be taken over: only then is a kill a fair test.
    ///
    /// # Errors
    /// When that does not happen within `limit`, or a member has ended.
    pub fn wait_until_ready(&mut self, limit: Duration) -> Result<u8, BedError> {
        let ready = wait_until("every member caught up and every SA takeover-ready", limit, || {
            self.expect_running()?;
            Ok(self.ready_owner().ok().flatten())
        });
        self.explain(ready)
    }

    /// As [`wait_until_ready`](Self::wait_until_ready), and every member has made every SA ready:
    /// with many of them that takes a second or two after a start.
    ///
    /// # Errors
    /// When that does not happen within `limit`, or a member has ended.
    pub fn wait_until_warm(&mut self, limit: Duration) -> Result<u8, BedError> {
        let warm = wait_until("every member caught up and warm", limit, || {
            self.expect_running()?;
            let owner = self.ready_owner().ok().flatten();
            Ok(owner.filter(|owner| self.status(*owner).is_ok_and(|status| status.all_fit())))
        });
        self.explain(warm)
    }

    /// The owner, when every member has applied what is committed and every Child SA can be taken
    /// over.
    ///
    /// # Errors
    /// When a member does not answer.
    pub fn ready_owner(&self) -> Result<Option<u8>, BedError> {
        let mut owner = None;
        for number in self.numbers() {
            owner = owner.or(self.status(number)?.owner());
        }
        let Some(owner) = owner else { return Ok(None) };
        let status = self.status(owner)?;
        let (children, ready) = status.child_sas();
        for number in self.numbers() {
            let own = self.status(number)?;
            if own.owner() != Some(owner) || own.applied_index() < status.commit_index() {
                return Ok(None);
            }
        }
        Ok((children > 0 && children == ready).then_some(owner))
    }

    /// Fails when a member that was not killed has ended.
    ///
    /// # Errors
    /// With its last words.
    pub fn expect_running(&mut self) -> Result<(), BedError> {
        let started = self.members.iter_mut().filter_map(|member| member.process.as_mut());
        started.into_iter().try_for_each(Process::expect_running)
    }

    /// Forgets a killed member's process, so that its end is not taken for a failure.
    ///
    /// # Errors
    /// When there is no such member.
    pub fn bury(&mut self, number: u8) -> Result<(), BedError> {
        // Dropping the process collects it.
        self.member(number).map(|member| member.process = None)
    }

    /// Adds the members' last words to a failed wait.
    fn explain<T>(&self, result: Result<T, BedError>) -> Result<T, BedError> {
        result.map_err(|error| match error {
            BedError::Timeout { what, waited_ms, .. } => {
                let hint = self.last_words(6);
                BedError::Timeout { what, waited_ms, hint: format!("\n{hint}") }
            }
            other => other,
        })
    }

    /// The end of every member's log.
    pub fn last_words(&self, lines: usize) -> String {
        let words = self.members.iter().map(|member| {
            let words = crate::process::tail(&self.log(member.number), lines);
            format!("--- member {}\n{words}\n", member.number)
        });
        words.collect()
    }

    /// Where member `number` writes its log.
    pub fn log(&self, number: u8) -> PathBuf {
        self.folder.join(format!("member-{number}.log"))
    }

    /// Stops every member in order.
    pub fn stop(&mut self) {
        for member in &mut self.members {
            if let Some(process) = &mut member.process {
                process.stop(Signal::TERM);
            }
            member.process = None;
        }
    }

    /// Numbers of all members.
    pub fn numbers(&self) -> Vec<u8> {
        self.members.iter().map(|member| member.number).collect()
    }

    /// Numbers of the members that have been started and not buried.
    pub fn running(&self) -> Vec<u8> {
        let started = self.members.iter().filter(|member| member.process.is_some());
        started.map(|member| member.number).collect()
    }

    fn member(&mut self, number: u8) -> Result<&mut Member, BedError> {
        let found = self.members.iter_mut().find(|member| member.number == number);
        found.ok_or_else(|| no_member(number))
    }
}

fn no_member(number: u8) -> BedError {
    BedError::Answer { program: "bed".to_owned(), detail: format!("member {number} does not run") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &str) -> Status {
        Status(serde_json::from_str(text).expect("JSON"))
    }

    #[test]
    fn a_status_is_read_leniently() {
        let full = status(
            r#"{"cluster":{"owner":{"member":2},"applied_index":7,"commit_index":9},
                "child_sas":[{"takeover_ready":true},{"takeover_ready":false}]}"#,
        );
        assert_eq!((full.owner(), full.applied_index(), full.commit_index()), (Some(2), 7, 9));
        assert_eq!(full.child_sas(), (2, 1));
        let fit = |one: &str| {
            let members = r#"{"witness":false,"fitness":"fit"},{"witness":true,"fitness":""}"#;
            status(&format!(r#"{{"cluster":{{"members":[{members},{one}]}}}}"#)).all_fit()
        };
        assert!(fit(r#"{"witness":false,"fitness":"fit"}"#));
        assert!(!fit(r#"{"witness":false,"fitness":"warming up"}"#));
        let empty = status(r#"{"cluster":{"owner":null}}"#);
        assert!(!empty.all_fit());
        assert_eq!((empty.owner(), empty.applied_index(), empty.child_sas()), (None, 0, (0, 0)));
    }
}
