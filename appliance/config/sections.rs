//! The sections of the file, each read into its type.

use super::read::{At, Problems, Section, flag, list, number, parsed, text, word};
use super::target::device as interface_name;
use super::{
    Addresses, CONNECTIONS_MAX, Cluster, Config, Connection, Delivery, Dpdk, Hugepages, Idle, Ike,
    Local, Log, LogFormat, MEMBERS_MAX, Member, Peer, Port, Prefix, Problem, QUEUES_MAX, Role,
    TARGETS_MAX, Takeover, Target, Timing, check,
};
use holdfast_crypto::{Level, SecretBytes};
use holdfast_datapath::{DontFragment, TunnelRules};
use holdfast_dpdk_wrap::Device;
use holdfast_ike::{EsnPolicy, EspProposal, Identity, IkeProposal, TakeoverPolicy};
use holdfast_member::Takeback;
use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use toml::de::{DeTable, DeValue};

/// Where the operator's socket is unless the file says otherwise.
pub const SOCKET_DEFAULT: &str = "/run/holdfast/holdfast.sock";

pub(super) const ADDRESS: &str = "an IPv4 address such as 192.0.2.1";
/// Longer than any sensible lifetime; keeps sums far from overflow.
const LIFETIME_S_MAX: u64 = 30 * 24 * 3_600;
/// A day: whoever waits longer wants never.
const TAKEBACK_S_MAX: u64 = 24 * 3_600;
/// Longest Unix socket path the system takes.
const SOCKET_BYTES_MAX: usize = 107;

/// Places of values that checks across sections point at.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) member_id: usize,
    pub(super) members: Vec<usize>,
    pub(super) addresses: usize,
    pub(super) gateway: usize,
    pub(super) inside_device: usize,
    pub(super) inside_queues: usize,
    pub(super) cpus: usize,
    pub(super) connections: Vec<usize>,
    pub(super) targets: Vec<usize>,
    pub(super) notice: usize,
    pub(super) local: usize,
}

/// Reads the whole text.
pub(super) fn parse(text: &str, folder: &Path) -> Result<Config, Vec<Problem>> {
    let problems = Problems::of(text);
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            // Only the message, never the line itself: it may hold a key.
            problems.add(error.span().map_or(0, |span| span.start), error.message(), "");
            return Err(problems.into_sorted());
        }
    };
    let mut places = Places::default();
    let config = whole(Section::whole(table.get_ref(), &problems), folder, &mut places);
    if let Some(config) = &config {
        check::across_sections(config, &places, &problems);
    }
    let problems = problems.into_sorted();
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(problems),
    }
}

fn whole(file: Section<'_, '_>, folder: &Path, places: &mut Places) -> Option<Config> {
    let member = file.required_table("member").and_then(|s| member(s, folder, places));
    let cluster = file.required_table("cluster").and_then(|s| cluster(s, folder, places));
    if member.as_ref().is_some_and(|member| member.role == Role::Witness) {
        return witness(file, member?, cluster);
    }
    let addresses = file.required_table("addresses").and_then(|s| addresses(s, places));
    let outside = file.required_table("outside").and_then(|s| port(s).map(|(port, ..)| port));
    let inside = file.required_table("inside").and_then(port).map(|(port, device, queues)| {
        (places.inside_device, places.inside_queues) = (device, queues);
        port
    });
    let takeover = file.table("takeover").map_or_else(Takeover::default, takeover);
    let local = file.table("local").map(|s| {
        places.local = s.offset();
        local(s)
    });
    let dpdk = file.table("dpdk").map_or_else(Dpdk::default, |s| dpdk(s, places));
    let tunnel = file.table("tunnel").map_or_else(TunnelRules::default, tunnel);
    let local_id = file.table("ike").and_then(ike);
    let service = addresses.as_ref().map(|a| a.service.clone()).unwrap_or_default();
    let connections = file
        .tables("connection", CONNECTIONS_MAX)
        .into_iter()
        .map(|section| {
            places.connections.push(section.offset());
            connection(section, folder, &service)
        })
        .collect::<Option<Vec<_>>>();
    let targets = file
        .tables("target", TARGETS_MAX)
        .into_iter()
        .map(|section| {
            places.targets.push(section.offset());
            target(section)
        })
        .collect::<Option<Vec<_>>>();
    let notice_address = file.table("targets").and_then(|s| {
        places.notice = s.offset();
        notice_address(s)
    });
    let log = file.table("log").map_or_else(Log::default, log);
    file.finish();
    let addresses = addresses?;
    let local_id = local_id.unwrap_or(Identity::Ipv4(addresses.common));
    Some(Config {
        member: member?,
        cluster: cluster?,
        takeover,
        addresses,
        outside: outside?,
        inside: inside?,
        local: local.flatten(),
        dpdk,
        ike: Ike { local_id },
        tunnel,
        connections: connections?,
        targets: targets?,
        notice_address,
        log,
    })
}

