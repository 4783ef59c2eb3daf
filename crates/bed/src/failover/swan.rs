//! The rivals that move an address with SAs: two strongSwan gateways, and a strongSwan client that
//! notices by itself (DPD), or gateways that synchronise their SAs (the `ha` plugin).
//!
//! The bench itself moves the shared address, at once and without an announcement: what the rivals
//! lose is lost in IKE and ESP alone.

use super::lab::{Lab, SHARED, Side};
use super::results::Measured;
use super::rival::{Rival, recover};
use crate::error::BedError;
use crate::peer::{Daemon, PRE_SHARED_KEY, StrongSwan};
use crate::probe::Prober;
use crate::time::Wall;
use crate::topology::ECHO_PORT;
use crate::wait::{let_pass, wait_until};
use crate::web::Echo;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The service behind both gateways.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 79, 2, 1);
/// Traffic before each failure.
const TRAFFIC: Duration = Duration::from_secs(3);
/// The `ha` plugin's active node waits this long for another before it serves.
const ACTIVE_LIMIT: Duration = Duration::from_secs(15);
const SETTLE_LIMIT: Duration = Duration::from_secs(20);
/// Answers that show a working tunnel.
const WORKING_ANSWERS: u64 = 100;

/// How a pair of gateways carries on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The client notices and negotiates anew.
    DeadPeerDetection,
    /// The gateways share SAs; heartbeat 100 ms, timeout 300 ms.
    HaPlugin,
}

/// Two gateways, a client, a prober through its tunnel.
#[derive(Debug)]
pub(crate) struct Gateways {
    way: Way,
    prober: Option<Prober>,
    // Order matters: what runs ends before the namespaces it runs in.
    client: Option<StrongSwan>,
    a: Option<StrongSwan>,
    b: Option<StrongSwan>,
    _echoes: [Echo; 2],
    lab: Lab,
    folder: PathBuf,
    active: Side,
}

impl Gateways {
    /// Builds the network. Gateways and client start with the first measurement.
    pub(crate) fn build(way: Way, folder: &Path) -> Result<Self, BedError> {
        let lab = Lab::build()?;
        let echo = |side| {
            let gateway = lab.gateway(side);
            // Both have the address; which of them gets its packets is the client's neighbour entry.
            gateway.run(&["sysctl", "-q", "-w", "net.ipv4.conf.all.arp_ignore=8"])?;
            gateway.links(&format!(
                "addr add {SHARED}/32 dev eth0\nlink add service type bridge\n\
                 link set service up\naddr add {SERVICE}/24 dev service\n"
            ))?;
            for (other, mac) in side.neighbours() {
                gateway.links(&format!(
                    "neigh replace {other} lladdr {mac} nud permanent dev eth0\n"
                ))?;
            }
            Echo::start(gateway, SocketAddrV4::new(SERVICE, ECHO_PORT))
        };
        let echoes = [echo(Side::A)?, echo(Side::B)?];
        for (other, mac) in Side::BOTH.map(|side| (side.address(), side.mac())) {
            let entry = format!("neigh replace {other} lladdr {mac} nud permanent dev eth0\n");
            lab.client.links(&entry)?;
        }
        Ok(Self {
            way,
            prober: None,
            client: None,
            a: None,
            b: None,
            _echoes: echoes,
            lab,
            folder: folder.to_owned(),
            active: Side::A,
        })
    }

    fn start_gateway(&mut self, side: Side) -> Result<(), BedError> {
        let folder = self.folder.join(side.name());
        let daemon = match self.way {
            Way::DeadPeerDetection => Daemon::default(),
            Way::HaPlugin => ha_plugin(side),
        };
        let gateway = self.lab.gateway(side);
        let started = StrongSwan::start_with(gateway, &folder, &gateway_configuration(), &daemon)?;
        *self.slot(side) = Some(started);
        Ok(())
    }

    fn slot(&mut self, side: Side) -> &mut Option<StrongSwan> {
        match side {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
        }
    }

    fn start_client(&mut self) -> Result<(), BedError> {
        let daemon = Daemon {
            settings: "retransmit_timeout = 0.5\n  retransmit_base = 1\n  retransmit_tries = 2"
                .to_owned(),
            ..Daemon::default()
        };
        let (folder, text) = (self.folder.join("client"), client_configuration());
        let client = StrongSwan::start_with(&self.lab.client, &folder, &text, &daemon)?;
        client.control(&["--initiate", "--child", "rival", "--timeout", "20"])?;
        self.client = Some(client);
        let server = SocketAddrV4::new(SERVICE, ECHO_PORT);
        self.prober = Some(Prober::start(&self.lab.client, server)?);
        self.wait_until_working()
    }

