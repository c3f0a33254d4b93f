//! What a flood of one kind costs those of another. Sources are forged, so nobody behind them ever says a second word.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use lb_core::config::model::{Farm, Mode};

use crate::ends::*;
use crate::packet::*;
use crate::rig::*;

const WEB: &str = "192.0.2.10:80";
const DNS: &str = "192.0.2.11:53";

fn web() -> Farm {
    farm("web", &["192.0.2.10"], port(80), Mode::Nat, &[("10.0.0.11", 1)])
}

fn dns() -> Farm {
    farm("dns", &["192.0.2.11"], port(53), Mode::Nat, &[("10.0.0.12", 1)])
}

/// Forged packets, each from another source.
struct Flood {
    to: SocketAddr,
    l4: L4,
    /// What the backend answers.
    answer: Option<L4>,
    /// The sources are there, and answer when they are challenged.
    real: bool,
    /// What the sources send after that.
    then: Option<L4>,
    sent: u32,
}

impl Flood {
    fn new(to: &str, l4: L4, answer: Option<L4>) -> Self {
        Self { to: to.parse().unwrap(), l4, answer, real: false, then: None, sent: 0 }
    }

    fn syns(answer: bool) -> Self {
        let answer = answer.then_some(segment(SYN | ACK, BACKEND_ISN, 2));
        Self::new(WEB, segment(SYN, 1, 0), answer)
    }

    fn real(self) -> Self {
        Self { real: true, ..self }
    }

    fn datagrams(answer: bool) -> Self {
        Self::new(DNS, L4::Udp, answer.then_some(L4::Udp))
    }

    fn pour(&mut self, rig: &mut Rig, packets: u32) {
        for _ in 0..packets {
            let source = Ipv4Addr::from(0x6400_0000 | (self.sent.wrapping_mul(0x9e37_79b1) >> 8));
            let source = SocketAddr::from((source, 1024 + (self.sent % 64_512) as u16));
            self.sent += 1;
            let syn = frame_between(source, self.to, self.l4, b"");
            let (mut action, mut out) = rig.run(&syn);
            let challenged = action == XDP_TX && read(&out).dst == source;
            if challenged && !self.real {
                continue;
            }
            if challenged {
                let (_, number, _) = numbers(&out);
                rig.run(&frame_between(source, self.to, segment(RST, number, 0), b""));
                (action, out) = rig.run(&syn);
            }
            if let (XDP_TX, Some(answer)) = (action, self.answer) {
                let seen = read(&out);
                rig.run(&frame_between(seen.dst, seen.src, answer, b""));
            }
            if let (XDP_TX, Some(then)) = (action, self.then) {
                rig.run(&frame_between(source, self.to, then, b""));
            }
        }
    }

    /// The same over a time in which the daemon makes its rounds.
    fn pour_for(&mut self, rig: &mut Rig, packets: u32, time: Duration) {
        let round = Duration::from_millis(100);
        let rounds = time.div_duration_f64(round) as u32;
        for _ in 0..rounds {
            self.pour(rig, packets / rounds);
            rig.later(round);
        }
    }
}

/// Lets honest clients connect while `between` packets of the flood come between each two of theirs. How many do.
fn connected(rig: &mut Rig, flood: &mut Flood, between: u32, clients: u8) -> usize {
    let mut connected = 0;
    for client in 0..clients {
        let mut tcp = match Tcp::syn(rig, &format!("198.51.100.{client}:40000"), WEB) {
            Ok(tcp) => tcp,
            Err(_) => continue,
        };
        flood.pour(rig, between);
        let answered = tcp.syn_ack(rig);
        flood.pour(rig, between);
        connected += usize::from(answered.and_then(|()| tcp.talks(rig)).is_ok());
    }
    connected
}

#[test]
fn honest_clients_connect_to_a_farm_of_one_backend_in_a_flood_of_syns() {
    for (answered, real) in [(true, false), (false, true), (true, true)] {
        let mut rig = Rig::new(131_072);
        rig.configure(&[web()], |_| true);
        let mut flood = Flood { real, ..Flood::syns(answered) };
        flood.pour_for(&mut rig, 100_000, Duration::from_secs(2));
        let connected = connected(&mut rig, &mut flood, 200, 125);
        assert!(
            connected >= 119,
            "{connected} of 125; the backend answers the flood: {answered}, its sources are real: {real}"
        );
    }
}

