//! A deadline as a file descriptor, exact to the nanosecond: the poll's own timeout counts
//! milliseconds, and a tick is five of them.

use holdfast_packet::Nanos;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Fires once at an absolute moment of [`crate::clock::now`].
#[derive(Debug)]
pub(super) struct Timer {
    descriptor: OwnedFd,
    armed: Option<Nanos>,
}

impl Timer {
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let descriptor = timerfd_create(TimerfdClockId::Boottime, flags)?;
        registry.register(&mut SourceFd(&descriptor.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { descriptor, armed: None })
    }

    /// Fires at `deadline`, or never. A deadline in the past fires at once.
    pub(super) fn set(&mut self, deadline: Option<Nanos>) -> io::Result<()> {
        if self.armed == deadline {
            return Ok(());
        }
        // Zero would disarm; the clock's first nanosecond is long past.
        let moment = deadline.map_or(0, |deadline| deadline.0.max(1));
        let it_value = Timespec {
            tv_sec: i64::try_from(moment / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(moment % 1_000_000_000).unwrap_or(0),
        };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let flags = TimerfdTimerFlags::ABSTIME;
        timerfd_settime(&self.descriptor, flags, &Itimerspec { it_interval, it_value })?;
        self.armed = deadline;
        Ok(())
    }

    /// It fired.
    pub(super) fn acknowledge(&mut self) {
        self.armed = None;
        let mut count = [0u8; 8];
        // Empty when it was set anew meanwhile.
        let _read = rustix::io::read(&self.descriptor, &mut count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use mio::{Events, Poll};
    use std::time::Duration;

    #[test]
    fn it_fires_at_its_deadline_and_not_before_and_can_be_set_again() {
        let mut poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(4);
        let mut timer = Timer::new(poll.registry(), Token(1)).unwrap();
        for _ in 0..3 {
            let deadline = clock::now().plus_us(1_500);
            timer.set(Some(deadline)).unwrap();
            poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
            assert!(clock::now() >= deadline);
            assert_eq!(events.iter().count(), 1);
            timer.acknowledge();
        }
        timer.set(Some(Nanos(1))).unwrap();
        poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
        assert_eq!(events.iter().count(), 1, "the past fires at once");
        timer.acknowledge();

        timer.set(Some(clock::now().plus_ms(1))).unwrap();
        timer.set(None).unwrap();
        poll.poll(&mut events, Some(Duration::from_millis(5))).unwrap();
        assert!(events.is_empty(), "disarmed");
    }
}
