//! Targets that run the product's own program: `holdfast-target`, as an operator would run it.

use crate::bed::Bed;
use crate::error::BedError;
use crate::member::{Cluster, EXIT_DEGRADED, Programs};
use crate::namespace::Namespace;
use crate::process::{Process, finish, finish_with};
use crate::topology::{
    COMMON, HTTP_PORT, INSIDE, LOCAL_DEVICES, MEMBER_TARGET_DEVICE, NOTICE_PORT,
    management_address, member_target_address, target_address,
};
use crate::wait::wait_until;
use rustix::process::Signal;
use serde_json::Value;
use std::fmt::Write;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How the packets of protected flows reach the targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// As they come out of the tunnel.
    Clear,
    /// Marked; the targets take no others.
    Marked,
}

impl Delivery {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Marked => "marked",
        }
    }
}

/// One `holdfast-target` for each target.
#[derive(Debug)]
pub struct Followers {
    programs: Programs,
    folder: PathBuf,
    followers: Vec<Follower>,
}

#[derive(Debug)]
struct Follower {
    number: u8,
    config: PathBuf,
    process: Option<Process>,
}

impl Followers {
    /// Makes every target's certificate and configuration. Starts nothing.
    ///
    /// # Errors
    /// When the tool refuses.
    pub fn prepare(
        bed: &Bed,
        cluster: &Cluster,
        programs: &Programs,
        delivery: Delivery,
    ) -> Result<Self, BedError> {
        let folder = bed.folder("cluster");
        let mut followers = Vec::new();
        for (number, name) in (1..).zip(bed.target_names()) {
            let mut command = Command::new(&programs.holdfast);
            command.args(["target", "certificate", &name, "--dir"]).arg(&folder);
            finish("holdfast target certificate", &mut command, None)?;
            let config = folder.join(format!("{name}.toml"));
            let members = cluster.numbers();
            let text = configuration(number, &name, &members, delivery);
            fs::write(&config, text).map_err(|e| BedError::file("write", &config, e))?;
            followers.push(Follower { number, config, process: None });
        }
        if let Some((member, name)) = bed.member_target() {
            followers.push(Self::on_member(cluster, programs, &folder, member, &name)?);
        }
        Ok(Self { programs: programs.clone(), folder, followers })
    }

    /// The one on a member's host; its number is the one behind the other targets'.
    fn on_member(
        cluster: &Cluster,
        programs: &Programs,
        folder: &Path,
        member: u8,
        name: &str,
    ) -> Result<Follower, BedError> {
        let mut command = Command::new(&programs.holdfast);
        command.args(["target", "certificate", name, "--dir"]).arg(folder);
        finish("holdfast target certificate", &mut command, None)?;
        let number = name.trim_start_matches("target").parse().unwrap_or(0);
        let config = folder.join(format!("{name}.toml"));
        let own = member_target_address(member);
        let device = MEMBER_TARGET_DEVICE;
        let mut text =
            configuration_at(own, device, number, name, &cluster.numbers(), Delivery::Marked);
        let [host, _] = LOCAL_DEVICES;
        let _ = write!(text, "\n[local]\nmember = {member}\ndevice = \"{host}\"\n");
        fs::write(&config, text).map_err(|e| BedError::file("write", &config, e))?;
        Ok(Follower { number, config, process: None })
    }

    /// Starts the program on target `number`, or starts it again.
    ///
    /// # Errors
    /// When there is no such target or it cannot start.
    pub fn start(&mut self, bed: &Bed, number: u8) -> Result<(), BedError> {
        let targets = bed.topology.targets.len();
        let namespace = match bed.member_target() {
            Some((member, _)) if usize::from(number) > targets => bed.topology.member(member)?,
            _ => bed.topology.target(number)?,
        };
        self.start_in(namespace, number)
    }

    fn start_in(&mut self, namespace: &Namespace, number: u8) -> Result<(), BedError> {
        let (program, log) = (self.programs.holdfast_target.clone(), self.log(number));
        let follower = self.follower(number)?;
        let arguments = [program.as_os_str(), "--config".as_ref(), follower.config.as_os_str()];
        let name = format!("holdfast-target {number}");
        follower.process = Some(Process::start(namespace, &name, &log, &[], &arguments)?);
        Ok(())
    }

    /// Starts the program on every target and waits until each follows an owner.
    ///
    /// # Errors
    /// When one does not within `limit`.
    pub fn start_all(&mut self, bed: &Bed, limit: Duration) -> Result<(), BedError> {
        for number in self.numbers() {
            self.start(bed, number)?;
        }
        let followed = wait_until("every target to follow an owner", limit, || {
            self.expect_running()?;
            let owners = self.numbers().into_iter().map(|number| self.owner(number));
            Ok(owners.collect::<Option<Vec<_>>>())
        });
        followed.map(drop).map_err(|error| self.explain(error))
    }

