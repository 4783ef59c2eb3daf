//! The environment abstraction layer (EAL): memory, devices, thread identities.

use crate::Device;
use crate::error::{DpdkError, Errno, c_string, refused};
use holdfast_dpdk_sys as sys;
use std::ffi::{CString, c_char, c_int};
use std::fs;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where packet memory comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hugepages {
    /// From hugepages when enough of them are free at the start, else from ordinary pages.
    #[default]
    Auto,
    /// From ordinary pages. Virtual devices only: a NIC cannot reach those without an IOMMU.
    Off,
}

/// How the environment is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EalConfig {
    /// Devices to attach; each brings one port. No other device is touched.
    pub devices: Vec<Device>,
    /// Where packet memory comes from.
    pub hugepages: Hugepages,
    /// Packet memory in MiB. Without hugepages all of it is touched at the start, so a large figure
    /// costs start-up time (about 0.3 s at 64 MiB, 2.4 s at 512 MiB).
    pub memory_mb: u32,
    /// Names the folder DPDK makes under its run directory. It stays empty, so processes may share
    /// it.
    pub file_prefix: String,
    /// CPUs that the calling thread, and so threads it starts, may use afterwards. Empty: those it
    /// may use now.
    pub cpus: Vec<u16>,
}

impl EalConfig {
    /// Packet memory that holds two ports' pools and rings with room to spare.
    pub const MEMORY_MB_DEFAULT: u32 = 64;

    /// These devices, everything else by default.
    pub fn new(devices: Vec<Device>, file_prefix: impl Into<String>) -> Self {
        Self {
            devices,
            hugepages: Hugepages::Auto,
            memory_mb: Self::MEMORY_MB_DEFAULT,
            file_prefix: file_prefix.into(),
            cpus: Vec::new(),
        }
    }

    /// The command line DPDK expects, program name first.
    fn arguments(&self, with_hugepages: bool, cpus: &str) -> Vec<String> {
        // One thread of DPDK's own that is the caller, free to run on all of `cpus`: workers are
        // the caller's threads, and DPDK would otherwise bind the caller to a single CPU.
        let lcores = format!("--lcores=0@({cpus})");
        let memory = self.memory_mb.to_string();
        let mut arguments: Vec<String> =
            ["holdfast", &lcores, "-m", &memory].map(str::to_owned).into();
        arguments.push(format!("--file-prefix={}", self.file_prefix));
        // Nothing but this process looks at its telemetry socket; warnings go to standard error.
        arguments.extend(["--no-telemetry", "--log-level=*:warning"].map(str::to_owned));
        if with_hugepages {
            // Anonymous hugepages: no mount needed, nothing left behind by a killed process.
            arguments.push("--in-memory".to_owned());
        } else {
            arguments.extend(["--no-huge", "--no-shconf"].map(str::to_owned));
        }
        let on_pci: Vec<&Device> = self.devices.iter().filter(|d| !d.is_virtual()).collect();
        if on_pci.is_empty() {
            arguments.extend(["--no-pci", "--iova-mode=va"].map(str::to_owned));
        }
        arguments.extend(on_pci.iter().map(|device| format!("--allow={device}")));
        let virtual_devices = self.devices.iter().filter(|d| d.is_virtual());
        arguments.extend(virtual_devices.map(|device| format!("--vdev={device}")));
        arguments
    }

    fn wants_hugepages(&self, folder: &Path) -> bool {
        self.hugepages == Hugepages::Auto && free_hugepages_mb(folder) >= u64::from(self.memory_mb)
    }

    fn cpu_list(&self) -> String {
        if self.cpus.is_empty() {
            let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
            return allowed_cpus(&status).unwrap_or("0").to_owned();
        }
        self.cpus.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
    }
}

/// Proof that DPDK's environment is up. It stays up until the process ends.
#[derive(Debug, Clone, Copy)]
pub struct Eal {
    _started: (),
}

static STARTED: AtomicBool = AtomicBool::new(false);

