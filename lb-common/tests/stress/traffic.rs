//! What the program does with the table, packet by packet, on connections that are few and the same for everybody.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use lb_common::abi::{
    POLICY_NO_EMPTY, POLICY_TAKE_ANSWERED_TCP, POLICY_TAKE_ANSWERED_UDP, POLICY_UNANSWERED_FIRST,
};
use lb_common::table::{Claim, Fields, Line, Lines, Meta, State, Table};
use lb_common::tcp::Direction;

use crate::mapped::Mapping;
use crate::random::Random;
use crate::world::{BACKENDS, Connection, Family, seal, sealed};

/// What has happened, so that a test that tests nothing is found out.
#[derive(Debug, Default)]
pub struct Counts {
    pub read: AtomicU64,
    pub opened: AtomicU64,
    pub evicted: AtomicU64,
    pub taken_over: AtomicU64,
    pub given_back: AtomicU64,
    pub full: AtomicU64,
    pub stepped: AtomicU64,
    pub expired: AtomicU64,
    pub cut: AtomicU64,
    pub lost_owner: AtomicU64,
    pub freed_stuck: AtomicU64,
    /// Too rare to be sure of.
    pub rare: Rare,
}

/// What happens if one comes between another's two steps.
#[derive(Debug, Default)]
pub struct Rare {
    /// An entry changed while it was read.
    pub changed: AtomicU64,
    pub lost_step: AtomicU64,
    /// Two at one flow.
    pub taken: AtomicU64,
    /// A packet, or the daemon, came across half a pair.
    pub half: AtomicU64,
    /// One line of a pair was taken before the other was published.
    pub stolen: AtomicU64,
}

impl Counts {
    /// Of those that are sure to happen.
    pub fn least(&self) -> u64 {
        let all = [
            &self.read,
            &self.opened,
            &self.evicted,
            &self.taken_over,
            &self.given_back,
            &self.full,
            &self.stepped,
            &self.expired,
            &self.cut,
            &self.lost_owner,
            &self.freed_stuck,
        ];
        all.map(|counter| counter.load(Ordering::Relaxed)).into_iter().min().unwrap()
    }
}

pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What all share but for the table.
pub struct Shared {
    pub now: AtomicU32,
    /// Packets so far.
    pub packets: AtomicU32,
    pub counts: Counts,
    /// Lines whose owner will not come back, as he left them.
    pub lost: Mutex<Vec<(u32, Meta)>>,
    /// How many there were since the last look, and how many of them at their second home.
    lost_since: [AtomicU32; 2],
    /// Clients; ports of each backend's.
    clients: u32,
    ports: u32,
    packets_a_tick: u32,
}

impl Shared {
    pub fn new(lines: u32) -> Self {
        Self {
            now: AtomicU32::new(1000),
            packets: AtomicU32::new(0),
            counts: Counts::default(),
            lost: Mutex::default(),
            lost_since: Default::default(),
            clients: lines / 2,
            ports: lines / 8,
            packets_a_tick: lines / 8,
        }
    }

    pub fn now(&self) -> u32 {
        self.now.load(Ordering::Relaxed)
    }

    pub fn lose(&self, index: u32, meta: Meta) {
        count(&self.counts.lost_owner);
        self.lost_since[0].fetch_add(1, Ordering::Relaxed);
        self.lost_since[1].fetch_add(u32::from(meta.is_second()), Ordering::Relaxed);
        self.lost.lock().unwrap().push((index, meta));
    }

    pub fn take_lost(&self) -> (u32, u32) {
        let [all, far] = &self.lost_since;
        (all.swap(0, Ordering::Relaxed), far.load(Ordering::Relaxed))
    }
}

/// One processor.
pub struct Processor<'a, A> {
    table: Table<&'a Mapping<A>>,
    shared: &'a Shared,
    random: Random,
}

impl<'a, A: Family> Processor<'a, A> {
    pub fn new(table: Table<&'a Mapping<A>>, shared: &'a Shared, seed: u64) -> Self {
        Self { table, shared, random: Random::new(seed) }
    }

    pub fn run(&mut self, packets: u32) {
        for _ in 0..packets {
            let number = self.shared.packets.fetch_add(1, Ordering::Relaxed);
            if number.is_multiple_of(self.shared.packets_a_tick) {
                self.shared.now.fetch_add(1, Ordering::Relaxed);
            }
            let connection = self.connection(number);
            if self.random.once_in(4) { self.answer(&connection) } else { self.ask(connection) }
        }
    }

    /// Any, or one of the few that the other processor has at the moment, too.
    fn connection(&mut self, number: u32) -> Connection<A> {
        let spread = if self.random.once_in(2) { self.shared.clients } else { 2 };
        let client = ((number >> 5) + self.random.below(spread)) % self.shared.clients;
        let backend = self.random.below(BACKENDS.into()) as u16;
        let port = 1024 + self.random.below(self.shared.ports) as u16;
        Connection::of(client, 40000, backend, port, client % 4 == 1, client % 8 == 2)
    }

