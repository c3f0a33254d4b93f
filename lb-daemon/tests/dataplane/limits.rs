//! How many connections a farm takes, and how many new ones in a second.

use std::time::Duration;

use lb_core::config::model::{Farm, Limits, Mode, Over};

use crate::ends::*;
use crate::packet::*;
use crate::rig::*;

const RATE: u32 = 20;

fn paced(over: Over) -> Farm {
    let mut web = farm("web", &["192.0.2.10", "2001:db8::10"], port(80), Mode::Nat, &[]);
    web.backends = vec![backend(&["10.0.0.11", "2001:db8:1::11"], None, 1)];
    Farm { limits: Limits { connections: None, new_per_second: Some(RATE), over }, ..web }
}

/// Clients of both families, one after the other, and the VIP that each connects to.
fn client(number: u32) -> (String, &'static str) {
    let [.., high, low] = number.to_be_bytes();
    match number % 2 {
        0 => (format!("198.18.{high}.{low}:40000"), "192.0.2.10:80"),
        _ => (format!("[2001:db8:7:{number:x}::7]:40000"), "[2001:db8::10]:80"),
    }
}

/// So many open connections, beginning with that client, until one is turned away; at most `most`.
fn come(
    rig: &mut Rig,
    first: u32,
    most: u32,
    open: impl Fn(&mut Rig, &str, &str) -> Result<(), String>,
) -> u32 {
    for number in first..first + most {
        let (client, vip) = client(number);
        if let Err(why) = open(rig, &client, vip) {
            assert!(why.contains("limited") || why.contains("refused"), "{why}");
            return number - first;
        }
    }
    most
}

fn shakes_hands(rig: &mut Rig, client: &str, vip: &str) -> Result<(), String> {
    Tcp::open(rig, client, vip).map(drop)
}

fn asks(rig: &mut Rig, client: &str, vip: &str) -> Result<(), String> {
    Udp::open(rig, client, vip).map(drop)
}

#[test]
fn as_many_open_in_a_second_as_may_and_more_come_with_each_tick() {
    type Open = fn(&mut Rig, &str, &str) -> Result<(), String>;
    for open in [shakes_hands as Open, asks] {
        let mut rig = Rig::with(vec![paced(Over::Drop)]);
        rig.pass(Duration::from_millis(100));
        assert_eq!(come(&mut rig, 0, 100, open), RATE);
        assert_eq!(rig.turned_away("web", "limit_rate"), 1);
        rig.pass(Duration::from_millis(100));
        assert_eq!(come(&mut rig, 100, 100, open), RATE / 10);
        rig.pass(Duration::from_millis(300));
        assert_eq!(come(&mut rig, 200, 100, open), RATE * 3 / 10);
        rig.pass(Duration::from_secs(60));
        assert_eq!(come(&mut rig, 300, 100, open), RATE, "a pause brings a second's worth");
        assert_eq!((rig.count("limited"), rig.turned_away("web", "limit_rate")), (4, 4));
    }
}

#[test]
fn forged_syns_cost_nobody_a_token() {
    let mut rig = Rig::with(vec![paced(Over::Drop)]);
    rig.pass(Duration::from_millis(100));
    for number in 0..10 * RATE {
        let (client, vip) = client(1000 + number);
        assert_eq!(rig.verdict(&frame(&client, vip, tcp(SYN), b"")), "opened");
    }
    assert_eq!(come(&mut rig, 0, 100, shakes_hands), RATE);
}

#[test]
fn what_opens_at_once_is_paid_back() {
    let mut rig = Rig::with(vec![paced(Over::Drop)]);
    rig.pass(Duration::from_millis(100));
    let number = RATE + RATE / 2;
    let mut open: Vec<_> = (0..number)
        .map(|number| {
            let (client, vip) = client(number);
            Tcp::syn(&mut rig, &client, vip).unwrap()
        })
        .collect();
    for tcp in &mut open {
        tcp.syn_ack(&mut rig).unwrap();
        tcp.ack(&mut rig).unwrap();
    }
    rig.pass(Duration::from_millis(500));
    assert_eq!(come(&mut rig, 100, 1, shakes_hands), 0);
    rig.pass(Duration::from_millis(100));
    assert_eq!(come(&mut rig, 200, 100, shakes_hands), RATE / 10);
    // Whoever is connected goes on.
    open.iter_mut().for_each(|tcp| tcp.talks(&mut rig).unwrap());
}

#[test]
fn whoever_is_too_many_is_told_if_the_farm_says_so() {
    let mut rig = Rig::with(vec![paced(Over::Refuse)]);
    rig.pass(Duration::from_millis(100));
    assert_eq!(come(&mut rig, 0, 100, shakes_hands), RATE);
    let got = rig.send(&frame("198.51.100.7:40000", "192.0.2.10:80", segment(SYN, 999, 0), b""));
    assert_eq!((got.verdict, got.action), ("refused", XDP_TX));
    assert_eq!(numbers(&got.frame), (0, 1000, RST | ACK));
    read(&got.frame);
    assert_eq!((rig.count("limited"), rig.turned_away("web", "limit_rate")), (0, 2));
}

