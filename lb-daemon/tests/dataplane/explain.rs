//! What is said of a packet beforehand, and what the program then does with it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{Array, Map, MapData, PerCpuArray};
use lb_common::abi::{LAYOUT_VERSION, map};
use lb_core::config::model::{Affinity, Farm, Lists, Mode, Ports, Scheduler, WhenAllDown};
use lb_core::explain::{Explanation, Step};
use lb_core::state::BackendStatus;
use lb_daemon::datapath::Explainer;

use crate::packet::*;
use crate::rig::*;

/// Configurations, and packets to each. With `DROVER_TEST_LONG` it is 10,000 packets.
fn lengths() -> (u64, usize) {
    if std::env::var_os("DROVER_TEST_LONG").is_some() { (50, 200) } else { (4, 120) }
}

/// Numbers that look random (splitmix64), the same for each seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

const VIPS: [[&str; 2]; 3] =
    [["192.0.2.10", "2001:db8::10"], ["192.0.2.20", "2001:db8::20"], ["192.0.2.30", "2001:db8::30"]];
const SERVERS: [[&str; 2]; 3] =
    [["10.0.0.11", "fd00::11"], ["10.0.0.12", "fd00::12"], ["10.0.0.13", "fd00::13"]];
const CLIENTS: [[&str; 2]; 4] = [
    ["198.51.100.7", "2001:db8:7::7"],
    ["198.51.100.8", "2001:db8:7::8"],
    ["198.51.101.9", "2001:db8:8::9"],
    ["0.0.0.5", "ff02::1"],
];

fn farms(random: &mut Random) -> Vec<Farm> {
    let modes = [Mode::Nat, Mode::Dnat, Mode::Dsr, Mode::Ipip, Mode::Gue];
    let schedulers = [Scheduler::Maglev, Scheduler::WeightedRoundRobin, Scheduler::SourceHash];
    (0..1 + random.below(3))
        .map(|at| {
            let mode = random.one(&modes);
            let ports = if random.chance(20) { Ports::All } else { port(80) };
            let mut farm = farm(&format!("farm{at}"), &VIPS[at], ports, mode, &[]);
            let to = if mode.is_direct() || random.chance(60) { None } else { Some(8080) };
            farm.backends = SERVERS.iter().map(|server| backend(server, to, 1)).collect();
            farm.scheduler = random.one(&schedulers);
            if random.chance(30) {
                let timeout = Duration::from_secs(60);
                farm.affinity = Some(Affinity { timeout, prefix_v4: 24, prefix_v6: 64 });
            }
            if random.chance(30) {
                let deny = ["198.51.101.0/24", "2001:db8:8::/48"].map(|net| net.parse().unwrap());
                farm.lists = Arc::new(Lists::new(Vec::new(), deny.to_vec()));
            }
            let tried = random.chance(50);
            farm.when_all_down = if tried { WhenAllDown::TryAll } else { WhenAllDown::Refuse };
            farm
        })
        .collect()
}

/// Some client's, backend's or stranger's packet: few ends, so that flows meet again.
fn packet(random: &mut Random, farms: usize) -> Vec<u8> {
    let v6 = usize::from(random.chance(50));
    let served = random.below(farms);
    let end = |address: &str, port: u16| format!("{address}:{port}");
    let (client, vip) =
        (random.one(&CLIENTS)[v6], if random.chance(90) { VIPS[served][v6] } else { random.one(&VIPS)[v6] });
    let (client, vip) =
        if v6 == 1 { (format!("[{client}]"), format!("[{vip}]")) } else { (client.into(), vip.into()) };
    let client = end(&client, random.one(&[0, 40000, 40001, 40002, 40003]));
    let (from, to) = (client, end(&vip, random.one(&[80, 80, 80, 80, 81])));
    let flags = random.one(&[SYN, SYN, SYN, ACK, ACK, ACK, SYN | ACK, FIN | ACK, RST | ACK]);
    // Of a handshake, as a rule.
    let opens = flags & ACK == 0;
    let (mut seq, mut ack) = if opens { (1000, 0) } else { (1001, 5001) };
    if random.chance(15) {
        (seq, ack) = (random.one(&[1000, 1001, 5000]), random.one(&[0, 1001, 5001]));
    }
    let l4 = if random.chance(25) { L4::Udp } else { segment(flags, seq, ack) };
    let mut frame = frame(&from, &to, l4, random.one::<&[u8]>(&[b"", b"abc"]));
    if v6 == 1 && random.chance(3) {
        // Its last hop.
        frame[21] = 1;
    }
    if random.chance(2) {
        frame.truncate(random.one(&[16, 40, 50]));
    }
    frame
}

