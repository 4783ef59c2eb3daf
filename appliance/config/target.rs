//! The configuration of `holdfast-target`.

use super::read::{Problems, Section, flag, list, number, parsed, text};
use super::sections::{self, ADDRESS, path_in, prefix};
use super::{ConfigError, Log, MEMBERS_MAX, Prefix, Problem};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// Where the program's state is shown unless the file says otherwise.
pub const STATE_DEFAULT: &str = "/run/holdfast-target/state.json";

/// The longest name of a network device the kernel takes (IFNAMSIZ without its final zero).
const DEVICE_BYTES_MAX: usize = 15;

/// Services that are tried in one round.
const CHECKS_MAX: usize = 16;

/// Everything `holdfast-target` needs to know.
#[derive(Debug, Clone)]
pub struct TargetProgram {
    /// This target's name, as in the members' configuration.
    pub name: String,
    /// Where the program's state is shown.
    pub state: PathBuf,
    /// The cluster's certificate authority, PEM.
    pub ca: PathBuf,
    /// This target's certificate, PEM.
    pub certificate: PathBuf,
    /// This target's private key, PEM.
    pub key: PathBuf,
    /// Every member and where it listens for targets.
    pub members: Vec<(u64, SocketAddr)>,
    /// The host's side of the inside network.
    pub network: TargetNetwork,
    /// How marked packets are received; `None` when packets come in clear.
    pub marks: Option<MarkReception>,
    /// What is looked at to tell the owner how this host is.
    pub health: HealthChecks,
    /// The member on this host, if there is one.
    pub local: Option<LocalDelivery>,
    /// What is logged and how.
    pub log: Log,
}

/// `[network]`.
#[derive(Debug, Clone)]
pub struct TargetNetwork {
    /// The interface to the inside network.
    pub interface: String,
    /// The inside address: the next hop of replies.
    pub inside: Ipv4Addr,
    /// The addresses served here, the common address among them.
    pub service: Vec<Ipv4Addr>,
    /// The peers' inner networks, whose packets come through the members only.
    pub protected: Vec<Prefix>,
}

/// `[marks]`.
#[derive(Debug, Clone)]
pub struct MarkReception {
    /// This host's own address on the inside network, where marked packets arrive.
    pub address: Ipv4Addr,
    /// The tun device through which they reach the host; made by the program.
    pub device: String,
}

/// `[health]`.
#[derive(Debug, Clone)]
pub struct HealthChecks {
    /// Where a connection must be accepted.
    pub tcp: Vec<SocketAddr>,
    /// Pause between two rounds.
    pub interval_ms: u64,
}

/// `[local]`.
#[derive(Debug, Clone)]
pub struct LocalDelivery {
    /// The member on this host.
    pub member: u64,
    /// The device through which it delivers while it is the owner.
    pub device: String,
}

impl TargetProgram {
    /// Reads and checks a file; paths in it are relative to its folder.
    ///
    /// # Errors
    /// Every problem of the file, or why it cannot be read.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::parse(&text, folder)
            .map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })
    }

    /// Checks the text of a file that lies in `folder`.
    ///
    /// # Errors
    /// Every problem of the text, in the order of their places.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Vec<Problem>> {
        let problems = Problems::of(text);
        let table = match DeTable::parse(text) {
            Ok(table) => table,
            Err(error) => {
                problems.add(error.span().map_or(0, |span| span.start), error.message(), "");
                return Err(problems.into_sorted());
            }
        };
        let config = whole(Section::whole(table.get_ref(), &problems), folder);
        let problems = problems.into_sorted();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }
}

fn whole(file: Section<'_, '_>, folder: &Path) -> Option<TargetProgram> {
    let target = file.required_table("target").and_then(|s| {
        let name = s.required("name", text);
        let state = s.or("state", PathBuf::from(STATE_DEFAULT), path_in(folder)).value;
        s.finish();
        Some((name?.value, state))
    });
    let cluster = file.required_table("cluster").and_then(|s| cluster(s, folder));
    let network = file.required_table("network").and_then(network);
    let marks = file.table("marks").and_then(marks);
    let health = file.table("health").map_or_else(HealthChecks::default, health);
    let local = file.table("local").and_then(local);
    let log = file.table("log").map_or_else(Log::default, sections::log);
    file.finish();
    let (name, state) = target?;
    let (ca, certificate, key, members) = cluster?;
    let network = network?;
    Some(TargetProgram {
        name,
        state,
        ca,
        certificate,
        key,
        members,
        network,
        marks: marks.flatten(),
        health,
        local,
        log,
    })
}

type ClusterPart = (PathBuf, PathBuf, PathBuf, Vec<(u64, SocketAddr)>);

fn cluster(s: Section<'_, '_>, folder: &Path) -> Option<ClusterPart> {
    let ca = s.required("ca", path_in(folder));
    let certificate = s.required("certificate", path_in(folder));
    let key = s.required("key", path_in(folder));
    let offset = s.offset();
    let mut members: Vec<(u64, SocketAddr)> = Vec::new();
    let problems = s.problems();
    for section in s.tables("member", MEMBERS_MAX) {
        let at = section.offset();
        let id = section.required("id", number(1, u64::from(u32::MAX)));
        let form = "an address with a port such as 10.0.0.1:7001";
        let address = section.required("address", parsed::<SocketAddr>(form));
        section.finish();
        let (id, address) = (id?.value, address?.value);
        if members.iter().any(|(known, other)| *known == id || *other == address) {
            problems.add(at, format!("member {id} or its address is given twice"), "");
        }
        members.push((id, address));
    }
    s.finish();
    if members.is_empty() {
        let remedy = "add every member as [[cluster.member]] with its targets.listen";
        problems.add(offset, "no [[cluster.member]]: nobody to hear from", remedy);
    }
    Some((ca?.value, certificate?.value, key?.value, members))
}

