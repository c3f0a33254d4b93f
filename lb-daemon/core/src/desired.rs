//! What the maps should hold, in names and addresses: the model, plus health, plus what an operator asked for.

use std::collections::HashMap;
use std::net::IpAddr;

use lb_common::abi::{MappedAddress, NextHop, ServiceKey, WILDCARD_PORT, map_ipv4};
use lb_common::wire::protocol;

use crate::config::model::{Addresses, BackendName, Config, Farm, FarmName, Mode, Ports};
use crate::state::BackendStatus;

/// Where packets for an address go next, for those addresses where it is known.
pub type NextHops = HashMap<IpAddr, NextHop>;

/// What is known of a backend besides its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendFacts {
    pub status: BackendStatus,
    /// The weight in force.
    pub weight: u16,
}

/// Everything the maps should hold, apart from numbers, which [`crate::diff`] gives, and next hops, which follow the
/// neighbours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    pub farms: Vec<DesiredFarm>,
    /// Whether the daemon manages the VIPs' addresses.
    pub manage_vips: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredFarm {
    pub name: FarmName,
    pub source_is_vip: bool,
    pub vips: Vec<MappedAddress>,
    pub services: Vec<ServiceKey>,
    pub backends: Vec<DesiredBackend>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredBackend {
    pub name: BackendName,
    pub address: Addresses,
    /// `None`: the port that the client used.
    pub port: Option<u16>,
    pub weight: u16,
    /// Takes new connections, weight permitting.
    pub serving: bool,
}

impl Desired {
    /// What `config` asks for, with what `facts` says of each backend. A farm that is disabled is not there.
    pub fn of(config: &Config, facts: impl Fn(&FarmName, &BackendName) -> BackendFacts) -> Self {
        let farms = config.farms.iter().filter(|farm| farm.enabled).map(|farm| {
            let backends = farm.backends.iter().map(|backend| {
                let facts = facts(&farm.name, &backend.name);
                DesiredBackend {
                    name: backend.name.clone(),
                    address: backend.address,
                    port: backend.port,
                    weight: facts.weight,
                    serving: facts.status.serves(),
                }
            });
            DesiredFarm {
                name: farm.name.clone(),
                source_is_vip: farm.mode == Mode::Nat,
                vips: farm.vips.iter().map(|&vip| mapped(vip)).collect(),
                services: services(farm),
                backends: backends.collect(),
            }
        });
        Self { farms: farms.collect(), manage_vips: config.daemon.manage_vips }
    }
}

/// An address as the maps' keys have it.
pub fn mapped(address: IpAddr) -> MappedAddress {
    match address {
        IpAddr::V4(v4) => map_ipv4(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn services(farm: &Farm) -> Vec<ServiceKey> {
    let protocols = [(farm.protocols.tcp, protocol::TCP), (farm.protocols.udp, protocol::UDP)];
    let protocols = protocols.into_iter().filter_map(|(wanted, number)| wanted.then_some(number));
    let mut keys = Vec::new();
    for protocol in protocols {
        for &vip in &farm.vips {
            match &farm.ports {
                Ports::All => keys.push(ServiceKey::new(mapped(vip), WILDCARD_PORT, protocol)),
                Ports::Ranges(_) => keys.extend(
                    farm.ports.iter().map(|port| ServiceKey::new(mapped(vip), port.to_be_bytes(), protocol)),
                ),
            }
        }
    }
    keys
}
