//! Who goes when a configuration takes the place of another: backends, which may still have connections, and VIPs, to which
//! somebody may still speak.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::config::model::{Backend, Config, Farm};
use crate::health::Judgement;

/// Whether `config` has the same server in the same farm, and uses it.
pub fn stays(config: &Config, farm: &Farm, backend: &Backend) -> bool {
    config.farm(farm.name.as_str()).is_some_and(|farm| {
        let same = |other: &Backend| {
            other.name == backend.name && other.address == backend.address && other.port == backend.port
        };
        farm.enabled && farm.backends.iter().any(same)
    })
}

/// The backends of `old` that do not stay.
pub fn leavers<'a>(old: &'a Config, new: &'a Config) -> impl Iterator<Item = (&'a Farm, &'a Backend)> {
    let pairs = old.farms.iter().flat_map(|farm| farm.backends.iter().map(move |backend| (farm, backend)));
    pairs.filter(|(farm, backend)| !stays(new, farm, backend))
}

/// The VIPs that a configuration uses.
pub fn vips(config: &Config) -> BTreeSet<IpAddr> {
    config.farms.iter().filter(|farm| farm.enabled).flat_map(|farm| farm.vips.iter().copied()).collect()
}

/// The VIPs that `old` uses and `new` does not.
pub fn gone(old: &Config, new: &Config) -> Vec<IpAddr> {
    let there = vips(new);
    vips(old).into_iter().filter(|vip| !there.contains(vip)).collect()
}

/// Whether one who has left goes down by a report, so that its connections are cut: once, as it has none that could come back.
pub fn falls(is_down: bool, reported: Judgement) -> bool {
    !is_down && reported == Judgement::Down
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{Addresses, BackendName, FarmName};
    use crate::test_config::config_of;

    fn backend(name: &str, last: u8) -> Backend {
        let address = Addresses { v4: Some([10, 0, 0, last].into()), v6: None };
        Backend::new(BackendName::new(name).unwrap(), address)
    }

    fn config(change: impl FnOnce(&mut Farm)) -> Config {
        let mut farm = Farm::new(FarmName::new("web").unwrap());
        farm.vips = vec!["192.0.2.10".parse().unwrap()];
        farm.backends = vec![backend("a", 1), backend("b", 2)];
        change(&mut farm);
        config_of(vec![farm])
    }

    #[test]
    fn a_server_leaves_when_its_name_address_port_or_farm_is_no_longer_there() {
        let old = config(|_| {});
        type Change = fn(&mut Farm);
        let table: [(Change, &[&str]); 8] = [
            (|_| {}, &[]),
            (|farm| farm.backends[0].weight = 7, &[]),
            (|farm| farm.backends.reverse(), &[]),
            (|farm| farm.backends.truncate(1), &["b"]),
            (|farm| farm.backends[0] = backend("a", 3), &["a"]),
            (|farm| farm.backends[1].port = Some(80), &["b"]),
            (|farm| farm.enabled = false, &["a", "b"]),
            (|farm| farm.name = FarmName::new("mail").unwrap(), &["a", "b"]),
        ];
        for (index, (change, expected)) in table.into_iter().enumerate() {
            let new = config(change);
            let left: Vec<&str> = leavers(&old, &new).map(|(_, backend)| backend.name.as_str()).collect();
            assert_eq!(left, expected, "change {index}");
        }
    }

    #[test]
    fn a_disabled_farm_uses_no_vip() {
        assert_eq!(vips(&config(|_| {})).len(), 1);
        assert_eq!(vips(&config(|farm| farm.enabled = false)).len(), 0);
    }

    #[test]
    fn who_has_left_falls_once() {
        use Judgement::{Down, Starting, Unchecked, Up};
        for (is_down, reported, expected) in [
            (false, Down, true),
            (true, Down, false),
            (false, Up, false),
            (true, Up, false),
            (false, Starting, false),
            (false, Unchecked, false),
        ] {
            assert_eq!(falls(is_down, reported), expected, "{is_down} {reported:?}");
        }
    }
}