/// The sections of a member that carries traffic.
const TRAFFIC: [&str; 11] = [
    "takeover",
    "addresses",
    "outside",
    "inside",
    "local",
    "dpdk",
    "ike",
    "tunnel",
    "connection",
    "target",
    "targets",
];

/// A witness owns nothing, so nothing but the cluster means anything to it.
fn witness(file: Section<'_, '_>, member: Member, cluster: Option<Cluster>) -> Option<Config> {
    for key in TRAFFIC {
        if let Some(offset) = file.place_of(key) {
            let what = format!("a witness has no section [{key}]");
            file.problems().add(offset, what, "it owns nothing; leave the section out");
        }
    }
    let log = file.table("log").map_or_else(Log::default, log);
    file.finish();
    let nothing = Ipv4Addr::UNSPECIFIED;
    let port = Port { device: String::new(), queues: 0 };
    Some(Config {
        member,
        cluster: cluster?,
        takeover: Takeover::default(),
        addresses: Addresses {
            common: nothing,
            inside: nothing,
            service: Vec::new(),
            outside_prefix: Prefix::host(nothing),
            outside_gateway: None,
            inside_prefix: Prefix::host(nothing),
        },
        outside: port.clone(),
        inside: port,
        dpdk: Dpdk::default(),
        ike: Ike { local_id: Identity::Ipv4(nothing) },
        tunnel: TunnelRules::default(),
        connections: Vec::new(),
        targets: Vec::new(),
        notice_address: None,
        local: None,
        log,
    })
}

const ROLES: &[(&str, Role)] = &[("full", Role::Full), ("witness", Role::Witness)];

fn member(s: Section<'_, '_>, folder: &Path, places: &mut Places) -> Option<Member> {
    let id = s.required("id", number(1, u64::from(u32::MAX)));
    let role = s.or("role", Role::Full, word(ROLES)).value;
    let data_dir = s.required("data_dir", path_in(folder));
    let socket = s.or("socket", PathBuf::from(SOCKET_DEFAULT), |value| {
        let path = path_in(folder)(value)?;
        let length = path.as_os_str().len();
        if length > SOCKET_BYTES_MAX {
            return Err(format!("{length} bytes; a socket's path has at most {SOCKET_BYTES_MAX}"));
        }
        Ok(path)
    });
    s.finish();
    let id = id?;
    places.member_id = id.offset;
    Some(Member { id: id.value, role, data_dir: data_dir?.value, socket: socket.value })
}

