//! What the workers have not taken yet, in the member's order.

use holdfast_datapath::{Tables, WorkerCommand};
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

    #[test]
    fn an_order_that_is_given_back_stays_first() {
        let mut backlog = Backlog::default();
        for worker in 0..3 {
            backlog.push(Order::Command(worker, WorkerCommand::Clear));
        }
        let mut given = Vec::new();
        let mut room = 2;
        backlog.flush(|order| match order {
            Order::Command(worker, _) if room > 0 => {
                room -= 1;
                given.push(worker);
                Ok(())
            }
            order => Err(order),
        });
        assert!(!backlog.is_empty());
        backlog.flush(|order| match order {
            Order::Command(worker, _) => {
                given.push(worker);
                Ok(())
            }
            order => Err(order),
        });
        assert!(backlog.is_empty());
        assert_eq!(given, [0, 1, 2]);
    }
}
