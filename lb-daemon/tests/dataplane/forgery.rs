//! Segments by somebody who knows a connection's addresses and ports, but not its numbers (RFC 5961): they change nothing.

use std::time::Duration;

use lb_core::config::model::{Farm, Mode, Timeouts};

use crate::ends::*;
use crate::packet::*;
use crate::rig::*;

/// Client, another client with the same port, VIP.
const FAMILIES: [[&str; 3]; 2] = [
    ["198.51.100.7:40000", "198.51.100.8:40000", "192.0.2.10:80"],
    ["[2001:db8:7::7]:40000", "[2001:db8:7::8]:40000", "[2001:db8::10]:80"],
];

fn web() -> Farm {
    let mut web = farm("web", &["192.0.2.10", "2001:db8::10"], port(80), Mode::Nat, &[]);
    web.backends = vec![backend(&["10.0.0.11", "2001:db8:1::11"], None, 1)];
    web
}

/// Which end a forged segment claims to come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum As {
    Client,
    Backend,
}

/// Holds a connection against segments forged with `flags`, at any number but the right one: it lasts as if nothing had come,
/// and nobody else gets its port.
fn survives(flags: &[u8]) {
    for [client, other, vip] in FAMILIES {
        for forger in [As::Client, As::Backend] {
            let mut rig = Rig::with(vec![web()]);
            let mut tcp = Tcp::open(&mut rig, client, vip).unwrap();
            tcp.talks(&mut rig).unwrap();
            rig.later(Duration::from_secs(60));
            for (seq, ack) in far_from(tcp.client_next).zip(far_from(tcp.backend_next)) {
                for &flags in flags {
                    let forged = match forger {
                        As::Client => tcp.way.by_client(segment(flags, seq, ack), b""),
                        As::Backend => tcp.way.by_backend(segment(flags, ack, seq), b""),
                    };
                    assert_ne!(rig.verdict(&forged), "opened", "{client} {forger:?} {flags:#x}");
                }
            }
            rig.later(Duration::from_secs(60));
            let newcomer = Tcp::syn(&mut rig, other, vip).unwrap();
            assert_ne!(newcomer.way.source, tcp.way.source, "{client} {forger:?}");
            rig.later(Timeouts::default().established - Duration::from_secs(90));
            assert_eq!(tcp.talks(&mut rig), Ok(()), "{client} {forger:?}");
        }
    }
}

#[test]
fn blind_resets_change_nothing() {
    survives(&[RST, RST | ACK]);
}

#[test]
fn blind_fins_change_nothing() {
    survives(&[FIN | ACK, FIN]);
}

#[test]
fn blind_syns_change_nothing() {
    survives(&[SYN]);
}

#[test]
fn a_blind_reset_and_a_syn_after_it_change_nothing() {
    survives(&[RST, SYN]);
}

#[test]
fn segments_with_every_flag_but_the_right_number_change_nothing() {
    survives(&[0, SYN | FIN, SYN | RST, FIN | RST, 0xff]);
}

#[test]
fn blind_fins_do_not_shorten_the_life_of_a_half_closed_connection() {
    let [client, _, vip] = FAMILIES[0];
    let mut rig = Rig::with(vec![web()]);
    let mut tcp = Tcp::open(&mut rig, client, vip).unwrap();
    tcp.client_ends(&mut rig).unwrap();
    for seq in far_from(tcp.backend_next) {
        rig.send(&tcp.way.by_backend(segment(FIN | ACK, seq, tcp.client_next), b""));
    }
    rig.later(Duration::from_secs(180));
    assert_eq!(tcp.answers(&mut rig), Ok(()));
}

/// The same client after a restart, from the same port: the backend challenges the SYN (RFC 5961, section 4.2), the client
/// resets, and the next SYN opens.
#[test]
fn a_client_that_has_forgotten_its_connection_gets_through() {
    let [client, _, vip] = FAMILIES[0];
    let mut rig = Rig::with(vec![web()]);
    let mut old = Tcp::open(&mut rig, client, vip).unwrap();
    old.talks(&mut rig).unwrap();
    let syn = segment(SYN, 0x7000_0000, 0);
    assert_eq!(old.way.up(&mut rig, syn, b""), Ok(()), "the backend is to challenge it");
    assert_eq!(old.way.down(&mut rig, segment(ACK, old.backend_next, old.client_next), b""), Ok(()));
    assert_eq!(old.way.up(&mut rig, segment(RST, old.client_next, 0), b""), Ok(()));
    assert_eq!(rig.verdict(&frame(client, vip, syn, b"")), "opened");
    assert_eq!(rig.connections(), 1);
}

/// Both may have forgotten it: then the SYN is answered, and a connection like any other comes of it.
#[test]
fn a_handshake_on_a_connection_that_both_ends_have_forgotten_is_one() {
    let [client, _, vip] = FAMILIES[0];
    let mut rig = Rig::with(vec![web()]);
    let mut tcp = Tcp::open(&mut rig, client, vip).unwrap();
    tcp.talks(&mut rig).unwrap();
    (tcp.client_next, tcp.backend_next) = (0x7000_0001, 0x3000_0000);
    tcp.way.up(&mut rig, segment(SYN, 0x7000_0000, 0), b"").unwrap();
    tcp.syn_ack(&mut rig).unwrap();
    tcp.ack(&mut rig).unwrap();
    rig.later(Duration::from_secs(3000));
    assert_eq!(tcp.talks(&mut rig), Ok(()));
    tcp.way.down(&mut rig, segment(RST, tcp.backend_next, 0), b"").unwrap();
    rig.later(Duration::from_secs(15));
    assert_eq!(rig.connections(), 0, "and its numbers are those that count");
}
