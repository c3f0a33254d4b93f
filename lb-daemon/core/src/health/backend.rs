//! What the targets of a backend say of the backend.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use super::{Judgement, Machine, Target, TargetId};

/// What is held of a backend, why, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub status: Judgement,
    /// In words; of a backend that is down those of the target that went down first.
    pub reason: String,
    pub since: Instant,
}

/// A backend's targets, sorted by what is held of them: a result costs O(log n) of the number of targets.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// In the configuration's order.
    all: Vec<TargetId>,
    starting: BTreeSet<TargetId>,
    /// By since when.
    down: BTreeSet<(Instant, TargetId)>,
    /// By since when.
    unchecked: BTreeSet<(Instant, TargetId)>,
    /// Up by what was held before: no probe has passed yet.
    unproven: BTreeSet<TargetId>,
    /// How many targets are up or unchecked at each address.
    up_at: BTreeMap<IpAddr, usize>,
}

impl Tally {
    pub fn targets(&self) -> &[TargetId] {
        &self.all
    }

    pub fn add(&mut self, id: TargetId, target: &Target, machine: &Machine) {
        self.all.push(id);
        self.up_at.entry(target.address.ip()).or_default();
        self.enter(id, target, machine);
    }

    /// A target that is up has passed a probe.
    pub fn prove(&mut self, id: TargetId) {
        self.unproven.remove(&id);
    }

    /// A target's judgement was `before`, since then, and is what the machine says now.
    pub fn turn(&mut self, id: TargetId, target: &Target, before: (Judgement, Instant), machine: &Machine) {
        match before.0 {
            Judgement::Starting => {
                self.starting.remove(&id);
            }
            Judgement::Down => {
                self.down.remove(&(before.1, id));
            }
            Judgement::Up => self.prove(id),
            Judgement::Unchecked => {
                self.unchecked.remove(&(before.1, id));
            }
        }
        if before.0.serves()
            && let Some(up) = self.up_at.get_mut(&target.address.ip())
        {
            *up = up.saturating_sub(1);
        }
        self.enter(id, target, machine);
    }

    fn enter(&mut self, id: TargetId, target: &Target, machine: &Machine) {
        let (judgement, since) = (machine.judgement(), machine.since());
        match judgement {
            Judgement::Starting => {
                self.starting.insert(id);
            }
            Judgement::Down => {
                self.down.insert((since, id));
            }
            Judgement::Up if machine.is_confirmed() => {}
            Judgement::Up => {
                self.unproven.insert(id);
            }
            Judgement::Unchecked => {
                self.unchecked.insert((since, id));
            }
        }
        if judgement.serves() {
            *self.up_at.entry(target.address.ip()).or_default() += 1;
        }
    }

    /// Judges the backend by its targets: down if any is down, up if all are up, unchecked if all that are not up are that, else
    /// starting.
    ///
    /// A backend that is up and gets another target (a port is added to its farm) goes on serving until that target is
    /// judged, as long as each of its addresses has a target that is up. Taking it out for the time of one probe would
    /// interrupt a service that works, and on all backends at once.
    pub fn judge(
        &self,
        before: Option<&Health>,
        look: impl Fn(TargetId) -> Option<String>,
        now: Instant,
    ) -> Health {
        let words = |id: TargetId| look(id).unwrap_or_default();
        let served = before.filter(|health| health.status.serves());
        let unchecked = || self.unchecked.first().map(|&(_, first)| (Judgement::Unchecked, words(first)));
        let (status, reason) = if let Some(&(_, first_down)) = self.down.first() {
            (Judgement::Down, words(first_down))
        } else if let Some(&unjudged) = self.starting.first() {
            match served.filter(|_| self.up_at.values().all(|&up| up > 0)) {
                Some(health) => unchecked().unwrap_or_else(|| match health.status {
                    Judgement::Up => (Judgement::Up, health.reason.clone()),
                    Judgement::Starting | Judgement::Down | Judgement::Unchecked => {
                        (Judgement::Up, "the checks that have come to an end pass".to_owned())
                    }
                }),
                None => (Judgement::Starting, words(unjudged)),
            }
        } else if let Some(unchecked) = unchecked() {
            unchecked
        } else {
            let reason = match *self.all.as_slice() {
                [only] => words(only),
                // The same words until the last one has passed: each report costs.
                _ if !self.unproven.is_empty() => {
                    format!("not all {} checks have passed yet; it was up before", self.all.len())
                }
                _ => format!("all {} checks pass", self.all.len()),
            };
            (Judgement::Up, reason)
        };
        let since = match before {
            Some(health) if health.status == status => health.since,
            Some(_) | None => now,
        };
        Health { status, reason, since }
    }
}

/// What a target says of its backend.
pub(super) fn words(target: &Target, machine: &Machine) -> String {
    format!("{target}: {}", machine.reason())
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
            vip: None,
            adopted: Judgement::Starting,
        }
    }

    /// `s` starting, `u` up, `d` down, `x` unchecked; the later in the list, the later it was judged.
    fn state(spec: &[(&str, char)], origin: Instant) -> Vec<(Target, Machine)> {
        spec.iter()
            .enumerate()
            .map(|(place, &(address, letter))| {
                let now = origin + Duration::from_secs(place as u64);
                let mut machine = Machine::new(1, 1, now);
                match letter {
                    'u' => machine.handle_result(&Outcome::passed("connected"), now),
                    'x' => {
                        machine.handle_result(&Outcome::passed("connected"), now);
                        machine.handle_untried("no fork");
                        machine.handle_overdue(now)
                    }
                    'd' => machine.handle_result(&Outcome::failed("connection refused"), now),
                    _ => None,
                };
                (target(address), machine)
            })
            .collect()
    }

    #[test]
    fn a_backend_is_judged_by_all_its_targets() {
        use Judgement::{Down, Starting, Unchecked, Up};
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
            (
                "one is unchecked",
                Some(Up),
                &[(a, 'u'), (b, 'x')],
                Unchecked,
                "tcp 10.0.0.11:443: cannot be checked: no fork",
            ),
            (
                "down beats unchecked",
                Some(Up),
                &[(a, 'x'), (b, 'd')],
                Down,
                "tcp 10.0.0.11:443: connection refused",
            ),
            (
                "another port of one that is unchecked",
                Some(Unchecked),
                &[(a, 'x'), (b, 's')],
                Unchecked,
                "tcp 10.0.0.11:80: cannot be checked: no fork",
            ),
            (
                "another address of one that is unchecked",
                Some(Unchecked),
                &[(a, 'x'), (v6, 's')],
                Starting,
                "tcp [2001:db8::11]:80: not checked yet",
            ),
            (
                "checked again, with another port to come",
                Some(Unchecked),
                &[(a, 'u'), (b, 's')],
                Up,
                "the checks that have come to an end pass",
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
            let mut tally = Tally::default();
            for (id, (target, machine)) in (0..).map(TargetId).zip(&targets) {
                tally.add(id, target, machine);
            }
            let look = |id: TargetId| {
                let (target, machine) = targets.get(usize::try_from(id.0).unwrap())?;
                Some(words(target, machine))
            };
            let health = tally.judge(before.as_ref(), look, now);
            assert_eq!((health.status, health.reason.as_str()), (*status, *reason), "{description}");
            let kept = before.is_some_and(|before| before.status == *status);
            assert_eq!(health.since, if kept { origin } else { now }, "{description}");
        }
    }
}