fn cluster(s: Section<'_, '_>, folder: &Path, places: &mut Places) -> Option<Cluster> {
    const TIMINGS: &[(&str, Timing)] =
        &[("default", Timing::Default), ("relaxed", Timing::Relaxed), ("brisk", Timing::Brisk)];
    let timing = s.or("timing", Timing::Default, word(TIMINGS));
    let join = s.or("join", false, flag).value;
    let ca = s.required("ca", path_in(folder));
    let certificate = s.required("certificate", path_in(folder));
    let key = s.required("key", path_in(folder));
    let mut members = Vec::new();
    for section in s.tables("member", MEMBERS_MAX) {
        places.members.push(section.offset());
        let id = section.required("id", number(1, u64::from(u32::MAX)));
        let form = "an address with a port such as 10.0.0.1:7000";
        let address = section.required("address", parsed::<SocketAddr>(form));
        let role = section.or("role", Role::Full, word(ROLES)).value;
        let preference = section.or("preference", 0, number(0, u64::from(u8::MAX))).value;
        section.finish();
        members.push(Peer { id: id?.value, address: address?.value, role, preference });
    }
    s.finish();
    Some(Cluster {
        timing: timing.value,
        join,
        members,
        ca: ca?.value,
        certificate: certificate?.value,
        key: key?.value,
    })
}

fn takeover(s: Section<'_, '_>) -> Takeover {
    const TAKEBACKS: &[(&str, Takeback)] =
        &[("never", Takeback::Never), ("idle", Takeback::Idle), ("now", Takeback::Now)];
    let default = Takeover::default();
    let takeback = s.or("takeback", default.takeback, word(TAKEBACKS)).value;
    let hold_down_s = s.or("hold_down_s", default.hold_down_s, number(1, TAKEBACK_S_MAX)).value;
    let idle_s = s.or("idle_s", default.idle_s, number(1, TAKEBACK_S_MAX)).value;
    s.finish();
    Takeover { takeback, hold_down_s, idle_s }
}

fn addresses(s: Section<'_, '_>, places: &mut Places) -> Option<Addresses> {
    places.addresses = s.offset();
    let common = s.required("common", parsed::<Ipv4Addr>(ADDRESS));
    let inside = s.required("inside", parsed::<Ipv4Addr>(ADDRESS));
    let service = s.optional("service", list(parsed::<Ipv4Addr>(ADDRESS)));
    let outside_prefix = s.required("outside_prefix", prefix);
    let outside_gateway = s.optional("outside_gateway", parsed::<Ipv4Addr>(ADDRESS));
    let inside_prefix = s.required("inside_prefix", prefix);
    s.finish();
    places.gateway = outside_gateway.as_ref().map_or(places.addresses, |at| at.offset);
    let common = common?.value;
    Some(Addresses {
        common,
        inside: inside?.value,
        service: service.map_or_else(|| vec![common], |at| at.value),
        outside_prefix: outside_prefix?.value,
        outside_gateway: outside_gateway.map(|at| at.value),
        inside_prefix: inside_prefix?.value,
    })
}

/// A port, and where its device and its queues stand.
fn port(s: Section<'_, '_>) -> Option<(Port, usize, usize)> {
    let device = s.required("device", |value| {
        let _known: Device = explained(value)?;
        text(value)
    });
    let queues = s.or("queues", 1, number(1, u64::from(QUEUES_MAX)));
    s.finish();
    let device = device?;
    let places = (device.offset, queues.offset);
    Some((Port { device: device.value, queues: queues.value }, places.0, places.1))
}

/// The way to the target on this host.
fn local(s: Section<'_, '_>) -> Option<Local> {
    let device = s.required("device", |value| {
        let _known: Device = explained(value)?;
        text(value)
    });
    let interface = s.required("interface", interface_name);
    s.finish();
    Some(Local { device: device?.value, interface: interface?.value })
}

impl Default for Dpdk {
    fn default() -> Self {
        let (hugepages, idle) = (Hugepages::Auto, Idle::Adaptive);
        Self { hugepages, memory_mb: 64, cpus: Vec::new(), idle, aead: None }
    }
}

