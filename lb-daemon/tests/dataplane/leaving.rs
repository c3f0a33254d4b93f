//! What becomes of those who keep talking when their backend is drained, taken out, down or no longer there.

use std::time::Duration;

use lb_core::config::model::{Farm, Mode};
use lb_core::state::BackendStatus::{self, Down, Draining, Maintenance, Up};

use crate::ends::*;
use crate::packet::*;
use crate::rig::*;

const CLIENT: &str = "198.51.100.7:40000";
const VIP: &str = "192.0.2.10:80";
/// Shorter than any pause that lets datagrams move.
const SHORT: Duration = Duration::from_millis(500);
/// Longer.
const PAUSE: Duration = Duration::from_millis(2500);

/// Two backends, of which each takes over from the other.
fn web() -> Farm {
    farm("web", &["192.0.2.10"], port(80), Mode::Nat, &[("10.0.0.11", 1), ("10.0.0.12", 1)])
}

/// What is to become of the backend that has the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Is(BackendStatus),
    Removed,
}

impl Fate {
    /// Brings it about for the backend at `socket`.
    fn meets(self, rig: &mut Rig, socket: &str) {
        let name = socket.trim_end_matches(":80");
        let mut farm = web();
        match self {
            Self::Is(status) => rig.set(&[farm], |backend| if backend == name { status } else { Up }),
            Self::Removed => {
                farm.backends.retain(|backend| backend.name.as_str() != name);
                rig.set(&[farm], |_| Up);
            }
        }
    }
}

/// A conversation under way: asked, answered, asked again.
fn conversation(rig: &mut Rig) -> Udp {
    let udp = Udp::open(rig, CLIENT, VIP).unwrap();
    udp.answers(rig).unwrap();
    udp.asks(rig).unwrap();
    udp
}

/// Asks once more, and expects that to open a conversation with the other backend, which answers.
fn moves(rig: &mut Rig, udp: &Udp, why: &str) {
    let moved = Udp::open(rig, CLIENT, VIP).unwrap_or_else(|reason| panic!("{why}: {reason}"));
    assert_ne!(moved.0.backend, udp.0.backend, "{why}");
    moved.answers(rig).unwrap();
    moved.asks(rig).unwrap();
    assert_eq!(rig.connections(), 1, "{why}: the old conversation is over");
}

#[test]
fn a_steady_sender_leaves_a_backend_that_is_drained_or_maintained_at_its_next_pause() {
    for status in [Draining, Maintenance] {
        let mut rig = Rig::with(vec![web()]);
        let udp = conversation(&mut rig);
        Fate::Is(status).meets(&mut rig, &udp.0.backend);
        for _ in 0..20 {
            rig.later(SHORT);
            assert_eq!(udp.asks(&mut rig), Ok(()), "{status:?}: in the middle of a conversation");
            assert_eq!(udp.answers(&mut rig), Ok(()), "{status:?}");
        }
        rig.later(PAUSE);
        moves(&mut rig, &udp, &format!("{status:?}"));
    }
}

#[test]
fn a_sender_whom_nobody_answers_leaves_a_drained_backend_at_its_next_pause() {
    let mut rig = Rig::with(vec![web()]);
    let udp = Udp::open(&mut rig, CLIENT, VIP).unwrap();
    for _ in 0..20 {
        rig.later(SHORT);
        assert_eq!(udp.asks(&mut rig), Ok(()));
    }
    Fate::Is(Draining).meets(&mut rig, &udp.0.backend);
    for _ in 0..20 {
        rig.later(SHORT);
        assert_eq!(udp.asks(&mut rig), Ok(()));
    }
    rig.later(PAUSE);
    moves(&mut rig, &udp, "after a pause");
}

#[test]
fn a_steady_sender_leaves_a_backend_that_is_down_or_removed_with_its_next_datagram() {
    for fate in [Fate::Is(Down), Fate::Removed] {
        let mut rig = Rig::with(vec![web()]);
        let udp = conversation(&mut rig);
        Fate::Is(Up).meets(&mut rig, &udp.0.backend);
        assert_eq!(udp.asks(&mut rig), Ok(()), "while it serves");
        fate.meets(&mut rig, &udp.0.backend);
        moves(&mut rig, &udp, &format!("{fate:?}"));
    }
}