    /// A client's packet.
    fn ask(&mut self, connection: Connection<A>) {
        let key = &connection.forward;
        if let Some((index, meta)) = self.table.find(&self.table.0.homes_of(key), key) {
            let line = self.table.0.at(index).unwrap();
            if self.table.peer_at(line.peer(), index).is_some() {
                return self.pass(index, meta, &connection, Direction::Forward);
            }
            // Half a pair is nobody.
            count(&self.shared.counts.rare.half);
            self.table.free(index, meta);
        }
        self.open(connection);
    }

    /// A backend's packet.
    fn answer(&mut self, connection: &Connection<A>) {
        let key = &connection.reverse;
        if let Some((index, meta)) = self.table.find(&self.table.0.homes_of(key), key) {
            self.pass(index, meta, connection, Direction::Reverse);
        }
    }

    /// Translates a packet and perhaps changes the connection's state.
    fn pass(&mut self, index: u32, meta: Meta, connection: &Connection<A>, direction: Direction) {
        let table = &self.table;
        let line = table.0.at(index).unwrap();
        let numbers = &table.0.numbers;
        let (key, to) = (A::key(line, meta, numbers), A::translated(line, meta, numbers));
        let (seal_there, peer) = (sealed(line), line.peer());
        if line.meta().version() != meta.version() {
            return count(&self.shared.counts.rare.changed);
        }
        let expected = connection.key(direction);
        assert_eq!(key.as_ref(), Some(expected), "another flow's entry");
        assert_eq!(seal_there, seal(expected, &to.unwrap()), "parts of two entries");
        count(&self.shared.counts.read);
        line.see(self.shared.now());
        if !self.random.once_in(4) {
            return;
        }
        let states = [State::Answered, State::Established, State::HalfClosed, State::Closed];
        let state = states[self.random.below(4) as usize];
        if line.swap_meta(meta, meta.with_state(state)) {
            count(&self.shared.counts.stepped);
            if let Some(meta) = table.peer_at(peer, index) {
                table.0.at(peer).unwrap().swap_meta(meta, meta.with_state(state));
            }
        } else {
            count(&self.shared.counts.rare.lost_step);
        }
    }

    fn policy(&mut self) -> u32 {
        let policies = [
            0,
            POLICY_UNANSWERED_FIRST,
            POLICY_NO_EMPTY,
            POLICY_TAKE_ANSWERED_TCP | POLICY_TAKE_ANSWERED_UDP,
            POLICY_NO_EMPTY | POLICY_TAKE_ANSWERED_TCP,
        ];
        policies[self.random.below(5) as usize]
    }

    fn claim(&mut self, connection: &Connection<A>, direction: Direction) -> Option<(u32, Meta)> {
        let key = connection.key(direction);
        let policy = self.policy();
        let counts = &self.shared.counts;
        match self.table.claim(&self.table.0.homes_of(key), key, self.shared.now(), policy) {
            Claim::At { index, meta, evicted } => {
                if evicted {
                    count(&counts.evicted);
                }
                return Some((index, meta));
            }
            Claim::Taken => count(&counts.rare.taken),
            Claim::Full => count(&counts.full),
        }
        None
    }

    /// A source port: a free one, or one of a connection that is over or that nobody has answered.
    fn claim_port(&mut self, connection: &Connection<A>) -> Option<(u32, Meta)> {
        let key = &connection.reverse;
        let Some((index, meta)) = self.table.find(&self.table.0.homes_of(key), key) else {
            return self.claim(connection, Direction::Reverse);
        };
        if !meta.is(State::Unanswered) && !meta.state().is_over() {
            return None;
        }
        let meta = self.table.take_over(index, meta)?;
        count(&self.shared.counts.taken_over);
        Some((index, meta))
    }

    fn open(&mut self, connection: Connection<A>) {
        let Some((index, meta)) = self.claim(&connection, Direction::Forward) else { return };
        if self.random.once_in(4096) {
            return self.shared.lose(index, meta);
        }
        let homes = self.table.0.homes_of(&connection.forward);
        let Some((peer, peer_meta)) = self.claim_port(&connection) else {
            count(&self.shared.counts.given_back);
            return self.table.give_back(index, meta, &homes);
        };
        let now = self.shared.now();
        let line = |index| self.table.0.at(index).unwrap();
        let meta = connection.write(line(index), meta, Direction::Forward, (peer, now));
        let peer_meta = connection.write(line(peer), peer_meta, Direction::Reverse, (index, now));
        let unanswered = |meta: Meta| meta.with_state(State::Unanswered);
        if self.table.publish_pair(index, unanswered(meta), peer, unanswered(peer_meta)) {
            count(&self.shared.counts.opened);
        } else {
            count(&self.shared.counts.rare.stolen);
        }
    }
}
