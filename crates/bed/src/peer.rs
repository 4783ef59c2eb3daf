//! strongSwan as the IPsec client: Debian's packages with ESP in user space.
//!
//! Several instances share a machine because each has its own folder: configuration, VICI socket,
//! log. Proposals are strongSwan's defaults; only the plugins are named, since the user-space ESP
//! must come before the kernel's.
//!
//! The tunnel's far address is the IKE peer itself. So that IKE and ESP do not run into their own
//! tunnel, the daemon marks its packets and its routing rule excludes the mark.

use crate::error::BedError;
use crate::namespace::Namespace;
use crate::process::{Process, finish, tail};
use crate::topology::{CLIENT_INNER, COMMON};
use crate::wait::wait_until;
use rustix::process::Signal;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The identity the client presents.
pub const CLIENT_IDENTITY: &str = "client@holdfast.example";
/// The identity the cluster presents.
pub const GATEWAY_IDENTITY: &str = "holdfast.example";
/// The pre-shared key of the bed, of no value anywhere else.
pub const PRE_SHARED_KEY: &str = "for the test bed only, of no value";

/// swanctl asks for these folders even when they are empty.
const SWANCTL_FOLDERS: &[&str] = &[
    "x509", "x509ca", "x509ocsp", "x509aa", "x509ac", "x509crl", "pubkey", "private", "rsa",
    "ecdsa", "bliss", "pkcs8", "pkcs12", "conf.d",
];

const PLUGINS: &str = "random nonce aesni aes sha1 sha2 md5 mgf1 hmac kdf gcm ccm ctr cmac xcbc \
    chapoly curve25519 gmp openssl pem pkcs1 pkcs7 pkcs8 pkcs12 x509 revocation constraints \
    pubkey drbg kernel-libipsec kernel-netlink socket-default vici updown attr counters";

/// Whatever is left at its default in strongSwan's connection section.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Settings of the connection, one a line, in addition to those the bed needs.
    pub connection_settings: String,
    /// Settings of the child, one a line.
    pub child_settings: String,
    /// The pre-shared key the client uses.
    pub pre_shared_key: String,
    /// Who the client says it is.
    pub identity: String,
    /// Its address inside the tunnel.
    pub inner: Ipv4Addr,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            connection_settings: String::new(),
            child_settings: String::new(),
            pre_shared_key: PRE_SHARED_KEY.to_owned(),
            identity: CLIENT_IDENTITY.to_owned(),
            inner: CLIENT_INNER,
        }
    }
}

/// Settings of the daemon itself, beyond those the bed needs.
#[derive(Debug, Clone, Default)]
pub struct Daemon {
    /// Names of further plugins, separated by blanks.
    pub plugins: String,
    /// Settings of the daemon, one a line.
    pub settings: String,
    /// Sections of plugins.
    pub plugin_settings: String,
}

/// A running charon with its swanctl.
#[derive(Debug)]
pub struct StrongSwan {
    folder: PathBuf,
    namespace: String,
    daemon: Process,
}

impl StrongSwan {
    /// Starts the client in `namespace`, its files in `folder`, with one connection to the common
    /// address and one child covering it. Nothing is initiated yet.
    ///
    /// # Errors
    /// When charon does not start or does not like its configuration.
    pub fn start_client(
        namespace: &Namespace,
        folder: &Path,
        connection: &Connection,
    ) -> Result<Self, BedError> {
        Self::start_client_with(namespace, folder, connection, &Daemon::default())
    }

    /// As [`start_client`](Self::start_client), with settings of the daemon itself.
    ///
    /// # Errors
    /// When charon does not start or does not like its configuration.
    pub fn start_client_with(
        namespace: &Namespace,
        folder: &Path,
        connection: &Connection,
        daemon: &Daemon,
    ) -> Result<Self, BedError> {
        Self::start_with(namespace, folder, &client_configuration(connection), daemon)
    }

    /// Starts charon in `namespace` with the given swanctl.conf.
    ///
    /// # Errors
    /// When charon does not start or does not like its configuration.
    pub fn start(
        namespace: &Namespace,
        folder: &Path,
        swanctl_conf: &str,
    ) -> Result<Self, BedError> {
        Self::start_with(namespace, folder, swanctl_conf, &Daemon::default())
    }

    /// As [`start`](Self::start), with settings of the daemon itself.
    ///
    /// # Errors
    /// When charon does not start or does not like its configuration.
    pub fn start_with(
        namespace: &Namespace,
        folder: &Path,
        swanctl_conf: &str,
        settings: &Daemon,
    ) -> Result<Self, BedError> {
        let io = |e| BedError::file("prepare", folder, e);
        for name in SWANCTL_FOLDERS {
            fs::create_dir_all(folder.join("swanctl").join(name)).map_err(io)?;
        }
        let daemon = daemon_configuration(folder, settings);
        fs::write(folder.join("strongswan.conf"), daemon).map_err(io)?;
        fs::write(folder.join("swanctl/swanctl.conf"), swanctl_conf).map_err(io)?;
        // A former instance's socket would look like a daemon that is ready.
        let _ = fs::remove_file(folder.join("vici.sock"));
        let configuration = folder.join("strongswan.conf");
        let daemon = Process::start(
            namespace,
            "charon-systemd",
            &folder.join("stdout"),
            &[("STRONGSWAN_CONF", configuration.as_os_str())],
            &["/usr/sbin/charon-systemd"],
        )?;
        let mut swan =
            Self { folder: folder.to_owned(), namespace: namespace.name().to_owned(), daemon };
        swan.wait_for_socket()?;
        swan.control(&["--load-all"])?;
        Ok(swan)
    }

