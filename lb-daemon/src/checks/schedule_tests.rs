//! The runner's schedule in virtual time: the clock stands still while anything is to be done, and then goes to what is due
//! next. Backends are in memory.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use lb_core::config::model::Check;
use tokio::time::Instant;

use super::*;

const INTERVAL: Duration = Duration::from_secs(5);
const FAST: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(3);
/// What a backend takes to answer.
const ANSWER: Duration = Duration::from_millis(20);
/// Long after everything that is to happen has happened.
const LONG: Duration = Duration::from_secs(3600);

/// What a backend does when it is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Answers,
    Refuses,
    Hangs,
}

/// The backends, by their ports, and when each was probed. The address of all is the same.
#[derive(Clone, Default)]
struct World(Arc<Mutex<Backends>>);

#[derive(Default)]
struct Backends {
    manners: HashMap<u16, Manner>,
    probed: Vec<(u16, Instant)>,
    /// Probes that have begun and not ended, in whatever way.
    in_flight: usize,
}

impl World {
    fn with(manners: &[(u16, Manner)]) -> Self {
        let world = Self::default();
        world.lock().manners.extend(manners.iter().copied());
        world
    }

    fn lock(&self) -> MutexGuard<'_, Backends> {
        self.0.lock().unwrap()
    }

    fn set(&self, port: u16, manner: Manner) {
        self.lock().manners.insert(port, manner);
    }

    /// When the backend was probed.
    fn probes(&self, port: u16) -> Vec<Instant> {
        let world = self.lock();
        world.probed.iter().filter(|(probed, _)| *probed == port).map(|(_, at)| *at).collect()
    }

    /// The runner, and the reports, of which so many wait for the daemon.
    fn runner(&self, room: usize) -> (Runner, mpsc::Receiver<BackendHealth>) {
        let (sender, reports) = mpsc::channel(room);
        let world = self.clone();
        let probe = move |target: Arc<Target>| -> BoxFuture<'static, Result<Outcome, Untried>> {
            let world = world.clone();
            Box::pin(async move { Ok(world.probe(target.address.port()).await) })
        };
        (Runner::probing(Box::new(probe), sender), reports)
    }

    async fn probe(&self, port: u16) -> Outcome {
        self.lock().probed.push((port, Instant::now()));
        let _flight = Flight::begin(self);
        tokio::time::sleep(ANSWER).await;
        let manner = self.lock().manners[&port];
        match manner {
            Manner::Answers => Outcome::passed("connected"),
            Manner::Refuses => Outcome::failed("connection refused"),
            Manner::Hangs => std::future::pending().await,
        }
    }
}

struct Flight(World);

impl Flight {
    fn begin(world: &World) -> Self {
        world.lock().in_flight += 1;
        Self(world.clone())
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.lock().in_flight -= 1;
    }
}

fn target(backend: &str, port: u16) -> Target {
    Target {
        farm: FarmName::new("web").unwrap(),
        backend: BackendName::new(backend).unwrap(),
        address: SocketAddr::from(([10, 0, 0, 11], port)),
        check: Check {
            interval: INTERVAL,
            fast_interval: FAST,
            timeout: TIMEOUT,
            rise: 2,
            fall: 3,
            ..Check::tcp()
        },
        vip: None,
        adopted: Judgement::Starting,
    }
}

