//! The two ports and the memory behind them.

use super::{WorkerError, WorkerPlan};
use crate::config;
use holdfast_dpdk_wrap::{
    Device, DpdkError, Eal, EalConfig, Hugepages, Mempool, MempoolOptions, Port, PortOptions,
    PortStatistics, QueuePair, Started,
};
use holdfast_packet::{BURST, MacAddr, Port as _};
use std::fs;
use std::io;

/// Names the folder DPDK makes under its run directory; members on one host share it, it is empty.
const FILE_PREFIX: &str = "holdfast";

/// Both ports, started.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) eal: Eal,
    pub(super) outside: OpenPort,
    pub(super) inside: OpenPort,
    /// The way to the target on this host, with the station at the host's end.
    pub(super) local: Option<(OpenPort, MacAddr)>,
    /// Its queues, one for each worker.
    pub(super) local_queues: Vec<QueuePair>,
    /// One pair of outside and inside queues for each worker.
    pub(super) queues: Vec<(QueuePair, QueuePair)>,
}

/// A started port as the controller sees it.
#[derive(Debug)]
pub(super) struct OpenPort {
    handle: Port<Started>,
    pub(super) mac: MacAddr,
    /// The kernel's interface underneath.
    interface: Option<String>,
}

impl OpenPort {
    /// Whether frames can pass. Drivers on an interface of the kernel always say so; there the
    /// kernel is asked, too.
    pub(super) fn link_up(&self) -> bool {
        let driver_says = self.handle.link().is_ok_and(|link| link.up);
        driver_says && self.interface.as_deref().is_none_or(kernel_link_up)
    }

    pub(super) fn statistics(&self) -> PortStatistics {
        self.handle.statistics().unwrap_or_default()
    }
}