fn network(s: Section<'_, '_>) -> Option<TargetNetwork> {
    let interface = s.required("interface", device);
    let inside = s.required("inside", parsed::<Ipv4Addr>(ADDRESS));
    let service = s.required("service", list(parsed::<Ipv4Addr>(ADDRESS)));
    let protected = s.required("protected", list(prefix));
    for (empty, key) in [
        (service.as_ref().is_some_and(|at| at.value.is_empty()), "service"),
        (protected.as_ref().is_some_and(|at| at.value.is_empty()), "protected"),
    ] {
        if empty {
            s.problems().add(s.offset(), format!("{key} is empty"), "");
        }
    }
    s.finish();
    Some(TargetNetwork {
        interface: interface?.value,
        inside: inside?.value,
        service: service?.value,
        protected: protected?.value,
    })
}

/// `None` inside when the section says that nothing is required.
fn marks(s: Section<'_, '_>) -> Option<Option<MarkReception>> {
    let require = s.required("require", flag);
    let address = s.required("address", parsed::<Ipv4Addr>(ADDRESS));
    let device = s.or("device", "holdfast0".to_owned(), device).value;
    s.finish();
    let address = address?.value;
    Some(require?.value.then_some(MarkReception { address, device }))
}

impl Default for HealthChecks {
    fn default() -> Self {
        Self { tcp: Vec::new(), interval_ms: 1_000 }
    }
}

fn health(s: Section<'_, '_>) -> HealthChecks {
    let default = HealthChecks::default();
    let form = "an address with a port such as 198.51.100.100:80";
    let tcp = s.or("tcp", default.tcp, list(parsed::<SocketAddr>(form)));
    let interval_ms = s.or("interval_ms", default.interval_ms, number(100, 60_000)).value;
    if tcp.value.len() > CHECKS_MAX {
        s.problems().add(tcp.offset, format!("more than {CHECKS_MAX} checks"), "");
    }
    s.finish();
    HealthChecks { tcp: tcp.value, interval_ms }
}

fn local(s: Section<'_, '_>) -> Option<LocalDelivery> {
    let member = s.required("member", number(1, u64::from(u32::MAX)));
    let device = s.required("device", device);
    s.finish();
    Some(LocalDelivery { member: member?.value, device: device?.value })
}

/// A network device's name that needs no quoting anywhere.
pub(super) fn device(value: &DeValue<'_>) -> Result<String, String> {
    let name = text(value)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    if starts_well && name.len() <= DEVICE_BYTES_MAX && name.bytes().all(plain) {
        Ok(name)
    } else {
        Err(format!("{name:?} is not a device such as \"eth1\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("target-example.toml");

    fn problems_after(from: &str, to: &str) -> Vec<String> {
        assert!(EXAMPLE.contains(from), "the example does not contain {from:?}");
        let text = EXAMPLE.replacen(from, to, 1);
        match TargetProgram::parse(&text, Path::new("/etc/holdfast")) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn the_example_is_sound() {
        let config = TargetProgram::parse(EXAMPLE, Path::new("/etc/holdfast")).unwrap();
        assert_eq!((config.name.as_str(), config.members.len()), ("web1", 3));
        assert_eq!(config.certificate, Path::new("/etc/holdfast/target-web1.pem"));
        assert_eq!(config.marks.unwrap().device, "holdfast0");
        assert_eq!(config.health.tcp.len(), 1);
    }

    #[test]
    fn what_may_be_left_out_may_be_left_out() {
        let text: Vec<&str> = EXAMPLE.lines().filter(|line| !line.contains("# default")).collect();
        let config = TargetProgram::parse(&text.join("\n"), Path::new("/")).unwrap();
        assert_eq!(config.state, Path::new(STATE_DEFAULT));
        assert_eq!(config.health.interval_ms, 1_000);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (from, to, expected) in [
            ("name = \"web1\"", "nam = \"web1\"", "did you mean \"name\"?"),
            ("interface = \"eth1\"", "interface = \"eth1; rm\"", "is not a device"),
            ("interface = \"eth1\"", "interface = \"-eth1\"", "is not a device"),
            ("id = 2", "id = 1", "member 1 or its address is given twice"),
            ("require = true", "require = 1", "must be true or false"),
            ("protected = [\"10.77.0.0/16\"]", "protected = []", "protected is empty"),
            ("tcp = [\"198.51.100.100:80\"]", "tcp = [\"198.51.100.100\"]", "with a port"),
        ] {
            let problems = problems_after(from, to);
            assert!(problems.iter().any(|p| p.contains(expected)), "{expected}: {problems:#?}");
        }
        assert_eq!(problems_after("require = true", "require = false"), Vec::<String>::new());
    }
}