/// The answer of a backend to a packet that was sent on.
fn answer(random: &mut Random, sent: &[u8]) -> Option<Vec<u8>> {
    let v4 = sent.get(12..14)? == [0x08, 0x00];
    if sent.len() < if v4 { 54 } else { 74 } || sent.get(if v4 { 23 } else { 20 })? != &6 {
        return None;
    }
    let read = read(sent);
    let l4 = segment(random.one(&[SYN | ACK, SYN | ACK, SYN | ACK, ACK, RST | ACK]), 5000, 1001);
    Some(frame(&read.dst.to_string(), &read.src.to_string(), l4, b""))
}

struct Scene {
    rig: Rig,
    explainer: Explainer,
}

impl Scene {
    fn of(farms: &[Farm], status: impl Fn(&str) -> BackendStatus) -> Self {
        Self::with_room(4096, farms, status)
    }

    fn with_room(connections: u32, farms: &[Farm], status: impl Fn(&str) -> BackendStatus) -> Self {
        let mut rig = Rig::new(connections);
        rig.set(farms, status);
        let explainer = rig.datapath.explainer().unwrap();
        Self { rig, explainer }
    }

    fn explain(&self, frame: &[u8]) -> Explanation {
        self.explainer.explain_frame(&self.rig.reader, frame, LOOPBACK).unwrap()
    }

    /// Explains a packet, then sends it, and holds the one against the other.
    fn agree(&mut self, frame: &[u8], what: &str) -> Outcome {
        let told = self.explain(frame);
        let got = self.rig.send(frame);
        assert_eq!((told.verdict.name(), told.action), (got.verdict, got.action), "{what}: {told:?}");
        let another_port = told.steps.iter().any(|step| matches!(step, Step::Source(port) if port.tries > 0));
        if another_port {
            // Which port it is, nobody can tell in advance.
            let ([a, b], sent) = ([&told.frame, &got.frame].map(|frame| read(frame)), read(&got.frame));
            assert_eq!((a.dst, a.src.ip(), a.macs, a.ttl), (b.dst, b.src.ip(), b.macs, b.ttl), "{what}");
            assert_ne!(sent.src.port(), 0);
        } else {
            assert_eq!(told.frame, got.frame, "{what}: {told:?}");
        }
        assert_eq!(told.sent.is_some(), got.action >= XDP_TX, "{what}");
        let opened = got.verdict == "opened";
        assert_eq!(told.entry.is_some(), opened, "{what}: {told:?}");
        if let Some(entry) = told.entry.filter(|_| !another_port) {
            let all = lb_daemon::handle::DataplaneReader::connections(
                &self.rig.reader,
                &Default::default(),
                10_000,
            );
            assert!(all.unwrap().0.contains(&entry), "{what}: the entry is made: {entry:?}");
        }
        got
    }
}

#[test]
fn what_is_explained_is_what_the_program_then_does() {
    let (configurations, packets) = lengths();
    let mut verdicts = std::collections::BTreeMap::new();
    for seed in 0..configurations {
        let mut random = Random(seed);
        let farms = farms(&mut random);
        let down = random.below(5);
        let status = |name: &str| {
            let at = SERVERS.iter().position(|server| server[0] == name).unwrap();
            if down == 4 || down == at { BackendStatus::Down } else { BackendStatus::Up }
        };
        let mut scene = Scene::of(&farms, status);
        let mut answers = Vec::new();
        for number in 0..packets {
            let frame = match answers.pop() {
                Some(answer) if random.chance(75) => answer,
                _ => packet(&mut random, farms.len()),
            };
            let got = scene.agree(&frame, &format!("configuration {seed}, packet {number}"));
            if got.action >= XDP_TX && matches!(got.verdict, "opened" | "forwarded") {
                answers.extend(answer(&mut random, &got.frame));
            }
            *verdicts.entry(got.verdict).or_insert(0) += 1;
            if random.chance(4) {
                scene.rig.later(Duration::from_secs(random.one(&[1, 70])));
            }
        }
    }
    for verdict in ["opened", "forwarded", "refused", "denied", "host_port", "not_for_vip", "bad_source"] {
        assert!(verdicts.contains_key(verdict), "the packets are of all kinds: {verdicts:?}");
    }
}

