//! The rival that moves a bare address: keepalived's VRRP at its fastest, two routers, no SA and no
//! quorum.

use super::lab::{Lab, SHARED, Side};
use super::results::Measured;
use super::rival::{Rival, recover};
use crate::error::BedError;
use crate::probe::Prober;
use crate::process::{Process, run};
use crate::time::Wall;
use crate::topology::ECHO_PORT;
use crate::wait::{let_pass, wait_until};
use crate::web::Echo;
use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The smallest interval keepalived takes.
const ADVERT_S: &str = "0.01";
const SETTLE_LIMIT: Duration = Duration::from_secs(20);
/// From the recovery to the return of the killed router, and from there to the next kill.
const PAUSE: Duration = Duration::from_millis(700);

/// Two keepalived routers and a prober of their address.
#[derive(Debug)]
pub(crate) struct Keepalived {
    prober: Prober,
    // Order matters: what runs ends before the namespaces it runs in.
    a: Option<Process>,
    b: Option<Process>,
    _echoes: [Echo; 2],
    lab: Lab,
    folder: PathBuf,
}

impl Keepalived {
    pub(crate) fn start(folder: &Path) -> Result<Self, BedError> {
        fs::create_dir_all(folder).map_err(|e| BedError::file("create", folder, e))?;
        let lab = Lab::build()?;
        let address = SocketAddrV4::new(SHARED, ECHO_PORT);
        let echo = |side| {
            // The echo serves the address on whichever router has it.
            let gateway = lab.gateway(side);
            gateway.run(&["sysctl", "-q", "-w", "net.ipv4.ip_nonlocal_bind=1"])?;
            Echo::start(gateway, address)
        };
        let echoes = [echo(Side::A)?, echo(Side::B)?];
        let prober = Prober::start(&lab.client, address)?;
        let mut rival =
            Self { prober, a: None, b: None, _echoes: echoes, lab, folder: folder.to_owned() };
        rival.start_router(Side::A)?;
        rival.start_router(Side::B)?;
        rival.wait_for_master()?;
        Ok(rival)
    }

    fn start_router(&mut self, side: Side) -> Result<(), BedError> {
        let name = side.name();
        let file = |kind: &str| self.folder.join(format!("{name}.{kind}"));
        // A former daemon's files would look like a running daemon.
        for kind in ["pid", "vpid"] {
            let _ = fs::remove_file(file(kind));
        }
        let configuration = file("conf");
        fs::write(&configuration, self.configuration(side))
            .map_err(|e| BedError::file("write", &configuration, e))?;
        let (pid, vrrp_pid) = (file("pid"), file("vpid"));
        let command: [&std::ffi::OsStr; 10] = [
            "keepalived".as_ref(),
            "-n".as_ref(),
            "-l".as_ref(),
            "-P".as_ref(),
            "-f".as_ref(),
            configuration.as_ref(),
            "-p".as_ref(),
            pid.as_ref(),
            "-r".as_ref(),
            vrrp_pid.as_ref(),
        ];
        let gateway = self.lab.gateway(side);
        let process = Process::start(gateway, "keepalived", &file("log"), &[], &command)?;
        *self.router(side) = Some(process);
        Ok(())
    }

    fn configuration(&self, side: Side) -> String {
        let (name, priority) = (side.name(), if side == Side::A { 150 } else { 100 });
        format!(
            "global_defs {{
  vrrp_version 3
  router_id {name}
}}
vrrp_instance rival {{
  interface eth0
  state BACKUP
  nopreempt
  virtual_router_id 51
  priority {priority}
  advert_int {ADVERT_S}
  virtual_ipaddress {{
    {SHARED}/24
  }}
}}
"
        )
    }

    fn router(&mut self, side: Side) -> &mut Option<Process> {
        match side {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
        }
    }

    fn has_address(&self, side: Side) -> Result<bool, BedError> {
        let gateway = self.lab.gateway(side).name();
        let shown = run("ip", &["-n", gateway, "-4", "addr", "show", "dev", "eth0"])?;
        Ok(shown.contains(&format!("{SHARED}/")))
    }

    fn wait_for_master(&mut self) -> Result<Side, BedError> {
        wait_until("one keepalived master", SETTLE_LIMIT, || {
            for process in [&mut self.a, &mut self.b].into_iter().flatten() {
                process.expect_running()?;
            }
            let [a, b] = [self.has_address(Side::A)?, self.has_address(Side::B)?];
            Ok(match (a, b) {
                (true, false) => Some(Side::A),
                (false, true) => Some(Side::B),
                _ => None,
            })
        })
    }

    /// The host dies: its link first, so that no dying process can give the address up in order.
    fn power_off(&mut self, side: Side) -> Result<Wall, BedError> {
        let file = self.folder.join(format!("{}.vpid", side.name()));
        let child = fs::read_to_string(&file).map_err(|e| BedError::file("read", &file, e))?;
        let at = Wall::now();
        self.lab.unplug(side)?;
        // The parent first would have its child end in order; it may be gone by itself.
        let _ = run("kill", &["-KILL", child.trim()]);
        *self.router(side) = None;
        Ok(at)
    }
}

impl Rival for Keepalived {
    fn measure(&mut self) -> Result<Measured, BedError> {
        let master = self.wait_for_master()?;
        let_pass(PAUSE)?;
        let at = self.power_off(master)?;
        let measured = recover(&self.prober, at)?;
        let gateway = self.lab.gateway(master);
        // What a host that lost its power does not have any more.
        let _ = gateway.links(&format!("addr del {SHARED}/24 dev eth0\n"));
        self.lab.plug(master)?;
        self.start_router(master)?;
        let_pass(PAUSE)?;
        self.wait_for_master()?;
        Ok(measured)
    }
}