async fn next(reports: &mut mpsc::Receiver<BackendHealth>) -> BackendHealth {
    tokio::time::timeout(LONG, reports.recv()).await.expect("a report").expect("the runner lives")
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

/// Nothing is reported any more.
async fn assert_silence(reports: &mut mpsc::Receiver<BackendHealth>) {
    let more = tokio::time::timeout(LONG, reports.recv()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_dies_is_out_after_as_many_failures_as_it_takes_and_comes_back_likewise() {
    let world = World::with(&[(80, Manner::Answers)]);
    let (runner, mut reports) = world.runner(16);
    runner.set_targets(vec![target("b", 80)]);
    assert_eq!(judged(&mut reports).await.status, Judgement::Up);
    let turns = [
        (Manner::Refuses, Judgement::Down, "tcp 10.0.0.11:80: connection refused", 3),
        (Manner::Answers, Judgement::Up, "tcp 10.0.0.11:80: connected", 2),
        (Manner::Hangs, Judgement::Down, "tcp 10.0.0.11:80: no answer within 3s", 3),
    ];
    for (manner, status, reason, count) in turns {
        let (begin, before) = (Instant::now(), world.probes(80).len());
        world.set(80, manner);
        let report = next(&mut reports).await;
        assert_eq!((report.status, report.reason.as_str()), (status, reason));
        let probes = world.probes(80).split_off(before);
        assert_eq!(probes.len(), count, "{manner:?}: {probes:?}");
        assert!(probes[0] - begin <= INTERVAL, "{manner:?}: the first in its turn: {probes:?}");
        let took = if manner == Manner::Hangs { TIMEOUT } else { ANSWER };
        let apart = probes.windows(2).map(|pair| pair[1] - pair[0]);
        for apart in apart {
            assert!(apart >= FAST && apart <= FAST + took, "{manner:?}: then in haste: {probes:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_dead_at_start_is_never_up() {
    let (runner, mut reports) = World::with(&[(80, Manner::Refuses)]).runner(16);
    runner.set_targets(vec![target("b", 80)]);
    let report = judged(&mut reports).await;
    assert_eq!((report.status, &*report.reason), (Judgement::Down, "tcp 10.0.0.11:80: connection refused"));
    assert_silence(&mut reports).await;
}

#[tokio::test(start_paused = true)]
async fn every_port_must_answer() {
    let (runner, mut reports) = World::with(&[(80, Manner::Answers), (443, Manner::Refuses)]).runner(16);
    runner.set_targets(vec![target("b", 80), target("b", 443)]);
    let report = judged(&mut reports).await;
    assert_eq!((report.status, &*report.reason), (Judgement::Down, "tcp 10.0.0.11:443: connection refused"));
    assert_silence(&mut reports).await;
}

#[tokio::test(start_paused = true)]
async fn other_targets_leave_what_is_known_alone() {
    let (runner, mut reports) = World::with(&[(80, Manner::Answers)]).runner(16);
    runner.set_targets(vec![target("a", 80)]);
    assert_eq!(judged(&mut reports).await.backend.as_str(), "a");
    runner.set_targets(vec![target("b", 80), target("a", 80)]);
    assert_eq!(judged(&mut reports).await.backend.as_str(), "b");
    assert_silence(&mut reports).await;
}

#[tokio::test(start_paused = true)]
async fn an_adopted_backend_is_up_before_its_first_probe() {
    let world = World::with(&[(80, Manner::Refuses)]);
    let (runner, mut reports) = world.runner(16);
    let begin = Instant::now();
    runner.set_targets(vec![Target { adopted: Judgement::Up, ..target("b", 80) }]);
    assert_eq!((next(&mut reports).await.status, Instant::now()), (Judgement::Up, begin));
    assert_eq!(next(&mut reports).await.status, Judgement::Down);
    assert_eq!(world.probes(80).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_lags_gets_the_latest_state() {
    let world = World::with(&[(80, Manner::Answers), (443, Manner::Refuses)]);
    let (runner, mut reports) = world.runner(1);
    runner.set_targets(vec![target("a", 80), target("b", 443)]);
    // Both have been judged, and each judged otherwise since.
    tokio::time::sleep(LONG).await;
    world.set(80, Manner::Refuses);
    world.set(443, Manner::Answers);
    tokio::time::sleep(LONG).await;
    // One report filled the channel before anything was judged; of the rest only the latest of each is left.
    let mut said = Vec::new();
    while let Ok(Some(report)) = tokio::time::timeout(LONG, reports.recv()).await {
        said.push((report.backend.to_string(), report.status));
    }
    assert!(said.len() <= 3, "{said:?}");
    let last = |name: &str| said.iter().rev().find(|(backend, _)| backend == name).map(|(_, status)| *status);
    assert_eq!((last("a"), last("b")), (Some(Judgement::Down), Some(Judgement::Up)));
}

#[tokio::test(start_paused = true)]
async fn a_suspected_backend_is_judged_long_before_its_next_turn() {
    let world = World::with(&[(80, Manner::Answers)]);
    let (runner, mut reports) = world.runner(16);
    let mut patient = target("b", 80);
    patient.check.interval = LONG;
    runner.set_targets(vec![patient]);
    assert_eq!(judged(&mut reports).await.status, Judgement::Up);
    // Sooner after the last probe than a fast interval there is none.
    tokio::time::sleep(FAST).await;
    world.set(80, Manner::Refuses);
    let suspected = Instant::now();
    runner.suspect(&FarmName::new("web").unwrap(), &BackendName::new("b").unwrap());
    assert_eq!(next(&mut reports).await.status, Judgement::Down);
    // Two more failures follow the first, a fast interval apart.
    let took = suspected.elapsed();
    assert!(took >= FAST * 2 + ANSWER && took <= (FAST + ANSWER) * 3, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_check_that_farms_share_is_one_probe_a_time() {
    let world = World::with(&[(80, Manner::Answers)]);
    let (runner, mut reports) = world.runner(16);
    let of = |farm: &str| Target { farm: FarmName::new(farm).unwrap(), ..target("b", 80) };
    runner.set_targets(vec![of("web"), of("mail")]);
    let farms = [judged(&mut reports).await.farm, judged(&mut reports).await.farm];
    assert_ne!(farms[0], farms[1]);
    tokio::time::sleep(INTERVAL * 100).await;
    let probes = world.probes(80);
    assert!(probes.len().abs_diff(100) <= 2, "{} probes in a hundred intervals", probes.len());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_runner_ends_every_probe_and_no_other_begins() {
    let world = World::with(&[(80, Manner::Hangs), (81, Manner::Hangs), (82, Manner::Answers)]);
    let (runner, mut reports) = world.runner(16);
    runner.set_targets([80, 81, 82].map(|port| target(&format!("b{port}"), port)).to_vec());
    tokio::time::sleep(TIMEOUT / 2).await;
    assert_eq!(world.lock().in_flight, 2);
    drop(runner);
    while reports.recv().await.is_some() {}
    assert_eq!(world.lock().in_flight, 0);
    let probed = world.lock().probed.len();
    tokio::time::sleep(LONG).await;
    assert_eq!(world.lock().probed.len(), probed);
}