#[test]
fn other_farms_are_not_concerned_and_a_change_of_the_rate_takes_effect_at_once() {
    let other = farm("other", &["192.0.2.11"], port(80), Mode::Nat, &[("10.0.0.12", 1)]);
    let mut rig = Rig::with(vec![paced(Over::Drop), other.clone()]);
    rig.pass(Duration::from_millis(100));
    assert_eq!(come(&mut rig, 0, 100, shakes_hands), RATE);
    for port in 0..2 * RATE {
        Tcp::open(&mut rig, &format!("198.51.100.7:{}", 50_000 + port), "192.0.2.11:80").unwrap();
    }
    let slower = Limits { new_per_second: Some(1), ..Limits::default() };
    rig.configure(&[Farm { limits: slower, ..paced(Over::Drop) }, other.clone()], |_| true);
    rig.pass(Duration::from_secs(5));
    assert_eq!(come(&mut rig, 200, 100, shakes_hands), 1);
    rig.configure(&[Farm { limits: Limits::default(), ..paced(Over::Drop) }, other], |_| true);
    assert_eq!(come(&mut rig, 400, 3 * RATE, shakes_hands), 3 * RATE);
}

/// Connects so many clients at one address, until one is turned away.
fn flood(rig: &mut Rig, source: &str, ports: std::ops::Range<u16>) -> usize {
    let vip = if source.starts_with('[') { "[2001:db8::10]:80" } else { "192.0.2.10:80" };
    ports.take_while(|port| Tcp::open(rig, &format!("{source}:{port}"), vip).is_ok()).count()
}

#[test]
fn one_source_takes_no_tokens_from_others_who_come_and_all_if_nobody_does() {
    for (source, neighbour) in
        [("198.51.100.7", "198.51.100.8"), ("[2001:db8:7:ffff::7]", "[2001:db8:7:fffe::7]")]
    {
        let mut rig = Rig::with(vec![paced(Over::Drop)]);
        rig.pass(Duration::from_millis(100));
        assert_eq!(flood(&mut rig, source, 1000..2000), RATE as usize / 2);
        assert_eq!(flood(&mut rig, neighbour, 1000..2000), 2, "its share");
        assert_eq!(come(&mut rig, 0, 100, shakes_hands), RATE / 2 - 2, "what others left");
        // It never lets up: others get what they ask for.
        let (mut flooded, mut others) = (0, 0);
        for tick in 0..100u16 {
            rig.pass(Duration::from_millis(100));
            flooded += flood(&mut rig, source, 2000 + tick * 100..2100 + tick * 100);
            others += come(&mut rig, 1000 + u32::from(tick), 1, shakes_hands);
        }
        assert!(others >= 99 && flooded >= 60, "{others} of 100, and {flooded} of what they left");
        // Alone, it may have all.
        rig.pass(Duration::from_secs(10));
        let ticks = (0..100u16).map(|tick| {
            rig.pass(Duration::from_millis(100));
            flood(&mut rig, source, 20_000 + tick * 100..20_100 + tick * 100)
        });
        let flooded: usize = ticks.sum();
        assert!(flooded >= RATE as usize * 10, "{flooded}");
    }
}

fn limited(connections: u32, over: Over) -> Farm {
    Farm { limits: Limits { connections: Some(connections), new_per_second: None, over }, ..paced(over) }
}

#[test]
fn a_farm_has_as_many_connections_as_it_may_and_another_when_one_has_ended() {
    let mut rig = Rig::with(vec![limited(10, Over::Refuse)]);
    let mut open: Vec<_> = (0..10)
        .map(|number| {
            let (client, vip) = client(number);
            Tcp::open(&mut rig, &client, vip).unwrap()
        })
        .collect();
    assert_eq!(come(&mut rig, 100, 5, shakes_hands), 0);
    assert_eq!(rig.turned_away("web", "limit_connections"), 1);
    // Whoever is connected goes on.
    open.iter_mut().for_each(|tcp| tcp.talks(&mut rig).unwrap());
    rig.run(&frame(&open[0].way.client, "192.0.2.10:80", segment(RST, open[0].client_next, 0), b""));
    assert_eq!(come(&mut rig, 200, 5, shakes_hands), 1);
    // Its daemon sees the same, and those that have expired.
    rig.sweep();
    assert_eq!(come(&mut rig, 300, 5, shakes_hands), 0);
    rig.later(Duration::from_secs(4 * 3600));
    assert_eq!(come(&mut rig, 400, 15, shakes_hands), 10);
    // Connections to a backend that the configuration names no more are the farm's still.
    let mut other = limited(12, Over::Refuse);
    other.backends = vec![backend(&["10.0.0.12", "2001:db8:1::12"], None, 1)];
    rig.configure(&[other], |_| true);
    rig.sweep();
    assert_eq!(come(&mut rig, 500, 15, shakes_hands), 2);
}

#[test]
fn half_open_connections_that_are_answered_use_up_no_room() {
    let mut rig = Rig::with(vec![limited(10, Over::Drop)]);
    for number in 0..50 {
        let (client, vip) = client(1000 + number);
        Tcp::syn(&mut rig, &client, vip).unwrap().syn_ack(&mut rig).unwrap();
    }
    assert_eq!(come(&mut rig, 0, 50, shakes_hands), 10);
    assert_eq!((rig.count("limited"), rig.turned_away("web", "limit_connections")), (1, 1));
}
