//! A connection is nobody's from the tick after its time-out on, and not before, whoever sweeps or does not.

use lb_common::table::{Claim, State, Table};
use lb_common::tcp::Direction;
use proptest::prelude::*;

use crate::user::{Opened, TIMEOUTS, mapping, open, see, step};
use crate::world::Connection;

type V4 = [u8; 4];

fn timeout(state: State, udp: bool) -> u32 {
    match state {
        _ if udp => TIMEOUTS.udp,
        State::Answered => TIMEOUTS.syn,
        State::Established => TIMEOUTS.established,
        State::HalfClosed => TIMEOUTS.half_closed,
        State::Empty
        | State::Claimed
        | State::Leaving
        | State::Unanswered
        | State::OneSided
        | State::Closed
        | State::Cut => TIMEOUTS.fin,
    }
}

/// States in which no newcomer takes a connection's place.
const KEPT: [State; 5] = [State::Answered, State::Closed, State::Cut, State::HalfClosed, State::Established];

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// In a table of one window, full of connections of one state, of which one is idle for longer than all the others, by as
    /// much as one of its directions was silent.
    #[test]
    fn an_expired_line_is_free_exactly_from_the_tick_after(
        seed: u64,
        state in prop::sample::select(&KEPT[..]),
        udp: bool,
        start: u32,
        silent in 0..10_000u32,
        later in 1..100u32,
        talker in prop::sample::select(&[Direction::Forward, Direction::Reverse][..]),
    ) {
        let mapping = mapping::<V4>(16, seed);
        let table = Table(&mapping);
        let connection = |client: u32| Connection::<V4>::of(client, 40000, 0, 1024 + client as u16, udp, false);
        for client in 0..8 {
            // Its two flows may have the same tag: then each is taken for the other.
            prop_assume!(open(&table, &connection(client), start, 0) == Opened::Yes);
            step(&table, &connection(client), state);
        }
        // The last packets of all: the first client's in one direction, then everybody else's in both.
        let last = start.wrapping_add(silent);
        see(&table, &connection(0), talker, last);
        for client in 1..8 {
            for direction in [Direction::Forward, Direction::Reverse] {
                see(&table, &connection(client), direction, last.wrapping_add(later));
            }
        }
        let newcomer = connection(100).forward;
        let homes = mapping.homes_of(&newcomer);
        let due = last.wrapping_add(timeout(state, udp));
        for now in [last, due.wrapping_sub(1), due] {
            prop_assert_eq!(table.claim(&homes, &newcomer, now, 0), Claim::Full, "at {}", now);
        }
        let claim = table.claim(&homes, &newcomer, due.wrapping_add(1), 0);
        prop_assert!(matches!(claim, Claim::At { evicted: true, .. }), "{:?}", claim);
        let gone = [Direction::Forward, Direction::Reverse].map(|direction| {
            let key = *connection(0).key(direction);
            table.find(&mapping.homes_of(&key), &key)
        });
        prop_assert_eq!(gone, [None, None], "both directions went");
    }
}
