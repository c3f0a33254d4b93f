//! What is told of backends, farms and configurations, in sentences.

use lb_core::config::model::{Backend, Farm, FarmName, Ports, WhenAllDown};
use lb_core::config::ports_text;
use lb_core::desired::BackendFacts;
use lb_core::state::{AdminState, EventKind};

use super::BackendKey;
use super::cuts::Down;
use super::operators::Setting;
use super::sweep::Flood;
use super::tell::Told;

/// A backend as FarmGuardian names it: its first address, and its port or the farm's.
pub(super) fn who(farm: &Farm, backend: &Backend) -> String {
    let port = match (backend.port, &farm.ports) {
        (Some(port), _) => port.to_string(),
        (None, Ports::All) => "*".to_owned(),
        (None, Ports::Ranges(_)) => ports_text(&farm.ports).replace(' ', ""),
    };
    match (backend.address.v4, backend.address.v6) {
        (Some(v4), _) => format!("{v4}:{port}"),
        (None, Some(v6)) => format!("[{v6}]:{port}"),
        (None, None) => format!("{}:{port}", backend.name),
    }
}

/// `1 connection`, `5 connections`.
pub(super) fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// `a`, `a and b`, `a, b and 3 more`.
fn list(names: &[&str]) -> String {
    match names {
        [] => "nobody".to_owned(),
        [one] => (*one).to_owned(),
        [one, two] => format!("{one} and {two}"),
        [one, two, rest @ ..] => format!("{one}, {two} and {} more", rest.len()),
    }
}

fn key(farm: &Farm, backend: &Backend) -> BackendKey {
    (farm.name.clone(), backend.name.clone())
}

/// As FarmGuardian says it: `BackEnd 10.0.0.11:443 down in farm: 'exchange'`, and why.
fn phrase(farm: &Farm, backend: &Backend, verb: &str, reason: &str) -> String {
    format!("BackEnd {} {verb} in farm: '{}': {reason}", who(farm, backend), farm.name)
}

/// A backend came up, or `resurrect`ed.
pub(super) fn up((farm, backend): (&Farm, &Backend), verb: &str, reason: &str) -> Told {
    Told::info(EventKind::BackendUp, phrase(farm, backend, verb, reason)).of(&key(farm, backend))
}

pub(super) fn unchecked((farm, backend): (&Farm, &Backend), reason: &str) -> Told {
    let phrase = phrase(farm, backend, "unchecked", reason);
    let message = format!("{phrase}; it goes on as it was last judged");
    Told::warning(EventKind::BackendUnchecked, message).of(&key(farm, backend))
}

/// There is no way to a backend that would serve.
pub(super) fn way_lost((farm, backend): (&Farm, &Backend), reason: &str) -> Told {
    let why = format!("{reason}; it gets no new connections");
    Told::warning(EventKind::NextHop, phrase(farm, backend, "down", &why)).of(&key(farm, backend))
}

/// There is one again.
pub(super) fn way_found((farm, backend): (&Farm, &Backend)) -> Told {
    let phrase = phrase(farm, backend, "resurrect", "its next hop is known");
    Told::info(EventKind::NextHop, phrase).of(&key(farm, backend))
}

/// A backend went down; `facts` are of the farm's backends as they are without it.
pub(super) fn down((farm, backend): (&Farm, &Backend), down: &Down, facts: &[BackendFacts]) -> Told {
    let heirs = farm.backends.iter().zip(facts);
    let heirs = heirs.filter(|(_, facts)| facts.status.serves() && facts.weight > 0);
    let heirs: Vec<&str> = heirs.map(|(backend, _)| backend.name.as_str()).collect();
    let takers = match (&heirs[..], farm.when_all_down) {
        ([], WhenAllDown::Refuse) => "nobody is left: new connections are refused".to_owned(),
        ([], WhenAllDown::TryAll) => "nobody is left: all are tried".to_owned(),
        (heirs, _) => format!("new connections go to {}", list(heirs)),
    };
    let message = format!("{}; {takers}; {}", phrase(farm, backend, "down", &down.reason), down.fate());
    Told::warning(EventKind::BackendDown, message).of(&key(farm, backend))
}

/// The same of one that the configuration no longer has.
pub(super) fn departed_down(down: &Down, who: &str) -> Told {
    let (farm, reason) = (&down.key.0, &down.reason);
    let message = format!(
        "BackEnd {who} down in farm: '{farm}': {reason}; the configuration no longer has it; {}",
        down.fate()
    );
    Told::warning(EventKind::BackendDown, message).of_farm(farm)
}

