//! The runner against real sockets on loopback. Its schedule has tests of its own, in virtual time.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use lb_core::config::model::Check;

use super::*;

const INTERVAL: Duration = Duration::from_millis(50);
/// Long, lest a machine that is busy with other things make a healthy port fail.
const TIMEOUT: Duration = Duration::from_secs(2);
const MARGIN: Duration = Duration::from_secs(2);

/// An address of its own for each test, so that a port that is closed stays free.
fn address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [a, b, ..] = std::process::id().to_ne_bytes();
    Ipv4Addr::new(127, a, b, NEXT.fetch_add(1, Ordering::Relaxed))
}

fn target(backend: &str, address: SocketAddr) -> Target {
    Target {
        farm: FarmName::new("web").unwrap(),
        backend: BackendName::new(backend).unwrap(),
        address,
        check: Check { interval: INTERVAL, timeout: TIMEOUT, rise: 2, fall: 3, ..Check::tcp() },
        vip: None,
        adopted: Judgement::Starting,
    }
}

fn runner() -> (Runner, mpsc::Receiver<BackendHealth>) {
    let (sender, reports) = mpsc::channel(16);
    (Runner::spawn(sender), reports)
}

async fn next(reports: &mut mpsc::Receiver<BackendHealth>) -> BackendHealth {
    let report = tokio::time::timeout(Duration::from_secs(10), reports.recv());
    report.await.expect("a report in time").expect("the runner lives")
}

/// The next report with another status than `starting`.
async fn judged(reports: &mut mpsc::Receiver<BackendHealth>) -> BackendHealth {
    loop {
        let report = next(reports).await;
        if report.status != Judgement::Starting {
            return report;
        }
    }
}

#[tokio::test]
async fn a_backend_that_dies_is_taken_out_and_comes_back() {
    let listener = TcpListener::bind((address(), 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let (runner, mut reports) = runner();
    runner.set_targets(vec![target("b", at)]);
    let up = judged(&mut reports).await;
    assert_eq!(up.status, Judgement::Up);
    assert!(up.reason.starts_with(&format!("tcp {at}: connected in ")), "{}", up.reason);

    let died = Instant::now();
    drop(listener);
    let down = next(&mut reports).await;
    assert_eq!((down.status, down.reason), (Judgement::Down, format!("tcp {at}: connection refused")));
    assert!(died.elapsed() <= INTERVAL * 3 + MARGIN, "{:?}", died.elapsed());
    assert!(died.elapsed() >= INTERVAL, "{:?}", died.elapsed());
    assert!(down.since.elapsed().unwrap() < MARGIN);

    let _listener = TcpListener::bind(at).unwrap();
    assert_eq!(next(&mut reports).await.status, Judgement::Up);
}

#[tokio::test]
async fn a_port_that_never_accepts_is_down_at_the_time_out() {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((address(), 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let at = socket.local_addr().unwrap().as_socket().unwrap();
    // Whoever comes once the backlog is full gets no answer.
    let mut full = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&at, Duration::from_millis(200)) {
        full.push(stream);
    }
    let (runner, mut reports) = runner();
    let started = Instant::now();
    let mut silent = target("b", at);
    silent.check.timeout = Duration::from_millis(40);
    runner.set_targets(vec![silent]);
    assert_eq!(judged(&mut reports).await.reason, format!("tcp {at}: no answer within 40ms"));
    assert!(started.elapsed() < MARGIN, "{:?}", started.elapsed());
}

#[tokio::test]
async fn dropping_the_runner_ends_every_probe() {
    let listener = tokio::net::TcpListener::bind((address(), 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let (runner, mut reports) = runner();
    runner.set_targets(vec![target("b", at)]);
    judged(&mut reports).await;
    drop(runner);
    while reports.recv().await.is_some() {}
    // What was under way before the drop may still be in the backlog; after that nobody comes.
    let wait = |time| tokio::time::timeout(time, listener.accept());
    while wait(INTERVAL).await.is_ok() {}
    assert!(wait(INTERVAL * 4).await.is_err());
}

fn names() -> (FarmName, BackendName) {
    (FarmName::new("web").unwrap(), BackendName::new("b").unwrap())
}

async fn told(runner: &Runner) -> ChecksTold {
    runner.checks().tell(None, None, 100).await.unwrap()
}

/// What is told as soon as it fits.
async fn told_when(runner: &Runner, fits: impl Fn(&ChecksTold) -> bool) -> ChecksTold {
    let look = async {
        loop {
            let told = told(runner).await;
            if fits(&told) {
                return told;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), look).await.expect("it fits in time")
}

#[tokio::test]
async fn what_each_run_found_is_told_with_its_time() {
    let listener = TcpListener::bind((address(), 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let (runner, mut reports) = runner();
    runner.set_targets(vec![target("b", at), target("b", SocketAddr::new(at.ip(), 9))]);
    judged(&mut reports).await;
    let told = told_when(&runner, |told| told.checks.iter().all(|check| check.history.len() >= 3)).await;
    let names: Vec<_> = told.checks.iter().map(|check| check.name.clone()).collect();
    assert_eq!(names, [format!("tcp {at}"), format!("tcp {}:9", at.ip())]);
    let [open, closed] = told.checks.as_slice() else { panic!("{names:?}") };
    assert_eq!((open.judgement, closed.judgement), (Judgement::Up, Judgement::Down));
    let last = open.last.as_ref().unwrap();
    assert!(last.verdict == CheckVerdict::Passed && last.reason.starts_with("connected in "), "{last:?}");
    assert!(last.took < MARGIN && last.ago < MARGIN && open.next_run_in <= INTERVAL);
    assert!(closed.history.iter().all(|result| &*result.reason == "connection refused"));
    assert_eq!((told.load.targets, told.load.subjects), (2, 2));
    assert!(told.load.lateness.count() >= 6);
    let (farm, _) = self::names();
    let other = BackendName::new("other").unwrap();
    assert_eq!(runner.checks().tell(Some(farm), Some(other), 0).await.unwrap().checks, []);
}

#[tokio::test]
async fn a_run_by_hand_tells_what_it_found_and_counts_for_nothing() {
    let listener = TcpListener::bind((address(), 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let (runner, mut reports) = runner();
    let slow = |at| {
        let mut target = target("b", at);
        target.check.interval = Duration::from_secs(3600);
        target.check.fall = 1;
        target
    };
    runner.set_targets(vec![slow(at)]);
    assert_eq!(judged(&mut reports).await.status, Judgement::Up);
    let (farm, backend) = names();
    let runs = runner.checks().run(farm.clone(), Some(backend)).await.unwrap();
    assert_eq!((runs.len(), runs[0].verdict), (1, CheckVerdict::Passed));
    drop(listener);
    let runs = runner.checks().run(farm.clone(), None).await.unwrap();
    assert_eq!((runs[0].verdict, runs[0].reason.as_str()), (CheckVerdict::Failed, "connection refused"));
    let told = told(&runner).await;
    assert_eq!((told.checks[0].judgement, told.checks[0].history.len()), (Judgement::Up, 1));
    let nobody = BackendName::new("nobody").unwrap();
    assert_eq!(runner.checks().run(farm, Some(nobody)).await.unwrap(), []);
}
