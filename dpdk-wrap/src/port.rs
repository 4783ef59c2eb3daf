//! Ports: devices with queues.

use crate::error::{DpdkError, c_string, check};
use crate::queue::{QueuePair, RxQueue, TxQueue};
use crate::{Eal, Mempool};
use holdfast_dpdk_sys as sys;
use holdfast_packet::MacAddr;
use std::collections::BTreeSet;
use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// State of a port that is not started: it can be configured.
#[derive(Debug)]
pub struct Stopped {
    device: Arc<OpenDevice>,
}

/// State of a port whose queues move packets.
#[derive(Debug)]
pub struct Started {
    running: Arc<Running>,
}

/// A device's port, `Port<Stopped>` or `Port<Started>`.
#[derive(Debug)]
pub struct Port<State> {
    state: State,
}

/// What a port is started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortOptions {
    /// Queue pairs, one for each worker. Packets are spread over them by RSS where the device can.
    pub queues: u16,
    /// Receive descriptors of each queue; rounded to what the device takes.
    pub rx_descriptors: u16,
    /// Transmit descriptors of each queue; rounded to what the device takes.
    pub tx_descriptors: u16,
    /// Receive every frame, whatever station it is addressed to.
    pub promiscuous: bool,
}

impl Default for PortOptions {
    /// One queue pair of 512 descriptors (eight bursts) each way, promiscuous.
    fn default() -> Self {
        Self { queues: 1, rx_descriptors: 512, tx_descriptors: 512, promiscuous: true }
    }
}

/// The state of a port's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Frames can pass.
    pub up: bool,
    /// Speed in Mbit/s; 0 or `u32::MAX` when unknown.
    pub speed_mbps: u32,
}

/// Counters of a port since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortStatistics {
    /// Frames received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames lost because no receive descriptor was free.
    pub rx_missed: u64,
    /// Frames received damaged.
    pub rx_errors: u64,
    /// Frames lost because the pool was empty.
    pub rx_no_buffer: u64,
    /// Frames refused because they came in more than one segment.
    pub rx_multi_segment: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
}

/// An attached device whose port is ours. Closed when dropped: by a [`Stopped`] or a [`Running`].
#[derive(Debug)]
struct OpenDevice {
    id: u16,
    name: String,
}

/// A started device. Stopped when dropped: when the port's handle and all its queues are gone.
#[derive(Debug)]
pub(crate) struct Running {
    device: Arc<OpenDevice>,
    pub(crate) id: u16,
    pub(crate) multi_segment: AtomicU64,
}

