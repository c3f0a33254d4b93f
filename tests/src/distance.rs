//! Clients that are far away: a network whose packets take a while to the balancer and back.
//!
//! Its host has real sockets and one interface, a TUN device. A thread takes each packet from there, holds it back for its time
//! and sends it on by the client's interface, and the same the other way.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use lb_common::wire::Ethernet;

use crate::netns::Netns;
use crate::topology::Topology;
use crate::wire::Wire;

/// Where they are: 10.1.64.0/24, which no link carries.
const NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 1, 64, 0), 24);
const HOSTS: u8 = 10;

const DEVICE: &str = "tun0";

/// A network at a distance.
#[derive(Debug)]
pub struct Distance {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
    pub netns: Netns,
}

impl Distance {
    /// Builds it beside the client of `topology`; `delay` is that of one way.
    pub fn new(topology: &Topology, delay: Duration) -> Result<Self> {
        let netns = Netns::new("far")?;
        let device = netns.enter(|| tun(DEVICE))??;
        let mut lines = String::new();
        for source in Self::sources() {
            lines += &format!("addr add {source}/32 dev {DEVICE}\n");
        }
        lines += &format!("link set {DEVICE} mtu 1500 up\nroute add default dev {DEVICE}\n");
        netns.ip(&lines)?;
        let wire = Wire::open(&topology.client, "eth0", Some(NETWORK))?;
        let head = [&topology.front_mac()?[..], &wire.mac(), &[0x08, 0x00]].concat();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = Some(std::thread::spawn(move || relay(device, &wire, &head, delay, &told)));
        Ok(Self { stop, thread, netns })
    }

    /// The addresses of its host.
    pub fn sources() -> Vec<IpAddr> {
        (1..=HOSTS).map(|host| IpAddr::from([10, 1, 64, host])).collect()
    }

    fn halt(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        ended.unwrap_or(Ok(Ok(()))).map_err(|_| anyhow!("the relay panicked"))?
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        if let Err(error) = self.halt() {
            eprintln!("the distance was not bridged: {error:#}");
        }
    }
}

/// A TUN device of packets alone in the network that this thread is in.
pub(crate) fn tun(name: &str) -> Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).open("/dev/net/tun").context("/dev/net/tun")?;
    // SAFETY: zeroes are an `ifreq` without a name and flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes an `ifreq`, which `request` is.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error()).context("making a TUN device");
    }
    set_nonblocking(&file)?;
    Ok(file)
}

fn set_nonblocking(file: &File) -> Result<()> {
    nix::fcntl::fcntl(file, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
    Ok(())
}

/// A packet on its way.
enum Parcel {
    Away(Vec<u8>),
    Home(Vec<u8>),
}

fn relay(mut device: File, wire: &Wire, head: &[u8], delay: Duration, stop: &AtomicBool) -> Result<()> {
    let mut under_way: VecDeque<(Instant, Parcel)> = VecDeque::new();
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        wait(&device, wire, under_way.front().map(|(due, _)| *due))?;
        let due = Instant::now() + delay;
        // The device has an end: no more than it queues is taken at a time. An error: nothing more has come.
        while let Ok(length) = device.read(&mut buffer) {
            let packet = buffer.get(..length).unwrap_or_default();
            under_way.push_back((due, Parcel::Away([head, packet].concat())));
        }
        while let Some(frame) = wire.receive(Duration::ZERO)? {
            under_way.push_back((due, Parcel::Home(frame)));
        }
        let now = Instant::now();
        while let Some((_, parcel)) = under_way.pop_front_if(|(due, _)| *due <= now) {
            match parcel {
                // What a full queue does not take is lost, as it would be on the way.
                Parcel::Away(frame) => drop(wire.send_all(&[frame])?),
                Parcel::Home(frame) => {
                    device.write_all(frame.get(Ethernet::SIZE..).unwrap_or_default()).ok();
                }
            }
        }
    }
    Ok(())
}

/// Waits until something comes or is due, and no longer than it may take to notice the end.
fn wait(device: &File, wire: &Wire, due: Option<Instant>) -> Result<()> {
    let longest = Duration::from_millis(20);
    let limit = due.map_or(longest, |due| due.saturating_duration_since(Instant::now()).min(longest));
    let poll = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut polls = [poll(device.as_raw_fd()), poll(wire.as_raw_fd())];
    // SAFETY: two entries are told and there.
    let ready = unsafe {
        libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, limit.as_millis() as libc::c_int)
    };
    if ready < 0 { Err(io::Error::last_os_error()).context("waiting for packets") } else { Ok(()) }
}