/// Whoever forges a SYN knows the number of the reset that takes it back.
#[test]
fn honest_clients_connect_in_a_flood_of_syns_that_are_reset_at_once() {
    let refused = Some(segment(RST | ACK, 0, 2));
    for (kind, flood) in [
        ("unanswered", Flood { then: Some(segment(RST, 2, 0)), ..Flood::syns(false) }),
        ("answered", Flood { then: Some(segment(RST, 2, 0)), ..Flood::syns(true) }),
        ("refused", Flood { answer: refused, ..Flood::syns(false) }),
    ] {
        let mut rig = Rig::new(1024);
        rig.configure(&[web()], |_| true);
        let mut flood = flood.real();
        flood.pour_for(&mut rig, 20_000, Duration::from_secs(2));
        let connected = connected(&mut rig, &mut flood, 20, 100);
        assert!(connected >= 95, "{connected} of 100 in a flood of SYNs that are {kind}");
    }
}

#[test]
fn a_flood_of_syns_costs_nobody_his_place_between_syn_ack_and_ack() {
    let mut rig = Rig::new(1024);
    rig.configure(&[web()], |_| true);
    let slow = (0..200).map(|client| {
        let mut tcp = Tcp::syn(&mut rig, &format!("198.51.100.{client}:40000"), WEB).unwrap();
        tcp.syn_ack(&mut rig).unwrap();
        tcp
    });
    let mut slow: Vec<_> = slow.collect();
    Flood::syns(false).real().pour_for(&mut rig, 50_000, Duration::from_secs(3));
    let lost = slow.iter_mut().filter_map(|tcp| tcp.talks(&mut rig).err()).collect::<Vec<_>>();
    assert!(lost.is_empty(), "{} of 200: {}", lost.len(), lost[0]);
}

#[test]
fn a_flood_of_datagrams_that_are_answered_does_not_shut_out_another_farms_connections() {
    let mut rig = Rig::new(4096);
    rig.configure(&[web(), dns()], |_| true);
    let mut flood = Flood::datagrams(true);
    flood.pour_for(&mut rig, 20_000, Duration::from_secs(4));
    let connected = connected(&mut rig, &mut flood, 10, 100);
    assert!(connected >= 95, "{connected} of 100");
}

#[test]
fn a_flood_of_datagrams_that_are_answered_ends_no_conversation() {
    let mut rig = Rig::new(1024);
    rig.configure(&[web(), dns()], |_| true);
    let talking = (0..100).map(|client| {
        let udp = Udp::open(&mut rig, &format!("198.51.100.{client}:5353"), DNS).unwrap();
        udp.answers(&mut rig).unwrap();
        udp.asks(&mut rig).unwrap();
        udp
    });
    let talking: Vec<_> = talking.collect();
    Flood::datagrams(true).pour_for(&mut rig, 50_000, Duration::from_secs(3));
    let ended = talking.iter().filter_map(|udp| udp.answers(&mut rig).and(udp.asks(&mut rig)).err());
    assert_eq!(ended.collect::<Vec<_>>(), Vec::<String>::new());
}

/// Syslog and its like are never answered, and are no flood.
#[test]
fn a_flood_of_datagrams_moves_no_steady_sender_whom_nobody_answers() {
    let mut rig = Rig::new(1024);
    rig.configure(&[web(), dns()], |_| true);
    let open = |client| Udp::open(&mut rig, &format!("198.51.100.{client}:5140"), DNS).unwrap();
    let steady: Vec<_> = (0..100).map(open).collect();
    for _ in 0..4 {
        rig.later(Duration::from_secs(1));
        for udp in &steady {
            udp.asks(&mut rig).unwrap();
        }
    }
    Flood::datagrams(false).pour_for(&mut rig, 50_000, Duration::from_secs(1));
    let moved: Vec<_> = steady.iter().filter_map(|udp| udp.asks(&mut rig).err()).collect();
    assert!(moved.is_empty(), "{} of 100: {}", moved.len(), moved[0]);
    let opened = rig.count("opened");
    for udp in &steady {
        udp.asks(&mut rig).unwrap();
    }
    assert_eq!(rig.count("opened"), opened);
}
