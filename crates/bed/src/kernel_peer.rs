//! A peer with the Linux kernel's own IPsec: strongSwan on a user-mode Linux guest.
//!
//! The client of [`peer`](crate::peer) does ESP in user space: in UDP, without extended sequence
//! numbers. This one sends plain ESP (protocol 50) with ESN, as a gateway in the field does. The
//! guest is an ordinary process: no virtualisation, no disk image. It runs this machine's own
//! programs, the root file system being this machine's, read-only.
//!
//! ```text
//!   commands ---FIFO---> console of the guest          strongSwan, ping, curl, ip
//!   answers  <--files--- folder shared by hostfs            eth0 (198.51.100.20)
//!                                                             |
//!                                            kernel-out (tap) | <-- capture
//!                              ====== outside ================+======
//! ```
//!
//! The guest is the first process of a process namespace of its own, so all its processes end
//! with it.

use crate::bed::Bed;
use crate::capture::{Capture, Direction};
use crate::error::BedError;
use crate::peer::{CLIENT_IDENTITY, GATEWAY_IDENTITY, PRE_SHARED_KEY};
use crate::process::{Process, finish};
use crate::topology::{CLIENT_INNER, COMMON};
use crate::wait::wait_until;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The guest's address on the outside wire.
pub const KERNEL_PEER_OUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);
/// The far end of the guest's link, among the wires.
const TAP: &str = "kernel-out";
/// The guest's kernel and its modules, of Debian's package user-mode-linux.
const KERNEL: &str = "/usr/bin/linux.uml";
const MODULES: &str = "/usr/lib/uml/modules";
/// Its first process.
const INIT: &str = include_str!("kernel_peer/init.sh");
/// Room for strongSwan and for a fetched file of some megabytes.
const MEMORY: &str = "mem=160M";
const NETWORK: &str = "vec0:transport=tap,ifname=kernel-out,depth=128,mac=02:68:66:02:02:01";
/// A guest boots in three seconds where it has a processor to itself.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// For commands that wait for nobody.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// A running guest.
#[derive(Debug)]
pub struct KernelPeer {
    folder: PathBuf,
    commands: File,
    asked: u32,
    guest: Process,
}

impl KernelPeer {
    /// Boots a guest on the bed's outside wire and starts strongSwan in it, with one connection
    /// whose child offers `esp_proposals`. Nothing is initiated yet.
    ///
    /// # Errors
    /// When the guest does not boot or strongSwan does not like its configuration.
    pub fn start(bed: &Bed, esp_proposals: &str) -> Result<Self, BedError> {
        let mut peer = Self::boot(bed, esp_proposals)?;
        peer.ask("true", BOOT_LIMIT)?;
        peer.ask("start_strongswan", BOOT_LIMIT)?;
        Ok(peer)
    }

    fn boot(bed: &Bed, esp_proposals: &str) -> Result<Self, BedError> {
        let folder = bed.folder("kernel-peer");
        write_files(&folder, esp_proposals).map_err(|e| BedError::file("prepare", &folder, e))?;
        let fifo = folder.join("commands");
        finish("mkfifo", Command::new("mkfifo").arg(&fifo), None)?;
        let wires = &bed.topology.wires;
        wires.links(&format!(
            "tuntap add dev {TAP} mode tap\nlink set {TAP} master outside\nlink set {TAP} up\n"
        ))?;
        let command = kernel_command(&folder);
        let guest = Process::start(
            wires,
            "user-mode Linux",
            &folder.join("console.log"),
            &[],
            &["unshare", "--pid", "--fork", "--kill-child=KILL", "sh", "-c", &command],
        )?;
        // Reading as well, so that opening waits for nobody.
        let commands = File::options().read(true).write(true).open(&fifo);
        let commands = commands.map_err(|e| BedError::file("open", &fifo, e))?;
        Ok(Self { folder, commands, asked: 0, guest })
    }

    /// Runs a line of shell in the guest and yields what it printed.
    ///
    /// # Errors
    /// When it fails or does not end within half a minute.
    pub fn run(&mut self, line: &str) -> Result<String, BedError> {
        self.ask(line, COMMAND_LIMIT)
    }

