//! The task: waits for changes of the network and of what is wanted, lets them come together, and makes a round.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::round::{Announcements, Dirty, Known};
use super::{News, Wanted};
use crate::announce::announce_all;
use crate::clock;
use crate::netlink::{Change, Changes, Netlink};

/// News come in flocks.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Neighbours change all the time on a busy link: a look at them follows the one before after so long at the earliest.
const NEIGHBOURS_EVERY: Duration = Duration::from_millis(250);
/// Everything is looked at again even without news.
const ALL_EVERY: Duration = Duration::from_secs(10);
/// A round that could not be made is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// An announcement may be lost; it is made again after so long.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(1);
/// The kernel answers in microseconds. This is for one that does not.
const ROUND_WITHIN: Duration = Duration::from_secs(20);

/// See the module.
pub struct Task {
    netlink: Netlink,
    known: Known,
    told: watch::Sender<News>,
    dirty: Dirty,
    /// When the next round is due.
    due: Instant,
    last: Instant,
    all_due: Instant,
    again: Option<(Instant, Announcements)>,
}

enum Event {
    Change(Change),
    Wanted,
    Due,
    /// The daemon is gone, or the socket.
    Closed,
}

impl Task {
    pub fn new(netlink: Netlink, inherited: BTreeSet<IpAddr>, told: watch::Sender<News>) -> Self {
        let now = clock::now();
        let known = Known::new(inherited);
        Self { netlink, known, told, dirty: Dirty::ALL, due: now, last: now, all_due: now, again: None }
    }

    /// Ends when the daemon is gone, or when nothing tells of changes any more: the daemon learns that from its end.
    pub async fn run(mut self, mut changes: Changes, mut orders: watch::Receiver<Wanted>) {
        loop {
            let now = clock::now();
            if now >= self.due || now >= self.all_due {
                let wanted = orders.borrow_and_update().clone();
                self.round(&wanted, now).await;
            }
            if self.again.as_ref().is_some_and(|(at, _)| clock::now() >= *at)
                && let Some((_, vips)) = self.again.take()
            {
                announce_beside(vips);
            }
            match self.next(&mut changes, &mut orders).await {
                Event::Change(change) => self.changed(change),
                Event::Wanted => {
                    // Interfaces and VIPs may be others.
                    self.dirty.addresses = true;
                    self.due = clock::now();
                }
                Event::Due => {}
                Event::Closed => return,
            }
        }
    }

    /// Cancel-safe, as each of its parts is.
    async fn next(&self, changes: &mut Changes, orders: &mut watch::Receiver<Wanted>) -> Event {
        let again = self.again.as_ref().map(|(at, _)| *at);
        let due = self.due.min(self.all_due).min(again.unwrap_or(self.all_due));
        tokio::select! {
            wanted = orders.changed() => if wanted.is_ok() { Event::Wanted } else { Event::Closed },
            change = changes.next() => change.map_or(Event::Closed, Event::Change),
            () = clock::sleep_until(Some(due)) => Event::Due,
        }
    }

    fn changed(&mut self, change: Change) {
        tracing::trace!(?change, "the network changed");
        self.dirty.add(change);
        let soon = clock::now() + DEBOUNCE;
        let due = if change == Change::Neighbours { soon.max(self.last + NEIGHBOURS_EVERY) } else { soon };
        self.due = self.due.min(due);
    }

    async fn round(&mut self, wanted: &Wanted, now: Instant) {
        if now >= self.all_due {
            self.dirty = Dirty::ALL;
        }
        let round = self.known.round(&self.netlink, wanted, self.dirty);
        let round = tokio::time::timeout(ROUND_WITHIN, round).await;
        let round = round.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let now = clock::now();
        (self.last, self.all_due) =
            (now, if self.dirty == Dirty::ALL { now + ALL_EVERY } else { self.all_due });
        self.announce(now);
        match round {
            Ok(news) => {
                (self.dirty, self.due) = (Dirty::default(), self.all_due);
                // Whoever reads is woken only by what differs.
                self.told.send_if_modified(|told| {
                    let differs = *told != news;
                    *told = news;
                    differs
                });
            }
            Err(error) => {
                tracing::warn!("the network cannot be looked at, trying again: {error}");
                self.due = now + RETRY;
            }
        }
    }

    /// Announces what has come to its place: now, and once more later.
    fn announce(&mut self, now: Instant) {
        let new = self.known.take_announcements();
        if new.is_empty() {
            return;
        }
        announce_beside(new.clone());
        // Those of the round before may still wait for their second time.
        let mut again = self.again.take().map_or_else(Vec::new, |(_, vips)| vips);
        again.retain(|(_, vip)| !new.iter().any(|(_, other)| other == vip));
        again.extend(new);
        self.again = Some((now + ANNOUNCE_AGAIN, again));
    }
}

/// Sends beside the task: a link may be busy.
fn announce_beside(vips: Announcements) {
    tokio::task::spawn_blocking(move || {
        for (link, vip, error) in announce_all(&vips) {
            tracing::warn!("cannot announce {vip} on '{}': {error}", link.name);
        }
    });
}
