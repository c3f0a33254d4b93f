//! Who is whom when a configuration takes the place of another: a server under another name is the same server.

use std::collections::BTreeMap;

use super::model::{Backend, BackendName, Config, Farm, FarmName};

/// A backend, by the names of its farm and its own.
pub type Key = (FarmName, BackendName);

/// Who each backend was, by who it is.
pub type Heirs = BTreeMap<Key, Key>;

/// For each backend of an enabled farm of `new`, who it was in `old`, where its farm was enabled: one of the same name, else one
/// whose name is gone, in any case with the same port, and with an address that it still has. A farm that was renamed is known by its
/// ports and checks.
pub fn heirs(old: &Config, new: &Config) -> Heirs {
    let mut heirs = Heirs::new();
    for farm in new.farms.iter().filter(|farm| farm.enabled) {
        let mut taken: Vec<&BackendName> = Vec::new();
        let Some(former) = former_farm(farm, old, new) else { continue };
        for backend in &farm.backends {
            let is_gone = |old: &Backend| farm.backends.iter().all(|other| other.name != old.name);
            let namesake = former.backends.iter().find(|old| old.name == backend.name);
            let renamed = || {
                former
                    .backends
                    .iter()
                    .find(|old| is_gone(old) && !taken.contains(&&old.name) && same(old, backend))
            };
            let Some(was) = namesake.filter(|old| same(old, backend)).or_else(renamed) else { continue };
            taken.push(&was.name);
            let from = (former.name.clone(), was.name.clone());
            heirs.insert((farm.name.clone(), backend.name.clone()), from);
        }
    }
    heirs
}

fn former_farm<'a>(farm: &Farm, old: &'a Config, new: &Config) -> Option<&'a Farm> {
    let former = match old.farm(farm.name.as_str()) {
        Some(namesake) => namesake,
        None => {
            let is_gone = |old: &Farm| new.farm(old.name.as_str()).is_none();
            let alike = |old: &Farm| {
                old.ports == farm.ports
                    && old.checks == farm.checks
                    && farm.backends.iter().any(|backend| old.backends.iter().any(|old| same(old, backend)))
            };
            old.farms.iter().find(|old| is_gone(old) && alike(old))?
        }
    };
    former.enabled.then_some(former)
}

fn same(old: &Backend, new: &Backend) -> bool {
    old.port == new.port && old.address.iter().any(|address| new.address.iter().any(|other| other == address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{Addresses, Check, Ports};
    use crate::test_config::config_of;

    /// `web: a=1 b=2:443` is a farm with two backends at 10.0.0.1 and 10.0.0.2, one of them with a port of its own.
    fn config(farms: &[&str]) -> Config {
        let farm = |line: &&str| {
            let (name, backends) = line.split_once(':').unwrap();
            let backend = |text: &str| {
                let (name, place) = text.split_once('=').unwrap();
                let (host, port) =
                    place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port)));
                Backend {
                    name: BackendName::new(name).unwrap(),
                    address: Addresses { v4: Some([10, 0, 0, host.parse().unwrap()].into()), v6: None },
                    port: port.map(|port| port.parse().unwrap()),
                    weight: 1,
                    priority: 0,
                }
            };
            Farm {
                ports: Ports::Ranges(vec![(80, 80)]),
                checks: vec![Check::tcp()],
                backends: backends.split_whitespace().map(backend).collect(),
                ..Farm::new(FarmName::new(name).unwrap())
            }
        };
        config_of(farms.iter().map(farm).collect())
    }

    fn told(heirs: &Heirs) -> Vec<String> {
        let name = |key: &Key| format!("{}/{}", key.0, key.1);
        heirs.iter().map(|(to, from)| format!("{} {}", name(from), name(to))).collect()
    }

    #[test]
    fn a_server_is_the_same_under_another_name() {
        type Row = (&'static str, &'static [&'static str], &'static [&'static str], &'static [&'static str]);
        let table: &[Row] = &[
            ("nothing new", &["web: a=1 b=2"], &["web: b=2 a=1"], &["web/a web/a", "web/b web/b"]),
            ("a backend was renamed", &["web: a=1 b=2"], &["web: c=1 b=2"], &["web/b web/b", "web/a web/c"]),
            ("a farm was renamed", &["web: a=1"], &["www: a=1"], &["web/a www/a"]),
            ("both were", &["web: a=1 b=2"], &["www: c=1 b=2"], &["web/b www/b", "web/a www/c"]),
            ("names were exchanged", &["web: a=1 b=2"], &["web: b=1 a=2"], &[]),
            ("another address", &["web: a=1"], &["web: a=2"], &[]),
            ("another port", &["web: a=1"], &["web: a=1:443"], &[]),
            (
                "a copy of a farm that stays is another's",
                &["web: a=1"],
                &["web: a=1", "www: a=1"],
                &["web/a web/a"],
            ),
            ("a second one at the same place is new", &["web: a=1"], &["web: b=1 c=1"], &["web/a web/b"]),
        ];
        for (what, old, new, expected) in table {
            assert_eq!(told(&heirs(&config(old), &config(new))), *expected, "{what}");
        }
        let mut disabled = config(&["web: a=1"]);
        disabled.farms[0].enabled = false;
        assert!(heirs(&disabled, &config(&["web: a=1"])).is_empty(), "nobody looked after it");
        let mut other = config(&["www: a=1"]);
        other.farms[0].checks.clear();
        assert!(heirs(&config(&["web: a=1"]), &other).is_empty(), "another farm, by its checks");
    }
}
