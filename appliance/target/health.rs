//! How the host is: do its services accept connections, and how busy is it.

use crate::config::HealthChecks;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a service may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);

/// What was found last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Services that did not accept a connection.
    pub(super) failed: Vec<SocketAddr>,
    /// The load average over the last minute in percent of the processors.
    pub(super) load_percent: u32,
    /// TCP sockets in use.
    pub(super) connections: u64,
    /// Packets the filter dropped because they came in clear.
    pub(super) clear_dropped: u64,
    /// Whether anything was looked at yet.
    pub(super) known: bool,
}

impl Health {
    /// Whether every service accepts connections, as far as known.
    pub(super) fn is_well(&self) -> bool {
        self.failed.is_empty()
    }
}

/// Looks again and again, on a thread of its own: a connection that hangs must not keep a notice
/// waiting. `found` is called after each round.
pub(super) fn watch(
    checks: &HealthChecks,
    clear_dropped: impl Fn() -> u64 + Send + 'static,
    found: impl Fn() + Send + 'static,
) -> io::Result<Arc<Mutex<Health>>> {
    let shared = Arc::new(Mutex::new(Health::default()));
    let (result, checks) = (Arc::clone(&shared), checks.clone());
    let look_forever = move || {
        loop {
            let health = Health { clear_dropped: clear_dropped(), ..look(&checks) };
            if let Ok(mut shared) = result.lock() {
                *shared = health;
            }
            found();
            std::thread::sleep(Duration::from_millis(checks.interval_ms));
        }
    };
    std::thread::Builder::new().name("health".into()).spawn(look_forever)?;
    Ok(shared)
}

fn look(checks: &HealthChecks) -> Health {
    let fails = |address: &&SocketAddr| TcpStream::connect_timeout(address, CONNECT_LIMIT).is_err();
    let loadavg = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let sockets = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Health {
        failed: checks.tcp.iter().filter(fails).copied().collect(),
        load_percent: load_percent(&loadavg, cpus).unwrap_or(0),
        connections: tcp_in_use(&sockets).unwrap_or(0),
        clear_dropped: 0,
        known: true,
    }
}

/// The first number of `/proc/loadavg`, in percent of `cpus`.
fn load_percent(loadavg: &str, cpus: usize) -> Option<u32> {
    let load: f64 = loadavg.split_whitespace().next()?.parse().ok()?;
    Some((load * 100.0 / cpus.max(1) as f64) as u32)
}

/// "TCP: inuse 5 orphan ..." of `/proc/net/sockstat`.
fn tcp_in_use(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP: inuse "))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn load_and_sockets_are_read_as_the_kernel_writes_them() {
        assert_eq!(load_percent("1.50 0.97 0.93 2/345 12345\n", 2), Some(75));
        assert_eq!(load_percent("", 2), None);
        let sockstat =
            "sockets: used 218\nTCP: inuse 17 orphan 0 tw 4 alloc 23 mem 2\nUDP: inuse 3 mem 1\n";
        assert_eq!(tcp_in_use(sockstat), Some(17));
        assert_eq!(tcp_in_use("UDP: inuse 3\n"), None);
    }

    #[test]
    fn a_service_that_listens_is_well_and_one_that_does_not_is_named() {
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let tcp = vec![open.local_addr().unwrap(), closed];
        let health = look(&HealthChecks { tcp, interval_ms: 1_000 });
        assert_eq!(health.failed, [closed]);
        assert!(!health.is_well());
    }
}
