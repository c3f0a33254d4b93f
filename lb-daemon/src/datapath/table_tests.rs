//! What the tables tell, what cuts and sweeps leave of them.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lb_common::abi::FlowKey;
use lb_common::table::{Fields as _, Hop, Line as _, Lines as _, State};
use lb_common::wire::protocol::{TCP, UDP};
use lb_core::state::ConnectionFilter;

use super::interfaces::Move;
use super::sweep::Sweeper;
use super::test_world::*;

fn round(world: &World, sweeper: &mut Sweeper) -> super::sweep::Sweep {
    world.sweep_round(sweeper, 5)
}

fn client(address: &str) -> ConnectionFilter {
    ConnectionFilter { client: Some(address.parse().unwrap()), ..Default::default() }
}

#[test]
fn connections_are_told_as_they_were_entered() {
    let world = world(1 << 10);
    open(&world, &v4(1, 40000, 4, State::Established));
    open(&world, &v6(2, 40001, 5, State::Unanswered));
    world.control().set_now(10_025);
    let (found, total) = world.list(&ConnectionFilter::default(), 10);
    assert_eq!((found.len(), total), (2, 2));
    let told: Vec<String> = found
        .iter()
        .map(|c| {
            format!(
                "{} {} > {} {} > {} farm {} backend {} {}",
                c.protocol.as_str(),
                c.client,
                c.vip,
                c.source,
                c.backend,
                c.farm_id,
                c.backend_id,
                c.state
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "tcp 10.0.0.1:40000 > 192.0.2.10:443 192.0.2.10:40000 > 10.1.0.5:8080 farm 2 backend 4 established",
            "tcp [2001:db8:900::2]:40001 > [2001:db8::10]:443 [2001:db8::10]:40001 > [fd00::6]:8080 \
             farm 2 backend 5 unanswered",
        ]
    );
    assert!(found.iter().all(|c| c.age == Duration::from_millis(2500) && c.idle == c.age));
}

#[test]
fn the_table_bears_witness_of_the_latest_handshakes_with_a_backend() {
    use lb_core::health::passive::Suspicion;
    let world = world(1 << 10);
    let (served, _) = open(&world, &v4(9, 40000, 4, State::Closed));
    let (too, _) = open(&world, &v4(8, 40000, 7, State::Closed));
    for client in 1..=3 {
        let port = 40000 + u16::from(client);
        let (forward, reverse) = open(&world, &v4(client, port, 4, State::Closed));
        // What a refusal leaves behind.
        let opening = world.v4().0.at(forward).unwrap().opening();
        world.v4().0.at(reverse).unwrap().set_acknowledgment(opening.wrapping_add(1));
        // Those reset their handshakes themselves.
        open(&world, &v4(client, port + 20, 7, State::Closed));
        open(&world, &v6(client, port, 5, State::Unanswered));
        open(&world, &v4(client, port + 10, 6, State::Closed));
    }
    world.control().set_now(10_005);
    let resets = |world: &World| {
        let told = world.witnesses(&[4, 6, 7]);
        [4, 6, 7].map(|id| told[&id].bear_out(Suspicion::Resets(3)))
    };
    assert_eq!(resets(&world), [false, false, false], "the port has answered nobody");
    // What a SYN-ACK leaves behind.
    for answered in [served, too] {
        world.v4().0.at(answered).unwrap().set_acknowledgment(77);
    }
    assert_eq!(resets(&world), [true, false, false]);
    assert!(!world.witnesses(&[4])[&4].bear_out(Suspicion::Silent(3)));
    // The three of IPv6 come from one network.
    open(&world, &v6(9, 40009, 5, State::Established));
    assert!(!world.witnesses(&[5])[&5].bear_out(Suspicion::Silent(3)));
}

#[test]
fn one_direction_that_talks_keeps_a_connection_from_being_idle() {
    let world = world(1 << 10);
    let (_, reverse) = open(&world, &v4(1, 40000, 4, State::Established));
    world.control().set_now(10_100);
    world.v4().0.at(reverse).unwrap().see(10_090);
    let (found, _) = world.list(&ConnectionFilter::default(), 10);
    assert_eq!((found[0].age, found[0].idle), (Duration::from_secs(10), Duration::from_secs(1)));
    world.control().set_now(11_050);
    assert_eq!(round(&world, &mut Sweeper::default()).expired, 0);
    world.control().set_now(11_091);
    assert_eq!(round(&world, &mut Sweeper::default()).expired, 1);
    assert_eq!(live::<[u8; 4]>(&world), 0);
}

#[test]
fn filters_count_what_they_do_not_list() {
    let world = world(1 << 12);
    for port in 1000..1100 {
        open(&world, &v4((port % 4) as u8 + 1, port, port % 10, State::Established));
        open(&world, &v6(1, port, port % 10, State::Established));
    }
    let count = |filter: &ConnectionFilter, limit: usize| {
        let (found, total) = world.list(filter, limit);
        assert!(found.iter().all(|c| {
            filter.farm_id.is_none_or(|id| c.farm_id == id)
                && filter.backend_id.is_none_or(|id| c.backend_id == id)
                && filter.client.is_none_or(|ip| c.client.ip() == ip)
        }));
        (found.len(), total)
    };
    assert_eq!(count(&ConnectionFilter::default(), 150), (150, 200));
    assert_eq!(count(&ConnectionFilter::default(), 0), (0, 200));
    assert_eq!(count(&client("10.0.0.1"), 1000), (25, 25));
    assert_eq!(count(&client("2001:db8:900::1"), 7), (7, 100));
    assert_eq!(count(&client("10.0.0.9"), 7), (0, 0));
    assert_eq!(count(&ConnectionFilter { farm_id: Some(1), ..Default::default() }, 1000), (40, 40));
    assert_eq!(count(&ConnectionFilter { backend_id: Some(3), ..client("10.0.0.4") }, 1000), (5, 5));
}

#[test]
fn a_cut_leaves_a_memorial_of_what_was_established_and_nothing_of_the_rest() {
    let world = world(1 << 10);
    let established = open(&world, &v4(1, 1, 0, State::Established));
    let half_closed = open(&world, &v4(1, 2, 0, State::HalfClosed));
    let gone = [
        open(&world, &v4(1, 3, 0, State::Unanswered)),
        open(&world, &v4(1, 4, 0, State::Answered)),
        open(&world, &v4(1, 5, 0, State::OneSided)),
        open(&world, &Opened { protocol: UDP, ..v4(1, 6, 0, State::Established) }),
        open(&world, &v4(1, 7, 0, State::Closed)),
    ];
    let other = open(&world, &v4(2, 8, 0, State::Established));
    assert_eq!(world.cut(&client("10.0.0.1")), 7);
    for (forward, reverse) in [established, half_closed] {
        let states = [forward, reverse].map(|index| state::<[u8; 4]>(&world, index));
        assert_eq!(states, [State::Cut; 2]);
    }
    for (forward, reverse) in gone {
        let states = [forward, reverse].map(|index| state::<[u8; 4]>(&world, index));
        assert_eq!(states, [State::Empty; 2]);
    }
    assert_eq!(state::<[u8; 4]>(&world, other.0), State::Established);
    assert_eq!(live::<[u8; 4]>(&world), 6);
    assert_eq!(world.list(&ConnectionFilter::default(), 9).1, 1, "who was cut is not listed");
    assert_eq!(world.cut(&client("10.0.0.1")), 0, "nor cut again");
}

#[test]
fn backends_that_went_down_are_cut_together() {
    let world = world(1 << 10);
    // One that came when they were down already.
    open(&world, &v4(2, 99, 0, State::Established));
    for port in 0..30 {
        let opened = Opened { last_seen: 9_999, ..v4(1, port, port % 3, State::Established) };
        open(&world, &opened);
        open(&world, &Opened { last_seen: 9_000, ..v6(1, port, port % 3, State::Established) });
    }
    let mut asked: HashMap<u16, u32> = HashMap::new();
    world.cut_backends(10_000, |backend| {
        *asked.entry(backend).or_default() += 1;
        backend != 1
    });
    assert_eq!(asked, HashMap::from([(0, 20), (1, 20), (2, 20)]));
    let (found, total) = world.list(&ConnectionFilter::default(), 99);
    assert_eq!(total, 21);
    let of = |backend| found.iter().filter(|connection| connection.backend_id == backend).count();
    assert_eq!((of(0), of(1), of(2)), (1, 20, 0));
}

#[test]
fn connections_of_vips_that_are_gone_are_cut() {
    let world = world(1 << 10);
    open(&world, &v4(1, 1, 0, State::Established));
    open(&world, &v6(1, 1, 0, State::Established));
    let listed = || world.list(&ConnectionFilter::default(), 9).1;
    world.cut_vips(&["192.0.2.11".parse().unwrap(), "2001:db8::11".parse().unwrap()]);
    assert_eq!(listed(), 2, "others' VIPs");
    world.cut_vips(&["192.0.2.10".parse().unwrap()]);
    assert_eq!(listed(), 1);
    world.cut_vips(&["2001:db8::10".parse().unwrap()]);
    assert_eq!(listed(), 0);
}

#[test]
fn a_cut_misses_who_has_taken_the_line_meanwhile() {
    let world = world(1 << 10);
    let (forward, _) = open(&world, &v4(1, 1, 0, State::Established));
    let table = world.v4();
    let old = table.0.at(forward).unwrap().meta();
    table.free_pair(forward, old);
    let (again, _) = open(&world, &v4(1, 1, 0, State::Established));
    assert_eq!(again, forward, "the same line");
    assert!(!super::flows::cut_one(&table, forward, old));
    assert_eq!(state::<[u8; 4]>(&world, forward), State::Established);
}

#[test]
fn as_many_are_counted_as_would_be_cut_with_their_vip() {
    let world = world(1 << 10);
    let vips: [std::net::IpAddr; 2] = ["192.0.2.10".parse().unwrap(), "2001:db8::10".parse().unwrap()];
    for port in 0..3 {
        open(&world, &v4(1, port, 2, State::Established));
        open(&world, &v6(1, port, 5, State::Unanswered));
        open(&world, &v4(1, port + 10, 2, State::Closed));
    }
    assert_eq!(world.count_to_vips(&vips[..1]), HashMap::from([(2, 3)]));
    assert_eq!(world.count_to_vips(&vips), HashMap::from([(2, 3), (5, 3)]));
    assert_eq!(world.count_to_vips(&["192.0.2.99".parse().unwrap()]), HashMap::new());
    world.cut_vips(&vips);
    assert_eq!(world.count_to_vips(&vips), HashMap::new());
}

#[test]
fn a_round_counts_every_connection_once() {
    let world = world(1 << 12);
    for port in 0..50 {
        open(&world, &v4(1, port, 2, State::Established));
    }
    for port in 0..7 {
        open(&world, &v6(1, port, 2, State::Unanswered));
        open(&world, &v4(2, port, 9, State::Closed));
    }
    open(&world, &Opened { reset: true, ..v4(3, 99, 2, State::Closed) });
    let sweep = round(&world, &mut Sweeper::default());
    assert_eq!(sweep.live, HashMap::from([(2, 57)]));
    assert_eq!(sweep.tracked, HashMap::from([(2, 116), (9, 14)]), "by lines");
    assert_eq!(sweep.vips, HashMap::from([(VIP_NUMBER, 14)]), "lines of IPv6 alone");
    assert_eq!(sweep.expired, 0);
    let [v4, v6] = &sweep.tables;
    assert_eq!((v4.lines, v4.empty, v4.established_tcp, v4.closed), (1 << 12, (1 << 12) - 116, 100, 14));
    assert_eq!(
        (v4.unanswered_tcp, v4.half_open.clone()),
        (2, HashMap::from([(1, 2)])),
        "reset in its handshake"
    );
    assert_eq!((v6.lines, v6.unanswered_tcp), (1 << 12, 14));
    assert_eq!(v4.by_farm, HashMap::from([(1, 102), (4, 14)]));
}

#[test]
fn each_state_is_forgotten_after_its_own_time() {
    let world = world(1 << 12);
    let states = [
        (State::Unanswered, TCP, TIMEOUTS.syn),
        (State::Answered, TCP, TIMEOUTS.syn),
        (State::Established, TCP, TIMEOUTS.established),
        (State::HalfClosed, TCP, TIMEOUTS.half_closed),
        (State::Closed, TCP, TIMEOUTS.fin),
        (State::Cut, TCP, TIMEOUTS.fin),
        (State::Unanswered, UDP, TIMEOUTS.udp),
        (State::OneSided, UDP, TIMEOUTS.udp),
        (State::Established, UDP, TIMEOUTS.udp),
    ];
    let mut sweeper = Sweeper::default();
    for (state_of, protocol, ticks) in states {
        let opened = Opened { protocol, ..v4(1, 1, 0, state_of) };
        let (forward, _) = open(&world, &opened);
        world.control().set_now(10_000 + ticks);
        assert_eq!(round(&world, &mut sweeper).expired, 0, "{state_of:?}");
        assert_eq!(state::<[u8; 4]>(&world, forward), state_of);
        world.control().set_now(10_000 + ticks + 1);
        assert_eq!(round(&world, &mut sweeper).expired, 1, "{state_of:?}");
        assert_eq!(live::<[u8; 4]>(&world), 0);
    }
}

#[test]
fn what_lies_far_from_home_is_freed_without_a_trace() {
    let world = world(1 << 8);
    let opened = (0..120).filter_map(|port| try_open(&world, &v6(1, port, 1, State::Established))).count();
    let far = |world: &World| {
        let table = world.v6();
        (0..1 << 8).filter(|&index| table.0.at(index).unwrap().meta().is_second()).count()
    };
    assert!(far(&world) > 0, "some of {opened} are far from home");
    world.control().set_now(10_000 + TIMEOUTS.established + 1);
    assert_eq!(round(&world, &mut Sweeper::default()).expired, opened as u64);
    assert_eq!(live::<[u8; 16]>(&world), 0);
}

#[test]
fn lines_whose_owner_is_gone_are_freed_in_the_second_round() {
    let world = world(1 << 10);
    let (forward, reverse) = open(&world, &v4(1, 1, 0, State::Established));
    let table = world.v4();
    // A daemon that is killed in the middle of a deletion.
    let line = table.0.at(forward).unwrap();
    assert!(line.swap_meta(line.meta(), line.meta().leaving()));
    let key = FlowKey::new([10, 0, 0, 9], VIP, [0, 1], [0, 2], TCP);
    let (claimed, _) = claim(&table, &key, 10_000).unwrap();
    let mut sweeper = Sweeper::default();
    for _ in 0..2 {
        assert_eq!(state::<[u8; 4]>(&world, claimed), State::Claimed);
        assert_eq!(state::<[u8; 4]>(&world, forward), State::Leaving);
        round(&world, &mut sweeper);
    }
    assert_eq!(state::<[u8; 4]>(&world, claimed), State::Empty);
    assert_eq!(state::<[u8; 4]>(&world, forward), State::Empty);
    // What is left is half a pair: found within some rounds more.
    let rounds = (0..99).find(|_| {
        round(&world, &mut sweeper);
        state::<[u8; 4]>(&world, reverse) == State::Empty
    });
    assert!(rounds.is_some());
    assert_eq!(live::<[u8; 4]>(&world), 0);
}

#[test]
fn lines_that_somebody_works_on_are_left_to_him() {
    let world = world(1 << 10);
    let table = world.v4();
    let key = FlowKey::new([10, 0, 0, 9], VIP, [0, 1], [0, 2], TCP);
    let mut sweeper = Sweeper::default();
    for _ in 0..5 {
        // Another claim of the same line each time.
        let (index, meta) = claim(&table, &key, 10_000).unwrap();
        round(&world, &mut sweeper);
        assert_eq!(table.0.at(index).unwrap().meta(), meta);
        table.give_back(index, meta, &table.0.homes(&key));
    }
}

#[test]
fn ports_of_established_connections_are_noted() {
    let world = world(1 << 12);
    open(&world, &v4(1, 1000, 2, State::Established));
    open(&world, &v4(1, 1001, 2, State::Unanswered));
    open(&world, &v4(1, 1002, 2, State::Closed));
    open(&world, &v6(1, 1003, 2, State::HalfClosed));
    open(&world, &Opened { dnat: true, ..v4(1, 1004, 2, State::Established) });
    let mut sweeper = Sweeper::default();
    round(&world, &mut sweeper);
    let set = |backend: usize| &world.ports()[backend * 1024..][..1024];
    let ports = |backend: usize| {
        let bit = |port: &usize| set(backend)[port / 64].load(Ordering::Relaxed) >> (port % 64) & 1 == 1;
        (0..65536).filter(bit).collect::<Vec<_>>()
    };
    assert_eq!(ports(2), [1000, 1003]);
    assert!(ports(3).is_empty());
    world.cut(&ConnectionFilter::default());
    round(&world, &mut sweeper);
    assert!(ports(2).is_empty());
}

#[test]
fn lines_follow_their_interfaces_number() {
    let world = world(1 << 10);
    let (_, reverse) = open(&world, &v4(1, 1, 2, State::Established));
    let (_, reverse_v6) = open(&world, &v6(1, 1, 2, State::Established));
    let mut moves = [Move::Stay; 64];
    moves[usize::from(INTERFACE)] = Move::To(40);
    world.rewrite_interfaces(&moves);
    let hops = [world.v4().0.at(reverse).unwrap().hop(), world.v6().0.at(reverse_v6).unwrap().hop()];
    assert_eq!(hops, [Hop::new(40, &[1; 6]); 2]);
    moves[40] = Move::Free;
    world.rewrite_interfaces(&moves);
    assert_eq!((live::<[u8; 4]>(&world), live::<[u8; 16]>(&world)), (0, 0));
}
