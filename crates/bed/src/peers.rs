//! More clients than the bed's own one: each on a host of its own, with an identity, a pair of
//! addresses and a connection of its own. Number 1 is the bed's client.

use crate::bed::Bed;
use crate::error::BedError;
use crate::namespace::Namespace;
use crate::peer::{CLIENT_IDENTITY, Connection, Daemon, PRE_SHARED_KEY, StrongSwan};
use crate::topology::{CLIENT_INNER, CLIENT_OUTER};
use std::fmt::Write;
use std::net::Ipv4Addr;

/// Who a client says it is.
pub fn identity(number: u8) -> String {
    if number == 1 { CLIENT_IDENTITY.to_owned() } else { format!("{number}.{CLIENT_IDENTITY}") }
}

/// A client's address inside the tunnel.
pub const fn inner(number: u8) -> Ipv4Addr {
    later(CLIENT_INNER, number)
}

/// A client's address on the outside wire.
pub const fn outer(number: u8) -> Ipv4Addr {
    later(CLIENT_OUTER, number)
}

const fn later(first: Ipv4Addr, number: u8) -> Ipv4Addr {
    let [a, b, c, d] = first.octets();
    Ipv4Addr::new(a, b, c, d + number - 1)
}

/// Where a client's link ends among the wires.
pub fn far_end(number: u8) -> String {
    if number == 1 { "client-out".to_owned() } else { format!("client{number}-out") }
}

/// The members' `[[connection]]` tables of the clients from 2 to `last`, to stand behind that of
/// the first; `settings` are lines of each.
pub fn connection_tables(last: u8, settings: &str) -> String {
    let mut text = String::new();
    for number in 2..=last {
        let (identity, inner) = (identity(number), inner(number));
        let _ = write!(
            text,
            "\n[[connection]]\nname = \"client{number}\"\nremote_id = \"{identity}\"\n\
             psk = \"{PRE_SHARED_KEY}\"\nremote_ts = [\"{inner}/32\"]\n{settings}\n"
        );
    }
    text
}

/// Connects the host of client `number` to the outside wire.
///
/// # Errors
/// When the machine refuses.
pub fn join(bed: &Bed, number: u8) -> Result<Namespace, BedError> {
    let mac = [0x02, 0x68, 0x66, 0x02, number, 0x01];
    let host = bed.topology.join_outside(&format!("client{number}"), outer(number), mac)?;
    host.links(&format!("addr add {}/32 dev lo\n", inner(number)))?;
    Ok(host)
}

/// A client on a host of its own.
#[derive(Debug)]
pub struct Peer {
    /// Which one, from 2.
    pub number: u8,
    // Order matters: what runs ends before the namespace it runs in.
    /// Its daemon.
    pub swan: StrongSwan,
    /// Its host.
    pub host: Namespace,
}

impl Peer {
    /// Starts client `number` with the settings of `connection` and `daemon`, but with identity and
    /// address of its own. It does not connect yet.
    ///
    /// # Errors
    /// When the machine refuses or strongSwan does not come up.
    pub fn start(
        bed: &Bed,
        number: u8,
        connection: &Connection,
        daemon: &Daemon,
    ) -> Result<Self, BedError> {
        let host = join(bed, number)?;
        let connection =
            Connection { identity: identity(number), inner: inner(number), ..connection.clone() };
        let folder = bed.folder(&format!("client{number}"));
        let swan = StrongSwan::start_client_with(&host, &folder, &connection, daemon)?;
        Ok(Self { number, swan, host })
    }

    /// Plugs its link to the outside wire in or out.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn plug(&self, plugged: bool) -> Result<(), BedError> {
        let state = if plugged { "up" } else { "down" };
        self.host.links(&format!("link set outside {state}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_a_connection_of_its_own() {
        let tables = connection_tables(3, "liveness_s = 0");
        assert_eq!(tables.matches("[[connection]]").count(), 2);
        assert!(tables.contains("remote_ts = [\"10.77.0.12/32\"]\nliveness_s = 0\n"), "{tables}");
        assert_eq!((inner(1), outer(2)), (CLIENT_INNER, Ipv4Addr::new(198, 51, 100, 11)));
    }
}
