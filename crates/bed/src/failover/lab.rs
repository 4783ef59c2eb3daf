//! A small network for the rivals: two gateways and a client on one wire.
//!
//! ```text
//!   client .10        gateway a .1        gateway b .2
//!      |                  |                   |
//!  ====+==================+===================+==== one wire, 203.0.113.0/24
//!                    the shared address is .100
//! ```

use crate::error::BedError;
use crate::leftovers::unique_prefix;
use crate::namespace::Namespace;
use std::net::Ipv4Addr;

/// The address both gateways serve, one after the other.
pub(crate) const SHARED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 100);

/// One of the two gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    A,
    B,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::A, Self::B];

    pub(crate) fn other(self) -> Self {
        if self == Self::A { Self::B } else { Self::A }
    }

    pub(crate) fn name(self) -> &'static str {
        if self == Self::A { "gateway-a" } else { "gateway-b" }
    }

    pub(crate) fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(203, 0, 113, if self == Self::A { 1 } else { 2 })
    }

    pub(crate) fn mac(self) -> &'static str {
        if self == Self::A { "02:68:66:10:00:01" } else { "02:68:66:10:00:02" }
    }

    /// Who else is on the wire, for gateways that do not answer ARP.
    pub(crate) fn neighbours(self) -> [(Ipv4Addr, &'static str); 2] {
        [(CLIENT, CLIENT_MAC), (self.other().address(), self.other().mac())]
    }
}

const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const CLIENT_MAC: &str = "02:68:66:10:00:10";

/// The network. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) client: Namespace,
    a: Namespace,
    b: Namespace,
    wires: Namespace,
}

impl Lab {
    pub(crate) fn build() -> Result<Self, BedError> {
        let prefix = unique_prefix();
        let create = |name: &str| Namespace::create(&format!("{prefix}{name}"));
        let lab = Self {
            client: create("client")?,
            a: create("a")?,
            b: create("b")?,
            wires: create("wires")?,
        };
        lab.wires
            .links("link add wire type bridge forward_delay 0 stp_state 0\nlink set wire up\n")?;
        lab.connect(&lab.client, "client", CLIENT, CLIENT_MAC)?;
        for side in Side::BOTH {
            lab.connect(lab.gateway(side), side.name(), side.address(), side.mac())?;
        }
        Ok(lab)
    }

    fn connect(
        &self,
        host: &Namespace,
        end: &str,
        address: Ipv4Addr,
        mac: &str,
    ) -> Result<(), BedError> {
        let wires = self.wires.name();
        host.links(&format!(
            "link add eth0 address {mac} type veth peer name {end} netns {wires}\n\
             link set eth0 up\naddr add {address}/24 dev eth0\n"
        ))?;
        self.wires.links(&format!("link set {end} master wire\nlink set {end} up\n"))?;
        // As on Holdfast's bed, where no network card fills in checksums.
        host.run(&["ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off"]).map(drop)
    }

    pub(crate) fn gateway(&self, side: Side) -> &Namespace {
        match side {
            Side::A => &self.a,
            Side::B => &self.b,
        }
    }

    /// Cuts a gateway off, as when its host loses power.
    pub(crate) fn unplug(&self, side: Side) -> Result<(), BedError> {
        self.wires.links(&format!("link set {} down\n", side.name()))
    }

    pub(crate) fn plug(&self, side: Side) -> Result<(), BedError> {
        self.wires.links(&format!("link set {} up\n", side.name()))
    }

    /// Points the client's frames for the shared address at a gateway, faster than any
    /// announcement could.
    pub(crate) fn point_client_at(&self, side: Side) -> Result<(), BedError> {
        let mac = side.mac();
        self.client.links(&format!("neigh replace {SHARED} lladdr {mac} nud permanent dev eth0\n"))
    }
}
