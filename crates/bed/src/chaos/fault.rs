//! Which fault comes next: drawn from a seed, nothing else.

use serde::Serialize;

/// A link of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// Towards the peers.
    Outside,
    /// Towards the targets.
    Inside,
    /// Between the members.
    Management,
}

impl Link {
    /// Device in the member's namespace.
    pub fn device(self) -> &'static str {
        match self {
            Self::Outside => "outside",
            Self::Inside => "inside",
            Self::Management => "mgmt",
        }
    }

    /// End of the link's far end among the wires, after the member's name.
    pub fn far_end(self) -> &'static str {
        match self {
            Self::Outside => "out",
            Self::Inside => "in",
            Self::Management => "mgmt",
        }
    }

    /// All of a member.
    pub const ALL: [Self; 3] = [Self::Outside, Self::Inside, Self::Management];
}

/// Something bad that happens to one member, or something planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// SIGKILL, then a restart.
    Kill,
    /// SIGKILL, a restart at once, and SIGKILL for the successor as soon as it has taken over.
    KillTwice,
    /// SIGSTOP, and SIGCONT later: the member wakes up believing what it believed.
    Zombie,
    /// SIGKILL and every link down; links and member come back later.
    PowerOff,
    /// SIGSTOP, never continued: the host is silent, its links stay up. Restarted later.
    KernelPanic,
    /// One link without carrier.
    LinkDown(Link),
    /// What other members send does not arrive; what this one sends does.
    Deaf,
    /// What this member sends to the others does not leave; what they send arrives.
    Mute,
    /// The file system of its log is full.
    FullDisk,
    /// The file system of its log has an error and allows no more writing.
    FailingDisk,
    /// One worker thread does not run; the rest of the process does.
    StuckWorker,
    /// SIGKILL, and a restart with a clock that differs by days.
    ClockJump,
    /// Handover on purpose.
    Handover,
}

impl Fault {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::KillTwice => "kill_twice",
            Self::Zombie => "zombie",
            Self::PowerOff => "power_off",
            Self::KernelPanic => "kernel_panic",
            Self::LinkDown(Link::Outside) => "outside_link_down",
            Self::LinkDown(Link::Inside) => "inside_link_down",
            Self::LinkDown(Link::Management) => "management_link_down",
            Self::Deaf => "deaf",
            Self::Mute => "mute",
            Self::FullDisk => "full_disk",
            Self::FailingDisk => "failing_disk",
            Self::StuckWorker => "stuck_worker",
            Self::ClockJump => "clock_jump",
            Self::Handover => "handover",
        }
    }

    /// All, for a plan that leaves none out.
    pub const ALL: [Self; 15] = [
        Self::Kill,
        Self::Zombie,
        Self::Handover,
        Self::PowerOff,
        Self::Mute,
        Self::KillTwice,
        Self::LinkDown(Link::Management),
        Self::Deaf,
        Self::LinkDown(Link::Outside),
        Self::KernelPanic,
        Self::LinkDown(Link::Inside),
        Self::FullDisk,
        Self::ClockJump,
        Self::FailingDisk,
        Self::StuckWorker,
    ];
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// What.
    pub fault: Fault,
    /// Whether it meets the owner, else one of the others.
    pub meets_owner: bool,
    /// Choice among the others.
    pub choice: u8,
    /// How long it lasts.
    pub lasts_ms: u64,
    /// Quiet time before it.
    pub pause_ms: u64,
    /// What the clients do just before: rekeys in flight are the hard case.
    pub rekey: Rekey,
}

/// A rekey that a client begins at a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rekey {
    /// None.
    None,
    /// Of its Child SA.
    Child,
    /// Of its IKE SA.
    Ike,
}

/// An endless sequence of turns, the same for the same seed. Every fault comes before any comes
/// a second time.
#[derive(Debug, Clone)]
pub struct Plan {
    random: Random,
    hand: Vec<Fault>,
}

impl Plan {
    /// The plan of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { random: Random(seed), hand: Vec::new() }
    }

    /// The next turn.
    pub fn next_turn(&mut self) -> Turn {
        if self.hand.is_empty() {
            self.hand.extend(Fault::ALL);
            self.shuffle();
        }
        let fault = self.hand.pop().unwrap_or(Fault::Kill);
        let random = &mut self.random;
        // Two of three meet the owner: the others' faults must not be noticed at all.
        let meets_owner = random.below(3) > 0 || fault == Fault::Handover;
        let rekey = match random.below(4) {
            0 => Rekey::Child,
            1 => Rekey::Ike,
            _ => Rekey::None,
        };
        Turn {
            fault,
            meets_owner,
            choice: random.below(2) as u8,
            // From shorter than an election to much longer.
            lasts_ms: [60, 300, 1_000, 2_500][random.below(4) as usize] + random.below(200),
            pause_ms: 300 + random.below(1_200),
            rekey,
        }
    }

    fn shuffle(&mut self) {
        for last in (1..self.hand.len()).rev() {
            let other = self.random.below(last as u64 + 1) as usize;
            self.hand.swap(last, other);
        }
    }
}

/// SplitMix64 (public domain, Sebastiano Vigna): reproducible, of no other use.
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn turns(seed: u64) -> Vec<Turn> {
        let mut plan = Plan::new(seed);
        (0..60).map(|_| plan.next_turn()).collect()
    }

    #[test]
    fn a_seed_is_a_plan() {
        assert_eq!(turns(7), turns(7));
        assert_ne!(turns(7), turns(8));
    }

    #[test]
    fn every_fault_comes_before_any_comes_again() {
        for seed in 0..20 {
            let names: BTreeSet<_> =
                turns(seed).iter().take(Fault::ALL.len()).map(|turn| turn.fault.name()).collect();
            assert_eq!(names.len(), Fault::ALL.len());
        }
    }

    #[test]
    fn owners_and_others_are_met() {
        let met = turns(1).iter().filter(|turn| turn.meets_owner).count();
        assert!((20..60).contains(&met), "{met}");
    }
}
