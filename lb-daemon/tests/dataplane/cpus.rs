//! Two CPUs at once: one has the packets of clients, the other those of backends. Nothing reaches anybody else than it should.
//!
//! `DROVER_TWO_CPUS` says how many connections of each kind are opened, 100,000 if it says nothing; 5,000,000 take minutes.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use lb_core::config::model::{Farm, Mode};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::ends::{BACKEND_ISN, CLIENT_ISN};
use crate::packet::*;
use crate::rig::*;

/// Connections of each kind that are there at the same time.
const ROUND: usize = 20_000;
/// How far the client's side may be ahead of the backend's, so that both are busy all the time.
const AHEAD: usize = 64;
const WEB: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 10), 80);
const BACKEND: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 11), 80);

/// Waits for the other CPU; on a busy machine by letting others work, and not for ever, since the other may have panicked.
fn wait_until(ready: impl Fn() -> bool) {
    let (mut tries, start) = (0u32, Instant::now());
    while !ready() {
        tries += 1;
        if tries.is_multiple_of(1000) {
            assert!(start.elapsed() < Duration::from_secs(60), "the other CPU is stuck");
            std::thread::yield_now();
        }
        std::hint::spin_loop();
    }
}

/// The program, as one CPU's thread has it.
struct Lane<'a> {
    program: &'a Xdp,
    out: [u8; 256],
}

impl<'a> Lane<'a> {
    /// Moves the calling thread to the `index`th of the CPUs that it may run on, for good.
    fn on(index: usize, program: &'a Xdp) -> Self {
        let (this, mut only) = (Pid::from_raw(0), CpuSet::new());
        let allowed = sched_getaffinity(this).unwrap();
        let cpu = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap()).nth(index);
        only.set(cpu.expect("two CPUs")).unwrap();
        sched_setaffinity(this, &only).unwrap();
        Self { program, out: [0; 256] }
    }

    /// Source and destination of the packet that comes out; `None` if none does, or one that tells its sender off.
    fn run(&mut self, frame: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4)> {
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut self.out),
            ..TestRunOptions::default()
        };
        let result = self.program.test_run(options).unwrap();
        let out = &self.out[..result.data_size_out as usize];
        (result.return_value == XDP_TX && flags(out) & RST == 0)
            .then(|| (socket(out, 26, 34), socket(out, 30, 36)))
    }
}

/// TCP's; 0 for a datagram.
fn flags(frame: &[u8]) -> u8 {
    if frame[23] == 6 { numbers(frame).2 } else { 0 }
}

fn socket(frame: &[u8], address: usize, port: usize) -> SocketAddrV4 {
    let octets: [u8; 4] = frame[address..address + 4].try_into().unwrap();
    SocketAddrV4::new(octets.into(), u16::from_be_bytes([frame[port], frame[port + 1]]))
}

/// Another client for each number; of a round, two want the same port.
fn client(number: usize) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(0x6400_0000 + number as u32), 1024 + (number % (ROUND / 2)) as u16)
}

fn packet(from: SocketAddrV4, to: SocketAddrV4, l4: L4) -> Vec<u8> {
    frame_between(SocketAddr::V4(from), SocketAddr::V4(to), l4, b"")
}

fn web() -> Farm {
    farm("web", &["192.0.2.10"], port(80), Mode::Nat, &[("10.0.0.11", 1)])
}

fn rig() -> Rig {
    let mut rig = Rig::new(131_072);
    rig.configure(&[web()], |_| true);
    rig
}

/// What each connection of a round was given, for the other side to see: 0 not yet, 1 nothing, or its source port.
struct Given([Vec<AtomicU32>; 2]);

/// A client's first number. Each has its own, as real ones do: a port that a half-open connection had may be another's by the
/// time its SYN-ACK comes, which is known by it.
fn isn(number: usize) -> u32 {
    CLIENT_ISN.wrapping_add((number as u32).wrapping_mul(0x9e37_79b1))
}

impl Given {
    fn nothing() -> Self {
        Self([0, 1].map(|_| (0..ROUND).map(|_| AtomicU32::new(0)).collect()))
    }
    fn set(&self, kind: usize, index: usize, port: Option<u16>) {
        self.0[kind][index].store(port.map_or(1, u32::from), Ordering::Release);
    }
    fn get(&self, kind: usize, index: usize) -> Option<u16> {
        let given = &self.0[kind][index];
        wait_until(|| given.load(Ordering::Acquire) != 0);
        Some(given.load(Ordering::Acquire) as u16).filter(|port| *port != 1)
    }
}

/// What became of the packets of one side.
#[derive(Debug, Default)]
struct Seen {
    right: usize,
    lost: usize,
    wrong: Vec<String>,
}

impl Seen {
    fn expect(
        &mut self,
        what: &str,
        got: Option<(SocketAddrV4, SocketAddrV4)>,
        ends: (SocketAddrV4, SocketAddrV4),
    ) {
        match got {
            None => self.lost += 1,
            Some(got) if got == ends => self.right += 1,
            Some((from, to)) => {
                self.wrong.push(format!("{what} {} -> {} was {from} -> {to}", ends.0, ends.1))
            }
        }
    }
}

