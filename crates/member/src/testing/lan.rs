//! A network of one switch that learns where stations are.

use holdfast_cluster::MemberId;
use holdfast_packet::{MacAddr, ethernet};
use std::collections::BTreeMap;

/// Who is plugged into a switch port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attachment {
    /// A member's port.
    Member(MemberId),
    /// A host, by its number in the world.
    Host(usize),
}

/// One switch: forwards to the learnt port, floods what it has not learnt.
#[derive(Debug, Clone, Default)]
pub struct Lan {
    attached: Vec<Attachment>,
    learnt: BTreeMap<MacAddr, Attachment>,
    unplugged: Vec<Attachment>,
}

impl Lan {
    /// Plugs somebody in.
    pub fn attach(&mut self, attachment: Attachment) {
        self.attached.push(attachment);
    }

    /// Pulls somebody's cable, or puts it back.
    pub fn set_plugged(&mut self, attachment: Attachment, plugged: bool) {
        self.unplugged.retain(|pulled| *pulled != attachment);
        if !plugged {
            self.unplugged.push(attachment);
        }
    }

    /// Who receives `frame` of `from`.
    pub fn forward(&mut self, from: Attachment, frame: &[u8]) -> Vec<Attachment> {
        let Ok(view) = ethernet::View::parse(frame) else { return Vec::new() };
        if self.unplugged.contains(&from) {
            return Vec::new();
        }
        self.learnt.insert(view.source(), from);
        let known = self.learnt.get(&view.destination()).filter(|_| !view.destination().is_group());
        let receivers = self.attached.iter().copied().filter(|to| match known {
            Some(port) => to == port && *to != from,
            None => *to != from,
        });
        receivers.filter(|to| !self.unplugged.contains(to)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_packet::frame;

    #[test]
    fn a_switch_floods_until_it_has_learnt() {
        let [a, b, c] = [0, 1, 2].map(Attachment::Host);
        let mut lan = Lan::default();
        [a, b, c].into_iter().for_each(|host| lan.attach(host));
        let [mac_a, mac_b] = [1, 2].map(|n| MacAddr([2, 0, 0, 0, 0, n]));
        let to_b = frame::ethernet_frame(mac_b, mac_a, &[]);
        let to_a = frame::ethernet_frame(mac_a, mac_b, &[]);
        assert_eq!(lan.forward(a, &to_b), [b, c]);
        assert_eq!(lan.forward(b, &to_a), [a]);
        lan.set_plugged(b, false);
        assert_eq!(lan.forward(a, &to_b), []);
        assert_eq!(lan.forward(c, &to_a), [a], "the station moved");
    }
}
