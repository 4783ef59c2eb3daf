//! Addresses, wires and namespaces of the bed.
//!
//! Documentation networks (RFC 5737) throughout, so a leak can never reach a real host.

use crate::error::BedError;
use crate::namespace::Namespace;
use std::fmt::Write;
use std::net::Ipv4Addr;

/// The common address: IKE and ESP peer of the client, and the service inside the tunnel.
pub const COMMON: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);
/// The client's address on the outside wire.
pub const CLIENT_OUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// The client's address inside the tunnel.
pub const CLIENT_INNER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
/// The address the targets send their answers through.
pub const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
/// Port of the web servers.
pub const HTTP_PORT: u16 = 80;
/// Port of the UDP echo servers.
pub const ECHO_PORT: u16 = 7;
/// Port on which members listen for each other.
pub const RAFT_PORT: u16 = 7411;
/// Port on which members listen for targets.
pub const NOTICE_PORT: u16 = 7412;

/// Address of target `number` (from 1) on the inside wire.
pub const fn target_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 10 + number)
}

/// Address of member `number` (from 1) on the management wire.
pub const fn management_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, number)
}

/// Address of target `number` (from 1) on the management wire.
pub const fn target_management_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, 100 + number)
}

/// MAC address of a member's port on the outside wire.
pub const fn member_outside_mac(number: u8) -> [u8; 6] {
    [0x02, 0x68, 0x66, 0x00, number, 0x01]
}

/// MAC address of a member's port on the inside wire.
pub const fn member_inside_mac(number: u8) -> [u8; 6] {
    [0x02, 0x68, 0x66, 0x00, number, 0x02]
}

/// Whether an address is that of some member's port.
pub const fn is_member_mac(mac: &[u8; 6]) -> bool {
    matches!(mac, [0x02, 0x68, 0x66, 0x00, _, 0x01 | 0x02])
}

/// MAC address of a target.
pub const fn target_mac(number: u8) -> [u8; 6] {
    [0x02, 0x68, 0x66, 0x01, number, 0x02]
}

/// Address of the target on the host of member `number` (from 1) on the inside wire.
pub const fn member_target_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 20 + number)
}

/// The interface of the target on a member's host towards the inside wire; its far end is
/// `m2-target` for member 2.
pub const MEMBER_TARGET_DEVICE: &str = "target";
/// The pair of devices between a member and the target on its host: the host's end, the member's.
pub const LOCAL_DEVICES: [&str; 2] = ["hflocal0", "hflocal1"];

/// MAC address of the client.
pub const CLIENT_MAC: [u8; 6] = [0x02, 0x68, 0x66, 0x02, 0x01, 0x01];

/// How many of each there are.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Members of the cluster.
    pub members: u8,
    /// Target hosts.
    pub targets: u8,
}

/// All namespaces with their wires, in place. Dropping it removes them.
///
/// ```text
///   client            m1   m2   m3                t1   t2   t3
///     | client-out     | m1-out ...                 | t1-in ...     (ends in `wires`)
///  ===+================+====+====+=== outside       |
///                      | m1-in                      |
///                   ===+====+====+==================+====+===== inside
///                      | m1-mgmt                    | t1-mgmt ...
///                   ===+====+====+==================+====+===== management
/// ```
#[derive(Debug)]
pub struct Topology {
    /// The bridges and the far end of every link: where captures are taken.
    pub wires: Namespace,
    /// The IPsec client.
    pub client: Namespace,
    /// The members, in order from number 1.
    pub members: Vec<Namespace>,
    /// The targets, in order from number 1.
    pub targets: Vec<Namespace>,
}

impl Topology {
    /// Builds everything under `prefix`.
    ///
    /// # Errors
    /// When the machine refuses; what was made so far is removed again.
    pub fn build(prefix: &str, size: Size) -> Result<Self, BedError> {
        let topology = Self {
            wires: Namespace::create(&format!("{prefix}wires"))?,
            client: Namespace::create(&format!("{prefix}client"))?,
            members: (1..=size.members)
                .map(|n| Namespace::create(&format!("{prefix}m{n}")))
                .collect::<Result<_, _>>()?,
            targets: (1..=size.targets)
                .map(|n| Namespace::create(&format!("{prefix}t{n}")))
                .collect::<Result<_, _>>()?,
        };
        topology.wires.links(&bridges())?;
        topology.connect_client()?;
        for number in 1..=size.members {
            topology.connect_member(number)?;
        }
        for number in 1..=size.targets {
            topology.connect_target(number)?;
        }
        Ok(topology)
    }