    /// Ends the program on target `number` in order.
    ///
    /// # Errors
    /// When there is no such target.
    pub fn stop(&mut self, number: u8) -> Result<(), BedError> {
        let follower = self.follower(number)?;
        if let Some(mut process) = follower.process.take() {
            process.stop(Signal::TERM);
        }
        Ok(())
    }

    /// What `holdfast-target status --json` says on target `number`.
    ///
    /// # Errors
    /// When it has not written its state yet.
    pub fn status(&self, number: u8) -> Result<Value, BedError> {
        let mut command = Command::new(&self.programs.holdfast_target);
        command.args(["status", "--json", "--state"]).arg(self.state(number));
        let answer = finish_with("holdfast-target", &mut command, None, &[0, EXIT_DEGRADED])?;
        serde_json::from_str(&answer).map_err(|e| BedError::Answer {
            program: "holdfast-target status".to_owned(),
            detail: format!("{e}: {answer}"),
        })
    }

    /// Member and epoch that target `number` follows.
    pub fn owner(&self, number: u8) -> Option<(u64, u64)> {
        let status = self.status(number).ok()?;
        let field = |name: &str| status.pointer(&format!("/owner/{name}")).and_then(Value::as_u64);
        Some((field("member")?, field("epoch")?))
    }

    /// A number in the status of target `number`; 0 when it is not there.
    pub fn count(&self, number: u8, pointer: &str) -> u64 {
        let status = self.status(number).unwrap_or_default();
        status.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
    }

    /// Fails when a program has ended.
    ///
    /// # Errors
    /// With its last words.
    pub fn expect_running(&mut self) -> Result<(), BedError> {
        let started = self.followers.iter_mut().filter_map(|follower| follower.process.as_mut());
        started.into_iter().try_for_each(Process::expect_running)
    }

    /// The end of every program's log.
    pub fn last_words(&self, lines: usize) -> String {
        let words = self.followers.iter().map(|follower| {
            let words = crate::process::tail(&self.log(follower.number), lines);
            format!("--- target {}\n{words}\n", follower.number)
        });
        words.collect()
    }

    /// Adds the programs' last words to a failed wait.
    pub fn explain(&self, error: BedError) -> BedError {
        match error {
            BedError::Timeout { what, waited_ms, .. } => {
                BedError::Timeout { what, waited_ms, hint: format!("\n{}", self.last_words(8)) }
            }
            other => other,
        }
    }

    /// Numbers of all targets.
    pub fn numbers(&self) -> Vec<u8> {
        self.followers.iter().map(|follower| follower.number).collect()
    }

    /// Where target `number` writes its log.
    pub fn log(&self, number: u8) -> PathBuf {
        self.folder.join(format!("target-{number}.log"))
    }

    fn state(&self, number: u8) -> PathBuf {
        self.folder.join(format!("target-{number}.state.json"))
    }

    fn follower(&mut self, number: u8) -> Result<&mut Follower, BedError> {
        let found = self.followers.iter_mut().find(|follower| follower.number == number);
        found.ok_or_else(|| BedError::Answer {
            program: "bed".to_owned(),
            detail: format!("there is no target {number}"),
        })
    }
}

/// In the folder of the cluster's certificates, so that paths are short.
fn configuration(number: u8, name: &str, members: &[u8], delivery: Delivery) -> String {
    configuration_at(target_address(number), "inside", number, name, members, delivery)
}

fn configuration_at(
    own: Ipv4Addr,
    interface: &str,
    number: u8,
    name: &str,
    members: &[u8],
    delivery: Delivery,
) -> String {
    let mut text = format!(
        "[target]
name = \"{name}\"
state = \"target-{number}.state.json\"

[network]
interface = \"{interface}\"
inside = \"{INSIDE}\"
service = [\"{COMMON}\"]
protected = [\"10.77.0.0/16\"]

[health]
tcp = [\"{COMMON}:{HTTP_PORT}\"]
interval_ms = 500

[cluster]
ca = \"ca.pem\"
certificate = \"target-{name}.pem\"
key = \"target-{name}.key\"
"
    );
    for member in members {
        let address = management_address(*member);
        let _ = write!(
            text,
            "\n[[cluster.member]]\nid = {member}\naddress = \"{address}:{NOTICE_PORT}\"\n"
        );
    }
    if delivery == Delivery::Marked {
        let _ = write!(text, "\n[marks]\nrequire = true\naddress = \"{own}\"\n");
    }
    text
}
