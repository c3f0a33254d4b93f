//! What the connection table bears out of a suspicion. The counters say how many handshakes failed, not whose nor at which port:
//! one client that knocks at closed ports looks there like a server that has died. The table still knows the handshakes of the
//! last seconds, each with its client and port.
//!
//! What counts is said by [`Witnesses::bear_out`]. It is no proof against a sender who forges many addresses.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::{SILENCE, Suspicion};

/// So many clients must say the same.
const CLIENTS: usize = 3;
/// What is older says nothing of the present.
const RECENT: Duration = Duration::from_secs(10);

/// What came of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing yet.
    Waiting,
    /// Answered with a SYN-ACK, whatever came after that.
    Answered,
    /// Over without one.
    Refused,
}

/// What the connection table knows of the handshakes with one backend.
#[derive(Debug, Clone, Default)]
pub struct Witnesses {
    /// Ports that have answered, as far as the table remembers.
    answering: HashSet<u16>,
    /// The latest handshake of each client with each port: how long ago it began.
    latest: HashMap<(IpAddr, u16), (Duration, Fate)>,
}

impl Witnesses {
    /// One TCP connection of the table: who came, to which port of the backend, how long ago, and what came of it.
    pub fn note(&mut self, client: IpAddr, port: u16, age: Duration, fate: Fate) {
        if fate == Fate::Answered {
            self.answering.insert(port);
        }
        if age > RECENT {
            return;
        }
        let latest = self.latest.entry((network(client), port)).or_insert((age, fate));
        if age < latest.0 {
            *latest = (age, fate);
        }
    }

    /// Whether clients agree that what is suspected holds: at ports that have answered anybody, the latest handshakes of several
    /// clients fared so, and of more than those who were answered since the first of them.
    pub fn bear_out(&self, suspicion: Suspicion) -> bool {
        let fared = |age: Duration, fate: Fate| match suspicion {
            Suspicion::Silent(_) => fate == Fate::Waiting && age >= SILENCE,
            Suspicion::Resets(_) => fate == Fate::Refused,
            // A client that is connected and hears nothing may have asked nothing.
            Suspicion::Mute(_) => false,
        };
        let heard = || self.latest.iter().filter(|((_, port), _)| self.answering.contains(port));
        let (mut bad, mut since) = (HashSet::new(), Duration::ZERO);
        for ((client, _), (age, fate)) in heard() {
            if fared(*age, *fate) {
                bad.insert(*client);
                since = since.max(*age);
            }
        }
        let well = heard().filter(|(_, (age, fate))| *fate == Fate::Answered && *age < since);
        let well: HashSet<IpAddr> = well.map(|((client, _), _)| *client).collect();
        bad.len() >= CLIENTS && bad.len() > well.len()
    }
}

/// A client, as far as addresses tell clients apart: an IPv6 host has a whole /64 to choose from.
fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::Fate::{Answered, Refused, Waiting};
    use super::*;

    /// A handshake: client, port, age in milliseconds, fate.
    type Row = (&'static str, u16, u64, Fate);

    fn bear_out(rows: &[Row], suspicion: Suspicion) -> bool {
        let mut witnesses = Witnesses::default();
        for &(client, port, age, fate) in rows {
            witnesses.note(client.parse().unwrap(), port, Duration::from_millis(age), fate);
        }
        witnesses.bear_out(suspicion)
    }

    #[test]
    fn several_clients_must_agree_at_ports_that_have_answered() {
        const SERVED: Row = ("10.0.0.99", 80, 60_000, Answered);
        let refused =
            |n: u8, port, age| (["10.0.0.1", "10.0.0.2", "10.0.0.3"][usize::from(n)], port, age, Refused);
        let waiting = |n: u8, age| (["10.0.0.1", "10.0.0.2", "10.0.0.3"][usize::from(n)], 80, age, Waiting);
        let (resets, silent) = (Suspicion::Resets(9), Suspicion::Silent(9));
        let table: &[(&str, Vec<Row>, Suspicion, bool)] = &[
            (
                "a dead server",
                vec![SERVED, refused(0, 80, 100), refused(1, 80, 200), refused(2, 80, 300)],
                resets,
                true,
            ),
            (
                "one client that knocks at closed ports",
                (1..200).map(|port| refused(0, port, 100)).chain([SERVED]).collect(),
                resets,
                false,
            ),
            (
                "three of them",
                (1..200).map(|port| refused((port % 3) as u8, 1000 + port, 100)).chain([SERVED]).collect(),
                resets,
                false,
            ),
            ("one client at a port that answers others", vec![SERVED, refused(0, 80, 100)], resets, false),
            (
                "a port that has answered nobody",
                vec![refused(0, 80, 100), refused(1, 80, 200), refused(2, 80, 300)],
                resets,
                false,
            ),
            ("two of three", vec![SERVED, refused(0, 80, 100), refused(1, 80, 200)], resets, false),
            (
                "too long ago",
                vec![SERVED, refused(0, 80, 100), refused(1, 80, 200), refused(2, 80, 11_000)],
                resets,
                false,
            ),
            (
                "as many were answered meanwhile",
                vec![
                    refused(0, 80, 300),
                    refused(1, 80, 300),
                    refused(2, 80, 300),
                    ("10.0.0.4", 80, 100, Answered),
                    ("10.0.0.5", 80, 100, Answered),
                    ("10.0.0.6", 80, 100, Answered),
                ],
                resets,
                false,
            ),
            (
                "all of them were answered before",
                vec![
                    refused(0, 80, 300),
                    refused(1, 80, 300),
                    refused(2, 80, 300),
                    ("10.0.0.4", 80, 400, Answered),
                    ("10.0.0.5", 80, 400, Answered),
                    ("10.0.0.6", 80, 400, Answered),
                ],
                resets,
                true,
            ),
            (
                "they have come again and were answered",
                vec![
                    refused(0, 80, 300),
                    refused(1, 80, 300),
                    refused(2, 80, 300),
                    ("10.0.0.3", 80, 100, Answered),
                ],
                resets,
                false,
            ),
            ("nobody answers", vec![SERVED, waiting(0, 300), waiting(1, 400), waiting(2, 900)], silent, true),
            (
                "they have only just come",
                vec![SERVED, waiting(0, 300), waiting(1, 400), waiting(2, 200)],
                silent,
                false,
            ),
            (
                "resets are not silence",
                vec![SERVED, refused(0, 80, 400), refused(1, 80, 400), refused(2, 80, 400)],
                silent,
                false,
            ),
            (
                "silence is no reset",
                vec![SERVED, waiting(0, 400), waiting(1, 400), waiting(2, 400)],
                resets,
                false,
            ),
            (
                "who hears nothing may have asked nothing",
                vec![SERVED, waiting(0, 400), waiting(1, 400), waiting(2, 400)],
                Suspicion::Mute(3),
                false,
            ),
            (
                "one host with many addresses",
                vec![
                    ("2001:db8::99", 80, 100, Answered),
                    ("2001:db8::1", 80, 50, Refused),
                    ("2001:db8::2", 80, 50, Refused),
                    ("2001:db8::3", 80, 50, Refused),
                ],
                resets,
                false,
            ),
            (
                "several networks",
                vec![
                    ("2001:db8::99", 80, 100, Answered),
                    ("2001:db8:1::1", 80, 50, Refused),
                    ("2001:db8:2::2", 80, 50, Refused),
                    ("2001:db8:3::3", 80, 50, Refused),
                ],
                resets,
                true,
            ),
        ];
        for (description, rows, suspicion, expected) in table {
            assert_eq!(bear_out(rows, *suspicion), *expected, "{description}");
        }
    }
}
