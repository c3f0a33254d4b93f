//! Frames on a link, past the sockets and the addresses of its host: a packet socket (packet(7)) on one interface.
//!
//! What comes in is seen before the host's own filters, what the host itself sends is not seen. Receiving by a packet
//! socket takes nothing away from the host.

use std::io::{self, ErrorKind, Read};
use std::mem::{MaybeUninit, size_of};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result};
use lb_common::wire::eth::Mac;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::netns::Netns;

/// Room for what arrives faster than it is read.
const BUFFER: libc::c_int = 64 << 20;

/// The longest frame of a link with the usual MTU, with room to spare.
const LONGEST: usize = 2048;

/// How many frames are handed to the kernel at once.
const BATCH: usize = 64;

/// Which packets are seen: all, or IPv4 packets for a prefix.
pub type Filter = Option<(Ipv4Addr, u8)>;

/// For a wire that is sent by alone: what is for nobody.
pub const NOTHING: Filter = Some((Ipv4Addr::UNSPECIFIED, 32));

/// One interface.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    mac: Mac,
}

impl Wire {
    /// Opens an interface of a network.
    pub fn open(netns: &Netns, interface: &str, filter: Filter) -> Result<Self> {
        netns.enter(|| Self::open_here(interface, filter))?.with_context(|| interface.to_owned())
    }

    fn open_here(interface: &str, filter: Filter) -> Result<Self> {
        // Without a protocol nothing comes in before the filter is set.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &BUFFER)?;
        set(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1)?;
        if let Some((address, length)) = filter {
            only_for(&socket, address, length)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&link(interface)?)?;
        let mac = mac_of(&socket)?;
        Ok(Self { socket, mac })
    }

    /// The interface's own address.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.socket.send(frame).context("sending a frame")?;
        Ok(())
    }

    /// Sends many frames with few calls; how many the link took.
    pub fn send_all(&self, frames: &[Vec<u8>]) -> Result<usize> {
        let mut sent = 0;
        for frames in frames.chunks(BATCH) {
            sent += self.send_batch(frames)?;
        }
        Ok(sent)
    }

    fn send_batch(&self, frames: &[Vec<u8>]) -> Result<usize> {
        let mut pieces: Vec<libc::iovec> = frames
            .iter()
            .map(|frame| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() })
            .collect();
        let message = |piece: &mut libc::iovec| {
            // SAFETY: zeroes are a message without address, data and control data.
            let mut message: libc::mmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
            (message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) = (piece, 1);
            message
        };
        let mut messages: Vec<libc::mmsghdr> = pieces.iter_mut().map(message).collect();
        let mut sent = 0;
        while sent < messages.len() {
            let rest = messages.get_mut(sent..).unwrap_or_default();
            // SAFETY: `rest` has as many messages as are told, each with one piece that `frames` keeps; the kernel
            // only reads the pieces.
            let done = unsafe {
                libc::sendmmsg(self.socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as libc::c_uint, 0)
            };
            match usize::try_from(done) {
                Ok(done) => sent += done,
                // The link's queue is full: those that do not fit are lost, as on any link.
                Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ENOBUFS) => break,
                Err(_) if io::Error::last_os_error().kind() == ErrorKind::WouldBlock => break,
                Err(_) => return Err(io::Error::last_os_error()).context("sending frames"),
            }
        }
        Ok(sent)
    }

    /// The next frame that has come; `None` if none comes within `limit`.
    pub fn receive(&self, limit: Duration) -> Result<Option<Vec<u8>>> {
        let mut buffer = [0; LONGEST];
        loop {
            match (&self.socket).read(&mut buffer) {
                Ok(length) => return Ok(buffer.get(..length).map(<[u8]>::to_vec)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("receiving a frame"),
            }
            if limit.is_zero() || !self.wait(limit)? {
                return Ok(None);
            }
        }
    }

    /// Waits for a frame; whether one has come.
    fn wait(&self, limit: Duration) -> Result<bool> {
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry is told and there.
        let ready = unsafe { libc::poll(&raw mut poll, 1, libc::c_int::try_from(limit.as_millis())?) };
        if ready < 0 {
            return Err(io::Error::last_os_error()).context("waiting for a frame");
        }
        Ok(ready > 0)
    }
}

impl AsRawFd for Wire {
    fn as_raw_fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }
}

fn set<T>(socket: &Socket, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of `value`, which has them.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// All protocols of an interface of this thread's network.
fn link(interface: &str) -> Result<SockAddr> {
    let index = libc::c_int::try_from(if_nametoindex(interface)?)?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: a `sockaddr_ll` fits into the storage, and all its bit patterns are valid.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index;
    // SAFETY: the storage holds an address of this length, written just now.
    Ok(unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) })
}

/// The hardware address that a bound socket's name has in it.
fn mac_of(socket: &Socket) -> Result<Mac> {
    let name = socket.local_addr()?;
    let mut storage = name.as_storage();
    // SAFETY: the socket is one of packets, and so is its name.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_addr.get(..6).and_then(|mac| mac.try_into().ok()).context("no hardware address")
}

/// Lets through IPv4 packets for a prefix alone (a classic BPF program; linux/filter.h).
fn only_for(socket: &Socket, address: Ipv4Addr, length: u8) -> io::Result<()> {
    let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let (load, equal, give) = (libc::BPF_LD | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JEQ, libc::BPF_RET);
    let mut program = [
        step(load | libc::BPF_H, 0, 0, 12),
        step(equal, 0, 4, 0x0800),
        step(load | libc::BPF_W, 0, 0, 30),
        step(libc::BPF_ALU | libc::BPF_AND, 0, 0, mask),
        step(equal, 0, 1, address.to_bits() & mask),
        step(give, 0, 0, u32::MAX),
        step(give, 0, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
}