/// A digest of every pinned map but the labels, which no program touches.
fn digest(dir: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    let pins = dir.join(format!("maps-v{LAYOUT_VERSION}"));
    let open = |name: &str| MapData::from_pin(pins.join(name)).unwrap();
    fn array<const N: usize>(map: MapData, hasher: &mut DefaultHasher) {
        Array::<_, [u64; N]>::try_from(Map::Array(map))
            .unwrap()
            .iter()
            .for_each(|value| value.unwrap().hash(hasher));
    }
    fn counts<const N: usize>(map: MapData, hasher: &mut DefaultHasher) {
        let map = PerCpuArray::<_, [u64; N]>::try_from(Map::PerCpuArray(map)).unwrap();
        map.iter().for_each(|values| values.unwrap().iter().for_each(|value| value.hash(hasher)));
    }
    array::<8>(open(map::CONNECTIONS_V4), &mut hasher);
    array::<8>(open(map::CONNECTIONS_V6), &mut hasher);
    array::<8>(open(map::SCHEDULES), &mut hasher);
    array::<16>(open(map::AFFINITIES), &mut hasher);
    array::<16>(open(map::BACKENDS), &mut hasher);
    array::<1>(open(map::FARMS), &mut hasher);
    counts::<1>(open(map::VERDICTS), &mut hasher);
    counts::<1>(open(map::OCCURRENCES), &mut hasher);
    counts::<8>(open(map::COUNTERS), &mut hasher);
    hasher.finish()
}

#[test]
fn an_explanation_leaves_no_trace() {
    let mut random = Random(99);
    let mut farms = farms(&mut random);
    farms[0].scheduler = Scheduler::WeightedRoundRobin;
    let mut scene = Scene::of(&farms, |_| BackendStatus::Up);
    for _ in 0..40 {
        scene.rig.run(&packet(&mut random, farms.len()));
    }
    let before = digest(scene.rig.dir());
    let mut opened = 0;
    for _ in 0..100 {
        opened += u32::from(scene.explain(&packet(&mut random, farms.len())).entry.is_some());
    }
    assert!(opened > 10, "{opened} would open a connection");
    assert_eq!(digest(scene.rig.dir()), before, "every map is as it was");
    assert!(!scene.rig.dir().join("explain").exists(), "nothing more is pinned");
    scene.rig.run(&frame("198.51.100.9:1", "192.0.2.10:80", tcp(SYN), b""));
    assert_ne!(digest(scene.rig.dir()), before, "a packet that is sent is seen in the digest");
}

/// Lines of one flow lie in windows of others, are away from home and give way.
#[test]
fn what_is_explained_holds_in_a_crowded_table_too() {
    let mut random = Random(5);
    let mut web = farm("web", &VIPS[0], port(80), Mode::Nat, &[]);
    web.backends = SERVERS.iter().map(|server| backend(server, None, 1)).collect();
    let mut scene = Scene::with_room(1024, &[web], |_| BackendStatus::Up);
    let mut syn = || {
        let (v6, source) = (random.chance(50), random.below(900));
        let (from, to) = match v6 {
            true => (format!("[2001:db8:7::{source:x}]:40000"), format!("[{}]:80", VIPS[0][1])),
            false => {
                (format!("198.18.{}.{}:40000", source / 256, source % 256), format!("{}:80", VIPS[0][0]))
            }
        };
        frame(&from, &to, tcp(SYN), b"")
    };
    let mut verdicts = std::collections::BTreeMap::new();
    for number in 0..4000 {
        let frame = syn();
        let verdict = if number % 100 == 99 {
            scene.agree(&frame, &format!("packet {number}")).verdict
        } else {
            scene.rig.verdict(&frame)
        };
        *verdicts.entry(verdict).or_insert(0) += 1;
        if number % 1000 == 999 {
            scene.rig.later(Duration::from_secs(1));
        }
    }
    let told = lb_daemon::handle::DataplaneReader::occurrences(&scene.rig.reader).unwrap();
    assert!(told.away > 100, "many lie away from home: {told:?}, {verdicts:?}");
}
