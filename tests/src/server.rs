//! The server behind the balancer: HTTP/1.1 and a UDP echo that say who answered, one thread a connection.
//!
//! Every path answers with the server's name, and by headers with the port it was asked on and the client as it sees it.
//! `/download/BYTES/RATE` answers with so many bytes that [`checksum_of_download`] knows, at RATE bytes a second. Dropping a
//! [`Server`] ends it as a kill would: listeners and connections close at once.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::sys::socket::{Shutdown as Half, shutdown};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::os::fd::AsRawFd;

use crate::netns::Netns;

/// A running server.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    listeners: Vec<Arc<TcpListener>>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads of a server share.
#[derive(Debug, Default)]
struct Shared {
    name: String,
    stopping: AtomicBool,
    connections: AtomicU64,
    requests: AtomicU64,
    datagrams: AtomicU64,
    /// The connections now open, to close them all at once.
    open: Mutex<HashMap<u64, TcpStream>>,
}

impl Server {
    /// Starts a server in `netns` that listens on all its addresses of both families.
    pub fn start(netns: &Netns, name: &str, tcp: &[u16], udp: &[u16]) -> Result<Self> {
        netns.enter(|| Self::start_here(name, tcp, udp))?
    }

    /// Starts a server in the network that this thread is in.
    pub fn start_here(name: &str, tcp: &[u16], udp: &[u16]) -> Result<Self> {
        let shared = Arc::new(Shared { name: name.to_owned(), ..Shared::default() });
        let mut server = Self { shared, listeners: Vec::new(), threads: Vec::new() };
        for &port in tcp {
            let listener = Arc::new(listen(port)?);
            server.listeners.push(Arc::clone(&listener));
            let shared = Arc::clone(&server.shared);
            server.threads.push(thread("accept", move || accept(&shared, &listener, port))?);
        }
        for &port in udp {
            // A socket for each address: one for all would answer from an address of the kernel's choice.
            // An interface may have the same one twice, with another prefix.
            for address in std::collections::BTreeSet::from_iter(addresses()?) {
                let socket = UdpSocket::bind(SocketAddr::new(address, port))?;
                socket.set_read_timeout(Some(Duration::from_millis(50)))?;
                let shared = Arc::clone(&server.shared);
                server.threads.push(thread("echo", move || echo(&shared, &socket))?);
            }
        }
        Ok(server)
    }

    /// How many TCP connections have been accepted.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How many HTTP requests have been read.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// How many datagrams have come.
    pub fn datagrams(&self) -> u64 {
        self.shared.datagrams.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        for listener in &self.listeners {
            // Wakes the thread that waits in accept.
            shutdown(listener.as_raw_fd(), Half::Both).ok();
        }
        self.listeners.clear();
        for stream in self.shared.open().values() {
            stream.shutdown(Shutdown::Both).ok();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("a thread of server {} panicked", self.shared.name);
            }
        }
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// A socket that listens on all addresses of both families.
fn listen(port: u16) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    socket.bind(&SockAddr::from(address)).with_context(|| format!("port {port}"))?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// The addresses of this network, but for those that are good on one link alone.
fn addresses() -> Result<Vec<IpAddr>> {
    let address = |interface: InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
    };
    let of_one_link = |ip: &IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    Ok(getifaddrs()?.filter_map(address).filter(|ip| !of_one_link(ip)).collect())
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(256 * 1024).spawn(work)
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener, port: u16) {
    while !shared.is_stopping() {
        let Ok((stream, peer)) = listener.accept() else { continue };
        let number = shared.connections.fetch_add(1, Ordering::Relaxed);
        let Ok(copy) = stream.try_clone() else { continue };
        shared.open().insert(number, copy);
        if shared.is_stopping() {
            break;
        }
        let guest = Arc::clone(shared);
        let started = thread("serve", move || {
            // An error is the client's affair: it has seen it, and counts it.
            serve(&guest, stream, port, peer).ok();
            guest.open().remove(&number);
        });
        if let Err(error) = started {
            eprintln!("server {}: no thread for a connection: {error}", shared.name);
            shared.open().remove(&number);
        }
    }
}

/// Answers requests until the client is done.
fn serve(shared: &Shared, stream: TcpStream, port: u16, peer: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut keep = first.trim_end().ends_with("HTTP/1.1");
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            match line.as_str() {
                "" => break,
                "connection: close" => keep = false,
                "connection: keep-alive" => keep = true,
                _ => {}
            }
        }
        shared.requests.fetch_add(1, Ordering::Relaxed);
        let path = first.split(' ').nth(1).unwrap_or("/");
        let download = Download::parse(path);
        let length = download.as_ref().map_or(shared.name.len() as u64 + 1, |download| download.bytes);
        let connection = if keep { "keep-alive" } else { "close" };
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: {connection}\r\nX-Backend: {}\r\n\
             X-Port: {port}\r\nX-Peer: {peer}\r\n\r\n",
            shared.name
        );
        if download.is_none() {
            answer += &format!("{}\n", shared.name);
        }
        writer.write_all(answer.as_bytes())?;
        if let Some(download) = download {
            download.send(shared, &mut writer)?;
        }
        if !keep {
            return Ok(());
        }
    }
}

/// A long answer at a steady pace.
struct Download {
    bytes: u64,
    /// Bytes a second.
    rate: u64,
}

impl Download {
    /// How many bytes are sent at a time.
    const PIECE: u64 = 16 * 1024;

    fn parse(path: &str) -> Option<Self> {
        let mut numbers = path.strip_prefix("/download/")?.split('/').map(str::parse);
        Some(Self { bytes: numbers.next()?.ok()?, rate: numbers.next()?.ok()? })
    }

    fn send(&self, shared: &Shared, writer: &mut TcpStream) -> io::Result<()> {
        let begin = Instant::now();
        let mut content = Content::default();
        let mut sent = 0;
        while sent < self.bytes && !shared.is_stopping() {
            let piece = Self::PIECE.min(self.bytes - sent);
            writer.write_all(&content.take(piece))?;
            sent += piece;
            let due = Duration::from_secs_f64(sent as f64 / self.rate as f64);
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
        }
        Ok(())
    }
}

/// The bytes of every download: no two places alike, so that a lost or doubled piece shows in the checksum.
#[derive(Default)]
struct Content {
    state: u64,
}

impl Content {
    fn take(&mut self, bytes: u64) -> Vec<u8> {
        let next = || {
            // Knuth's linear congruential generator; its upper byte has a long period.
            self.state =
                self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.state >> 56) as u8
        };
        std::iter::repeat_with(next).take(bytes as usize).collect()
    }
}

/// FNV-1a, 64 bits.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// The checksum of a whole download of so many bytes.
pub fn checksum_of_download(bytes: u64) -> u64 {
    checksum(&Content::default().take(bytes))
}

/// Answers every datagram with the server's name and the datagram.
fn echo(shared: &Shared, socket: &UdpSocket) {
    let mut buffer = vec![0; 65_536];
    while !shared.is_stopping() {
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
        shared.datagrams.fetch_add(1, Ordering::Relaxed);
        let mut answer = format!("{} ", shared.name).into_bytes();
        answer.extend_from_slice(buffer.get(..length).unwrap_or_default());
        // A client that is gone needs no answer.
        socket.send_to(&answer, peer).ok();
    }
}
