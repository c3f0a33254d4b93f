//! Clients that keep the backend they had.

use std::time::Duration;

use lb_core::config::model::{Affinity, Farm, Mode, Scheduler};
use lb_core::state::BackendStatus;

use crate::packet::*;
use crate::rig::*;

const SERVERS: [&str; 3] = ["10.0.0.11", "10.0.0.12", "10.0.0.13"];
const SERVERS_V6: [&str; 3] = ["fd00::11", "fd00::12", "fd00::13"];
const MINUTE: Duration = Duration::from_secs(60);

/// Backends that take turns, so that whoever has no affinity meets another one each time.
fn web(name: &str, vips: [&str; 2], affinity: Affinity) -> Farm {
    let mut web = farm(name, &vips, port(80), Mode::Dnat, &[]);
    web.backends = (0..3).map(|at| backend(&[SERVERS[at], SERVERS_V6[at]], None, 1)).collect();
    Farm { scheduler: Scheduler::WeightedRoundRobin, affinity: Some(affinity), ..web }
}

fn one(affinity: Affinity) -> Farm {
    web("web", ["192.0.2.10", "2001:db8::10"], affinity)
}

fn half_an_hour() -> Affinity {
    Affinity { timeout: 30 * MINUTE, prefix_v4: 32, prefix_v6: 128 }
}

fn place(address: &str) -> usize {
    let known = |servers: &[&str]| servers.iter().position(|server| *server == address);
    known(&SERVERS).or(known(&SERVERS_V6)).unwrap_or_else(|| panic!("{address} is no backend"))
}

/// Clients, each connection of which has a port of its own.
struct Clients {
    rig: Rig,
    next: u16,
}

impl Clients {
    fn of(farms: &[Farm]) -> Self {
        let mut rig = Rig::new(4096);
        rig.configure(farms, |_| true);
        Self { rig, next: 1024 }
    }

    /// A client's SYN to a VIP: the client's end, and the backend's.
    fn knock(&mut self, client: &str, vip: &str) -> (String, String) {
        self.next += 1;
        let from = format!("{client}:{}", self.next);
        let got = self.rig.send(&frame(&from, &format!("{vip}:80"), segment(SYN, 0, 0), b""));
        assert_eq!(got.verdict, "opened");
        (from, read(&got.frame).dst.to_string())
    }

    /// The backend that a client's SYN reaches.
    fn asks(&mut self, client: &str, vip: &str) -> usize {
        let (_, backend) = self.knock(client, vip);
        self.place_of(&backend)
    }

    /// The backend that a client is connected to.
    fn connects(&mut self, client: &str, vip: &str) -> usize {
        let (from, backend) = self.knock(client, vip);
        self.establish(&from, vip, &backend);
        self.place_of(&backend)
    }

    fn establish(&mut self, from: &str, vip: &str, backend: &str) {
        let answer = frame(backend, from, segment(SYN | ACK, 5000, 1), b"");
        assert_eq!(self.rig.verdict(&answer), "forwarded");
        let end = frame(from, &format!("{vip}:80"), segment(ACK, 1, 5001), b"");
        assert_eq!(self.rig.verdict(&end), "forwarded");
    }

    fn place_of(&self, backend: &str) -> usize {
        let address: std::net::SocketAddr = backend.parse().unwrap();
        place(&address.ip().to_string())
    }

    /// Lets a long time pass in which no daemon sweeps, so that nobody is refreshed.
    fn pass(&mut self, minutes: u32) {
        self.rig.pass(minutes * MINUTE);
    }
}

const V4: [&str; 3] = ["198.51.100.7", "198.51.100.8", "192.0.2.10"];
const V6: [&str; 3] = ["[2001:db8:7::7]", "[2001:db8:7::8]", "[2001:db8::10]"];

#[test]
fn a_client_keeps_its_backend_until_the_time_is_over() {
    for [client, other, vip] in [V4, V6] {
        let mut clients = Clients::of(&[one(half_an_hour())]);
        let had = clients.connects(client, vip);
        for _ in 0..5 {
            assert_eq!(clients.asks(client, vip), had);
            clients.asks(other, vip);
        }
        clients.pass(30);
        assert_eq!(clients.connects(client, vip), had, "it is used to the last");
        clients.pass(30);
        assert_eq!(clients.asks(client, vip), had, "and that counts anew");
        clients.pass(1);
        let met: Vec<_> = (0..3).map(|_| clients.asks(client, vip)).collect();
        assert_ne!(met, [had; 3], "its time is over");
    }
}

