//! Network namespaces: made, entered, and removed for certain.

use crate::error::BedError;
use crate::leftovers::remove_namespace;
use crate::process::{run, run_with_input};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::thread::{Builder, JoinHandle};

/// What every namespace of the bed switches off: IPv6 chatter and reverse path filters.
const SETTINGS: &[&str] = &[
    "net.ipv6.conf.all.disable_ipv6=1",
    "net.ipv6.conf.default.disable_ipv6=1",
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0",
];

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
        remove_namespace(&self.name);
    }
}
