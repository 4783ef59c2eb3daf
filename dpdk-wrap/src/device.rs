//! What a configuration names: a device that brings a port.

use crate::DpdkError;
use std::fmt;
use std::str::FromStr;

/// A device for the environment to attach, in DPDK's own notation.
///
/// Either a virtual device, `DRIVER<number>[,key=value]...` such as `net_af_packet0,iface=eth0`, or
/// a PCI address with optional arguments, such as `0000:01:00.0`. A PCI address without its domain
/// (`01:00.0`) gets domain 0000, because DPDK names the port so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    name: String,
    arguments: String,
    is_virtual: bool,
}

impl Device {
    /// The name of the port this device brings.
    pub fn port_name(&self) -> &str {
        &self.name
    }

    /// The kernel's interface underneath, for drivers that sit on one (`iface=`).
    pub fn interface(&self) -> Option<&str> {
        self.arguments.split(',').find_map(|argument| argument.strip_prefix("iface="))
    }

    /// The same device, its frames going through the queue that the kernel's interface has, where the
    /// driver sits on one and its arguments do not say.
    ///
    /// `net_af_packet` goes around that queue by default. What a link without carrier refuses then
    /// waits in its ring, and all of it leaves when the link is back: long after it was made.
    #[must_use]
    pub fn queued(mut self) -> Self {
        let says = self.arguments.contains(",qdisc_bypass=");
        if self.name.starts_with("net_af_packet") && !says {
            self.arguments.push_str(",qdisc_bypass=0");
        }
        self
    }

    /// True for a virtual device, false for one on the PCI bus.
    pub const fn is_virtual(&self) -> bool {
        self.is_virtual
    }
}

impl FromStr for Device {
    type Err = DpdkError;

    fn from_str(text: &str) -> Result<Self, DpdkError> {
        let bad = || DpdkError::BadDevice { text: text.to_owned() };
        let (name, arguments) = match text.split_once(',') {
            Some((name, arguments)) => (name, format!(",{arguments}")),
            None => (text, String::new()),
        };
        if let Some(address) = pci_address(name) {
            return Ok(Self { name: address, arguments, is_virtual: false });
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if !name.starts_with("net_") || !name.chars().all(plain) || text.contains('\0') {
            return Err(bad());
        }
        Ok(Self { name: name.to_owned(), arguments, is_virtual: true })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, self.arguments)
    }
}

/// `[dddd:]bb:dd.f`, spelled as DPDK spells it; `None` for anything else.
fn pci_address(text: &str) -> Option<String> {
    let (bus_part, function) = text.rsplit_once('.')?;
    let mut parts = bus_part.rsplit(':');
    let device = hex(parts.next()?, 2)?;
    let bus = hex(parts.next()?, 2)?;
    let domain = parts.next().map_or(Some(0), |domain| hex(domain, 8))?;
    let function = hex(function, 1).filter(|&f| f <= 7)?;
    let whole = parts.next().is_none();
    whole.then(|| format!("{domain:04x}:{bus:02x}:{device:02x}.{function}"))
}

fn hex(text: &str, digits_max: usize) -> Option<u32> {
    let plain = !text.is_empty() && text.len() <= digits_max;
    let digits = text.chars().all(|c| c.is_ascii_hexdigit());
    u32::from_str_radix(text, 16).ok().filter(|_| plain && digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Device {
        text.parse().unwrap()
    }

    #[test]
    fn a_virtual_device_is_named_before_its_arguments() {
        let device = parsed("net_af_packet0,iface=out0,framesz=4096");
        assert_eq!(device.port_name(), "net_af_packet0");
        assert!(device.is_virtual());
        assert_eq!(device.interface(), Some("out0"));
        assert_eq!(device.to_string(), "net_af_packet0,iface=out0,framesz=4096");
        assert_eq!(parsed("net_null1").to_string(), "net_null1");
        assert_eq!(parsed("net_null1").interface(), None);
    }

    #[test]
    fn frames_go_through_the_kernels_queue_unless_the_arguments_say() {
        let queued = |text| parsed(text).queued().to_string();
        assert_eq!(queued("net_af_packet0,iface=a"), "net_af_packet0,iface=a,qdisc_bypass=0");
        let around = "net_af_packet0,iface=a,qdisc_bypass=1";
        assert_eq!(queued(around), around);
        assert_eq!(queued("net_ring0"), "net_ring0");
    }

    #[test]
    fn a_pci_address_is_spelled_in_full() {
        assert_eq!(parsed("01:00.0").port_name(), "0000:01:00.0");
        assert_eq!(parsed("0000:0A:1f.7").port_name(), "0000:0a:1f.7");
        let device = parsed("0001:01:00.1,rxq_cqe_comp_en=0");
        assert!(!device.is_virtual());
        assert_eq!(device.to_string(), "0001:01:00.1,rxq_cqe_comp_en=0");
    }

    #[test]
    fn anything_else_is_refused() {
        let wrong = [
            "",
            "eth0",
            "net_null 0",
            "01:00.8",
            "01:00",
            "1:2:3:4.0",
            "g1:00.0",
            "net_x,\0",
            ".0",
        ];
        for text in wrong {
            assert!(text.parse::<Device>().is_err(), "{text:?} was taken");
        }
    }
}