fn dpdk(s: Section<'_, '_>, places: &mut Places) -> Dpdk {
    const HUGEPAGES: &[(&str, Hugepages)] = &[("auto", Hugepages::Auto), ("off", Hugepages::Off)];
    const IDLES: &[(&str, Idle)] = &[("busy", Idle::Busy), ("adaptive", Idle::Adaptive)];
    const AEADS: &[(&str, Option<Level>)] = &[
        ("auto", None),
        (Level::Vaes512.name(), Some(Level::Vaes512)),
        (Level::Portable.name(), Some(Level::Portable)),
    ];
    let default = Dpdk::default();
    let hugepages = s.or("hugepages", default.hugepages, word(HUGEPAGES)).value;
    let memory_mb = s.or("memory_mb", default.memory_mb, number(32, 1 << 20)).value;
    let cpus = s.or("cpus", default.cpus, list(number(0, 1_023)));
    let idle = s.or("idle", default.idle, word(IDLES)).value;
    let aead = s.or("aead", default.aead, word(AEADS)).value;
    s.finish();
    places.cpus = cpus.offset;
    Dpdk { hugepages, memory_mb, cpus: cpus.value, idle, aead }
}

fn tunnel(s: Section<'_, '_>) -> TunnelRules {
    const BANS: &[(&str, DontFragment)] =
        &[("copy", DontFragment::Copy), ("set", DontFragment::Set), ("clear", DontFragment::Clear)];
    let default = TunnelRules::default();
    let dscp = s.or("dscp", default.dscp, code_point).value;
    let ecn = s.or("ecn", default.ecn, flag).value;
    let dont_fragment = s.or("dont_fragment", default.dont_fragment, word(BANS)).value;
    let clamp = s.or("clamp_segment_size", default.clamp_segment_size, flag).value;
    s.finish();
    TunnelRules { dscp, ecn, dont_fragment, clamp_segment_size: clamp }
}

/// A DSCP, or `None` for the inner packet's.
fn code_point(value: &DeValue<'_>) -> Result<Option<u8>, String> {
    if value.as_str() == Some("copy") {
        return Ok(None);
    }
    number(0, 63)(value).map(Some).map_err(|form| format!("{form}, or \"copy\""))
}

fn ike(s: Section<'_, '_>) -> Option<Identity> {
    let local_id = s.optional("local_id", identity);
    s.finish();
    local_id.map(|at| at.value)
}

fn connection(s: Section<'_, '_>, folder: &Path, service: &[Ipv4Addr]) -> Option<Connection> {
    const POLICIES: &[(&str, TakeoverPolicy)] = &[
        ("renew", TakeoverPolicy::Renew),
        ("sync", TakeoverPolicy::Sync),
        ("strict", TakeoverPolicy::Strict),
        ("reestablish", TakeoverPolicy::Reestablish),
    ];
    const ESNS: &[(&str, EsnPolicy)] = &[
        ("never", EsnPolicy::Never),
        ("allow", EsnPolicy::Allow),
        ("require", EsnPolicy::Require),
    ];
    let name = s.required("name", text);
    let remote_id = s.optional("remote_id", identity);
    let psk = key(&s, folder);
    let local_ts = s.optional("local_ts", list(prefix));
    let remote_ts = s.required("remote_ts", list(prefix));
    let ike_proposals = s.or("ike_proposals", IkeProposal::defaults(), list(explained)).value;
    let esp_proposals = s.or("esp_proposals", EspProposal::defaults(), list(explained)).value;
    let esn = s.or("esn", EsnPolicy::Allow, word(ESNS)).value;
    let child_lifetime_s = s.or("child_lifetime_s", 3_600, number(60, LIFETIME_S_MAX)).value;
    let ike_lifetime_s = s.or("ike_lifetime_s", 14_400, number(60, LIFETIME_S_MAX)).value;
    let liveness_s = s.or("liveness_s", 30, number(0, 86_400)).value;
    let replay_window_packets = s.or("replay_window_packets", 1_024, number(32, 8_192)).value;
    let policy = s.or("policy", TakeoverPolicy::Renew, word(POLICIES)).value;
    s.finish();
    let host = |address: &Ipv4Addr| Prefix::host(*address);
    let local_ts = local_ts.map_or_else(|| service.iter().map(host).collect(), |at| at.value);
    Some(Connection {
        name: name?.value,
        remote_id: remote_id.map(|at| at.value),
        psk: psk?,
        local_ts,
        remote_ts: remote_ts?.value,
        ike_proposals,
        esp_proposals,
        esn,
        child_lifetime_s,
        ike_lifetime_s,
        liveness_s: (liveness_s != 0).then_some(liveness_s),
        replay_window_packets,
        policy,
    })
}

