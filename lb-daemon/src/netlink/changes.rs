//! What has changed, coarsely: enough to know what to read again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use futures_util::StreamExt;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::MulticastGroup;
use rtnetlink::sys::AsyncSocket;
use tokio::sync::Notify;

use crate::supervise::Task;

/// Room for a burst of notifications, in bytes; more is told as [`Change::Lost`].
const RECEIVE_BUFFER: usize = 1 << 20;

/// Something to read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Links,
    Addresses,
    Routes,
    Neighbours,
    /// Notifications were lost: read everything again.
    Lost,
}

impl Change {
    /// In the order in which they are told.
    const ALL: [Self; 5] = [Self::Lost, Self::Links, Self::Addresses, Self::Routes, Self::Neighbours];

    fn bit(self) -> u8 {
        match self {
            Self::Links => 1,
            Self::Addresses => 2,
            Self::Routes => 4,
            Self::Neighbours => 8,
            Self::Lost => 16,
        }
    }
}

const CLOSED: u8 = 128;

#[derive(Debug, Default)]
struct Shared {
    /// What changed since it was told, and [`CLOSED`].
    pending: AtomicU8,
    wake: Notify,
}

impl Shared {
    fn add(&self, bit: u8) {
        // Told only when new: a route flap must not wake the daemon for each route.
        if self.pending.fetch_or(bit, Ordering::SeqCst) & bit == 0 {
            self.wake.notify_one();
        }
    }
}

/// Tells of changes. However many come between two calls, each kind is told once.
#[derive(Debug)]
pub struct Changes {
    shared: Arc<Shared>,
    /// The reader of the socket, and the one that sorts what it read.
    _tasks: [Task; 2],
    /// The connection ends when its last handle is dropped.
    _handle: rtnetlink::Handle,
}

impl Changes {
    pub(super) fn subscribe() -> io::Result<Self> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Neigh,
        ];
        let (mut connection, handle, mut messages) = rtnetlink::new_multicast_connection(&groups)?;
        connection.socket_mut().socket_mut().set_rx_buf_sz(RECEIVE_BUFFER as libc::c_int)?;
        let shared = Arc::new(Shared::default());
        let sorter = {
            let shared = Arc::clone(&shared);
            async move {
                while let Some((message, _)) = messages.next().await {
                    if let Some(change) = sort(&message.payload) {
                        shared.add(change.bit());
                    }
                }
                shared.add(CLOSED);
            }
        };
        let tasks = [Task::spawn(connection), Task::spawn(sorter)];
        Ok(Self { shared, _tasks: tasks, _handle: handle })
    }

    /// The next change; `None` when the socket is gone for good. Cancel-safe.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            let pending = self.shared.pending.load(Ordering::SeqCst);
            if let Some(change) = Change::ALL.into_iter().find(|change| pending & change.bit() != 0) {
                self.shared.pending.fetch_and(!change.bit(), Ordering::SeqCst);
                return Some(change);
            }
            if pending & CLOSED != 0 {
                return None;
            }
            self.shared.wake.notified().await;
        }
    }
}

fn sort(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<Change> {
    use RouteNetlinkMessage as M;
    if matches!(payload, NetlinkPayload::Overrun(_)) {
        return Some(Change::Lost);
    }
    let NetlinkPayload::InnerMessage(message) = payload else { return None };
    if matches!(message, M::NewLink(_) | M::DelLink(_)) {
        Some(Change::Links)
    } else if matches!(message, M::NewAddress(_) | M::DelAddress(_)) {
        Some(Change::Addresses)
    } else if matches!(message, M::NewRoute(_) | M::DelRoute(_)) {
        Some(Change::Routes)
    } else if matches!(message, M::NewNeighbour(_) | M::DelNeighbour(_)) {
        Some(Change::Neighbours)
    } else {
        None
    }
}