#[test]
fn a_steady_sender_leaves_a_drained_backend_when_it_dies() {
    let mut rig = Rig::with(vec![web()]);
    let udp = conversation(&mut rig);
    Fate::Is(Draining).meets(&mut rig, &udp.0.backend);
    rig.later(SHORT);
    assert_eq!(udp.asks(&mut rig), Ok(()));
    Fate::Is(Down).meets(&mut rig, &udp.0.backend);
    moves(&mut rig, &udp, "down");
}

#[test]
fn answers_of_a_backend_that_was_drained_or_went_down_still_reach_their_client() {
    for fate in [Fate::Is(Draining), Fate::Is(Maintenance), Fate::Is(Down), Fate::Removed] {
        let mut rig = Rig::with(vec![web()]);
        let udp = conversation(&mut rig);
        fate.meets(&mut rig, &udp.0.backend);
        assert_eq!(udp.answers(&mut rig), Ok(()), "{fate:?}");
    }
}

#[test]
fn an_established_connection_goes_on_whatever_becomes_of_its_backend() {
    for fate in [Fate::Is(Draining), Fate::Is(Maintenance), Fate::Is(Down), Fate::Removed] {
        let mut rig = Rig::with(vec![web()]);
        let mut tcp = Tcp::open(&mut rig, CLIENT, VIP).unwrap();
        fate.meets(&mut rig, &tcp.way.backend.clone());
        for wait in [SHORT, PAUSE, Duration::from_secs(1800)] {
            rig.later(wait);
            assert_eq!(tcp.talks(&mut rig), Ok(()), "{fate:?} after {wait:?}");
        }
    }
}

#[test]
fn a_syn_on_a_connection_to_a_backend_that_is_down_opens_anew() {
    let mut rig = Rig::with(vec![web()]);
    let mut old = Tcp::open(&mut rig, CLIENT, VIP).unwrap();
    old.talks(&mut rig).unwrap();
    Fate::Is(Down).meets(&mut rig, &old.way.backend.clone());
    let mut new = Tcp::open(&mut rig, CLIENT, VIP).unwrap();
    assert_ne!(new.way.backend, old.way.backend);
    assert_eq!(new.talks(&mut rig), Ok(()));
    assert_eq!(rig.connections(), 1);
}

/// The backend gets a bare acknowledgment for a SYN that it is not to have, as if it were a segment of the old connection.
fn challenged(rig: &mut Rig, old: &Tcp, isn: u32) -> (u32, u32) {
    let got = rig.send(&old.way.by_client(segment(SYN, isn, 0), b""));
    assert_eq!(old.way.reached_backend(&got), Ok(()));
    let (seq, ack, flags) = numbers(&got.frame);
    assert_eq!(flags, ACK, "no SYN for a backend that takes no new connections");
    (seq, ack)
}

#[test]
fn a_syn_on_a_connection_to_a_backend_that_takes_no_new_ones_does_not_go_there() {
    for status in [Fate::Is(Draining), Fate::Is(Maintenance), Fate::Removed] {
        // A backend that knows the connection answers with what it expects next (RFC 9293, section 3.10.7.4); the client, which
        // has sent a SYN, resets that (section 3.10.7.3), and its next SYN opens.
        let mut rig = Rig::with(vec![web()]);
        let mut old = Tcp::open(&mut rig, CLIENT, VIP).unwrap();
        old.talks(&mut rig).unwrap();
        status.meets(&mut rig, &old.way.backend.clone());
        challenged(&mut rig, &old, 0x7000_0000);
        old.way.down(&mut rig, segment(ACK, old.backend_next, old.client_next), b"").unwrap();
        old.way.up(&mut rig, segment(RST, old.client_next, 0), b"").unwrap();
        let new = Tcp::open(&mut rig, CLIENT, VIP);
        let mut new = new.unwrap_or_else(|reason| panic!("{status:?}: {reason}"));
        assert_ne!(new.way.backend, old.way.backend, "{status:?}");
        assert_eq!(new.talks(&mut rig), Ok(()), "{status:?}");

        // One that has forgotten it resets at once (section 3.10.7.1).
        let mut rig = Rig::with(vec![web()]);
        let mut old = Tcp::open(&mut rig, CLIENT, VIP).unwrap();
        old.talks(&mut rig).unwrap();
        status.meets(&mut rig, &old.way.backend.clone());
        let (_, ack) = challenged(&mut rig, &old, 0x7000_0000);
        old.way.down(&mut rig, segment(RST, ack, 0), b"").unwrap();
        let new = Tcp::open(&mut rig, CLIENT, VIP);
        let new = new.unwrap_or_else(|reason| panic!("{status:?}, forgotten: {reason}"));
        assert_ne!(new.way.backend, old.way.backend, "{status:?}, forgotten");
    }
}