    fn wait_until_working(&self) -> Result<(), BedError> {
        let answered = || self.prober.as_ref().map_or(0, Prober::answered);
        let before = answered();
        wait_until("traffic through the rival's tunnel", SETTLE_LIMIT, || {
            Ok((answered() > before + WORKING_ANSWERS).then_some(()))
        })
    }

    /// Everything anew, as the `ha` plugin's numbers depend on the traffic before the failure.
    fn start_pair(&mut self) -> Result<(), BedError> {
        self.prober = None;
        (self.client, self.a, self.b) = (None, None, None);
        self.active = Side::A;
        self.lab.point_client_at(Side::A)?;
        self.start_gateway(Side::A)?;
        if self.way == Way::HaPlugin {
            self.wait_for_word(Side::A, "activating")?;
        }
        self.start_gateway(Side::B)?;
        if self.way == Way::HaPlugin {
            self.wait_for_word(Side::B, "deactivated")?;
            let_pass(Duration::from_secs(1))?;
        }
        self.start_client()
    }

    fn wait_for_word(&mut self, side: Side, word: &str) -> Result<(), BedError> {
        let slot = self.slot(side);
        let words = || slot.as_ref().map(|swan| swan.last_words(200)).unwrap_or_default();
        let heard = wait_until("the ha plugin's role", ACTIVE_LIMIT, || {
            Ok(words().contains(word).then_some(()))
        });
        // The plugin's words differ between releases: what counts is that it had its time.
        if let Err(BedError::Timeout { .. }) = heard { Ok(()) } else { heard }
    }

    fn kill_active(&mut self) -> Result<Wall, BedError> {
        let (active, next) = (self.active, self.active.other());
        let at = Wall::now();
        if let Some(gateway) = self.slot(active) {
            gateway.kill_now();
        }
        self.lab.unplug(active)?;
        self.lab.point_client_at(next)?;
        self.active = next;
        Ok(at)
    }
}

impl Rival for Gateways {
    fn measure(&mut self) -> Result<Measured, BedError> {
        if self.client.is_none() || self.way == Way::HaPlugin {
            self.start_pair()?;
        }
        let_pass(TRAFFIC)?;
        let killed = self.active;
        let at = self.kill_active()?;
        let prober = self.prober.as_ref().ok_or(BedError::Interrupted)?;
        let measured = recover(prober, at)?;
        *self.slot(killed) = None;
        self.lab.plug(killed)?;
        match self.way {
            Way::DeadPeerDetection => self.start_gateway(killed)?,
            // Nothing of it runs between measurements.
            Way::HaPlugin => {
                self.prober = None;
                (self.client, self.a, self.b) = (None, None, None);
            }
        }
        Ok(measured)
    }
}

fn ha_plugin(side: Side) -> Daemon {
    let (local, remote) = (side.address(), side.other().address());
    Daemon {
        plugins: "ha".to_owned(),
        settings: String::new(),
        plugin_settings: format!(
            "ha {{
      local = {local}
      remote = {remote}
      segment_count = 1
      monitor = yes
      resync = yes
      fifo_interface = no
      heartbeat_delay = 100
      heartbeat_timeout = 300
      pools {{
        rival = 10.79.100.0/24
      }}
    }}"
        ),
    }
}

fn gateway_configuration() -> String {
    format!(
        "connections {{
  rival {{
    version = 2
    local_addrs = %any
    pools = rival
    encap = yes
    unique = replace
    local {{
      auth = psk
      id = gateway
    }}
    remote {{
      auth = psk
      id = %any
    }}
    children {{
      rival {{
        local_ts = 10.79.2.0/24
        esp_proposals = aes128gcm16
      }}
    }}
  }}
}}
pools {{
  rival {{
    addrs = 10.79.100.0/24
  }}
}}
secrets {{
  ike-rival {{
    secret = \"{PRE_SHARED_KEY}\"
  }}
}}
"
    )
}

fn client_configuration() -> String {
    format!(
        "connections {{
  rival {{
    version = 2
    remote_addrs = {SHARED}
    vips = 0.0.0.0
    encap = yes
    keyingtries = 0
    dpd_delay = 1s
    local {{
      auth = psk
      id = client
    }}
    remote {{
      auth = psk
      id = gateway
    }}
    children {{
      rival {{
        remote_ts = 10.79.2.0/24
        esp_proposals = aes128gcm16
        dpd_action = restart
        close_action = start
      }}
    }}
  }}
}}
secrets {{
  ike-rival {{
    secret = \"{PRE_SHARED_KEY}\"
  }}
}}
"
    )
}
