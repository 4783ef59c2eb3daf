//! Bounded rings between the controller and a worker: one end pushes, the other pops, and neither ever
//! waits for the other.
//!
//! ```text
//!   pushed: count of what was pushed and is whole     popped: count of what was taken wholly
//!   push while pushed - popped < capacity             pop while popped < pushed
//! ```
//!
//! The queue underneath is lock-free, not wait-free: whoever meets an element that the other end is in the
//! middle of pushing or popping spins until that is done. A controller with real-time priority that
//! preempted its worker just there would spin for ever. With the counts no end looks at an element
//! before the other has finished with it.

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Commands that may wait for a worker. A controller that installs more keeps its own backlog.
pub const COMMAND_RING: usize = 4096;
/// Events that may wait for the controller. Punts beyond it are dropped and counted.
pub const EVENT_RING: usize = 4096;

/// A ring of `capacity` (at least 1) elements: the end to push to, the end to pop from.
pub fn ring<T>(capacity: usize) -> (RingSender<T>, RingReceiver<T>) {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(capacity.max(1)),
        pushed: CachePadded::default(),
        popped: CachePadded::default(),
    });
    let receiver = RingReceiver { shared: Arc::clone(&shared), one_thread: PhantomData };
    (RingSender { shared, one_thread: PhantomData }, receiver)
}

struct Shared<T> {
    queue: ArrayQueue<T>,
    /// Written by the sender alone.
    pushed: CachePadded<AtomicUsize>,
    /// Written by the receiver alone.
    popped: CachePadded<AtomicUsize>,
}

impl<T> Shared<T> {
    /// Elements that are whole and not taken wholly.
    fn len(&self) -> usize {
        // In this order: what was popped was pushed before.
        let popped = self.popped.load(Ordering::Acquire);
        self.pushed.load(Ordering::Acquire).wrapping_sub(popped)
    }
}

/// The end to push to.
pub struct RingSender<T> {
    shared: Arc<Shared<T>>,
    /// May move to another thread, not be shared with one.
    one_thread: PhantomData<Cell<()>>,
}

impl<T> RingSender<T> {
    /// Appends `item`; gives it back when the ring is full. Never waits.
    ///
    /// # Errors
    /// The item itself when there is no room.
    pub fn push(&self, item: T) -> Result<(), T> {
        let shared = &*self.shared;
        let pushed = shared.pushed.load(Ordering::Relaxed);
        if pushed.wrapping_sub(shared.popped.load(Ordering::Acquire)) >= shared.queue.capacity() {
            return Err(item);
        }
        shared.queue.push(item)?;
        shared.pushed.store(pushed.wrapping_add(1), Ordering::Release);
        Ok(())
    }

    /// How many more elements fit now.
    pub fn room(&self) -> usize {
        self.shared.queue.capacity().saturating_sub(self.shared.len())
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.shared.len() == 0
    }

    /// True when the other end is gone.
    pub fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }
}

/// The end to pop from.
pub struct RingReceiver<T> {
    shared: Arc<Shared<T>>,
    /// As at the other end.
    one_thread: PhantomData<Cell<()>>,
}

impl<T> RingReceiver<T> {
    /// Takes the oldest element that is there as a whole. Never waits.
    pub fn pop(&self) -> Option<T> {
        let shared = &*self.shared;
        let popped = shared.popped.load(Ordering::Relaxed);
        if popped == shared.pushed.load(Ordering::Acquire) {
            return None;
        }
        let item = shared.queue.pop()?;
        shared.popped.store(popped.wrapping_add(1), Ordering::Release);
        Some(item)
    }

    /// How many elements wait.
    pub fn len(&self) -> usize {
        self.shared.len()
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.shared.len() == 0
    }
}

impl<T> fmt::Debug for RingSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { queue, .. } = &*self.shared;
        write!(f, "RingSender({} of {})", self.shared.len(), queue.capacity())
    }
}

impl<T> fmt::Debug for RingReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { queue, .. } = &*self.shared;
        write!(f, "RingReceiver({} of {})", self.shared.len(), queue.capacity())
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
        assert!(!sender.is_abandoned());
        assert_eq!((receiver.pop(), receiver.pop(), receiver.pop()), (Some(1), Some(2), None));
        drop(receiver);
        assert!(sender.is_abandoned());
    }

    /// As when the other end's thread was preempted in the middle of a push or a pop: what it is
    /// at is neither taken nor overwritten, and nobody waits for it.
    #[test]
    fn an_end_does_not_touch_what_the_other_is_in_the_middle_of() {
        let (sender, receiver) = ring(2);
        sender.shared.queue.push(1).unwrap();
        assert_eq!((receiver.pop(), receiver.len()), (None, 0), "pushed, and not said so yet");
        sender.shared.pushed.store(1, Ordering::Release);
        assert_eq!(receiver.shared.queue.pop(), Some(1));
        assert_eq!(
            (sender.push(2), sender.push(3)),
            (Ok(()), Err(3)),
            "popped, and not said so yet"
        );
        receiver.shared.popped.store(1, Ordering::Release);
        assert_eq!((sender.push(3), receiver.pop(), receiver.pop()), (Ok(()), Some(2), Some(3)));
    }

    #[test]
    fn two_threads_lose_and_reorder_nothing() {
        const ITEMS: u32 = 20_000;
        let (sender, receiver) = ring(7);
        let producer = std::thread::spawn(move || {
            for mut item in 0..ITEMS {
                while let Err(back) = sender.push(item) {
                    item = back;
                    std::thread::yield_now();
                }
            }
        });
        let mut expected = 0;
        while expected < ITEMS {
            match receiver.pop() {
                Some(item) => {
                    assert_eq!(item, expected);
                    expected += 1;
                }
                None => std::thread::yield_now(),
            }
        }
        producer.join().unwrap();
        assert!(receiver.is_empty());
    }
}