    /// The namespace of member `number` (from 1).
    ///
    /// # Errors
    /// When there is no such member.
    pub fn member(&self, number: u8) -> Result<&Namespace, BedError> {
        nth(&self.members, number, "member")
    }

    /// The namespace of target `number` (from 1).
    ///
    /// # Errors
    /// When there is no such target.
    pub fn target(&self, number: u8) -> Result<&Namespace, BedError> {
        nth(&self.targets, number, "target")
    }

    /// Connects a further host, `name`, with `address` to the outside wire. Its link ends as
    /// `name-out` among the wires.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn join_outside(
        &self,
        name: &str,
        address: Ipv4Addr,
        mac: [u8; 6],
    ) -> Result<Namespace, BedError> {
        self.join("outside", &format!("{name}-out"), name, address, mac)
    }

    /// As [`Self::join_outside`], on the inside wire. Its link ends as `name-in`.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn join_inside(
        &self,
        name: &str,
        address: Ipv4Addr,
        mac: [u8; 6],
    ) -> Result<Namespace, BedError> {
        self.join("inside", &format!("{name}-in"), name, address, mac)
    }

    fn join(
        &self,
        wire: &str,
        end: &str,
        name: &str,
        address: Ipv4Addr,
        mac: [u8; 6],
    ) -> Result<Namespace, BedError> {
        let wires = self.wires.name();
        let prefix = wires.strip_suffix("wires").unwrap_or(wires);
        let namespace = Namespace::create(&format!("{prefix}{name}"))?;
        let mut batch = self.link(wire, mac, end);
        let _ = writeln!(batch, "addr add {address}/24 dev {wire}");
        namespace.links(&batch)?;
        self.plug(end, wire)?;
        offloads_off(&namespace, wire)?;
        Ok(namespace)
    }

    fn connect_client(&self) -> Result<(), BedError> {
        let mut batch = self.link("outside", CLIENT_MAC, "client-out");
        let _ = writeln!(batch, "addr add {CLIENT_OUTER}/24 dev outside");
        // The tunnel's source address: strongSwan finds it by the traffic selector.
        let _ = writeln!(batch, "addr add {CLIENT_INNER}/32 dev lo");
        self.client.links(&batch)?;
        self.plug("client-out", "outside")?;
        offloads_off(&self.client, "outside")
    }

    /// Members get ports without addresses: whatever speaks there is Holdfast, never the kernel.
    fn connect_member(&self, number: u8) -> Result<(), BedError> {
        let namespace = self.member(number)?;
        let ends = ["out", "in", "mgmt"].map(|end| format!("m{number}-{end}"));
        let [out, inner, mgmt] = &ends;
        let mut batch = self.link("outside", member_outside_mac(number), out);
        batch += &self.link("inside", member_inside_mac(number), inner);
        batch += &self.link("mgmt", [0x02, 0x68, 0x66, 0x00, number, 0x03], mgmt);
        let _ = writeln!(batch, "addr add {}/24 dev mgmt", management_address(number));
        namespace.links(&batch)?;
        for port in ["outside", "inside"] {
            queue_like_a_card(namespace, port)?;
        }
        self.plug(out, "outside")?;
        self.plug(inner, "inside")?;
        self.plug(mgmt, "management")
    }

    /// Targets hold the common address on their loopback, never announce it, and send what goes
    /// to the clients' inner network through the inside address.
    fn connect_target(&self, number: u8) -> Result<(), BedError> {
        let namespace = self.target(number)?;
        let end = format!("t{number}-in");
        let mgmt = format!("t{number}-mgmt");
        let mut batch = self.link("inside", target_mac(number), &end);
        batch += &self.link("mgmt", [0x02, 0x68, 0x66, 0x01, number, 0x03], &mgmt);
        let _ = writeln!(batch, "addr add {}/24 dev mgmt", target_management_address(number));
        let _ = writeln!(batch, "addr add {}/24 dev inside", target_address(number));
        let _ = writeln!(batch, "addr add {COMMON}/32 dev lo");
        let _ = writeln!(batch, "route add 10.77.0.0/16 via {INSIDE}");
        namespace.run(&[
            "sysctl",
            "-q",
            "-w",
            "net.ipv4.conf.all.arp_ignore=1",
            "net.ipv4.conf.all.arp_announce=2",
        ])?;
        namespace.links(&batch)?;
        self.plug(&end, "inside")?;
        self.plug(&mgmt, "management")?;
        offloads_off(namespace, "inside")
    }

    /// Makes the host of member `number` one that can be a target as well: an interface of its own to
    /// the inside wire, the common address, and the way between it and the member.
    ///
    /// The member's ports are seen by the kernel, too, as real network cards would not be: it must
    /// not answer for the common address there.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn add_member_target(&self, number: u8) -> Result<(), BedError> {
        let namespace = self.member(number)?;
        namespace.run(&[
            "sysctl",
            "-q",
            "-w",
            "net.ipv4.conf.all.arp_ignore=1",
            "net.ipv4.conf.all.arp_announce=2",
            "net.ipv4.conf.outside.arp_ignore=8",
            "net.ipv4.conf.inside.arp_ignore=8",
        ])?;
        namespace.run(&["nft", QUIET_PORTS])?;
        let end = format!("m{number}-target");
        let [host, member] = LOCAL_DEVICES;
        let mac = [0x02, 0x68, 0x66, 0x00, number, 0x04];
        let mut batch = self.link(MEMBER_TARGET_DEVICE, mac, &end);
        let address = member_target_address(number);
        let _ = writeln!(batch, "addr add {address}/24 dev {MEMBER_TARGET_DEVICE}");
        let _ = writeln!(batch, "link add {host} type veth peer name {member}");
        let _ = writeln!(batch, "link set {host} up\nlink set {member} up");
        let _ = writeln!(batch, "addr add {COMMON}/32 dev lo");
        let _ = writeln!(batch, "route add 10.77.0.0/16 via {INSIDE} dev {MEMBER_TARGET_DEVICE}");
        namespace.links(&batch)?;
        self.plug(&end, "inside")?;
        offloads_off(namespace, MEMBER_TARGET_DEVICE)?;
        offloads_off(namespace, host)
    }

    /// Commands that make `device` with its far end `end` among the wires.
    fn link(&self, device: &str, mac: [u8; 6], end: &str) -> String {
        let [a, b, c, d, e, f] = mac;
        let wires = self.wires.name();
        format!(
            "link add {device} address {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} \
             type veth peer name {end} netns {wires}\nlink set {device} up\n"
        )
    }

    fn plug(&self, end: &str, bridge: &str) -> Result<(), BedError> {
        self.wires.links(&format!("link set {end} master {bridge}\nlink set {end} up\n"))
    }
}

