//! What the targets of a backend say of the backend.

use std::net::IpAddr;
use std::time::Instant;

use super::{Judgement, Machine, Target};

/// What is held of a backend, why, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub status: Judgement,
    /// In words; of a backend that is down those of the target that went down first.
    pub reason: String,
    pub since: Instant,
}

/// Judges a backend by its targets: down if any is down, up if all are up, else starting.
///
/// A backend that is up and gets another target (a port is added to its farm) goes on serving until that target is
/// judged, as long as each of its addresses has a target that is up. Taking it out for the time of one probe would
/// interrupt a service that works, and on all backends at once.
pub(super) fn judge<'a>(
    before: Option<&Health>,
    targets: impl Iterator<Item = (&'a Target, &'a Machine)> + Clone,
    now: Instant,
) -> Health {
    let of = |judgement| targets.clone().filter(move |(_, machine)| machine.judgement() == judgement);
    let first_down = of(Judgement::Down).min_by_key(|(_, machine)| machine.since());
    let first_unjudged = of(Judgement::Starting).next();
    let was_up = before.is_some_and(|health| health.status == Judgement::Up);
    let (status, reason) = match (first_down, first_unjudged) {
        (Some((target, machine)), _) => (Judgement::Down, words(target, machine)),
        (None, Some((target, machine))) => {
            let address_is_up = |address: IpAddr| of(Judgement::Up).any(|(t, _)| t.address.ip() == address);
            if was_up && targets.clone().all(|(target, _)| address_is_up(target.address.ip())) {
                (Judgement::Up, before.map_or_else(String::new, |health| health.reason.clone()))
            } else {
                (Judgement::Starting, words(target, machine))
            }
        }
        (None, None) => (Judgement::Up, up_words(targets.clone())),
    };
    let since = match before {
        Some(health) if health.status == status => health.since,
        Some(_) | None => now,
    };
    Health { status, reason, since }
}

fn words(target: &Target, machine: &Machine) -> String {
    format!("{target}: {}", machine.reason())
}

fn up_words<'a>(mut targets: impl Iterator<Item = (&'a Target, &'a Machine)> + Clone) -> String {
    let count = targets.clone().count();
    match (targets.next(), count) {
        (Some((target, machine)), 1) => words(target, machine),
        (Some(_) | None, _) => format!("all {count} checks pass"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::model::{BackendName, Check, FarmName};
    use crate::health::Outcome;

    fn target(address: &str) -> Target {
        Target {
            farm: FarmName::new("web").unwrap(),
            backend: BackendName::new("b").unwrap(),
            address: address.parse().unwrap(),
            check: Check::tcp(),
            adopted: false,
        }
    }

    /// `s` starting, `u` up, `d` down; the later in the list, the later it was judged.
    fn state(spec: &[(&str, char)], origin: Instant) -> Vec<(Target, Machine)> {
        spec.iter()
            .enumerate()
            .map(|(place, &(address, letter))| {
                let now = origin + Duration::from_secs(place as u64);
                let mut machine = Machine::new(1, 1, now);
                match letter {
                    'u' => machine.handle_result(&Outcome::passed("connected"), now),
                    'd' => machine.handle_result(&Outcome::failed("connection refused"), now),
                    _ => None,
                };
                (target(address), machine)
            })
            .collect()
    }

    #[test]
    fn a_backend_is_judged_by_all_its_targets() {
        use Judgement::{Down, Starting, Up};
        let (a, b, v6) = ("10.0.0.11:80", "10.0.0.11:443", "[2001:db8::11]:80");
        type Row<'a> = (&'a str, Option<Judgement>, &'a [(&'a str, char)], Judgement, &'a str);
        let table: &[Row] = &[
            ("fresh", None, &[(a, 's')], Starting, "tcp 10.0.0.11:80: not checked yet"),
            (
                "one of two unjudged",
                None,
                &[(a, 'u'), (b, 's')],
                Starting,
                "tcp 10.0.0.11:443: not checked yet",
            ),
            ("the only one is up", None, &[(a, 'u')], Up, "tcp 10.0.0.11:80: connected"),
            ("all are up", Some(Starting), &[(a, 'u'), (b, 'u'), (v6, 'u')], Up, "all 3 checks pass"),
            ("one is down", Some(Up), &[(a, 'u'), (b, 'd')], Down, "tcp 10.0.0.11:443: connection refused"),
            (
                "down beats unjudged",
                None,
                &[(a, 's'), (v6, 'd')],
                Down,
                "tcp [2001:db8::11]:80: connection refused",
            ),
            (
                "the first to fall speaks",
                Some(Down),
                &[(b, 'd'), (a, 'd')],
                Down,
                "tcp 10.0.0.11:443: connection refused",
            ),
            ("another port keeps an up backend up", Some(Up), &[(a, 'u'), (b, 's')], Up, "before"),
            (
                "another address does not",
                Some(Up),
                &[(a, 'u'), (v6, 's')],
                Starting,
                "tcp [2001:db8::11]:80: not checked yet",
            ),
            (
                "another port does not bring a starting one up",
                Some(Starting),
                &[(a, 'u'), (b, 's')],
                Starting,
                "tcp 10.0.0.11:443: not checked yet",
            ),
        ];
        let origin = Instant::now();
        let now = origin + Duration::from_secs(60);
        for (description, before, spec, status, reason) in table {
            let before = before.map(|status| Health { status, reason: "before".into(), since: origin });
            let targets = state(spec, origin);
            let health = judge(before.as_ref(), targets.iter().map(|(t, m)| (t, m)), now);
            assert_eq!((health.status, health.reason.as_str()), (*status, *reason), "{description}");
            let kept = before.is_some_and(|before| before.status == *status);
            assert_eq!(health.since, if kept { origin } else { now }, "{description}");
        }
    }
}
