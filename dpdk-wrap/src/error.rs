//! What can fail while the environment and its ports are set up. Nothing fails on the packet path.

use holdfast_dpdk_sys as sys;
use std::ffi::{CStr, c_int};
use std::fmt;

/// Why DPDK could not be set up as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DpdkError {
    /// The caller's fault: the environment starts once in a process, even when it failed.
    #[error("DPDK's environment was started before in this process")]
    AlreadyStarted,
    /// The caller's fault: somebody else holds, or held, this port.
    #[error("port {name} was opened before in this process")]
    AlreadyOpen {
        /// The port's name.
        name: String,
    },
    /// The configuration's fault: neither a virtual device nor a PCI address.
    #[error(
        "{text:?} is no device: give a virtual one (net_af_packet0,iface=eth0) or a PCI address (0000:01:00.0)"
    )]
    BadDevice {
        /// What was given.
        text: String,
    },
    /// The configuration's fault: text with a zero byte cannot reach DPDK.
    #[error("{text:?} contains a zero byte")]
    ZeroByte {
        /// What was given.
        text: String,
    },
    /// The configuration's fault: no device of this name is attached.
    #[error("no port is named {name}: is its device among those given to the environment?")]
    NoSuchPort {
        /// The port's name.
        name: String,
    },
    /// The configuration's fault: the device has fewer queues.
    #[error("port {name} has {available} queue pairs, {asked} were asked for")]
    TooFewQueues {
        /// The port's name.
        name: String,
        /// How many were asked for.
        asked: u16,
        /// How many it has.
        available: u16,
    },
    /// The system's or the driver's fault: a call into DPDK was refused.
    #[error("{call} for {subject}: {errno}")]
    Refused {
        /// The function of DPDK.
        call: &'static str,
        /// The port or pool it was called for, or `the environment`.
        subject: String,
        /// Its reason.
        errno: Errno,
    },
}

/// A system error number as DPDK reports it, positive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub c_int);

impl Errno {
    /// The number of the thread's last failed call (`rte_errno`).
    pub(crate) fn last() -> Self {
        // SAFETY: reads a thread-local integer; no precondition.
        Self(unsafe { sys::holdfast_errno() })
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: accepts any number and returns a pointer to a static or per-thread string.
        let text = unsafe { sys::rte_strerror(self.0) };
        // SAFETY: that string ends with a zero byte and is only overwritten by this thread's next
        // call of rte_strerror.
        let text = unsafe { CStr::from_ptr(text) };
        write!(f, "{} (errno {})", text.to_string_lossy(), self.0)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Turns DPDK's "0 or a negative error number" into a result.
pub(crate) fn check(code: c_int, call: &'static str, subject: &str) -> Result<(), DpdkError> {
    if code >= 0 {
        return Ok(());
    }
    Err(refused(Errno(code.saturating_neg()), call, subject))
}

pub(crate) fn refused(errno: Errno, call: &'static str, subject: &str) -> DpdkError {
    DpdkError::Refused { call, subject: subject.to_owned(), errno }
}

/// A C string for DPDK.
pub(crate) fn c_string(text: &str) -> Result<std::ffi::CString, DpdkError> {
    std::ffi::CString::new(text).map_err(|_| DpdkError::ZeroByte { text: text.to_owned() })
}