impl Port<Stopped> {
    /// Takes the port of an attached device: a virtual device's name or a PCI address, as
    /// [`crate::Device::port_name`] tells. Each can be taken once in a process.
    ///
    /// # Errors
    /// [`DpdkError::NoSuchPort`], [`DpdkError::AlreadyOpen`], [`DpdkError::ZeroByte`].
    pub fn open(_: Eal, name: &str) -> Result<Self, DpdkError> {
        static OPENED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
        let c_name = c_string(name)?;
        let mut id = 0;
        // SAFETY: a C string and a place for the answer; the environment is up.
        let code = unsafe { sys::rte_eth_dev_get_port_by_name(c_name.as_ptr(), &raw mut id) };
        if code != 0 {
            return Err(DpdkError::NoSuchPort { name: name.to_owned() });
        }
        if !OPENED.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
            return Err(DpdkError::AlreadyOpen { name: name.to_owned() });
        }
        let device = Arc::new(OpenDevice { id, name: name.to_owned() });
        Ok(Self { state: Stopped { device } })
    }

    /// The station address.
    ///
    /// # Errors
    /// [`DpdkError::Refused`] when the device is gone.
    pub fn mac(&self) -> Result<MacAddr, DpdkError> {
        self.state.device.mac()
    }

    /// The largest packet behind the Ethernet header, in bytes.
    ///
    /// # Errors
    /// [`DpdkError::Refused`] when the device is gone.
    pub fn mtu(&self) -> Result<u16, DpdkError> {
        self.state.device.mtu()
    }

    /// Gives the device another station address.
    ///
    /// # Errors
    /// [`DpdkError::Refused`] when the address is no unicast one or the driver cannot.
    pub fn set_mac(&mut self, mac: MacAddr) -> Result<(), DpdkError> {
        let device = &self.state.device;
        let mut address = sys::rte_ether_addr { addr_bytes: mac.0 };
        // SAFETY: an open port, and an address that DPDK copies.
        let code = unsafe { sys::rte_eth_dev_default_mac_addr_set(device.id, &raw mut address) };
        check(code, "rte_eth_dev_default_mac_addr_set", &device.name)
    }

    /// Sets the largest packet behind the Ethernet header, in bytes.
    ///
    /// # Errors
    /// [`DpdkError::Refused`] when the driver cannot.
    pub fn set_mtu(&mut self, mtu: u16) -> Result<(), DpdkError> {
        let device = &self.state.device;
        // SAFETY: an open port.
        let code = unsafe { sys::rte_eth_dev_set_mtu(device.id, mtu) };
        check(code, "rte_eth_dev_set_mtu", &device.name)
    }

    /// Makes the queues and starts the device. Received packets come from `pool`, and so do those
    /// a queue pair allocates.
    ///
    /// # Errors
    /// [`DpdkError::TooFewQueues`], or [`DpdkError::Refused`] when the driver cannot, for instance
    /// because the pool's data room is smaller than the device's frames. The device is closed then.
    pub fn start(
        self,
        options: &PortOptions,
        pool: Mempool,
    ) -> Result<(Port<Started>, Vec<QueuePair>), DpdkError> {
        let device = self.state.device;
        device.configure(options, pool)?;
        let mac = device.mac()?;
        let mtu = device.mtu()?;
        let id = device.id;
        // SAFETY: an open, configured port.
        check(unsafe { sys::rte_eth_dev_start(id) }, "rte_eth_dev_start", &device.name)?;
        let multi_segment = AtomicU64::new(0);
        let running = Arc::new(Running { device, id, multi_segment });
        if options.promiscuous {
            running.receive_everything()?;
        }
        let queue_pair = |queue| {
            let rx = RxQueue::new(Arc::clone(&running), queue);
            let tx = TxQueue::new(Arc::clone(&running), queue);
            QueuePair::new(rx, tx, pool, mac, mtu)
        };
        let queue_pairs = (0..options.queues).map(queue_pair).collect();
        Ok((Port { state: Started { running } }, queue_pairs))
    }
}

impl Port<Started> {
    /// The port's name.
    pub fn name(&self) -> &str {
        self.state.running.name()
    }

    /// Reads the link's state. Not a matter for the packet path: some drivers ask the kernel.
    ///
    /// # Errors
    /// [`DpdkError::Refused`] when the device is gone.
    pub fn link(&self) -> Result<Link, DpdkError> {
        let (mut up, mut speed_mbps): (c_int, u32) = (0, 0);
        let id = self.state.running.id;
        // SAFETY: a started port, and places for the answers.
        let code = unsafe { sys::holdfast_port_link(id, &raw mut up, &raw mut speed_mbps) };
        check(code, "rte_eth_link_get_nowait", self.name())?;
        Ok(Link { up: up != 0, speed_mbps })
    }

    /// Reads the counters.
    ///
    /// # Errors
    /// [`DpdkError::Refused`] when the device is gone.
    pub fn statistics(&self) -> Result<PortStatistics, DpdkError> {
        let mut raw = sys::rte_eth_stats::default();
        // SAFETY: a started port, and a place for the answer.
        let code = unsafe { sys::rte_eth_stats_get(self.state.running.id, &raw mut raw) };
        check(code, "rte_eth_stats_get", self.name())?;
        Ok(PortStatistics {
            rx_packets: raw.ipackets,
            rx_bytes: raw.ibytes,
            rx_missed: raw.imissed,
            rx_errors: raw.ierrors,
            rx_no_buffer: raw.rx_nombuf,
            rx_multi_segment: self.state.running.multi_segment.load(Ordering::Relaxed),
            tx_packets: raw.opackets,
            tx_bytes: raw.obytes,
            tx_errors: raw.oerrors,
        })
    }