#[test]
fn nobody_is_entered_before_it_has_proven_to_be_there() {
    for [client, other, vip] in [V4, V6] {
        let mut clients = Clients::of(&[one(half_an_hour())]);
        // SYNs, answered or not, and acknowledgments that are made up: a forger's.
        for _ in 0..3 {
            let (from, backend) = clients.knock(client, vip);
            clients.rig.send(&frame(&backend, &from, segment(SYN | ACK, 5000, 1), b""));
            clients.rig.send(&frame(&from, &format!("{vip}:80"), segment(ACK, 1, 1), b""));
        }
        let met: Vec<_> = (0..3).map(|_| clients.asks(client, vip)).collect();
        assert_ne!(met, [met[0]; 3]);
        // Nor does he change what somebody else has.
        let had = clients.connects(client, vip);
        clients.asks(other, vip);
        clients.pass(29);
        assert_eq!(clients.asks(client, vip), had);
        clients.pass(2);
        let met: Vec<_> = (0..3).map(|_| clients.asks(client, vip)).collect();
        assert_ne!(met, [met[0]; 3], "a forged SYN prolongs nothing");
    }
}

#[test]
fn a_conversation_by_datagrams_counts_from_its_second_question_on() {
    let mut clients = Clients::of(&[one(half_an_hour())]);
    let (from, to) = ("198.51.100.7:5000", "192.0.2.10:80");
    let got = clients.rig.send(&frame(from, to, L4::Udp, b"question"));
    let backend = read(&got.frame).dst.to_string();
    clients.rig.send(&frame(&backend, from, L4::Udp, b"answer"));
    let had = clients.place_of(&backend);
    let met: Vec<_> = (0..3).map(|_| clients.asks("198.51.100.7", "192.0.2.10")).collect();
    assert_ne!(met, [met[0]; 3], "one answer proves nothing");
    clients.rig.send(&frame(from, to, L4::Udp, b"another"));
    let met: Vec<_> = (0..3).map(|_| clients.asks("198.51.100.7", "192.0.2.10")).collect();
    assert_eq!(met, [had; 3]);
}

#[test]
fn those_with_a_prefix_in_common_are_one_client() {
    let affinity = Affinity { prefix_v4: 24, prefix_v6: 64, ..half_an_hour() };
    for (client, neighbour, stranger, vip) in [
        ("198.51.100.7", "198.51.100.200", "198.51.101.7", V4[2]),
        ("[2001:db8:7:1::7]", "[2001:db8:7:1:ffff::1]", "[2001:db8:7:2::7]", V6[2]),
    ] {
        let mut clients = Clients::of(&[one(affinity)]);
        let had = clients.connects(client, vip);
        for _ in 0..3 {
            assert_eq!(clients.asks(neighbour, vip), had);
        }
        let met: Vec<_> = (0..3).map(|_| clients.asks(stranger, vip)).collect();
        assert_ne!(met, [met[0]; 3]);
    }
}

#[test]
fn of_connections_that_open_at_once_the_first_counts() {
    let mut clients = Clients::of(&[one(half_an_hour())]);
    let ends: Vec<_> = (0..3).map(|_| clients.knock(V4[0], V4[2])).collect();
    for (from, backend) in ends.iter().rev() {
        clients.establish(from, V4[2], backend);
    }
    let first = clients.place_of(&ends[2].1);
    assert_eq!([clients.asks(V4[0], V4[2]), clients.asks(V4[0], V4[2])], [first; 2]);
}

