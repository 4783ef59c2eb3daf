//! A worker by itself: the only one of its member.

use crate::command::{WorkerCommand, WorkerEvent};
use crate::counters::Counters;
use crate::handoff::Handoff;
use crate::lease::LeaseCell;
use crate::ring::{COMMAND_RING, EVENT_RING, RingReceiver, RingSender, ring};
use crate::tables::TablesPublisher;
use crate::worker::{WorkerLimits, WorkerParts};
use holdfast_crypto::AeadBurst;
use holdfast_packet::{Nanos, Port};
use std::fmt;
use std::sync::Arc;

/// The controller's ends of what a worker is made of.
pub struct Controls {
    /// Orders to the worker.
    pub commands: RingSender<WorkerCommand>,
    /// Its news.
    pub events: RingReceiver<WorkerEvent>,
    /// Writes the tables it reads; empty ones until then.
    pub publisher: TablesPublisher,
    /// Not given yet.
    pub lease: LeaseCell,
}

impl<P: Port> WorkerParts<P> {
    /// The parts of a worker that has nobody to hand packets to, and the other ends of them.
    ///
    /// Its clock stands still, so that a lease ends when a poll says so; a caller with threads puts
    /// the real one in its place.
    pub fn alone(
        outside: P,
        inside: P,
        aead: Box<dyn AeadBurst>,
        limits: WorkerLimits,
    ) -> (Self, Controls) {
        let (command_sender, commands) = ring(COMMAND_RING);
        let (events, event_receiver) = ring(EVENT_RING);
        let mut publisher = TablesPublisher::new();
        let lease = LeaseCell::new();
        let parts = Self {
            outside,
            inside,
            commands,
            events,
            lease: lease.clone(),
            clock: || Nanos::ZERO,
            tables: publisher.reader(),
            counters: Arc::new(Counters::new()),
            handoff: Handoff::mesh(1).remove(0),
            aead,
            limits,
        };
        (parts, Controls { commands: command_sender, events: event_receiver, publisher, lease })
    }
}

impl fmt::Debug for Controls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controls").field("lease", &self.lease.end()).finish_non_exhaustive()
    }
}
