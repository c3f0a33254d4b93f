//! Networks for tests: hosts that are network namespaces of threads of the test process.
//!
//! No namespace has a name, so nothing is left when the process ends in whatever way, and tests run side by side.

use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

type Job = Box<dyn FnOnce() + Send>;

/// A host of its own. Its namespace ends with it.
pub struct Host {
    jobs: mpsc::Sender<Job>,
    thread: i32,
}

impl Host {
    pub fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("tests of the network need root");
            tell.send(nix::unistd::gettid().as_raw()).unwrap();
            queue.into_iter().for_each(|job| job());
        });
        let host = Self { jobs, thread: told.recv().expect("a network namespace") };
        host.ip("link set lo up");
        host
    }

    /// Runs `job` on the host and waits for it.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        self.jobs.send(Box::new(move || drop(tell.send(job())))).expect("the host lives");
        told.recv().expect("the job ended")
    }

    /// Runs what `job` makes on the host, in a runtime of one thread.
    pub fn run_async<T: Send + 'static, F: Future<Output = T>>(
        &self,
        job: impl FnOnce() -> F + Send + 'static,
    ) -> T {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(job())
        })
    }

    /// Runs `ip` with these arguments on the host; the answer is what it prints.
    pub fn ip(&self, arguments: &str) -> String {
        let arguments = arguments.to_owned();
        self.run(move || ip(&arguments))
    }

    /// Lays a cable from `name` here to `peer_name` on `peer`, both ends up.
    pub fn cable(&self, name: &str, peer: &Self, peer_name: &str) {
        self.ip(&format!("link add {name} type veth peer name {peer_name} netns {}", peer.thread));
        self.ip(&format!("link set {name} up"));
        peer.ip(&format!("link set {peer_name} up"));
    }

    /// Gives an interface an address of IPv6, such as `2001:db8::1/64`, and waits until it is one: the kernel sees that the
    /// cable carries, and adds the address's routes, when it gets round to it.
    pub fn address(&self, address: &str, interface: &str) {
        self.ip(&format!("addr add {address} dev {interface} nodad"));
        let (own, _) = address.split_once('/').expect("a length");
        let routes = || self.ip(&format!("-6 route show table local dev {interface}"));
        wait_for("the routes of an address", || routes().contains(&format!("local {own} ")));
    }

    pub fn index(&self, name: &str) -> u32 {
        let name = name.to_owned();
        self.run(move || nix::net::if_::if_nametoindex(name.as_str()).unwrap())
    }
}

/// Runs `ip` where the calling thread is.
pub fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until `condition` holds.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
