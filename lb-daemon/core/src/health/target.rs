//! What is probed: every check of every backend of every enabled farm, at each address and port.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::config::model::{BackendName, Check, CheckKind, Config, FarmName};

/// One check at one address and port of one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub farm: FarmName,
    pub backend: BackendName,
    pub address: SocketAddr,
    pub check: Check,
    /// Whether an earlier daemon held the backend to be up. Looked at only when the target is new to the board.
    pub adopted: bool,
}

/// As at the start of a reason: `tcp 10.0.0.11:443`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.check.kind {
            CheckKind::Tcp => "tcp",
        };
        write!(f, "{kind} {}", self.address)
    }
}

/// Every target of `config`. `adopted` says whether an earlier daemon held the backend with this name at this
/// address to be up; a daemon that has been running answers `false`, since the board remembers.
pub fn targets(config: &Config, adopted: impl Fn(&FarmName, &BackendName, IpAddr) -> bool) -> Vec<Target> {
    let mut targets = Vec::new();
    for farm in config.farms.iter().filter(|farm| farm.enabled) {
        for backend in &farm.backends {
            for address in backend.address.iter() {
                let adopted = adopted(&farm.name, &backend.name, address);
                for check in &farm.checks {
                    targets.extend(check.ports(farm, backend).into_iter().map(|port| Target {
                        farm: farm.name.clone(),
                        backend: backend.name.clone(),
                        address: SocketAddr::new(address, port),
                        check: check.clone(),
                        adopted,
                    }));
                }
            }
        }
    }
    targets
}
