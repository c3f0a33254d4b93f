//! The runner against real sockets on loopback.

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
async fn a_backend_that_is_dead_at_start_is_never_up() {
    let at = SocketAddr::from((address(), 9));
    let (runner, mut reports) = runner();
    runner.set_targets(vec![target("b", at)]);
    assert_eq!(judged(&mut reports).await.reason, format!("tcp {at}: connection refused"));
    let more = tokio::time::timeout(INTERVAL * 5, reports.recv()).await;
    assert!(more.is_err(), "{more:?}");
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
async fn every_port_must_answer() {
    let listener = TcpListener::bind((address(), 0)).unwrap();
    let up = listener.local_addr().unwrap();
    let closed = SocketAddr::new(up.ip(), 9);
    let (runner, mut reports) = runner();
    runner.set_targets(vec![target("b", up), target("b", closed)]);
    let report = judged(&mut reports).await;
    assert_eq!(
        (report.status, report.reason),
        (Judgement::Down, format!("tcp {closed}: connection refused"))
    );
}

#[tokio::test]
async fn other_targets_leave_what_is_known_alone() {
    let listener = TcpListener::bind((address(), 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let (runner, mut reports) = runner();
    runner.set_targets(vec![target("a", at)]);
    assert_eq!(judged(&mut reports).await.backend.as_str(), "a");
    runner.set_targets(vec![target("b", at), target("a", at)]);
    assert_eq!(judged(&mut reports).await.backend.as_str(), "b");
    let more = tokio::time::timeout(INTERVAL * 3, reports.recv()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn an_adopted_backend_is_up_before_its_first_probe() {
    let at = SocketAddr::from((address(), 9));
    let (runner, mut reports) = runner();
    runner.set_targets(vec![Target { adopted: Judgement::Up, ..target("b", at) }]);
    assert_eq!(next(&mut reports).await.status, Judgement::Up);
    assert_eq!(next(&mut reports).await.status, Judgement::Down);
}

#[tokio::test]
async fn a_daemon_that_lags_gets_the_latest_state() {
    let at = address();
    let listener = TcpListener::bind((at, 0)).unwrap();
    let port = listener.local_addr().unwrap();
    let (sender, mut reports) = mpsc::channel(1);
    let runner = Runner::spawn(sender);
    let mut closed = target("b", port);
    closed.address.set_port(9);
    runner.set_targets(vec![target("a", port), closed]);
    // Both have been judged, by more results than it takes.
    while told(&runner).await.checks.iter().any(|check| check.history.len() < 4) {
        tokio::task::yield_now().await;
    }
    // One report filled the channel before anything was judged; of the rest only the latest of each is left.
    let mut said = Vec::new();
    while let Ok(Some(report)) = tokio::time::timeout(INTERVAL * 3, reports.recv()).await {
        said.push((report.backend.to_string(), report.status));
    }
    assert!(said.len() <= 3, "{said:?}");
    let last = |name: &str| said.iter().rev().find(|(backend, _)| backend == name).map(|(_, status)| *status);
    assert_eq!((last("a"), last("b")), (Some(Judgement::Up), Some(Judgement::Down)));
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

#[tokio::test]
async fn what_each_run_found_is_told_with_its_time() {
    let listener = TcpListener::bind((address(), 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let (runner, mut reports) = runner();
    runner.set_targets(vec![target("b", at), target("b", SocketAddr::new(at.ip(), 9))]);
    judged(&mut reports).await;
    let told = loop {
        let told = told(&runner).await;
        if told.checks.iter().all(|check| check.history.len() >= 3) {
            break told;
        }
        tokio::time::sleep(INTERVAL).await;
    };
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

#[tokio::test]
async fn a_suspected_backend_is_judged_long_before_its_next_turn() {
    let listener = TcpListener::bind((address(), 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let (runner, mut reports) = runner();
    let mut patient = target("b", at);
    patient.check.interval = Duration::from_secs(3600);
    patient.check.fast_interval = INTERVAL;
    runner.set_targets(vec![patient]);
    assert_eq!(judged(&mut reports).await.status, Judgement::Up);
    drop(listener);
    tokio::time::sleep(INTERVAL * 2).await;
    let suspected = Instant::now();
    let (farm, backend) = names();
    runner.suspect(&farm, &backend);
    let down = next(&mut reports).await;
    assert_eq!((down.status, down.reason), (Judgement::Down, format!("tcp {at}: connection refused")));
    // Two more failures follow the first, a fast interval apart.
    assert!(suspected.elapsed() >= INTERVAL * 2 && suspected.elapsed() < MARGIN, "{:?}", suspected.elapsed());
}

#[tokio::test]
async fn a_check_that_farms_share_is_one_connection_a_time() {
    let listener = tokio::net::TcpListener::bind((address(), 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let (runner, mut reports) = runner();
    let slow = |farm: &str| {
        let mut target = target("b", at);
        target.farm = FarmName::new(farm).unwrap();
        target.check.interval = Duration::from_secs(3600);
        target
    };
    runner.set_targets(vec![slow("web"), slow("mail")]);
    let farms = [judged(&mut reports).await.farm, judged(&mut reports).await.farm];
    assert_ne!(farms[0], farms[1]);
    assert!(listener.accept().await.is_ok());
    assert!(tokio::time::timeout(INTERVAL * 3, listener.accept()).await.is_err());
}
