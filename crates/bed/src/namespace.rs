//! Network namespaces: made, entered, and removed for certain.

use crate::error::BedError;
use crate::process::{run, run_with_input};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{Builder, JoinHandle};

/// Every namespace of a bed starts with this, then the process id: leftovers can be told apart
/// from everything else on the machine.
const FAMILY: &str = "hf";

/// What every namespace of the bed switches off: IPv6 chatter and reverse path filters.
const SETTINGS: &[&str] = &[
    "net.ipv6.conf.all.disable_ipv6=1",
    "net.ipv6.conf.default.disable_ipv6=1",
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0",
];

/// A name prefix no other bed on this machine uses.
pub fn unique_prefix() -> String {
    static BEDS: AtomicU32 = AtomicU32::new(0);
    let bed = BEDS.fetch_add(1, Ordering::Relaxed);
    format!("{FAMILY}{}x{bed}-", std::process::id())
}

/// A named network namespace, removed on drop together with every process left in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Creates the namespace `name`, IPv6 off and the loopback up.
    ///
    /// # Errors
    /// When the machine does not let us (root is needed) or the name is taken.
    pub fn create(name: &str) -> Result<Self, BedError> {
        run("ip", &["netns", "add", name])?;
        let namespace = Self { name: name.to_owned() };
        let mut setting = vec!["netns", "exec", name, "sysctl", "-q", "-e", "-w"];
        setting.extend(SETTINGS);
        run("ip", &setting)?;
        namespace.links("link set lo up\n")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a batch of `ip` commands, one a line, inside the namespace.
    ///
    /// # Errors
    /// When one of them fails; the rest is not tried.
    pub fn links(&self, batch: &str) -> Result<(), BedError> {
        run_with_input("ip", &["-n", &self.name, "-batch", "-"], batch).map(drop)
    }

    /// Runs a program inside the namespace and yields what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, command_line: &[&str]) -> Result<String, BedError> {
        let mut arguments = vec!["netns", "exec", self.name.as_str()];
        arguments.extend(command_line);
        run("ip", &arguments)
    }

    /// Starts a thread of this process whose sockets live in the namespace.
    ///
    /// # Errors
    /// When the namespace cannot be opened or the thread cannot start. A thread that cannot enter
    /// ends with that error.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<io::Result<T>>, BedError> {
        let handle = File::open(format!("/run/netns/{}", self.name))
            .map_err(|e| BedError::io(format!("open namespace {}", self.name), e))?;
        Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(body())
            })
            .map_err(|e| BedError::io(format!("start thread {name}"), e))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Kills what runs in a namespace and deletes it. Failures are ignored: it may be gone already.
fn remove(name: &str) {
    let processes = run("ip", &["netns", "pids", name]).unwrap_or_default();
    let ids: Vec<&str> = processes.split_whitespace().collect();
    if !ids.is_empty() {
        let mut kill = vec!["-KILL"];
        kill.extend(&ids);
        let _ = run("kill", &kill);
    }
    let _ = run("ip", &["netns", "del", name]);
}

/// Removes every namespace whose name starts with `prefix`, with the processes in it, and tells
/// their names.
///
/// # Errors
/// When the namespaces cannot be listed.
pub fn clean_up(prefix: &str) -> Result<Vec<String>, BedError> {
    let listed = run("ip", &["netns", "list"])?;
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    let ours: Vec<String> = names.filter(|n| n.starts_with(prefix)).map(str::to_owned).collect();
    for name in &ours {
        remove(name);
    }
    Ok(ours)
}

/// Removes the namespaces of beds whose process no longer runs, and tells their names.
///
/// # Errors
/// When the namespaces cannot be listed.
pub fn clean_up_orphans() -> Result<Vec<String>, BedError> {
    let listed = run("ip", &["netns", "list"])?;
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    let orphans: Vec<String> = names.filter(|n| is_orphan(n)).map(str::to_owned).collect();
    for name in &orphans {
        remove(name);
    }
    Ok(orphans)
}

fn is_orphan(name: &str) -> bool {
    let owner = name.strip_prefix(FAMILY).and_then(|rest| rest.split_once('x'));
    owner.is_some_and(|(id, _)| {
        id.parse::<u32>().is_ok() && !std::path::Path::new(&format!("/proc/{id}")).exists()
    })
}

/// Removes everything this process made. For a panic hook: it takes no lock and needs no guard.
pub fn clean_up_own() {
    let _ = clean_up(&format!("{FAMILY}{}x", std::process::id()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_ended_beds_are_orphans() {
        assert!(!is_orphan(&format!("hf{}x0-client", std::process::id())));
        assert!(!is_orphan("somebody-else"));
        assert!(!is_orphan("hfmine"));
        assert!(is_orphan("hf4194305x0-client"), "ids above the kernel's limit never run");
    }

    #[test]
    fn prefixes_of_one_process_differ() {
        assert_ne!(unique_prefix(), unique_prefix());
    }
}
