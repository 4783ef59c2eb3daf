//! What the workers have not taken yet, in the member's order.

use holdfast_datapath::{Tables, WorkerCommand};
use holdfast_packet::Nanos;
use std::collections::VecDeque;
use std::sync::Arc;

/// Orders that may wait. A takeover with every SA the cluster holds makes three per pair; a worker
/// that leaves more untaken is broken.
const WAITING_MAX: usize = 1 << 20;

/// One order.
#[derive(Debug)]
pub(super) enum Order {
    /// For one worker's ring.
    Command(u32, WorkerCommand),
    /// For all workers. It names SAs, so those must have gone before.
    Tables(Arc<Tables>),
    /// For all workers: the end of a lease that begins. What they had from an earlier ownership must
    /// have been taken from them before.
    Lease(Nanos),
}

/// Orders that wait, first in, first out.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    orders: VecDeque<Order>,
}

impl Backlog {
    /// Appends an order.
    pub(super) fn push(&mut self, order: Order) {
        self.orders.push_back(order);
    }

    /// A lease begins behind the orders before it. While it waits its end may still move.
    pub(super) fn begin_lease(&mut self, end: Nanos) {
        let waiting = self.orders.iter_mut().find_map(|order| match order {
            Order::Lease(end) => Some(end),
            Order::Command(..) | Order::Tables(_) => None,
        });
        match waiting {
            Some(waiting) => *waiting = end,
            None => self.push(Order::Lease(end)),
        }
    }

    /// There is no lease any more: what waits of one does not begin.
    pub(super) fn end_lease(&mut self) {
        self.orders.retain(|order| !matches!(order, Order::Lease(_)));
    }

    /// Hands orders over until one is given back.
    pub(super) fn flush(&mut self, mut give: impl FnMut(Order) -> Result<(), Order>) {
        while let Some(order) = self.orders.pop_front() {
            if let Err(order) = give(order) {
                self.orders.push_front(order);
                return;
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    /// Whether more wait than may.
    pub(super) fn is_hopeless(&self) -> bool {
        self.orders.len() > WAITING_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands over until one of the workers' rings is full.
    fn flush(backlog: &mut Backlog, room: usize) -> Vec<String> {
        let mut given = Vec::new();
        let mut room = room;
        backlog.flush(|order| match order {
            Order::Command(worker, _) if room > 0 => {
                room -= 1;
                given.push(format!("worker {worker}"));
                Ok(())
            }
            Order::Lease(end) => {
                given.push(format!("lease {}", end.0));
                Ok(())
            }
            order => Err(order),
        });
        given
    }

    fn clear(backlog: &mut Backlog, worker: u32) {
        backlog.push(Order::Command(worker, WorkerCommand::Clear));
    }

    #[test]
    fn an_order_that_is_given_back_stays_first() {
        let mut backlog = Backlog::default();
        (0..3).for_each(|worker| clear(&mut backlog, worker));
        assert_eq!(flush(&mut backlog, 2), ["worker 0", "worker 1"]);
        assert!(!backlog.is_empty());
        assert_eq!(flush(&mut backlog, 2), ["worker 2"]);
        assert!(backlog.is_empty());
    }

    #[test]
    fn a_lease_begins_behind_the_orders_before_it_and_not_at_all_once_it_ended() {
        let mut backlog = Backlog::default();
        clear(&mut backlog, 0);
        backlog.begin_lease(Nanos(5));
        clear(&mut backlog, 1);
        backlog.begin_lease(Nanos(7));
        assert!(flush(&mut backlog, 0).is_empty());
        assert_eq!(flush(&mut backlog, 2), ["worker 0", "lease 7", "worker 1"]);
        clear(&mut backlog, 2);
        backlog.begin_lease(Nanos(9));
        backlog.end_lease();
        assert_eq!(flush(&mut backlog, 2), ["worker 2"]);
    }
}