    /// Stops the device. Its queue pairs must be gone.
    ///
    /// # Errors
    /// Gives the port back when a queue pair is still in use.
    pub fn stop(self) -> Result<Port<Stopped>, Self> {
        let running = Arc::try_unwrap(self.state.running)
            .map_err(|running| Self { state: Started { running } })?;
        let device = Arc::clone(&running.device);
        drop(running); // stops the device
        Ok(Port { state: Stopped { device } })
    }
}

impl OpenDevice {
    fn mac(&self) -> Result<MacAddr, DpdkError> {
        let mut address = sys::rte_ether_addr { addr_bytes: [0; 6] };
        // SAFETY: an open port, and a place for the answer.
        let code = unsafe { sys::rte_eth_macaddr_get(self.id, &raw mut address) };
        check(code, "rte_eth_macaddr_get", &self.name)?;
        Ok(MacAddr(address.addr_bytes))
    }

    fn mtu(&self) -> Result<u16, DpdkError> {
        let mut mtu = 0;
        // SAFETY: an open port, and a place for the answer.
        let code = unsafe { sys::rte_eth_dev_get_mtu(self.id, &raw mut mtu) };
        check(code, "rte_eth_dev_get_mtu", &self.name)?;
        Ok(mtu)
    }

    fn configure(&self, options: &PortOptions, pool: Mempool) -> Result<(), DpdkError> {
        let mut available = 0;
        // SAFETY: an open, stopped port, and a place for the answer.
        let code =
            unsafe { sys::holdfast_port_configure(self.id, options.queues, &raw mut available) };
        if options.queues > available {
            let name = self.name.clone();
            return Err(DpdkError::TooFewQueues { name, asked: options.queues, available });
        }
        check(code, "rte_eth_dev_configure", &self.name)?;
        let (mut rx, mut tx) = (options.rx_descriptors, options.tx_descriptors);
        // SAFETY: an open port, and two numbers to adjust.
        let code =
            unsafe { sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.id, &raw mut rx, &raw mut tx) };
        check(code, "rte_eth_dev_adjust_nb_rx_tx_desc", &self.name)?;
        // A device on no particular NUMA node says -1, which means any.
        // SAFETY: an open port.
        let node = unsafe { sys::rte_eth_dev_socket_id(self.id) }.cast_unsigned();
        for queue in 0..options.queues {
            self.set_up_queue(queue, (rx, tx), node, pool)?;
        }
        Ok(())
    }

    fn set_up_queue(
        &self,
        queue: u16,
        (rx_descriptors, tx_descriptors): (u16, u16),
        node: u32,
        pool: Mempool,
    ) -> Result<(), DpdkError> {
        // SAFETY: a configured, stopped port with this queue; no configuration means the driver's
        // default; the pool lives for ever.
        let code = unsafe {
            let defaults = ptr::null();
            sys::rte_eth_rx_queue_setup(
                self.id,
                queue,
                rx_descriptors,
                node,
                defaults,
                pool.as_ptr(),
            )
        };
        check(code, "rte_eth_rx_queue_setup", &self.name)?;
        // SAFETY: as above.
        let code = unsafe {
            sys::rte_eth_tx_queue_setup(self.id, queue, tx_descriptors, node, ptr::null())
        };
        check(code, "rte_eth_tx_queue_setup", &self.name)
    }
}

impl Drop for OpenDevice {
    fn drop(&mut self) {
        // SAFETY: an open port, stopped or never started; nobody uses it after this, as it cannot
        // be opened again.
        let _ = unsafe { sys::rte_eth_dev_close(self.id) };
    }
}

impl Running {
    fn name(&self) -> &str {
        &self.device.name
    }

    /// Drivers that receive everything anyway may not know the call.
    fn receive_everything(&self) -> Result<(), DpdkError> {
        /// `ENOTSUP`
        const NOT_SUPPORTED: c_int = -95;
        // SAFETY: a started port.
        let code = unsafe { sys::rte_eth_promiscuous_enable(self.id) };
        if code == NOT_SUPPORTED {
            return Ok(());
        }
        check(code, "rte_eth_promiscuous_enable", self.name())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SAFETY: a started port none of whose queues is in use: they share this value.
        let _ = unsafe { sys::rte_eth_dev_stop(self.id) };
    }
}