#[test]
fn it_lasts_while_the_client_is_connected() {
    for [client, _, vip] in [V4, V6] {
        let mut clients = Clients::of(&[one(Affinity { timeout: 2 * MINUTE, ..half_an_hour() })]);
        let had = clients.connects(client, vip);
        for _ in 0..20 {
            // The daemon sweeps.
            clients.rig.later(MINUTE);
        }
        assert_eq!(clients.asks(client, vip), had, "connected for twenty minutes");
        clients.pass(3);
        let met: Vec<_> = (0..3).map(|_| clients.asks(client, vip)).collect();
        assert_ne!(met, [met[0]; 3]);
    }
}

#[test]
fn a_farms_clients_are_its_own() {
    let farms = [one(half_an_hour()), web("other", ["192.0.2.20", "2001:db8::20"], half_an_hour())];
    let mut clients = Clients::of(&farms);
    let had = clients.connects(V4[0], "192.0.2.10");
    let met: Vec<_> = (0..3).map(|_| clients.asks(V4[0], "192.0.2.20")).collect();
    assert_ne!(met, [met[0]; 3]);
    assert_eq!(clients.asks(V4[0], "192.0.2.10"), had);
}

#[test]
fn clients_come_back_to_one_that_is_drained_and_to_none_that_is_down_in_maintenance_or_standby() {
    use BackendStatus::{Down, Draining, Maintenance, Standby, Up};
    let farms = [one(half_an_hour())];
    for (status, returns) in [(Draining, true), (Down, false), (Maintenance, false), (Standby, false)] {
        let mut clients = Clients::of(&farms);
        let had = clients.connects(V4[0], V4[2]);
        let of = |name: &str| if name == SERVERS[had] { status } else { Up };
        clients.rig.set(&farms, of);
        for number in 20..26 {
            assert_ne!(clients.asks(&format!("198.51.100.{number}"), V4[2]), had, "nobody new: {status:?}");
        }
        assert_eq!(clients.asks(V4[0], V4[2]) == had, returns, "{status:?}");
        // Nobody serves but the one that is drained.
        clients.rig.set(&farms, |name| if name == SERVERS[had] { status } else { Down });
        clients.next += 1;
        let from = format!("{}:{}", V4[0], clients.next);
        let got = clients.rig.verdict(&frame(&from, "192.0.2.10:80", tcp(SYN), b""));
        assert_eq!(got, if returns { "opened" } else { "refused" }, "{status:?}");
        // A client that was not there meanwhile finds it again.
        clients.rig.configure(&farms, |_| true);
        assert_eq!(clients.asks(V4[0], V4[2]), had);
    }
}

#[test]
fn who_had_to_go_to_another_backend_stays_there() {
    let farms = [one(half_an_hour())];
    let mut clients = Clients::of(&farms);
    let had = clients.connects(V4[0], V4[2]);
    clients.rig.configure(&farms, |name| name != SERVERS[had]);
    let other = clients.connects(V4[0], V4[2]);
    clients.rig.configure(&farms, |_| true);
    for _ in 0..4 {
        assert_eq!(clients.asks(V4[0], V4[2]), other);
    }
}

#[test]
fn a_numbers_new_owner_gets_nobody_who_had_the_one_before() {
    let mut farms = [one(half_an_hour())];
    let mut clients = Clients::of(&farms);
    let had = clients.connects(V4[0], V4[2]);
    let number = |rig: &Rig, name: &str| {
        let labels = rig.observed.backends.iter();
        labels.filter(|(_, (label, _))| label.name.as_str() == Some(name)).map(|(id, _)| *id).next()
    };
    let before = number(&clients.rig, SERVERS[had]).unwrap();
    // It leaves, its connections end, its number is given up, and another server comes.
    let gone = farms[0].backends.remove(had);
    clients.rig.reader.cut(&Default::default());
    for _ in 0..2 {
        clients.rig.plan_without_connections(&farms);
    }
    assert_eq!(number(&clients.rig, SERVERS[had]), None);
    let mut new = gone.clone();
    new.name = lb_core::config::model::BackendName::new("new").unwrap();
    farms[0].backends.push(new);
    clients.rig.plan_without_connections(&farms);
    assert_eq!(number(&clients.rig, "new"), Some(before), "the same number");
    // `place` knows it by its address.
    let met: Vec<_> = (0..6).map(|_| clients.asks(V4[0], V4[2])).collect();
    assert_ne!(met, [had; 6]);
}
