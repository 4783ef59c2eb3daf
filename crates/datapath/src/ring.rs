//! Bounded rings between the controller and a worker.

use crossbeam::queue::ArrayQueue;
use std::fmt;
use std::sync::Arc;

/// Commands that may wait for a worker. A controller that installs more keeps its own backlog.
pub const COMMAND_RING: usize = 4096;
/// Events that may wait for the controller. Punts beyond it are dropped and counted.
pub const EVENT_RING: usize = 4096;

/// A ring of `capacity` (at least 1) elements: the end to push to, the end to pop from.
pub fn ring<T>(capacity: usize) -> (RingSender<T>, RingReceiver<T>) {
    let queue = Arc::new(ArrayQueue::new(capacity.max(1)));
    (RingSender(Arc::clone(&queue)), RingReceiver(queue))
}

/// The end to push to.
pub struct RingSender<T>(Arc<ArrayQueue<T>>);

impl<T> RingSender<T> {
    /// Appends `item`; gives it back when the ring is full. Never waits.
    ///
    /// # Errors
    /// The item itself when there is no room.
    pub fn push(&self, item: T) -> Result<(), T> {
        self.0.push(item)
    }

    /// How many more elements fit now.
    pub fn room(&self) -> usize {
        self.0.capacity().saturating_sub(self.0.len())
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The end to pop from.
pub struct RingReceiver<T>(Arc<ArrayQueue<T>>);

impl<T> RingReceiver<T> {
    /// Takes the oldest element.
    pub fn pop(&self) -> Option<T> {
        // Looking costs less than trying, and a ring is mostly empty.
        if self.0.is_empty() { None } else { self.0.pop() }
    }

    /// How many elements wait.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> fmt::Debug for RingSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RingSender({} of {})", self.0.len(), self.0.capacity())
    }
}

impl<T> fmt::Debug for RingReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RingReceiver({} of {})", self.0.len(), self.0.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_gives_the_element_back() {
        let (sender, receiver) = ring(2);
        assert_eq!(sender.push(1), Ok(()));
        assert_eq!(sender.push(2), Ok(()));
        assert_eq!((sender.push(3), sender.room()), (Err(3), 0));
        assert_eq!((receiver.pop(), receiver.pop(), receiver.pop()), (Some(1), Some(2), None));
    }
}
