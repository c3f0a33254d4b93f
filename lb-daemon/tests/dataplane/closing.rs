//! How connections end, and how long they last when they do not: half-closed, closed, reset, idle.

use std::time::Duration;

use lb_core::config::model::{Farm, Mode, Timeouts};

use crate::ends::*;
use crate::packet::*;
use crate::rig::*;

const CLIENT: &str = "198.51.100.7:40000";
const VIP: &str = "192.0.2.10:80";
/// More than the time-out of a connection that is over, by default.
const OVER: Duration = Duration::from_secs(15);

fn web() -> Farm {
    farm("web", &["192.0.2.10", "2001:db8::10"], port(80), Mode::Nat, &[("10.0.0.11", 1)])
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

#[test]
fn the_answer_of_a_half_closed_connection_comes_after_seconds_and_after_minutes() {
    for mode in [Mode::Nat, Mode::Dnat] {
        let mut rig = Rig::with(vec![Farm { mode, ..web() }]);
        let mut tcp = Tcp::open(&mut rig, CLIENT, VIP).unwrap();
        tcp.asks(&mut rig).unwrap();
        tcp.client_ends(&mut rig).unwrap();
        for wait in [OVER, minutes(3), minutes(3), minutes(3)] {
            rig.later(wait);
            assert_eq!(tcp.answers(&mut rig), Ok(()), "{mode:?}, after {wait:?}");
        }
        tcp.backend_ends(&mut rig).unwrap();
    }
}

#[test]
fn a_client_may_go_on_asking_when_the_backend_has_ended() {
    let mut rig = Rig::with(vec![web()]);
    let mut tcp = Tcp::open(&mut rig, CLIENT, VIP).unwrap();
    tcp.backend_ends(&mut rig).unwrap();
    for wait in [OVER, minutes(3)] {
        rig.later(wait);
        assert_eq!(tcp.asks(&mut rig), Ok(()), "after {wait:?}");
    }
}

#[test]
fn a_half_closed_connection_that_is_silent_is_forgotten_before_an_established_one() {
    let mut rig = Rig::with(vec![web()]);
    Tcp::open(&mut rig, CLIENT, VIP).unwrap();
    Tcp::open(&mut rig, "198.51.100.8:40000", VIP).unwrap().client_ends(&mut rig).unwrap();
    rig.later(minutes(3));
    assert_eq!(rig.connections(), 2);
    rig.later(minutes(2));
    assert_eq!(rig.connections(), 1);
}

#[test]
fn a_connection_that_both_sides_have_ended_is_over_in_seconds() {
    let mut rig = Rig::with(vec![web()]);
    let mut tcp = Tcp::open(&mut rig, CLIENT, VIP).unwrap();
    tcp.client_ends(&mut rig).unwrap();
    tcp.backend_ends(&mut rig).unwrap();
    tcp.ack(&mut rig).unwrap();
    rig.later(OVER);
    assert_eq!(rig.connections(), 0);
}

#[test]
fn an_idle_connection_lasts_two_hours_and_four_minutes() {
    let mut rig = Rig::with(vec![web()]);
    let mut tcp = Tcp::open(&mut rig, CLIENT, VIP).unwrap();
    rig.later(minutes(123));
    assert_eq!(tcp.talks(&mut rig), Ok(()));
    rig.later(minutes(125));
    assert_eq!(rig.connections(), 0);
}

#[test]
fn an_idle_conversation_by_datagrams_lasts_two_minutes() {
    let mut rig = Rig::with(vec![web()]);
    let udp = Udp::open(&mut rig, CLIENT, VIP).unwrap();
    udp.answers(&mut rig).unwrap();
    udp.asks(&mut rig).unwrap();
    rig.later(Duration::from_secs(115));
    assert_eq!(udp.answers(&mut rig), Ok(()));
    rig.later(Duration::from_secs(125));
    assert_eq!(rig.connections(), 0);
}

/// A FIN may be far ahead of what the other side has acknowledged: as far as data can be on its way.
#[test]
fn a_fin_behind_much_data_on_its_way_half_closes() {
    for ahead in [0, 1, 65_535, 4_000_000] {
        let mut rig = Rig::with(vec![web()]);
        let mut tcp = Tcp::open(&mut rig, CLIENT, VIP).unwrap();
        tcp.talks(&mut rig).unwrap();
        let fin = segment(FIN | ACK, tcp.client_next + ahead, tcp.backend_next);
        assert_eq!(tcp.way.up(&mut rig, fin, b""), Ok(()));
        rig.later(minutes(5));
        assert_eq!(rig.connections(), 0, "{ahead} ahead");
    }
}

#[test]
fn the_very_number_resets_a_connection_from_either_side() {
    for by_client in [true, false] {
        let mut rig = Rig::with(vec![web()]);
        let mut tcp = Tcp::open(&mut rig, CLIENT, VIP).unwrap();
        tcp.talks(&mut rig).unwrap();
        if by_client {
            tcp.way.up(&mut rig, segment(RST, tcp.client_next, 0), b"").unwrap();
        } else {
            tcp.way.down(&mut rig, segment(RST | ACK, tcp.backend_next, tcp.client_next), b"").unwrap();
        }
        rig.later(OVER);
        assert_eq!(rig.connections(), 0, "by the client: {by_client}");
    }
}

/// A reset that the other end may take, but that the balancer cannot be sure of (RFC 5961, section 3.2).
#[test]
fn a_reset_within_the_window_shortens_the_life_until_somebody_speaks() {
    let mut rig = Rig::with(vec![web()]);
    let mut silent = Tcp::open(&mut rig, CLIENT, VIP).unwrap();
    let mut alive = Tcp::open(&mut rig, "198.51.100.8:40000", VIP).unwrap();
    for tcp in [&mut silent, &mut alive] {
        tcp.talks(&mut rig).unwrap();
        tcp.way.up(&mut rig, segment(RST, tcp.client_next + 100, 0), b"").unwrap();
    }
    rig.later(OVER);
    assert_eq!(alive.talks(&mut rig), Ok(()), "the reset was refused at the end");
    rig.later(minutes(5));
    assert_eq!(rig.connections(), 1, "and took effect on the other connection");
    rig.later(minutes(100));
    assert_eq!(alive.talks(&mut rig), Ok(()));
}

#[test]
fn time_outs_hold_before_the_daemon_has_made_its_round() {
    let mut rig = Rig::with(vec![web()]);
    let mut late = Tcp::syn(&mut rig, CLIENT, VIP).unwrap();
    rig.pass(Timeouts::default().syn + Duration::from_secs(1));
    let other = Tcp::syn(&mut rig, "198.51.100.8:40000", VIP).unwrap();
    assert_eq!(other.way.source, "192.0.2.10:40000", "the port is free");
    assert!(late.syn_ack(&mut rig).is_err(), "the client's SYN is forgotten");
}

#[test]
fn a_port_whose_connection_is_closed_can_be_taken() {
    let mut rig = Rig::new(131_072);
    rig.configure(&[web()], |_| true);
    // Every port that there is towards the backend, by one client each, and every connection reset.
    let mut taken = 0;
    for port in 1024..=65535u16 {
        let client = format!("203.0.113.{}:{port}", port % 251 + 1).parse().unwrap();
        let vip = VIP.parse().unwrap();
        let (action, out) = rig.run(&frame_between(client, vip, segment(SYN, CLIENT_ISN, 0), b""));
        assert_eq!(action, XDP_TX, "{client}");
        let (source, backend) = (read(&out).src, read(&out).dst);
        rig.run(&frame_between(backend, source, segment(SYN | ACK, BACKEND_ISN, CLIENT_ISN + 1), b""));
        rig.run(&frame_between(client, vip, segment(ACK, CLIENT_ISN + 1, BACKEND_ISN + 1), b""));
        rig.run(&frame_between(backend, source, segment(RST, BACKEND_ISN + 1, 0), b""));
        taken += u32::from(source.port() == port);
    }
    assert_eq!(taken, 64_512, "each client has its own port");
    for client in 0..100 {
        let opened = Tcp::open(&mut rig, &format!("198.51.100.{client}:40000"), VIP);
        let mut tcp = opened.unwrap_or_else(|reason| panic!("client {client}: {reason}"));
        assert_eq!(tcp.talks(&mut rig), Ok(()), "client {client}");
    }
}
