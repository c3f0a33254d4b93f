//! Linux's connection tracking in a network of its own: packets go in by a TUN device, states come out of /proc.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};

use lb_common::checksum::checksum;
use lb_common::tcp::{Direction, Segment};
use nix::sched::{CloneFlags, unshare};

/// A client's and a server's address.
const CLIENT: [u8; 4] = [10, 1, 0, 1];
const SERVER: [u8; 4] = [10, 2, 0, 1];

const DEVICE: &str = "oracle0";
const IFF_TUN: i16 = 0x0001;
const IFF_NO_PI: i16 = 0x1000;

/// `struct ifreq` as TUNSETIFF reads it.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

nix::ioctl_write_int!(tun_set_interface, b'T', 202);

/// The tracker. Belongs to the thread that made it, and ends with it.
pub struct Tracker {
    device: File,
}

impl Tracker {
    /// Moves this thread into a network of its own that forwards and tracks.
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(nix::libc::O_NONBLOCK);
        let device = options.open("/dev/net/tun").expect("/dev/net/tun");
        let mut request = Request { name: [0; 16], flags: IFF_TUN | IFF_NO_PI, rest: [0; 22] };
        request.name[..DEVICE.len()].copy_from_slice(DEVICE.as_bytes());
        // SAFETY: the request is as large as the kernel's `struct ifreq`, and lives until the call has returned.
        unsafe { tun_set_interface(device.as_raw_fd(), (&raw const request) as u64) }.expect("TUNSETIFF");
        let settings = [
            ("ipv4/ip_forward", "1"),
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/oracle0/send_redirects", "0"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/oracle0/rp_filter", "0"),
            // Nothing is taken up in the middle.
            ("netfilter/nf_conntrack_tcp_loose", "0"),
            ("netfilter/nf_conntrack_tcp_be_liberal", "0"),
        ];
        for (name, value) in settings {
            let file = format!("/proc/sys/net/{name}");
            fs::write(&file, value).unwrap_or_else(|error| panic!("{file}: {error}"));
        }
        feed(
            "ip",
            &["-batch", "-"],
            &format!(
                "link set {DEVICE} up\nroute add 10.1.0.0/16 dev {DEVICE}\nroute add 10.2.0.0/16 dev {DEVICE}\n"
            ),
        );
        feed(
            "nft",
            &["-f", "-"],
            "table ip oracle { chain passing { type filter hook forward priority 0; ct state invalid drop; }; }\n",
        );
        Self { device }
    }

    /// A segment of the connection that has this client's port comes by.
    pub fn pass(&mut self, port: u16, segment: &Segment) {
        self.device.write_all(&packet(port, segment)).expect("the device takes packets");
        let mut out = [0; 2048];
        while self.device.read(&mut out).is_ok() {}
    }

    /// The state of each connection, by the client's port.
    pub fn states(&self) -> HashMap<u16, String> {
        let text = fs::read_to_string("/proc/thread-self/net/nf_conntrack").expect("nf_conntrack");
        text.lines().filter_map(state).collect()
    }
}

/// `ipv4 2 tcp 6 431999 ESTABLISHED src=10.1.0.1 dst=10.2.0.1 sport=1024 dport=80 ...`
fn state(line: &str) -> Option<(u16, String)> {
    let mut words = line.split_whitespace();
    let state = words.nth(5)?;
    let port = words.find_map(|word| word.strip_prefix("sport="))?;
    Some((port.parse().ok()?, state.to_owned()))
}

fn feed(program: &str, args: &[&str], text: &str) {
    let mut child = Command::new(program).args(args).stdin(Stdio::piped()).spawn().expect(program);
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{program}: {text}");
}

/// Checksums and all.
fn packet(port: u16, segment: &Segment) -> Vec<u8> {
    let (from, to, ports) = match segment.direction {
        Direction::Forward => (CLIENT, SERVER, [port, 80]),
        Direction::Reverse => (SERVER, CLIENT, [80, port]),
    };
    let mut tcp = Vec::new();
    ports.iter().for_each(|port| tcp.extend(port.to_be_bytes()));
    tcp.extend(segment.sequence.to_be_bytes());
    tcp.extend(segment.acknowledgment.to_be_bytes());
    tcp.extend([5 << 4, segment.flags]);
    // The window, the checksum, the urgent pointer.
    tcp.extend([0xff, 0xff, 0, 0, 0, 0]);
    tcp.extend(std::iter::repeat_n(0x55, segment.payload as usize));
    let sum = checksum(&[&from, &to, &[0, 6], &(tcp.len() as u16).to_be_bytes(), &tcp]);
    tcp[16..18].copy_from_slice(&sum);
    let length = (20 + tcp.len() as u16).to_be_bytes();
    let mut ip = vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, 6, 0, 0];
    ip.extend(from);
    ip.extend(to);
    let check = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&check);
    ip.extend(tcp);
    ip
}
