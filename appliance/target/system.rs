//! What is changed on the host, and changed back: a neighbour, a route, a device, a filter.
//!
//! It is done by `ip` and `nft` with fixed arguments and no shell. Both are on every host that has
//! the kernel features they configure; a change happens once per ownership and takes a few
//! milliseconds; and what the program does can be read in its log and repeated by hand. The
//! netlink crates at hand would bring an asynchronous runtime for four messages.

use super::owner::Notice;
use crate::config::TargetProgram;
use std::fs;
use std::io::{self, Write};
use std::process::{Command, Stdio};

/// The table of the packet filter; nobody else's rules are in it.
const TABLE: &str = "holdfast_target";

/// Packets of flows that must come marked are looked at before connection tracking sees them.
const PRIORITY: &str = "raw";

/// Reverse path filtering that asks only whether the source is known: the kernel's mode 2.
const LOOSE: &str = "2";

/// The host as this program changes it.
#[derive(Debug)]
pub(super) struct Host<'a> {
    config: &'a TargetProgram,
    /// Routes this program made: to be removed at the end.
    own_routes: Vec<String>,
    /// Where the inside address was pinned last.
    pinned: Option<String>,
}

impl<'a> Host<'a> {
    pub(super) const fn new(config: &'a TargetProgram) -> Self {
        Self { config, own_routes: Vec::new(), pinned: None }
    }

    /// Makes the return routes that are missing, readies the tun device and installs the filter.
    pub(super) fn prepare(&mut self) -> io::Result<()> {
        let network = &self.config.network;
        for prefix in &network.protected {
            let prefix = prefix.to_string();
            let found = ip(&["route", "show", "exact", &prefix])?;
            if found.trim().is_empty() {
                self.route(&prefix, &network.interface)?;
                self.own_routes.push(prefix);
            }
        }
        if let Some(marks) = &self.config.marks {
            ip(&["link", "set", &marks.device, "up"])?;
            self.admit(&marks.device)?;
            nft(&self.filter(&marks.device))?;
        }
        if let Some(local) = &self.config.local {
            self.admit(&local.device)?;
        }
        Ok(())
    }

    /// Lets packets of protected sources in through `device`, although they are answered through
    /// another one: reverse path filtering must be loose there, and it refuses everything that comes
    /// in through a device without an address. The service's own is given to it, which is the host's
    /// already.
    fn admit(&self, device: &str) -> io::Result<()> {
        for address in &self.config.network.service {
            ip(&["address", "replace", &format!("{address}/32"), "dev", device])?;
        }
        fs::write(format!("/proc/sys/net/ipv4/conf/{device}/rp_filter"), LOOSE)
    }

    /// Sends replies to the owner from now on, whatever ARP says or does not say.
    pub(super) fn follow(&mut self, notice: &Notice) -> io::Result<()> {
        let local = self.config.local.as_ref().filter(|l| l.member == notice.owner.member.0);
        let device = local.map_or(&self.config.network.interface, |local| &local.device).clone();
        let (inside, mac) = (notice.inside.to_string(), notice.inside_mac.to_string());
        ip(&["neigh", "replace", &inside, "lladdr", &mac, "dev", &device, "nud", "permanent"])?;
        if self.config.local.is_some() {
            for prefix in &self.config.network.protected {
                self.route(&prefix.to_string(), &device)?;
            }
        }
        if let Some(earlier) = self.pinned.replace(device.clone())
            && earlier != device
        {
            self.unpin(&earlier);
        }
        Ok(())
    }

    fn route(&self, prefix: &str, device: &str) -> io::Result<()> {
        let via = self.config.network.inside.to_string();
        // On a device without an address of the inside network the next hop is taken on trust.
        ip(&["route", "replace", prefix, "via", &via, "dev", device, "onlink"]).map(drop)
    }

    fn unpin(&self, device: &str) {
        let inside = self.config.network.inside.to_string();
        best_effort(ip(&["neigh", "del", &inside, "dev", device]));
    }

    /// Puts everything back, so that gratuitous ARP is followed again.
    pub(super) fn restore(&mut self) {
        let network = &self.config.network;
        if self.config.marks.is_some() {
            best_effort(nft(&format!("delete table inet {TABLE}\n")));
        }
        let devices = [Some(&network.interface), self.config.local.as_ref().map(|l| &l.device)];
        for device in devices.into_iter().flatten() {
            self.unpin(device);
        }
        for prefix in std::mem::take(&mut self.own_routes) {
            best_effort(ip(&["route", "del", &prefix]));
        }
        if let Some(local) = &self.config.local {
            for address in &network.service {
                best_effort(ip(&[
                    "address",
                    "del",
                    &format!("{address}/32"),
                    "dev",
                    &local.device,
                ]));
            }
            for prefix in &network.protected {
                best_effort(self.route(&prefix.to_string(), &network.interface));
            }
        }
    }

    /// Protected sources may reach the service through the tun device, and through the own
    /// member's device, and no other way.
    fn filter(&self, tun: &str) -> String {
        let network = &self.config.network;
        let trusted = match &self.config.local {
            Some(local) => format!("{{ \"lo\", \"{tun}\", \"{}\" }}", local.device),
            None => format!("{{ \"lo\", \"{tun}\" }}"),
        };
        let list = |items: Vec<String>| items.join(", ");
        let sources = list(network.protected.iter().map(ToString::to_string).collect());
        let services = list(network.service.iter().map(ToString::to_string).collect());
        format!(
            "table inet {TABLE}\n\
             delete table inet {TABLE}\n\
             table inet {TABLE} {{\n\
             counter clear_dropped {{ }}\n\
             chain prerouting {{\n\
             type filter hook prerouting priority {PRIORITY}; policy accept;\n\
             iifname != {trusted} ip saddr {{ {sources} }} ip daddr {{ {services} }} \
             counter name clear_dropped drop\n\
             }}\n\
             }}\n"
        )
    }
}

/// Packets the filter dropped because they came in clear; 0 without a filter.
pub(super) fn clear_dropped() -> u64 {
    let listed = run("nft", &["-j", "list", "counter", "inet", TABLE, "clear_dropped"], None);
    let value: Option<serde_json::Value> =
        listed.ok().and_then(|text| serde_json::from_str(&text).ok());
    let objects = value.as_ref().and_then(|value| value.pointer("/nftables")?.as_array());
    let packets = objects
        .into_iter()
        .flatten()
        .find_map(|object| object.pointer("/counter/packets").and_then(serde_json::Value::as_u64));
    packets.unwrap_or(0)
}

fn best_effort<T>(outcome: io::Result<T>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "not put back");
    }
}

fn ip(arguments: &[&str]) -> io::Result<String> {
    run("ip", arguments, None)
}

fn nft(script: &str) -> io::Result<String> {
    run("nft", &["-f", "-"], Some(script))
}

/// Runs a program to its end; what it says on failure is the error.
fn run(program: &str, arguments: &[&str], input: Option<&str>) -> io::Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{program}: {error}"));
    let mut child = command.spawn().map_err(named)?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin.write_all(input.as_bytes()).map_err(named)?;
    }
    let output = child.wait_with_output().map_err(named)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program} {}: {}", arguments.join(" "), said.trim())))
}