    fn ask(&mut self, line: &str, limit: Duration) -> Result<String, BedError> {
        self.asked += 1;
        let answer = self.folder.join(format!("answer-{}", self.asked));
        let command = format!("{} {}\n", self.asked, line.replace('\n', " "));
        self.commands
            .write_all(command.as_bytes())
            .map_err(|e| BedError::io("write to the guest's console", e))?;
        let waited = wait_until("an answer of the guest", limit, || {
            self.guest.expect_running()?;
            Ok(answer.exists().then_some(()))
        });
        waited.map_err(|error| self.explain(error, line))?;
        let text = fs::read(&answer).map_err(|e| BedError::file("read", &answer, e))?;
        let text = String::from_utf8_lossy(&text);
        match text.split_once('\n') {
            Some(("0", output)) => Ok(output.to_owned()),
            _ => Err(BedError::Tool { program: format!("guest: {line}"), detail: text.into() }),
        }
    }

    fn explain(&self, error: BedError, line: &str) -> BedError {
        match error {
            BedError::Timeout { what, waited_ms, .. } => BedError::Timeout {
                what,
                waited_ms,
                hint: format!(" to '{line}'; its console:\n{}", self.guest.last_words(20)),
            },
            other => other,
        }
    }

    /// Negotiates the connection and its child.
    ///
    /// # Errors
    /// When the negotiation fails.
    pub fn initiate(&mut self) -> Result<String, BedError> {
        self.run("control --initiate --child home --timeout 20")
    }

    /// Starts a rekey of the Child SA. Returns before it is finished.
    ///
    /// # Errors
    /// When there is nothing to rekey.
    pub fn rekey_child(&mut self) -> Result<String, BedError> {
        self.run("control --rekey --child home")
    }

    /// What swanctl lists about the security associations.
    ///
    /// # Errors
    /// When charon does not answer.
    pub fn list(&mut self) -> Result<String, BedError> {
        self.run("control --list-sas")
    }

    /// The end of charon's log.
    pub fn last_words(&mut self) -> String {
        self.run("tail -n 30 /run/charon.log").unwrap_or_else(|error| error.to_string())
    }

    /// Starts capturing what the guest sends.
    ///
    /// # Errors
    /// When the capture does not start.
    pub fn start_capture(bed: &Bed) -> Result<Capture, BedError> {
        let file = bed.memory_path("kernel-out.pcap");
        Capture::start(&bed.topology.wires, TAP, Direction::In, "", &file)
    }
}

/// Whether the packages the guest needs are there.
pub fn installed() -> bool {
    [KERNEL, MODULES, "/sbin/modprobe"].iter().all(|p| Path::new(p).exists())
}

fn kernel_command(folder: &Path) -> String {
    let folder = folder.display();
    // What the kernel does not know it hands to the first process as its environment. Opened for
    // writing as well, the FIFO never ends.
    format!(
        "exec {KERNEL} {MEMORY} rootfstype=hostfs rootflags=/ ro con=null con0=fd:0,fd:1 quiet \
         random.trust_cpu=1 uml_dir={folder}/ umid=guest {NETWORK} init={folder}/init \
         FOLDER={folder} OUTER={KERNEL_PEER_OUTER} INNER={CLIENT_INNER} COMMON={COMMON} \
         <>{folder}/commands"
    )
}

fn write_files(folder: &Path, esp_proposals: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("strongswan.conf"), DAEMON_CONFIGURATION)?;
    fs::write(folder.join("swanctl.conf"), connection(esp_proposals))?;
    let init = folder.join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, Permissions::from_mode(0o755))
}

const DAEMON_CONFIGURATION: &str = "charon-systemd {
  load = random nonce aesni aes sha1 sha2 hmac kdf gcm curve25519 openssl pem pkcs1 pkcs8 x509 \
pubkey kernel-netlink socket-default vici updown
  plugins {
    vici {
      socket = unix:///run/vici.sock
    }
  }
  filelog {
    log {
      path = /run/charon.log
      time_format = %H:%M:%S
      time_add_ms = yes
      flush_line = yes
      default = 1
    }
  }
}
swanctl {
  load = pem pkcs1 pkcs8 x509 openssl random
}
";

fn connection(esp_proposals: &str) -> String {
    format!(
        "connections {{
  home {{
    version = 2
    local_addrs = {KERNEL_PEER_OUTER}
    remote_addrs = {COMMON}
    local {{
      auth = psk
      id = {CLIENT_IDENTITY}
    }}
    remote {{
      auth = psk
      id = {GATEWAY_IDENTITY}
    }}
    children {{
      home {{
        local_ts = {CLIENT_INNER}/32
        remote_ts = {COMMON}/32
        esp_proposals = {esp_proposals}
        replay_window = 1024
      }}
    }}
  }}
}}
secrets {{
  ike-home {{
    secret = \"{PRE_SHARED_KEY}\"
  }}
}}
"
    )
}
