//! The table finds what a map finds, whatever was done to both. What the map has and the table has not was taken by a newcomer who
//! may.

use std::collections::HashMap;

use lb_common::abi::{POLICY_TAKE_ANSWERED_TCP, POLICY_TAKE_ANSWERED_UDP, POLICY_TAKE_ONE_SIDED};
use lb_common::table::{Lines, State, Table};
use lb_common::tcp::Direction::{self, Forward, Reverse};
use proptest::prelude::*;

use crate::invariants::{Found, inspect};
use crate::mapped::Mapping;
use crate::user::{Opened, TIMEOUTS, find, free, mapping, open, see, step};
use crate::world::{BACKENDS, Connection, Family};

/// One thing that happens. Clients, backends and ports are numbers below a limit.
#[derive(Debug, Clone, Copy)]
enum Event {
    Open { client: u32, backend: u16, port: u16, policy: u32 },
    Step(u32, State),
    Packet(u32, Direction),
    Free(u32, Direction),
    Wait(u32),
}

fn states() -> impl Strategy<Value = State> {
    prop::sample::select(&State::ALL[State::Unanswered as usize..])
}

fn directions() -> impl Strategy<Value = Direction> {
    prop::sample::select(&[Forward, Reverse][..])
}

/// Histories of `clients` clients, in which most of what happens is that somebody opens a connection.
fn histories(clients: u32, ports: u16, policies: u32) -> impl Strategy<Value = Vec<Event>> {
    let client = 0..clients;
    let opens = (client.clone(), 0..BACKENDS, 0..ports, 0..=policies);
    let event = prop_oneof![
        6 => opens.prop_map(|(client, backend, port, policy)| Event::Open { client, backend, port, policy }),
        3 => (client.clone(), states()).prop_map(|(client, state)| Event::Step(client, state)),
        1 => (client.clone(), directions()).prop_map(|(client, direction)| Event::Packet(client, direction)),
        1 => (client, directions()).prop_map(|(client, direction)| Event::Free(client, direction)),
        1 => (0..60u32).prop_map(Event::Wait),
    ];
    prop::collection::vec(event, 1..200)
}

/// A connection as the map knows it.
#[derive(Debug, Clone, Copy)]
struct Known<A> {
    connection: Connection<A>,
    state: State,
    seen: u32,
}

impl<A> Known<A> {
    fn timeout(&self) -> u32 {
        match self.state {
            _ if self.connection.udp => TIMEOUTS.udp,
            State::Unanswered | State::Answered => TIMEOUTS.syn,
            State::Established => TIMEOUTS.established,
            State::HalfClosed => TIMEOUTS.half_closed,
            State::Empty | State::Claimed | State::Leaving | State::OneSided | State::Closed | State::Cut => {
                TIMEOUTS.fin
            }
        }
    }

    fn is_expired(&self, now: u32) -> bool {
        now - self.seen > self.timeout()
    }

    /// Whether a newcomer under `policy` may have its place, or its source port.
    fn may_go(&self, now: u32, policy: u32, same_port: bool) -> bool {
        self.is_expired(now)
            || self.state == State::Unanswered
            || (same_port && matches!(self.state, State::Closed | State::Cut))
            || policy & self.takes_answered() != 0
    }

    /// The bit of a policy that lets a newcomer have its place.
    fn takes_answered(&self) -> u32 {
        match (self.state, self.connection.udp) {
            (State::Answered, true) => POLICY_TAKE_ANSWERED_UDP,
            (State::Answered, false) => POLICY_TAKE_ANSWERED_TCP,
            (State::OneSided, _) => POLICY_TAKE_ONE_SIDED,
            _ => 0,
        }
    }
}

struct Play<'a, A> {
    table: Table<&'a Mapping<A>>,
    known: HashMap<u32, Known<A>>,
    now: u32,
    refused: u32,
}