    fn wait_for_socket(&mut self) -> Result<(), BedError> {
        let socket = self.folder.join("vici.sock");
        wait_until("charon's control socket", Duration::from_secs(10), || {
            self.daemon.expect_running()?;
            Ok(socket.exists().then_some(()))
        })
    }

    /// Runs swanctl against this instance.
    ///
    /// # Errors
    /// When swanctl reports a failure.
    pub fn control(&self, arguments: &[&str]) -> Result<String, BedError> {
        let (Some((verb, rest)), socket) = (arguments.split_first(), self.folder.join("vici.sock"))
        else {
            return Ok(String::new());
        };
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace, "/usr/sbin/swanctl", verb, "--uri"])
            .arg(format!("unix://{}", socket.display()))
            .args(rest)
            .env("STRONGSWAN_CONF", self.folder.join("strongswan.conf"))
            .env("SWANCTL_DIR", self.folder.join("swanctl"));
        finish("swanctl", &mut command, None)
    }

    /// Negotiates the connection and its child.
    ///
    /// # Errors
    /// When the negotiation fails.
    pub fn initiate(&self) -> Result<String, BedError> {
        self.control(&["--initiate", "--child", "home", "--timeout", "20"])
    }

    /// Starts a rekey of the Child SA. Returns before it is finished.
    ///
    /// # Errors
    /// When there is nothing to rekey.
    pub fn rekey_child(&self) -> Result<String, BedError> {
        self.control(&["--rekey", "--child", "home"])
    }

    /// Starts a rekey of the IKE SA. Returns before it is finished.
    ///
    /// # Errors
    /// When there is nothing to rekey.
    pub fn rekey_ike(&self) -> Result<String, BedError> {
        self.control(&["--rekey", "--ike", "home"])
    }

    /// Ends the connection with a DELETE.
    ///
    /// # Errors
    /// When the peer does not answer.
    pub fn terminate(&self) -> Result<String, BedError> {
        self.control(&["--terminate", "--ike", "home", "--timeout", "10"])
    }

    /// What swanctl lists about the security associations.
    ///
    /// # Errors
    /// When charon does not answer.
    pub fn list(&self) -> Result<String, BedError> {
        self.control(&["--list-sas"])
    }

    /// The end of charon's log.
    pub fn last_words(&self, lines: usize) -> String {
        tail(&self.log(), lines)
    }

    /// Charon's log file.
    pub fn log(&self) -> PathBuf {
        self.folder.join("charon.log")
    }

    /// Kills charon with SIGKILL, without waiting for its end.
    pub fn kill_now(&mut self) {
        self.daemon.kill_now();
    }

    /// Stops charon in order.
    pub fn stop(&mut self) {
        self.daemon.stop(Signal::TERM);
    }
}

fn daemon_configuration(folder: &Path, daemon: &Daemon) -> String {
    let folder = folder.display();
    let Daemon { plugins, settings, plugin_settings } = daemon;
    format!(
        "charon-systemd {{
  load = {PLUGINS} {plugins}
  {settings}
  plugins {{
    {plugin_settings}
    vici {{
      socket = unix://{folder}/vici.sock
    }}
    kernel-netlink {{
      fwmark = !0x42
    }}
    socket-default {{
      fwmark = 0x42
    }}
    kernel-libipsec {{
      allow_peer_ts = yes
    }}
  }}
  filelog {{
    log {{
      path = {folder}/charon.log
      time_format = %H:%M:%S
      time_add_ms = yes
      flush_line = yes
      default = 1
    }}
  }}
}}
swanctl {{
  load = pem pkcs1 pkcs8 pkcs12 x509 pubkey openssl random sha1 sha2 hmac aes gmp curve25519
}}
"
    )
}

fn client_configuration(connection: &Connection) -> String {
    let Connection { connection_settings, child_settings, pre_shared_key, identity, inner } =
        connection;
    format!(
        "connections {{
  home {{
    version = 2
    remote_addrs = {COMMON}
    {connection_settings}
    local {{
      auth = psk
      id = {identity}
    }}
    remote {{
      auth = psk
      id = {GATEWAY_IDENTITY}
    }}
    children {{
      home {{
        local_ts = {inner}/32
        remote_ts = {COMMON}/32
        {child_settings}
      }}
    }}
  }}
}}
secrets {{
  ike-home {{
    secret = \"{pre_shared_key}\"
  }}
}}
"
    )
}

/// Whether the packages the client needs are there.
pub fn installed() -> bool {
    ["/usr/sbin/charon-systemd", "/usr/sbin/swanctl"].iter().all(|p| Path::new(p).exists())
}
