//! Clients: many short connections, long ones that go on, UDP flows. Each records who answered, and every failure with its
//! reason.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::http::{Client, Failure, get};
use crate::netns::Netns;

/// Who answered how often, and what failed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    pub answered: BTreeMap<String, u64>,
    pub failures: Vec<String>,
}

impl Tally {
    /// The answers of all backends.
    pub fn total(&self) -> u64 {
        self.answered.values().sum()
    }

    /// The answers of one backend.
    pub fn of(&self, name: &str) -> u64 {
        self.answered.get(name).copied().unwrap_or(0)
    }

    /// One backend's part of all answers, in percent.
    pub fn percent(&self, name: &str) -> f64 {
        100.0 * self.of(name) as f64 / self.total().max(1) as f64
    }

    pub fn count(&mut self, result: Result<String, String>) {
        match result {
            Ok(name) => *self.answered.entry(name).or_default() += 1,
            Err(failure) => self.failures.push(failure),
        }
    }

    pub fn add(&mut self, other: Self) {
        for (name, count) in other.answered {
            *self.answered.entry(name).or_default() += count;
        }
        self.failures.extend(other.failures);
    }
}

/// Many connections with one request each.
#[derive(Debug, Clone)]
pub struct Short {
    pub target: SocketAddr,
    pub count: usize,
    /// How many at once.
    pub concurrency: usize,
    /// Taken in turn; empty: what the kernel chooses.
    pub sources: Vec<IpAddr>,
    pub limit: Duration,
}

impl Short {
    /// A few connections, for a look at who answers.
    pub fn new(target: SocketAddr, count: usize) -> Self {
        Self { target, count, concurrency: 16, sources: Vec::new(), limit: Duration::from_secs(5) }
    }

    /// Runs them in `netns`.
    pub fn run(&self, netns: &Netns) -> Result<Tally> {
        netns.enter(|| self.run_here())
    }

    /// Runs them in the network that this thread is in.
    pub fn run_here(&self) -> Tally {
        let next = AtomicUsize::new(0);
        let worker = || {
            let mut tally = Tally::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= self.count {
                    return tally;
                }
                let source = (!self.sources.is_empty()).then(|| self.sources[number % self.sources.len()]);
                let answer = get(self.target, source, "/", self.limit);
                tally.count(answer.map(|it| it.name).map_err(|failure| failure.to_string()));
            }
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.concurrency.max(1)).map(|_| scope.spawn(worker)).collect();
            let mut all = Tally::default();
            for worker in workers {
                match worker.join() {
                    Ok(tally) => all.add(tally),
                    Err(_) => all.failures.push("a client panicked".to_owned()),
                }
            }
            all
        })
    }
}

/// Asks once from each of `sources`, from exactly these addresses and ports, and closes by a reset, so that the same may be
/// asked again at once. Which backend answered each, or why none did.
pub fn fixed(
    netns: &Netns,
    target: SocketAddr,
    sources: &[SocketAddr],
    limit: Duration,
) -> Result<Vec<Result<String, Failure>>> {
    let ask = |source: SocketAddr| {
        let mut client = Client::connect(target, Some(source), limit)?;
        let answer = client.get("/", true)?;
        client.reset()?;
        Ok(answer.name)
    };
    netns.enter(|| sources.iter().map(|&source| ask(source)).collect())
}

/// Connections that stay open and keep exchanging.
#[derive(Debug)]
pub struct LongLived {
    stop: Arc<AtomicBool>,
    exchanges: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Report>>,
}

/// What became of a long connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The backend that answered first.
    pub backend: String,
    pub exchanges: u64,
    /// Why it ended before its time.
    pub failure: Option<String>,
}

impl LongLived {
    /// Opens `count` connections from the sources in turn, with a request `every` so often on each.
    pub fn open(
        netns: &Netns,
        target: SocketAddr,
        sources: &[IpAddr],
        count: usize,
        every: Duration,
    ) -> Result<Self> {
        Self::open_patiently(netns, target, sources, (count, every), Duration::from_secs(10))
    }

