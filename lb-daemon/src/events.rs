//! The events kept, and the wire to those who follow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use lb_core::state::{Event, EventLog};
use tokio::sync::broadcast;

/// See the module.
#[derive(Debug)]
pub struct Events {
    log: Mutex<EventLog>,
    lost: AtomicU64,
    live: broadcast::Sender<Event>,
}

impl Default for Events {
    fn default() -> Self {
        Self { log: Mutex::default(), lost: AtomicU64::new(0), live: broadcast::channel(256).0 }
    }
}

impl Events {
    /// Runs `push` on the log and tells followers of what it returns.
    pub fn publish(&self, push: impl FnOnce(&mut EventLog) -> Event) -> Event {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let event = push(&mut log);
        // Nobody following is no error.
        self.live.send(event.clone()).ok();
        event
    }

    /// Notes that a reader has missed some.
    pub fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    /// How many events readers have missed, all together.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// The events kept, oldest first, and all later ones: none is lost or doubled between the two.
    pub fn follow(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        (log.iter().cloned().collect(), self.live.subscribe())
    }
}
