//! Farms that give new connections to who has less to do.

use std::time::Duration;

use lb_common::abi::BACKEND_SERVES;
use lb_core::config::model::{Farm, FarmName, Mode, Scheduler};
use lb_core::state::ConnectionFilter;
use lb_daemon::handle::DataplaneReader as _;

use crate::packet::*;
use crate::rig::*;

const SERVERS: [&str; 3] = ["10.0.0.11", "10.0.0.12", "10.0.0.13"];
const SERVERS_V6: [&str; 3] = ["fd00::11", "fd00::12", "fd00::13"];

fn web(mode: Mode, weights: &[u16]) -> Farm {
    let mut web = farm("web", &["192.0.2.10", "2001:db8::10"], port(80), mode, &[]);
    let servers = SERVERS.iter().zip(SERVERS_V6).zip(weights);
    web.backends = servers.map(|((v4, v6), weight)| backend(&[v4, v6], None, *weight)).collect();
    Farm { scheduler: Scheduler::LeastConnections, ..web }
}

/// Clients that each open one connection.
struct Clients {
    rig: Rig,
    next: u16,
    v6: bool,
}

/// A client's connection: its end, and the backend's.
#[derive(Clone)]
struct Connection {
    client: String,
    vip: &'static str,
    backend: String,
    /// The backend's place.
    place: usize,
}

impl Clients {
    fn of(weights: &[u16], v6: bool) -> Self {
        let mut rig = Rig::new(1 << 13);
        rig.configure(&[web(Mode::Dnat, weights)], |_| true);
        Self { rig, next: 0, v6 }
    }

    /// A client's SYN, or its first datagram.
    fn knock(&mut self, l4: L4) -> Connection {
        self.next += 1;
        let [high, low] = self.next.to_be_bytes();
        let (client, vip) = match self.v6 {
            false => (format!("198.18.{high}.{low}:40000"), "192.0.2.10:80"),
            true => (format!("[2001:db8:7::{:x}]:40000", self.next), "[2001:db8::10]:80"),
        };
        let (_, sent) = self.rig.run(&frame(&client, vip, l4, b""));
        let to = read(&sent).dst;
        let address = to.ip().to_string();
        let known = |servers: &[&str]| servers.iter().position(|server| *server == address);
        let place = known(&SERVERS).or(known(&SERVERS_V6)).unwrap();
        Connection { client, vip, backend: to.to_string(), place }
    }

    /// A SYN that its backend answers.
    fn half_open(&mut self) -> Connection {
        let connection = self.knock(segment(SYN, 0, 0));
        let answer = frame(&connection.backend, &connection.client, segment(SYN | ACK, 5000, 1), b"");
        assert_eq!(self.rig.verdict(&answer), "forwarded");
        connection
    }

    fn connect(&mut self) -> Connection {
        let connection = self.half_open();
        self.says(&connection, segment(ACK, 1, 5001));
        connection
    }

    fn says(&mut self, connection: &Connection, l4: L4) {
        let said = frame(&connection.client, connection.vip, l4, b"");
        assert_eq!(self.rig.verdict(&said), "forwarded", "{}", connection.client);
    }

    fn reset(&mut self, connection: &Connection) {
        self.says(connection, segment(RST, 1, 0));
    }

    /// Connects so many clients; those of the others leave again.
    fn fill(&mut self, place: usize, many: usize) -> Vec<Connection> {
        let mut held = Vec::new();
        while held.len() < many {
            let connection = self.connect();
            if connection.place == place {
                held.push(connection);
            } else {
                self.reset(&connection);
            }
        }
        held
    }

    /// How many of so many that connect and leave again each backend gets.
    fn shares(&mut self, many: usize) -> [usize; 3] {
        let mut got = [0; 3];
        for _ in 0..many {
            let connection = self.connect();
            got[connection.place] += 1;
            self.reset(&connection);
        }
        got
    }
}

#[test]
fn new_work_goes_away_from_a_backend_whose_connections_stay() {
    for v6 in [false, true] {
        let mut clients = Clients::of(&[1, 1, 1], v6);
        let held = clients.fill(1, 30);
        let [first, slow, third] = clients.shares(300);
        // It gets those who meet it at every draw: one in 243.
        assert!(slow <= 15 && first > 90 && third > 90, "{first} {slow} {third}");
        // Its clients leave, each by an end of another kind.
        for (at, connection) in held.iter().enumerate() {
            if at % 2 == 0 {
                clients.reset(connection);
                continue;
            }
            clients.says(connection, segment(FIN | ACK, 1, 5001));
            let end = frame(&connection.backend, &connection.client, segment(FIN | ACK, 5001, 2), b"");
            assert_eq!(clients.rig.verdict(&end), "forwarded");
        }
        let [_, slow, _] = clients.shares(300);
        assert!(slow > 60, "it is idle again: {slow}");
    }
}

#[test]
fn connections_that_stay_are_shared_out_by_weight() {
    let mut clients = Clients::of(&[5, 3, 2], false);
    let mut got = [0; 3];
    (0..1000).for_each(|_| got[clients.connect().place] += 1);
    for (got, wanted) in got.into_iter().zip([500i32, 300, 200]) {
        assert!((got - wanted).abs() < 30, "{got} for {wanted}");
    }
}