#[test]
fn a_syn_on_a_drained_backends_connection_does_not_end_it_by_itself() {
    let mut rig = Rig::with(vec![web()]);
    let mut old = Tcp::open(&mut rig, CLIENT, VIP).unwrap();
    old.talks(&mut rig).unwrap();
    Fate::Is(Draining).meets(&mut rig, &old.way.backend.clone());
    for isn in far_from(old.client_next) {
        challenged(&mut rig, &old, isn);
    }
    rig.later(Duration::from_secs(1800));
    assert_eq!(old.talks(&mut rig), Ok(()), "the SYNs were forged");
}

/// Linux answers such a segment once in half a second, and a stranger may have had that answer.
#[test]
fn forged_syns_of_one_number_do_not_end_a_drained_backends_connection_that_was_idle() {
    for pause in [0, 100, 300, 500, 600, 700, 2500] {
        let mut rig = Rig::with(vec![web()]);
        let mut old = Tcp::open(&mut rig, CLIENT, VIP).unwrap();
        old.talks(&mut rig).unwrap();
        Fate::Is(Draining).meets(&mut rig, &old.way.backend.clone());
        rig.later(Duration::from_secs(60));
        let answer = |rig: &mut Rig, old: &Tcp| {
            old.way.down(rig, segment(ACK, old.backend_next, old.client_next), b"").unwrap();
        };
        let strange = segment(ACK, old.client_next.wrapping_sub(1 << 20), old.backend_next);
        old.way.up(&mut rig, strange, b"").unwrap();
        answer(&mut rig, &old);
        let mut since_answer = 0;
        for _ in 0..8 {
            challenged(&mut rig, &old, 0x7000_0000);
            if since_answer >= 500 {
                answer(&mut rig, &old);
                since_answer = 0;
            }
            rig.later(Duration::from_millis(pause));
            since_answer += pause;
        }
        assert_eq!(old.talks(&mut rig), Ok(()), "{pause} ms apart");
    }
}

#[test]
fn a_client_that_repeats_its_syn_is_rid_of_a_drained_backend_that_says_nothing() {
    let mut rig = Rig::with(vec![web()]);
    let mut old = Tcp::open(&mut rig, CLIENT, VIP).unwrap();
    old.talks(&mut rig).unwrap();
    Fate::Is(Draining).meets(&mut rig, &old.way.backend.clone());
    rig.later(Duration::from_secs(60));
    challenged(&mut rig, &old, 0x7000_0000);
    rig.later(Duration::from_secs(1));
    let syn = old.way.by_client(segment(SYN, 0x7000_0000, 0), b"");
    assert_eq!(rig.verdict(&syn), "opened");
}

#[test]
fn a_syn_that_nobody_has_answered_goes_to_another_backend_when_its_own_is_down() {
    for fate in [Fate::Is(Down), Fate::Removed] {
        let mut rig = Rig::with(vec![web()]);
        let first = Tcp::syn(&mut rig, CLIENT, VIP).unwrap();
        fate.meets(&mut rig, &first.way.backend);
        let second = Tcp::open(&mut rig, CLIENT, VIP);
        let second = second.unwrap_or_else(|reason| panic!("{fate:?}: {reason}"));
        assert_ne!(second.way.backend, first.way.backend, "{fate:?}");
    }
}
