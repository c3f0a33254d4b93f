//! What is probed: every check of every backend of every enabled farm, at each address and port.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::Judgement;
use crate::config::model::{BackendName, Check, Config, Farm, FarmName, Ports};

/// One check at one address and port of one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub farm: FarmName,
    pub backend: BackendName,
    pub address: SocketAddr,
    pub check: Check,
    /// Where clients connect to the farm, for commands that are told it; see [`vip_of`].
    pub vip: Option<SocketAddr>,
    /// What an earlier daemon held of the backend. Looked at only when the target is new to the board.
    pub adopted: Judgement,
}

/// As at the start of a reason: `tcp 10.0.0.11:443`, and `icmp 10.0.0.11` of a check that has no port.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.check.kind.as_str();
        match self.address.port() {
            0 => write!(f, "{kind} {}", self.address.ip()),
            _ => write!(f, "{kind} {}", self.address),
        }
    }
}

/// Every target of `config`. `adopted` says what an earlier daemon held of the backend with this name at this
/// address; a daemon that has been running answers `Starting`, since the board remembers.
pub fn targets(
    config: &Config,
    adopted: impl Fn(&FarmName, &BackendName, IpAddr) -> Judgement,
) -> Vec<Target> {
    let mut targets = Vec::new();
    for farm in config.farms.iter().filter(|farm| farm.enabled) {
        for backend in &farm.backends {
            for address in backend.address.iter() {
                let adopted = adopted(&farm.name, &backend.name, address);
                for check in &farm.checks {
                    targets.extend(check.ports(farm, backend).into_iter().map(|port| {
                        let address = SocketAddr::new(address, port);
                        Target {
                            farm: farm.name.clone(),
                            backend: backend.name.clone(),
                            address,
                            check: check.clone(),
                            vip: vip_of(farm, address),
                            adopted,
                        }
                    }));
                }
            }
        }
    }
    targets
}

/// Where clients connect to a farm, as seen from one of its backends: the first VIP, of the backend's family if there is
/// one, with the backend's port if the farm has it, else with the farm's first.
pub fn vip_of(farm: &Farm, backend: SocketAddr) -> Option<SocketAddr> {
    let vip = farm.vips.iter().find(|vip| vip.is_ipv4() == backend.is_ipv4()).or(farm.vips.first())?;
    let port = match &farm.ports {
        Ports::All => backend.port(),
        ports @ Ports::Ranges(_) => {
            ports.iter().find(|port| *port == backend.port()).or_else(|| ports.iter().next())?
        }
    };
    Some(SocketAddr::new(*vip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{Addresses, Backend, Mode, Protocols, Scheduler, Timeouts};
    use crate::test_config::config_of;

    fn farm(name: &str, backends: Vec<Backend>) -> Farm {
        Farm {
            name: FarmName::new(name).unwrap(),
            vips: vec!["192.0.2.10".parse().unwrap()],
            ports: Ports::Ranges(vec![(80, 80), (587, 588)]),
            protocols: Protocols { tcp: true, udp: false },
            mode: Mode::Nat,
            scheduler: Scheduler::Maglev,
            timeouts: Timeouts::default(),
            enabled: true,
            backends,
            checks: vec![Check::tcp()],
            ..Farm::new(FarmName::new("x").unwrap())
        }
    }

    fn backend(name: &str, v4: Option<&str>, v6: Option<&str>, port: Option<u16>) -> Backend {
        let address =
            Addresses { v4: v4.map(|text| text.parse().unwrap()), v6: v6.map(|text| text.parse().unwrap()) };
        Backend { name: BackendName::new(name).unwrap(), address, port, weight: 1, priority: 0 }
    }

    fn listed(config: &Config) -> Vec<String> {
        let targets = targets(config, |_, _, _| Judgement::Starting);
        targets.iter().map(|target| format!("{} {} {target}", target.farm, target.backend)).collect()
    }

    #[test]
    fn every_address_and_port_of_every_enabled_farm_is_a_target() {
        let both = backend("both", Some("10.0.0.1"), Some("2001:db8::1"), Some(443));
        let ranged = backend("ranged", Some("10.0.0.2"), None, None);
        let disabled = Farm { enabled: false, ..farm("off", vec![ranged.clone()]) };
        let unchecked = Farm { checks: Vec::new(), ..farm("blind", vec![ranged.clone()]) };
        let everything = Farm { ports: Ports::All, ..farm("all", vec![ranged.clone(), both.clone()]) };
        let farms = vec![farm("web", vec![both, ranged]), disabled, unchecked, everything];
        let expected = [
            "web both tcp 10.0.0.1:443",
            "web both tcp [2001:db8::1]:443",
            "web ranged tcp 10.0.0.2:80",
            "web ranged tcp 10.0.0.2:587",
            "web ranged tcp 10.0.0.2:588",
            "all both tcp 10.0.0.1:443",
            "all both tcp [2001:db8::1]:443",
        ];
        assert_eq!(listed(&config_of(farms)), expected);
    }

    #[test]
    fn the_port_of_the_check_comes_before_that_of_the_backend() {
        let mut farm = farm("web", vec![backend("b", Some("10.0.0.1"), None, Some(443))]);
        farm.checks[0].port = Some(8080);
        assert_eq!(listed(&config_of(vec![farm])), ["web b tcp 10.0.0.1:8080"]);
    }

    #[test]
    fn a_ping_goes_to_the_address_and_names_no_port() {
        let mut farm = farm("web", vec![backend("b", Some("10.0.0.1"), None, Some(443))]);
        farm.checks[0].kind = crate::config::model::CheckKind::Icmp;
        assert_eq!(listed(&config_of(vec![farm])), ["web b icmp 10.0.0.1"]);
    }

    #[test]
    fn adoption_is_asked_for_each_address() {
        let both = backend("b", Some("10.0.0.1"), Some("2001:db8::1"), Some(80));
        let targets = targets(&config_of(vec![farm("web", vec![both])]), |_, _, address| {
            if address.is_ipv4() { Judgement::Up } else { Judgement::Down }
        });
        assert_eq!(
            targets.iter().map(|target| target.adopted).collect::<Vec<_>>(),
            [Judgement::Up, Judgement::Down]
        );
    }
}