/// The clients' side: a SYN and a datagram of each.
fn open(program: &Xdp, first: usize, given: &Given, done: &AtomicUsize) -> Seen {
    let (mut lane, mut seen) = (Lane::on(0, program), Seen::default());
    for index in 0..ROUND {
        wait_until(|| index <= done.load(Ordering::Acquire) + AHEAD);
        let client = client(first + index);
        for (kind, l4) in [segment(SYN, isn(first + index), 0), L4::Udp].into_iter().enumerate() {
            let got = lane.run(&packet(client, WEB, l4));
            let port = got.map(|(from, _)| from.port());
            let ends = (SocketAddrV4::new(*WEB.ip(), port.unwrap_or_default()), BACKEND);
            seen.expect("to open,", got, ends);
            given.set(kind, index, port);
        }
    }
    seen
}

/// The other CPU: SYN-ACK, acknowledgment and the answer to the datagram.
fn answer(program: &Xdp, first: usize, given: &Given, done: &AtomicUsize) -> Seen {
    let (mut lane, mut seen) = (Lane::on(1, program), Seen::default());
    for index in 0..ROUND {
        let client = client(first + index);
        if let Some(port) = given.get(0, index) {
            let source = SocketAddrV4::new(*WEB.ip(), port);
            let isn = isn(first + index);
            let syn_ack = segment(SYN | ACK, BACKEND_ISN, isn.wrapping_add(1));
            seen.expect("SYN-ACK", lane.run(&packet(BACKEND, source, syn_ack)), (WEB, client));
            let ack = segment(ACK, isn.wrapping_add(1), BACKEND_ISN + 1);
            seen.expect("ACK", lane.run(&packet(client, WEB, ack)), (source, BACKEND));
        }
        if let Some(port) = given.get(1, index) {
            let source = SocketAddrV4::new(*WEB.ip(), port);
            seen.expect("answer", lane.run(&packet(BACKEND, source, L4::Udp)), (WEB, client));
        }
        done.store(index, Ordering::Release);
    }
    seen
}

#[test]
fn no_packet_reaches_another_when_syn_and_ack_come_on_two_cpus() {
    let wanted = std::env::var("DROVER_TWO_CPUS").map_or(100_000, |text| text.parse::<usize>().unwrap());
    let mut rig = rig();
    let (mut right, mut lost, mut wrong) = (0, 0, Vec::new());
    for round in 0..wanted.div_ceil(ROUND) {
        let (given, done) = (Given::nothing(), AtomicUsize::new(0));
        let (first, program) = (round * ROUND, rig.program());
        let sides = std::thread::scope(|scope| {
            let clients = scope.spawn(|| open(program, first, &given, &done));
            let backends = scope.spawn(|| answer(program, first, &given, &done));
            [clients.join().unwrap(), backends.join().unwrap()]
        });
        for side in sides {
            right += side.right;
            lost += side.lost;
            wrong.extend(side.wrong);
        }
        rig.later(Duration::from_secs(3 * 3600));
    }
    assert!(wrong.is_empty(), "{} of {}, {}", wrong.len(), right + wrong.len(), wrong[0]);
    assert!(lost * 1000 <= right, "{lost} lost, {right} right: too few to say anything");
}

#[test]
fn a_syn_on_two_cpus_at_once_leaves_by_one_port() {
    const SYNS: usize = 20_000;
    let mut rig = rig();
    // Someone has the port that all of them would like, so each gets another.
    assert_eq!(rig.run(&packet(client(0), WEB, segment(SYN, CLIENT_ISN, 0))).0, XDP_TX);
    let syn = |number: usize| {
        packet(
            SocketAddrV4::new(*client(number + 1).ip(), client(0).port()),
            WEB,
            segment(SYN, CLIENT_ISN, 0),
        )
    };
    let program = rig.program();
    let arrived = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let lane = |index: usize| {
        let mut lane = Lane::on(index, program);
        let run = |number: usize| {
            let frame = syn(number);
            arrived[index].store(number + 1, Ordering::Release);
            wait_until(|| arrived[1 - index].load(Ordering::Acquire) > number);
            lane.run(&frame).map(|(from, _)| from.port())
        };
        (0..SYNS).map(run).collect::<Vec<_>>()
    };
    let [one, other] = std::thread::scope(|scope| {
        let threads = [scope.spawn(|| lane(0)), scope.spawn(|| lane(1))];
        threads.map(|thread| thread.join().unwrap())
    });
    let mut through = 0;
    for (number, ports) in one.iter().zip(&other).enumerate() {
        let again = read(&rig.run(&syn(number)).1).src.port();
        for port in [ports.0, ports.1].into_iter().flatten() {
            through += 1;
            assert_eq!(*port, again, "SYN {number} left by {ports:?}");
        }
    }
    assert!(through > SYNS, "{through} of {} came through", 2 * SYNS);
}