/// What arrives at a member's ports is the member's alone.
const QUIET_PORTS: &str = "table inet bed { chain ports { type filter hook prerouting priority -400; \
                           iifname { outside, inside } drop; }; }";

fn bridges() -> String {
    ["outside", "inside", "management"]
        .map(|name| {
            format!(
                "link add {name} type bridge forward_delay 0 stp_state 0 mcast_snooping 0\n\
                 link set {name} up\n"
            )
        })
        .concat()
}

/// Frames with checksums left to a network card that does not exist would be dropped by DPDK's
/// virtual ports: pings pass, TCP does not.
fn offloads_off(namespace: &Namespace, device: &str) -> Result<(), BedError> {
    namespace.run(&["ethtool", "-K", device, "tx", "off", "tso", "off", "gso", "off"]).map(drop)
}

/// Gives a port a queue, as a real network card has one. Without it a frame the link refuses stays in
/// the ring of its sender, which offers it again and again (a capture at that end sees each offer),
/// and all that gathered behind it leaves when the link comes back, whoever owns the addresses then.
fn queue_like_a_card(namespace: &Namespace, device: &str) -> Result<(), BedError> {
    namespace.run(&["tc", "qdisc", "add", "dev", device, "root", "pfifo"]).map(drop)
}

fn nth<'a>(namespaces: &'a [Namespace], number: u8, kind: &str) -> Result<&'a Namespace, BedError> {
    let index = usize::from(number).checked_sub(1);
    index.and_then(|i| namespaces.get(i)).ok_or_else(|| BedError::Answer {
        program: "bed".to_owned(),
        detail: format!("there is no {kind} {number}"),
    })
}