impl<A: Family> Play<'_, A> {
    fn event(&mut self, event: Event) {
        match event {
            Event::Open { client, backend, port, policy } => self.open(client, backend, port, policy),
            Event::Wait(ticks) => self.now += ticks,
            Event::Step(client, state) => {
                if let Some(known) = self.known.get_mut(&client) {
                    step(&self.table, &known.connection, state);
                    known.state = state;
                }
            }
            Event::Packet(client, direction) => {
                if let Some(known) = self.known.get_mut(&client) {
                    see(&self.table, &known.connection, direction, self.now);
                    known.seen = self.now;
                }
            }
            Event::Free(client, direction) => {
                if let Some(known) = self.known.remove(&client) {
                    free(&self.table, &known.connection, direction);
                }
            }
        }
    }

    fn open(&mut self, client: u32, backend: u16, port: u16, policy: u32) {
        let connection =
            Connection::of(client, 40000, backend, 1024 + port, client % 3 == 1, client % 5 == 2);
        if self.known.get(&client).is_some_and(|known| known.is_expired(self.now)) {
            // It is nobody's, and the client's next packet opens anew.
            self.known.remove(&client);
        }
        let opened = open(&self.table, &connection, self.now, policy);
        let holder =
            self.known.values().find(|known| known.connection.reverse == connection.reverse).copied();
        match opened {
            Opened::Known => assert!(!self.known[&client].is_expired(self.now)),
            Opened::NoPort => assert!(!holder.unwrap().may_go(self.now, 0, true), "its port could be had"),
            Opened::Full => self.refused += 1,
            Opened::Yes => {}
        }
        let (table, now) = (self.table, self.now);
        let mut taken = 0;
        self.known.retain(|_, known| {
            let there = is_there(&table, &known.connection);
            if !there {
                let same_port = known.connection.reverse == connection.reverse;
                assert!(
                    known.may_go(now, policy, same_port),
                    "{known:?} went for {connection:?}, {policy:#b}"
                );
                taken += 1;
            }
            there
        });
        assert!(taken <= 2 + u32::from(holder.is_some()), "a newcomer took {taken}");
        if opened == Opened::Yes {
            let known = Known { connection, state: State::Unanswered, seen: now };
            assert!(self.known.insert(client, known).is_none());
        }
    }

    /// What the map has is found, and nothing else is there.
    fn compare(&self) {
        for known in self.known.values() {
            assert!(is_there(&self.table, &known.connection), "{known:?} is not found");
        }
        let live = 2 * self.known.len() as u32;
        assert_eq!(inspect(&self.table), Found { live, halves: 0, surplus: 0 });
    }
}

/// Both of its lines or none.
fn is_there<A: Family>(table: &Table<&Mapping<A>>, connection: &Connection<A>) -> bool {
    let [forward, reverse] = [Forward, Reverse].map(|direction| find(table, connection, direction).is_some());
    assert_eq!(forward, reverse, "half of {connection:?}");
    forward
}

fn play<A: Family>(lines: usize, seed: u64, history: &[Event]) -> (u32, u32) {
    let mapping = mapping::<A>(lines, seed);
    let mut play = Play { table: Table(&mapping), known: HashMap::new(), now: 1000, refused: 0 };
    for event in history {
        play.event(*event);
        play.compare();
    }
    let table = play.table;
    let far = (0..=table.0.mask()).filter(|&index| far(&table, index)).count();
    (play.refused, far as u32)
}

fn far<A: Family>(table: &Table<&Mapping<A>>, index: u32) -> bool {
    let meta = lb_common::table::Line::meta(table.0.at(index).unwrap());
    meta.is_live() && meta.is_second()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Newcomers outnumber the lines.
    #[test]
    fn a_full_table_of_ipv4_finds_what_a_map_finds(seed: u64, history in histories(60, 12, 63)) {
        play::<[u8; 4]>(64, seed, &history);
    }

    #[test]
    fn a_full_table_of_ipv6_finds_what_a_map_finds(seed: u64, history in histories(60, 12, 63)) {
        play::<[u8; 16]>(64, seed, &history);
    }

    /// All want the same few ports of the same backends.
    #[test]
    fn a_port_is_never_given_twice(seed: u64, history in histories(40, 2, 0)) {
        play::<[u8; 4]>(256, seed, &history);
    }
}

/// A connection of each client, with a port of its own; nobody may take anybody's place.
fn filled(seed: u64, lines: u32, connections: u32) -> (u32, u32) {
    let open = |client| Event::Open { client, backend: (client % 4) as u16, port: client as u16, policy: 0 };
    let history: Vec<Event> =
        (0..connections).flat_map(|client| [open(client), Event::Step(client, State::Established)]).collect();
    play::<[u8; 4]>(lines as usize, seed, &history)
}

#[test]
fn at_forty_to_sixty_percent_newcomers_find_a_line_and_are_found_at_second_homes_too() {
    let (mut refused, mut far) = (0, 0);
    for seed in 1..=8 {
        for percent in [40, 50, 60] {
            let (refusals, entries) = filled(seed, 512, 512 * percent / 200);
            assert!(percent == 60 || refusals == 0, "{refusals} refused at {percent} %");
            (refused, far) = (refused + refusals, far + entries);
        }
    }
    eprintln!("refused at 60 %: {refused}; at second homes in all: {far}");
    assert!(refused <= 8, "{refused} of 2,448 refused at 60 %");
    assert!(far > 0, "no second home was needed");
}
