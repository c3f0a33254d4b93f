//! The host's network, followed by a task of its own: links, next hops of backends, VIPs in their places and announced.
//!
//! The daemon's loop owns a [`Network`], says what it wants, and reads what came of it; neither waits for the other. Both
//! ways carry the latest state, so whoever is slow misses nothing but what is no longer true. Dropped, it ends the task; VIPs
//! stay where they are.

mod places;
mod round;
mod task;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;

use crate::netlink::{Changes, Link, Netlink, Resolution};
use crate::supervise::{self, Supervisor};
use task::Task;

/// What the daemon wants of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Counts the changes of what is wanted; see [`News::of`].
    pub number: u64,
    /// Names, in the configuration's order.
    pub interfaces: Vec<String>,
    /// Whose next hops are asked for.
    pub backends: BTreeSet<IpAddr>,
    /// What is to be put in place and announced.
    pub vips: BTreeSet<IpAddr>,
}

/// What became of it, as of one round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// The [`Wanted::number`] that the round knew.
    pub of: u64,
    pub links: Vec<Link>,
    /// Of all backends that were wanted.
    pub resolutions: HashMap<IpAddr, Resolution>,
    /// VIPs that are in place, and by which interface.
    pub placed: BTreeMap<IpAddr, u32>,
    /// Addresses that this daemon, or one before it, has put in place and not yet taken away.
    pub ours: BTreeSet<IpAddr>,
    /// What does not succeed at present, in words.
    pub problems: Vec<String>,
}

/// A hold on the task.
#[derive(Debug)]
pub struct Network {
    wanted: watch::Sender<Wanted>,
    news: watch::Receiver<News>,
    task: supervise::Task,
}

/// How long the task may take to take the VIPs away at the end.
const END_WITHIN: Duration = Duration::from_secs(5);

impl Network {
    /// Starts the task. `inherited` are addresses that a daemon before this one has put in place.
    pub fn spawn(netlink: Netlink, changes: Changes, inherited: BTreeSet<IpAddr>, wanted: Wanted) -> Self {
        let (wanted, orders) = watch::channel(wanted);
        let (told, news) = watch::channel(News::default());
        let task = supervise::Task::spawn(Task::new(netlink, inherited, told).run(changes, orders));
        Self { wanted, news, task }
    }

    /// Has the end of its task told.
    pub fn watch(&mut self, supervisor: &Supervisor) {
        self.task.watch(supervisor, "the network");
    }

    /// Wants something else; the number under which the news will tell of it. If it is the same, the number is.
    pub fn want(&self, mut wanted: Wanted) -> u64 {
        wanted.number = self.wanted.borrow().number;
        if *self.wanted.borrow() != wanted {
            wanted.number += 1;
            self.wanted.send_replace(wanted);
        }
        self.wanted.borrow().number
    }

    /// The latest news, when there are other ones than at the call before; `None` when the task has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<News> {
        self.news.changed().await.ok()?;
        Some(self.news.borrow_and_update().clone())
    }

    /// Takes the VIPs away that were put in place, as far as that can be done in a few seconds, and ends.
    pub async fn end(mut self) {
        let wanted = Wanted { vips: BTreeSet::new(), ..self.wanted.borrow().clone() };
        let number = self.want(wanted);
        // Where no VIP was wanted nothing new is, and the news may have been read.
        let gone = async { while self.news.borrow().of < number && self.next().await.is_some() {} };
        if tokio::time::timeout(END_WITHIN, gone).await.is_err() {
            tracing::warn!("not all VIPs could be taken away in time");
        }
    }
}

#[cfg(test)]
mod tests;
