//! A network of one's own, for tests that need interfaces besides loopback or sockets that nobody else has.

use std::fs::File;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};

/// The calling thread's network until it is dropped: loopback and a pair of interfaces, gone with the thread's last use of it.
pub struct Network {
    before: File,
    /// One end of the pair. Both have rx queues, which is all that a test run asks of an interface.
    pub outside: u32,
    /// The other end.
    pub inside: u32,
}

impl Network {
    pub fn enter() -> Self {
        let before = File::open("/proc/thread-self/ns/net").unwrap();
        unshare(CloneFlags::CLONE_NEWNET).expect("root");
        let mut network = Self { before, outside: 0, inside: 0 };
        ip("link set lo up");
        ip("link add outside type veth peer name inside");
        let ifindex = |name| nix::net::if_::if_nametoindex(name).unwrap();
        (network.outside, network.inside) = (ifindex("outside"), ifindex("inside"));
        network
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = setns(&self.before, CloneFlags::CLONE_NEWNET) {
            eprintln!("this thread stays in the test's network: {error}");
        }
    }
}

/// Runs `ip` in the thread's network.
pub fn ip(arguments: &str) {
    let mut command = Command::new("ip");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(arguments.split(' '));
    let output = command.output().expect("iproute2");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