/// The carrier as sysfs tells it, at once (the operational state follows up to a second later). It
/// cannot be read while the interface is taken down. An interface that is not there counts as up:
/// the one of another network namespace is not seen here.
fn kernel_link_up(interface: &str) -> bool {
    match fs::read_to_string(format!("/sys/class/net/{interface}/carrier")) {
        Ok(carrier) => carrier.trim() == "1",
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Starts DPDK, takes both ports and makes their queues.
pub(super) fn open(plan: &WorkerPlan) -> Result<Ports, WorkerError> {
    let workers = plan.outside.queues;
    if workers == 0 || plan.inside.queues != workers {
        return Err(WorkerError::QueuesDiffer { outside: workers, inside: plan.inside.queues });
    }
    let options = PortOptions { queues: workers, ..PortOptions::default() };
    let ports = if plan.local.is_some() { 3 } else { 2 };
    let pool_options = pool_for(&options, ports);
    // The rest is for the drivers' own rings and tables.
    let needed_mb = (pool_options.memory_bytes() / 3 * 4).div_ceil(1 << 20);
    if needed_mb > u64::from(plan.dpdk.memory_mb) {
        return Err(WorkerError::TooLittleMemory { needed_mb, memory_mb: plan.dpdk.memory_mb });
    }
    let outside = device(&plan.outside.device)?;
    let inside = device(&plan.inside.device)?;
    let local = plan.local.as_ref().map(|local| device(&local.device)).transpose()?;
    let eal = Eal::start(&EalConfig {
        hugepages: match plan.dpdk.hugepages {
            config::Hugepages::Auto => Hugepages::Auto,
            config::Hugepages::Off => Hugepages::Off,
        },
        memory_mb: plan.dpdk.memory_mb,
        ..EalConfig::new(
            [Some(&outside), Some(&inside), local.as_ref()]
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            FILE_PREFIX,
        )
    })?;
    let pool = Mempool::new(eal, "packets", &pool_options)?;
    let (outside, outside_queues) = start(eal, &outside, &options, pool)?;
    let (inside, inside_queues) = start(eal, &inside, &options, pool)?;
    let (mut way, mut local_queues) = (None, Vec::new());
    if let (Some(device), Some(config)) = (&local, &plan.local) {
        let station = station_of(&config.interface)?;
        let (port, queues) = start(eal, device, &options, pool)?;
        (way, local_queues) = (Some((port, station)), queues);
    }
    let queues = outside_queues.into_iter().zip(inside_queues).collect();
    Ok(Ports { eal, outside, inside, local: way, local_queues, queues })
}

/// A device as the configuration names it. A frame must not wait for a link: it would leave in the
/// name of an owner of the past.
fn device(text: &str) -> Result<Device, DpdkError> {
    text.parse().map(Device::queued)
}

fn start(
    eal: Eal,
    device: &Device,
    options: &PortOptions,
    pool: Mempool,
) -> Result<(OpenPort, Vec<QueuePair>), WorkerError> {
    let (handle, queues) = Port::open(eal, device.port_name())?.start(options, pool)?;
    let mac = queues.first().map_or(MacAddr::ZERO, |queue| queue.mac());
    let interface = device.interface().map(str::to_owned);
    Ok((OpenPort { handle, mac, interface }, queues))
}

/// The station address of an interface of the kernel.
fn station_of(interface: &str) -> Result<MacAddr, WorkerError> {
    let fault = |source| WorkerError::LocalInterface { interface: interface.to_owned(), source };
    let text = fs::read_to_string(format!("/sys/class/net/{interface}/address")).map_err(fault)?;
    parse_station(text.trim()).ok_or_else(|| fault(io::ErrorKind::InvalidData.into()))
}

fn parse_station(text: &str) -> Option<MacAddr> {
    let mut octets = text.split(':').map(|octet| u8::from_str_radix(octet, 16));
    let mut station = [0; 6];
    for octet in &mut station {
        *octet = octets.next()?.ok()?;
    }
    octets.next().is_none().then_some(MacAddr(station))
}

/// One pool for all ports: enough that every descriptor can hold a buffer while every worker has
/// its bursts, its cache and a full handoff ring.
fn pool_for(port: &PortOptions, ports: u32) -> MempoolOptions {
    let thread_cache = MempoolOptions::THREAD_CACHE_DEFAULT;
    let descriptors = u32::from(port.rx_descriptors) + u32::from(port.tx_descriptors);
    let in_hand = 4 * u32::try_from(BURST).unwrap_or(u32::MAX);
    let handoff = u32::try_from(holdfast_datapath::HANDOFF_RING).unwrap_or(u32::MAX);
    // DPDK lets a thread's cache overfill by half before it gives back.
    let for_each_worker = ports * descriptors + in_hand + thread_cache / 2 * 3 + handoff;
    let wanted = for_each_worker.saturating_mul(u32::from(port.queues));
    // One less than a power of two makes the pool's ring fit exactly.
    let buffers = wanted.checked_next_power_of_two().unwrap_or(1 << 31) - 1;
    MempoolOptions { buffers, thread_cache, ..MempoolOptions::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_fits_the_default_memory() {
        let pool = pool_for(&PortOptions::default(), 2);
        assert_eq!(pool.buffers, 4095);
        assert!(pool.memory_bytes() < u64::from(EalConfig::MEMORY_MB_DEFAULT) << 19);
        let three = pool_for(&PortOptions::default(), 3);
        assert!(three.memory_bytes() / 3 * 4 < u64::from(EalConfig::MEMORY_MB_DEFAULT) << 20);
    }

    #[test]
    fn a_station_is_read_as_the_kernel_writes_it() {
        assert_eq!(parse_station("02:00:00:00:aa:01"), Some(MacAddr([2, 0, 0, 0, 0xaa, 1])));
        for text in ["", "02:00:00:00:aa", "02:00:00:00:aa:01:02", "02:00:00:00:aa:zz"] {
            assert_eq!(parse_station(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_pool_grows_with_the_workers() {
        let pool = pool_for(&PortOptions { queues: 16, ..PortOptions::default() }, 2);
        assert_eq!(pool.buffers, 65_535);
    }
}
