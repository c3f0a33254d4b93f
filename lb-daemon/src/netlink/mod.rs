//! Links, addresses, routes and neighbours, by rtnetlink.
//!
//! The daemon owns one [`Netlink`] for questions and orders and one [`Changes`] that wakes it. Each has a socket of
//! its own: a flood of notifications must not overrun an answer that somebody waits for. What concerns many addresses is asked
//! for many at once. Both sockets belong to
//! tasks that end when their owner is dropped. Every call is cancel-safe: an order that was sent is carried out, and
//! an answer that nobody waits for is thrown away.

mod changes;
mod neighbours;
mod resolve;
mod routes;
mod vips;

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use tokio::sync::Mutex;

use crate::supervise::{Supervisor, Task};

pub use changes::{Change, Changes};
pub use neighbours::Neighbour;
pub use resolve::{Resolution, resolution};
pub use routes::{Route, RouteError};
pub use vips::{Prefix, choose};

/// The kernel answers in microseconds; this is for an answer that never comes.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A dump whose asker went away may still be under way, and the kernel allows one at a time on a socket.
const BUSY_RETRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// Questions and orders under way at once: their answers fit into the socket's buffer.
const PIPELINED: usize = 64;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    pub index: u32,
    /// All zeroes for a link without one, or with one of another length.
    pub mac: [u8; 6],
    pub mtu: u32,
    /// Whether it is set up and has a carrier.
    pub up: bool,
}

/// A socket for questions and orders.
#[derive(Debug)]
pub struct Netlink {
    handle: rtnetlink::Handle,
    /// One dump at a time.
    turn: Mutex<()>,
    /// The reader of the socket.
    connection: Task,
}

impl Netlink {
    /// Opens both sockets in the network namespace of the calling thread. Changes after this call are not missed.
    pub fn connect() -> io::Result<(Self, Changes)> {
        let changes = Changes::subscribe()?;
        let (connection, handle, _unsolicited) = rtnetlink::new_connection()?;
        let connection = Task::spawn(connection);
        Ok((Self { handle, turn: Mutex::new(()), connection }, changes))
    }

    /// Has the end of the socket's reader told: nothing can be asked after it.
    pub fn watch(&mut self, supervisor: &Supervisor) {
        self.connection.watch(supervisor, "the netlink socket");
    }

    /// All network interfaces.
    pub async fn links(&self) -> io::Result<Vec<Link>> {
        let answers = self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default())).await?;
        let link = |message| if let RouteNetlinkMessage::NewLink(link) = message { Some(link) } else { None };
        Ok(answers.into_iter().filter_map(link).map(|message| parse_link(&message)).collect())
    }

    /// Collects all that there is of something.
    async fn dump(&self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let _turn = self.turn.lock().await;
        for _ in 0..BUSY_RETRIES {
            match self.ask(message.clone(), NLM_F_DUMP).await {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                answer => return answer,
            }
        }
        Err(io::Error::from_raw_os_error(libc::EBUSY))
    }

    /// Does the same with each of many, several at once; in no order.
    async fn each<T: Copy, R, F: Future<Output = R>>(&self, all: &[T], ask: impl Fn(T) -> F) -> Vec<(T, R)> {
        let ask = |&one: &T| {
            let answer = ask(one);
            async move { (one, answer.await) }
        };
        let asked: Vec<_> = all.iter().map(ask).collect();
        futures_util::stream::iter(asked).buffer_unordered(PIPELINED).collect().await
    }

    /// Sends a message with `flags` (besides the one that every request has) and collects what comes back.
    async fn ask(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.ask_once(message, flags));
        answer.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn ask_once(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the netlink socket is closed");
        let mut answers = self.handle.clone().request(request).map_err(gone)?;
        let mut messages = Vec::new();
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::InnerMessage(message) = answer.payload {
                messages.push(message);
            } else if let NetlinkPayload::Error(error) = answer.payload {
                // Code 0 is the acknowledgement of an order.
                if error.code.is_some() {
                    return Err(error.to_io());
                }
            } else if let NetlinkPayload::Done(done) = answer.payload
                && done.code < 0
            {
                return Err(io::Error::from_raw_os_error(-done.code));
            }
        }
        Ok(messages)
    }
}

fn parse_link(message: &LinkMessage) -> Link {
    let running = LinkFlags::Up | LinkFlags::LowerUp;
    let mut link = Link {
        name: String::new(),
        index: message.header.index,
        mac: [0; 6],
        mtu: 0,
        up: message.header.flags.contains(running),
    };
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            link.name.clone_from(name);
        } else if let LinkAttribute::Address(address) = attribute {
            link.mac = address.as_slice().try_into().unwrap_or([0; 6]);
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            link.mtu = *mtu;
        }
    }
    link
}

#[cfg(test)]
mod tests;