    /// The same of clients who give an answer up only after `patience`.
    pub fn open_patiently(
        netns: &Netns,
        target: SocketAddr,
        sources: &[IpAddr],
        (count, every): (usize, Duration),
        patience: Duration,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let exchanges = Arc::new(AtomicUsize::new(0));
        let threads = netns.enter(|| -> Result<Vec<_>> {
            let mut threads = Vec::new();
            for number in 0..count {
                let source =
                    (!sources.is_empty()).then(|| SocketAddr::new(sources[number % sources.len()], 0));
                let mut client = Client::connect(target, source, patience)?;
                let backend = client.get("/", true)?.name;
                let (stop, exchanges) = (Arc::clone(&stop), Arc::clone(&exchanges));
                threads.push(std::thread::spawn(move || keep(client, backend, every, &stop, &exchanges)));
            }
            Ok(threads)
        })??;
        Ok(Self { stop, exchanges, threads })
    }

    /// How many requests all of them together have had answered since they were opened.
    pub fn exchanges(&self) -> usize {
        self.exchanges.load(Ordering::Relaxed)
    }

    /// Closes them and says what became of each.
    pub fn finish(mut self) -> Result<Vec<Report>> {
        self.stop.store(true, Ordering::Relaxed);
        let join = |thread: JoinHandle<Report>| thread.join().map_err(|_| anyhow!("a client panicked"));
        std::mem::take(&mut self.threads).into_iter().map(join).collect()
    }
}

impl Drop for LongLived {
    /// Lets them end; one that hangs does so at its limit.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn keep(
    mut client: Client,
    backend: String,
    every: Duration,
    stop: &AtomicBool,
    exchanges: &AtomicUsize,
) -> Report {
    let mut report = Report { backend, exchanges: 0, failure: None };
    while !stop.load(Ordering::Relaxed) {
        match client.get("/", true) {
            Ok(answer) if answer.name == report.backend => report.exchanges += 1,
            Ok(answer) => {
                report.failure = Some(format!("{} answered a connection of {}", answer.name, report.backend));
                break;
            }
            Err(failure) => {
                report.failure = Some(failure.to_string());
                break;
            }
        }
        exchanges.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(every);
    }
    report
}

/// `flows` UDP flows of `packets` datagrams each; each must be answered by one backend alone. A datagram that is not
/// answered in a second is asked once more, as every client of UDP does.
pub fn udp_flows(
    netns: &Netns,
    target: SocketAddr,
    sources: &[IpAddr],
    flows: usize,
    packets: usize,
) -> Result<Tally> {
    let flow = |number: usize| -> Result<String> {
        let source = sources.get(number % sources.len().max(1)).context("no source")?;
        let socket = UdpSocket::bind(SocketAddr::new(*source, 0))?;
        socket.connect(target)?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut backend: Option<String> = None;
        for packet in 0..packets {
            let payload = format!("{number}/{packet}");
            let name = exchange(&socket, &payload).with_context(|| format!("datagram {payload}"))?;
            match &backend {
                Some(first) if *first != name => {
                    return Err(anyhow!("{name} answered a flow of {first}"));
                }
                _ => backend = Some(name),
            }
        }
        backend.context("no datagrams")
    };
    netns.enter(|| {
        let mut tally = Tally::default();
        for number in 0..flows {
            tally.count(flow(number).map_err(|error| format!("{error:#}")));
        }
        tally
    })
}

/// Sends a datagram and returns the name of who echoed it.
fn exchange(socket: &UdpSocket, payload: &str) -> Result<String> {
    let mut buffer = [0; 2048];
    let mut last = anyhow!("not tried");
    for _ in 0..2 {
        socket.send(payload.as_bytes())?;
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let answer = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
                let (name, echoed) = answer.split_once(' ').context("an answer without a name")?;
                if echoed == payload {
                    return Ok(name.to_owned());
                }
                last = anyhow!("the echo of another datagram: {echoed}");
            }
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}