/// An operator has set something.
pub(super) fn set((farm, backend): (&Farm, &Backend), setting: &Setting) -> Told {
    let Setting { before, after, .. } = setting;
    let weight = after.weight.unwrap_or(backend.weight);
    let what = match (after.admin == before.admin, after.admin) {
        (true, _) => format!("has weight {weight} by an operator"),
        (false, AdminState::Up) => "was put back by an operator".to_owned(),
        (false, AdminState::Drain) => "is drained by an operator: no new connections".to_owned(),
        (false, AdminState::Maintenance) => "was put into maintenance by an operator".to_owned(),
    };
    let message = format!("BackEnd {} in farm: '{}' {what}", who(farm, backend), farm.name);
    Told::info(EventKind::BackendAdmin, message).of(&key(farm, backend))
}

pub(super) fn flood(farm: &FarmName, flood: &Flood) -> Told {
    match flood {
        Flood::Began => {
            let what = "is flooded by half-open connections; newcomers are challenged";
            Told::warning(EventKind::Flood, format!("farm '{farm}' {what}"))
        }
        Flood::Ended => Told::info(EventKind::Flood, format!("farm '{farm}' is no longer flooded")),
    }
    .of_farm(farm)
}

/// An interface that is wanted is not there at the start.
pub(super) fn missing(name: &str) -> Told {
    let message = format!(
        "there is no interface '{name}' (`ip link` lists those that there are): nothing is served by it until it comes"
    );
    Told::error(EventKind::Interface, message)
}

/// A configuration is in force.
pub(super) fn applied(generation: u64, lines: &[String]) -> Told {
    let message = match lines {
        [] => format!("configuration {generation} applied: nothing new"),
        lines => format!("configuration {generation} applied: {}", lines.join("; ")),
    };
    Told::info(EventKind::ConfigApplied, message)
}

#[cfg(test)]
mod tests {
    use lb_core::state::BackendStatus;

    use super::*;
    use crate::daemon::test_config;

    #[test]
    fn who_went_down_is_told_with_who_takes_over_and_what_becomes_of_its_connections() {
        let fact = |status| BackendFacts { status, weight: 1, ramp: 100, failing: false, unreachable: false };
        let (up, gone) = (fact(BackendStatus::Up), fact(BackendStatus::Down));
        let idle = BackendFacts { weight: 0, ..up };
        let message = |keys: &str, facts: [BackendFacts; 2]| {
            let config = test_config::parse(&test_config::web(keys));
            let farm = &config.farms[0];
            let reason = "connection refused".to_owned();
            let fell = Down {
                key: test_config::key("a"),
                reason,
                cut: true,
                connections: 1,
                unfinished: false,
                former: None,
            };
            down((farm, &farm.backends[0]), &fell, &facts).message
        };
        let begin = "BackEnd 10.0.0.1:80 down in farm: 'web': connection refused";
        assert_eq!(message("", [gone, up]), format!("{begin}; new connections go to b; 1 connection cut"));
        let refused = format!("{begin}; nobody is left: new connections are refused; 1 connection cut");
        assert_eq!(message("", [gone, gone]), refused);
        assert_eq!(message("", [gone, idle]), refused, "its weight is 0");
        assert_eq!(
            message("when_all_down = \"try-all\"", [gone, gone]),
            format!("{begin}; nobody is left: all are tried; 1 connection cut")
        );
    }

    #[test]
    fn a_backend_is_named_by_its_address_and_its_port_or_those_of_its_farm() {
        let text = "[[farm]]\nname = \"web\"\nvip = \"2001:db8::1\"\nports = [80, 443]\n\
                    [[farm.backend]]\naddress = \"2001:db8::2\"\n\
                    [[farm.backend]]\naddress = \"2001:db8::3\"\nport = 8080\n";
        let config = test_config::parse(text);
        let farm = &config.farms[0];
        let names: Vec<String> = farm.backends.iter().map(|backend| who(farm, backend)).collect();
        assert_eq!(names, ["[2001:db8::2]:80,443", "[2001:db8::3]:8080"]);
    }

    #[test]
    fn a_long_list_is_cut_short() {
        assert_eq!(list(&["a", "b"]), "a and b");
        assert_eq!(list(&["a", "b", "c", "d"]), "a, b and 2 more");
    }
}
