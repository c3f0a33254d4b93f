//! A steady sender of datagrams: one socket, a datagram every so often, whoever answers. SIP, syslog and RADIUS are like that.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::netns::Netns;
use crate::wait::wait_for;

/// The answer to a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The datagram's number, from 1.
    pub number: u64,
    /// Who answered.
    pub name: String,
}

/// What the sender's thread shares.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    silent: AtomicBool,
    sent: AtomicU64,
    heard: Mutex<Vec<Heard>>,
}

/// A sender at work.
#[derive(Debug)]
pub struct Talker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Talker {
    /// Starts to send from a socket of its own in `netns`.
    pub fn start(netns: &Netns, target: SocketAddr, every: Duration) -> Result<Self> {
        let socket = netns.enter(|| -> Result<UdpSocket> {
            let any: SocketAddr = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
            let socket = UdpSocket::bind(any)?;
            socket.connect(target)?;
            Ok(socket)
        })??;
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = Some(std::thread::spawn(move || talk(&own, &socket, every)));
        Ok(Self { shared, thread })
    }

    /// How many datagrams have been sent.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// Every answer so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.shared.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The answers to datagrams that are sent from now on, as soon as there are `count`.
    pub fn next(&self, count: usize, limit: Duration) -> Result<Vec<Heard>> {
        // One may be on its way to be sent.
        let now = self.sent() + 1;
        wait_for(&format!("{count} answers"), limit, || {
            let heard: Vec<Heard> = self.heard().into_iter().filter(|it| it.number > now).collect();
            let enough = heard.len() >= count;
            enough.then_some(heard).with_context(|| format!("{:?} is the last", self.heard().last()))
        })
    }

    /// Says nothing until [`Talker::go_on`]. What was on its way to be sent has been sent when this returns.
    pub fn pause(&self, every: Duration) -> Result<()> {
        self.shared.silent.store(true, Ordering::SeqCst);
        let (mut sent, mut since) = (self.sent(), Instant::now());
        wait_for("silence", every * 100, || {
            if self.sent() != sent {
                (sent, since) = (self.sent(), Instant::now());
            }
            (since.elapsed() > every * 2).then_some(()).context("it still speaks")
        })
    }

    pub fn go_on(&self) {
        self.shared.silent.store(false, Ordering::SeqCst);
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            eprintln!("a talker panicked");
        }
    }
}

fn talk(shared: &Shared, socket: &UdpSocket, every: Duration) {
    let mut due = Instant::now();
    while !shared.stop.load(Ordering::SeqCst) {
        due += every;
        if !shared.silent.load(Ordering::SeqCst) {
            let number = shared.sent.fetch_add(1, Ordering::SeqCst) + 1;
            // An error is that of the datagram before: nobody was there. The next may be luckier.
            socket.send(number.to_string().as_bytes()).ok();
        }
        listen(shared, socket, due);
    }
}

/// Notes what is answered until it is time for the next datagram.
fn listen(shared: &Shared, socket: &UdpSocket, until: Instant) {
    let mut buffer = [0; 256];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if socket.set_read_timeout(Some(left)).is_err() {
            return;
        }
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let answer = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
        if let Some((name, number)) = answer.split_once(' ')
            && let Ok(number) = number.parse()
        {
            let heard = Heard { number, name: name.to_owned() };
            shared.heard.lock().unwrap_or_else(PoisonError::into_inner).push(heard);
        }
    }
}