/// The pre-shared key, from the file itself or from another one.
fn key(s: &Section<'_, '_>, folder: &Path) -> Option<SecretBytes> {
    let bytes = |text: String| SecretBytes::new(text.into_bytes());
    let direct: Option<At<_>> = s.optional("psk", |value| text(value).map(bytes));
    let from_file = s.optional("psk_file", |value| key_file(&path_in(folder)(value)?));
    match (s.has("psk"), s.has("psk_file")) {
        (true, false) => direct.map(|at| at.value),
        (false, true) => from_file.map(|at| at.value),
        (both, _) => {
            let what = if both { "both psk and psk_file are given" } else { "no key is given" };
            s.problems().add(s.offset(), what, "give either psk or psk_file");
            None
        }
    }
}

fn key_file(path: &Path) -> Result<SecretBytes, String> {
    let fault = |error: std::io::Error| format!("{}: {error}", path.display());
    let mode = std::fs::metadata(path).map_err(fault)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!("{0} is open to others; chmod 600 {0}", path.display()));
    }
    let mut bytes = std::fs::read(path).map_err(fault)?;
    while bytes.last().is_some_and(u8::is_ascii_whitespace) {
        bytes.pop();
    }
    if bytes.is_empty() {
        return Err(format!("{} is empty", path.display()));
    }
    Ok(SecretBytes::new(bytes))
}

fn target(s: Section<'_, '_>) -> Option<Target> {
    let name = s.required("name", text);
    let address = s.required("address", parsed::<Ipv4Addr>(ADDRESS));
    const DELIVERIES: &[(&str, Delivery)] =
        &[("clear", Delivery::Clear), ("marked", Delivery::Marked)];
    let weight = s.or("weight", 1, number(1, 100)).value;
    let delivery = s.or("delivery", Delivery::Clear, word(DELIVERIES)).value;
    let weight_by_load = s.or("weight_by_load", false, flag).value;
    let member = s.optional("member", number(1, u64::from(u32::MAX))).map(|at| at.value);
    s.finish();
    let (name, address) = (name?.value, address?.value);
    Some(Target { name, address, weight, delivery, weight_by_load, member })
}

fn notice_address(s: Section<'_, '_>) -> Option<SocketAddr> {
    let form = "an address with a port such as 10.0.0.1:7001";
    let listen = s.required("listen", parsed::<SocketAddr>(form));
    s.finish();
    listen.map(|at| at.value)
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

pub(super) fn log(s: Section<'_, '_>) -> Log {
    const FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
    let default = Log::default();
    let level = s.or("level", default.level, |value| {
        let filter = text(value)?;
        let understood = tracing_subscriber::EnvFilter::try_new(&filter);
        understood.map_err(|_| format!("{filter:?} is not a level such as \"info\""))?;
        Ok(filter)
    });
    let format = s.or("format", default.format, word(FORMATS)).value;
    s.finish();
    Log { level: level.value, format }
}

fn identity(value: &DeValue<'_>) -> Result<Identity, String> {
    explained(value)
}

/// Whatever can be parsed from a text and says itself what is wrong with it.
fn explained<T: FromStr<Err: Display>>(value: &DeValue<'_>) -> Result<T, String> {
    text(value)?.parse().map_err(|error: T::Err| error.to_string())
}

pub(super) fn prefix(value: &DeValue<'_>) -> Result<Prefix, String> {
    explained(value)
}

pub(super) fn path_in(folder: &Path) -> impl Fn(&DeValue<'_>) -> Result<PathBuf, String> {
    move |value| text(value).map(|text| folder.join(text))
}