impl Eal {
    /// Starts the environment and attaches the devices. Takes 0.1 to 0.4 s.
    ///
    /// # Errors
    /// [`DpdkError::AlreadyStarted`] on every call but the first, [`DpdkError::ZeroByte`], or
    /// [`DpdkError::Refused`] when memory or a device is not to be had (DPDK writes the particulars
    /// to standard error). A process whose start failed cannot try again.
    pub fn start(config: &EalConfig) -> Result<Self, DpdkError> {
        let with_hugepages = config.wants_hugepages(Path::new("/sys/kernel/mm/hugepages"));
        let arguments = config.arguments(with_hugepages, &config.cpu_list());
        let arguments: Vec<CString> =
            arguments.iter().map(|text| c_string(text)).collect::<Result<_, _>>()?;
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(DpdkError::AlreadyStarted);
        }
        // DPDK keeps pointers into its command line for as long as it runs.
        let arguments: &'static [CString] = Vec::leak(arguments);
        let mut argv: Vec<*mut c_char> =
            arguments.iter().map(|text| text.as_ptr().cast_mut()).collect();
        let argc = c_int::try_from(argv.len()).unwrap_or(c_int::MAX);
        argv.push(std::ptr::null_mut());
        let argv: &'static mut [*mut c_char] = Vec::leak(argv);
        // SAFETY: argv holds argc pointers to strings that live for ever, then a null pointer;
        // DPDK reorders the pointers and does not write to the strings. STARTED makes this the
        // only call in the process.
        let code = unsafe { sys::rte_eal_init(argc, argv.as_mut_ptr()) };
        if code < 0 {
            return Err(refused(Errno::last(), "rte_eal_init", "the environment"));
        }
        Ok(Self { _started: () })
    }

    /// DPDK's name and release.
    pub fn version(self) -> String {
        // SAFETY: returns a pointer to a static string.
        let text = unsafe { sys::rte_version() };
        // SAFETY: that string ends with a zero byte and lives for ever.
        unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}

/// The identity DPDK gives to a thread: with it, buffers come from a cache of the thread's own.
///
/// Belongs to the thread that made it, and ends with this value.
#[derive(Debug)]
pub struct RegisteredThread {
    /// Not `Send`: the identity is a thread-local of DPDK.
    _thread: PhantomData<*const ()>,
}

impl RegisteredThread {
    /// Registers the calling thread.
    ///
    /// # Errors
    /// [`DpdkError::Refused`] when DPDK has no identity left (128 by default).
    pub fn register(_: Eal) -> Result<Self, DpdkError> {
        // SAFETY: the environment is up; registering twice is harmless to DPDK.
        if unsafe { sys::rte_thread_register() } != 0 {
            return Err(refused(Errno::last(), "rte_thread_register", "this thread"));
        }
        Ok(Self { _thread: PhantomData })
    }
}

impl Drop for RegisteredThread {
    fn drop(&mut self) {
        // SAFETY: the same thread registered itself, as this value never leaves its thread.
        unsafe { sys::rte_thread_unregister() };
    }
}

/// Free hugepages of every size, in MiB. `folder` holds `hugepages-<size>kB/free_hugepages`.
fn free_hugepages_mb(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let free_kb = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        let size_kb = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>();
        let free = fs::read_to_string(entry.path().join("free_hugepages")).ok()?;
        size_kb.ok()?.checked_mul(free.trim().parse().ok()?)
    });
    free_kb.fold(0, u64::saturating_add) / 1024
}

/// The CPUs named in a thread's `status` file in /proc, in the kernel's list notation, which is
/// also DPDK's.
fn allowed_cpus(status: &str) -> Option<&str> {
    status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(devices: &[&str]) -> EalConfig {
        EalConfig::new(devices.iter().map(|text| text.parse().unwrap()).collect(), "m1")
    }

    #[test]
    fn virtual_devices_leave_the_pci_bus_alone() {
        let arguments = config(&["net_null0", "net_ring0"]).arguments(false, "0-1");
        assert_eq!(
            arguments.join(" "),
            "holdfast --lcores=0@(0-1) -m 64 --file-prefix=m1 --no-telemetry --log-level=*:warning \
             --no-huge --no-shconf --no-pci --iova-mode=va --vdev=net_null0 --vdev=net_ring0"
        );
    }

    #[test]
    fn only_the_named_pci_devices_are_taken() {
        let arguments = config(&["01:00.0", "net_null0"]).arguments(true, "2");
        let arguments = arguments.join(" ");
        assert!(arguments.contains("--in-memory --allow=0000:01:00.0 --vdev=net_null0"));
        assert!(!arguments.contains("--no-pci") && !arguments.contains("--no-huge"));
    }

    #[test]
    fn the_kernels_cpu_list_is_passed_on() {
        let status = "Name:\tx\nCpus_allowed:\t3\nCpus_allowed_list:\t0-1,4\n";
        assert_eq!(allowed_cpus(status), Some("0-1,4"));
        assert_eq!(allowed_cpus(""), None);
        let chosen = EalConfig { cpus: vec![1, 3], ..config(&[]) };
        assert_eq!(chosen.cpu_list(), "1,3");
    }

    #[test]
    fn no_hugepages_folder_means_no_hugepages() {
        assert_eq!(free_hugepages_mb(Path::new("/nowhere")), 0);
        assert!(!config(&[]).wants_hugepages(Path::new("/nowhere")));
    }
}
