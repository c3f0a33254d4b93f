//! The far end of tunnels: takes packets out of those that they came in, IP in IP or GUE, and gives them to its host.
//!
//! A stand-in for `ip link add type ipip`, `ip6tnl`, `sit` and `ip fou add port 6080 gue`, which not every kernel has: sockets for
//! what comes in, a TUN device for what was in it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::distance::tun;
use crate::netns::Netns;

const DEVICE: &str = "tun0";
/// From `include/uapi/linux/udp.h`: take datagrams without a checksum over IPv6.
const UDP_NO_CHECK6_RX: libc::c_int = 102;
/// How often it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// Takes packets out until it is dropped.
#[derive(Debug)]
pub struct Exit {
    stop: Arc<AtomicBool>,
    taken: Arc<[AtomicU64; 4]>,
    threads: Vec<JoinHandle<()>>,
}

/// What a packet came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    InV4,
    InV6,
    GueInV4,
    GueInV6,
}

/// Where packets come in, and what they come in there.
struct Entrance {
    socket: Socket,
    kind: Kind,
}

impl Exit {
    /// Begins in a host that has the device when this returns.
    pub fn open(netns: &Netns, port: u16) -> Result<Self> {
        let (device, entrances) = netns.enter(|| -> Result<_> { Ok((tun(DEVICE)?, entrances(port)?)) })??;
        netns.ip(&format!("link set {DEVICE} up\n"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let taken = Arc::new([const { AtomicU64::new(0) }; 4]);
        let mut threads = Vec::new();
        for entrance in entrances {
            let (device, stop, taken) = (device.try_clone()?, Arc::clone(&stop), Arc::clone(&taken));
            threads.push(std::thread::spawn(move || run(device, &entrance, &stop, &taken)));
        }
        Ok(Self { stop, taken, threads })
    }

    /// How many packets have come in this.
    pub fn taken(&self, kind: Kind) -> u64 {
        self.taken[kind as usize].load(Ordering::Relaxed)
    }
}

impl Drop for Exit {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("the far end of a tunnel has died");
            }
        }
    }
}

/// IPv4 and IPv6 in each of IPv4, IPv6 and UDP over both.
fn entrances(port: u16) -> Result<Vec<Entrance>> {
    let mut entrances = Vec::new();
    for protocol in [libc::IPPROTO_IPIP, libc::IPPROTO_IPV6] {
        for (domain, kind) in [(Domain::IPV4, Kind::InV4), (Domain::IPV6, Kind::InV6)] {
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)))?;
            entrances.push(Entrance { socket, kind });
        }
    }
    let any: [(SocketAddr, Kind); 2] = [
        ((Ipv4Addr::UNSPECIFIED, port).into(), Kind::GueInV4),
        ((Ipv6Addr::UNSPECIFIED, port).into(), Kind::GueInV6),
    ];
    for (address, kind) in any {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        if kind == Kind::GueInV6 {
            socket.set_only_v6(true)?;
            let yes: libc::c_int = 1;
            // SAFETY: the option is an int, which `yes` is.
            let set = unsafe {
                let (value, size) = ((&raw const yes).cast(), size_of::<libc::c_int>() as libc::socklen_t);
                libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_UDP, UDP_NO_CHECK6_RX, value, size)
            };
            anyhow::ensure!(set == 0, "the kernel insists on checksums");
        }
        socket.bind(&address.into()).context("the port of GUE")?;
        entrances.push(Entrance { socket, kind });
    }
    for Entrance { socket, .. } in &entrances {
        socket.set_read_timeout(Some(LOOK))?;
        socket.set_recv_buffer_size(4 << 20)?;
    }
    Ok(entrances)
}

fn run(mut device: File, entrance: &Entrance, stop: &AtomicBool, taken: &[AtomicU64; 4]) {
    let Entrance { socket, kind } = entrance;
    let mut buffer = vec![0; 1 << 16];
    while !stop.load(Ordering::Relaxed) {
        let Ok(length) = (&mut &*socket).read(&mut buffer) else { continue };
        let Some(packet) = inner(*kind, &buffer[..length]) else { continue };
        taken[*kind as usize].fetch_add(1, Ordering::Relaxed);
        // What the host does not take is lost, as on any link.
        device.write_all(packet).ok();
    }
}

/// The packet in what a socket gave: behind the outer header of IPv4 (raw sockets give it, those of IPv6 do not), or that of GUE.
fn inner(kind: Kind, got: &[u8]) -> Option<&[u8]> {
    match kind {
        Kind::InV4 => got.get(usize::from(got.first()? & 15) * 4..),
        Kind::InV6 => Some(got),
        Kind::GueInV4 | Kind::GueInV6 => match got {
            [0, 4 | 41, 0, 0, packet @ ..] => Some(packet),
            _ => None,
        },
    }
}