#[test]
fn a_flood_of_half_open_connections_leads_nobody_anywhere() {
    let mut clients = Clients::of(&[1, 1], false);
    clients.fill(0, 20);
    for _ in 0..500 {
        clients.half_open();
    }
    let [slow, other, _] = clients.shares(100);
    assert!(slow <= 8 && other >= 92, "{slow} {other}");
    // Nor do datagrams, answered or not.
    for at in 0..500 {
        let connection = clients.knock(L4::Udp);
        if at % 2 == 0 {
            clients.rig.run(&frame(&connection.backend, &connection.client, L4::Udp, b""));
        }
    }
    let [slow, other, _] = clients.shares(100);
    assert!(slow <= 8 && other >= 92, "{slow} {other}");
}

#[test]
fn a_backend_that_answers_no_handshake_does_not_look_idle() {
    let mut clients = Clients::of(&[1, 1], false);
    let mut got = [0; 2];
    for _ in 0..100 {
        let connection = clients.knock(segment(SYN, 0, 0));
        got[connection.place] += 1;
        if connection.place == 1 {
            let answer = frame(&connection.backend, &connection.client, segment(SYN | ACK, 5000, 1), b"");
            clients.rig.run(&answer);
            clients.reset(&connection);
        }
    }
    assert!(got[0] <= 10, "{got:?}");
}

#[test]
fn what_the_program_does_not_see_the_sweep_sets_right() {
    let mut clients = Clients::of(&[1, 1], true);
    clients.fill(0, 30);
    // Handshakes that nobody answers count for 3 s.
    for _ in 0..200 {
        clients.knock(segment(SYN, 0, 0));
    }
    clients.rig.later(Duration::from_secs(4));
    let [slow, other, _] = clients.shares(60);
    assert!(slow <= 6 && other >= 54, "{slow} {other}");
    // Nobody has seen them end.
    clients.rig.later(Duration::from_secs(4 * 3600));
    let kept = clients.fill(1, 10);
    assert_eq!(kept.len(), 10);
    let [former, slow, _] = clients.shares(60);
    assert!(former >= 54 && slow <= 6, "{former} {slow}");
}

#[test]
fn a_farm_that_changes_to_it_knows_its_load_after_a_round() {
    let mut rig = Rig::new(1 << 13);
    let before = Farm { scheduler: Scheduler::WeightedRoundRobin, ..web(Mode::Dnat, &[1, 1]) };
    rig.configure(&[before], |_| true);
    let mut clients = Clients { rig, next: 0, v6: false };
    clients.fill(1, 20);
    clients.rig.configure(&[web(Mode::Dnat, &[1, 1])], |_| true);
    clients.rig.sweep();
    let [other, slow, _] = clients.shares(60);
    assert!(slow <= 6 && other >= 54, "{other} {slow}");
}

#[test]
fn the_next_daemon_finds_the_load_as_it_is() {
    let dir = std::path::PathBuf::from(format!("/sys/fs/bpf/drover-test-{}-loads", std::process::id()));
    let mut rig = Rig::taking_over(dir.clone());
    rig.configure(&[web(Mode::Dnat, &[1, 1])], |_| true);
    let mut clients = Clients { rig, next: 0, v6: false };
    clients.fill(1, 20);
    let Clients { rig, next, .. } = clients;
    rig.leave();
    let mut rig = Rig::taking_over(dir);
    rig.observed = rig.datapath.observe().unwrap();
    rig.configure(&[web(Mode::Dnat, &[1, 1])], |_| true);
    let mut clients = Clients { rig, next, v6: false };
    let [other, slow, _] = clients.shares(60);
    assert!(slow <= 6 && other >= 54, "before a round: {other} {slow}");
    clients.rig.sweep();
    let [other, slow, _] = clients.shares(60);
    assert!(slow <= 6 && other >= 54, "after it: {other} {slow}");
}

#[test]
fn a_number_that_gets_another_owner_begins_with_nothing_to_do() {
    let mut clients = Clients::of(&[1, 1], false);
    clients.fill(0, 20);
    let serving = |rig: &Rig| -> Vec<u16> {
        let all = rig.observed.backends.iter();
        all.filter(|(_, (_, entry))| entry.flags & BACKEND_SERVES != 0).map(|(id, _)| *id).collect()
    };
    let former = serving(&clients.rig);
    // Backends that go while no connection bears their numbers, and others, until some get those.
    for name in ["a", "b", "c"] {
        let other = Farm { name: FarmName::new(name).unwrap(), ..web(Mode::Dnat, &[1, 1]) };
        clients.rig.plan_without_connections(&[other]);
    }
    assert_eq!(serving(&clients.rig), former);
    let [first, second, _] = clients.shares(200);
    assert!(first > 50 && second > 50, "{first} {second}");
}

#[test]
fn where_no_answer_is_seen_those_count_who_go_on() {
    let mut rig = Rig::new(1 << 13);
    rig.configure(&[web(Mode::Dsr, &[1, 1])], |_| true);
    let open = |rig: &mut Rig, number: usize| {
        let client = format!("198.51.100.{number}:40000");
        assert_eq!(rig.verdict(&frame(&client, "192.0.2.10:80", segment(SYN, 0, 0), b"")), "opened");
        let filter = ConnectionFilter {
            client: Some(client[..client.len() - 6].parse().unwrap()),
            ..Default::default()
        };
        (client, rig.reader.connections(&filter, 1).unwrap().0[0].backend_id)
    };
    let (mut slow, mut number) = (None, 0);
    for _ in 0..20 {
        number += 1;
        let (client, backend) = open(&mut rig, number);
        if *slow.get_or_insert(backend) == backend {
            rig.run(&frame(&client, "192.0.2.10:80", segment(ACK, 1, 7), b""));
        }
    }
    let met = (0..100).filter(|at| Some(open(&mut rig, number + 1 + at).1) == slow).count();
    assert!(met <= 15, "{met} of 100");
}
