//! What the maps should hold, in names and addresses: the model, plus health, plus what an operator asked for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use lb_common::abi::{
    BACKEND_SERVES, BACKEND_TRIED, BACKEND_UNCHECKED, MappedAddress, NextHop, Rules, ServiceKey,
    TICK_MILLISECONDS, TimeoutTicks, WILDCARD_PORT, map_ipv4,
};
use lb_common::wire::protocol;

use crate::config::model::{
    Addresses, Affinity, BackendName, Config, Echo, Farm, FarmName, Limits, Mode, Ports, Scheduler, Timeouts,
    WhenAllDown,
};
use crate::health::Judgement;
use crate::state::BackendStatus;

/// Where packets for an address go next, for those addresses where it is known.
pub type NextHops = HashMap<IpAddr, NextHop>;

/// Own addresses and sizes on the ways to addresses, for those where they are known.
pub type Paths = HashMap<IpAddr, Path>;

/// A way to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// This host's own address on it; of the same family.
    pub source: IpAddr,
    /// Bytes of the largest packet that it carries.
    pub mtu: u32,
}

/// What is known of a backend besides its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendFacts {
    pub status: BackendStatus,
    /// The weight in force.
    pub weight: u16,
    /// How much of its weight counts, in percent: less than 100 while it starts slowly.
    pub ramp: u8,
    /// Its checks fail, whatever an operator has set: one that is drained may be dead, and one that is ejected may live.
    pub failing: bool,
    /// No way leads to it by which its farm's mode could send packets.
    pub unreachable: bool,
}

/// Lets only the healthy backends of the lowest priority number serve; the other healthy ones stand by. `facts` are of the
/// farm's backends, in order.
pub fn rank(farm: &Farm, facts: &mut [BackendFacts]) {
    let serves = |facts: &BackendFacts| facts.status.serves() && facts.weight > 0;
    let pairs = farm.backends.iter().zip(facts.iter());
    let best = pairs.filter(|(_, facts)| serves(facts)).map(|(backend, _)| backend.priority).min();
    for (backend, facts) in farm.backends.iter().zip(facts) {
        if facts.status.serves() && best.is_some_and(|best| backend.priority > best) {
            facts.status = BackendStatus::Standby;
        }
    }
}

/// Whether each backend takes new connections (its weight permitting): those that serve; or, if nobody does and the farm wants
/// to try all, those that are down.
fn serving(farm: &Farm, facts: &[BackendFacts]) -> Vec<bool> {
    let serves = |facts: &BackendFacts| facts.status.serves();
    let starting = facts.iter().any(|facts| facts.status == BackendStatus::Starting);
    if farm.when_all_down == WhenAllDown::TryAll && !starting && !facts.iter().any(serves) {
        return facts.iter().map(|facts| facts.status == BackendStatus::Down && !facts.unreachable).collect();
    }
    facts.iter().map(serves).collect()
}

/// Everything the maps should hold, apart from numbers, which [`crate::diff`] gives, and next hops, which follow the
/// neighbours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    pub farms: Vec<DesiredFarm>,
    /// Whether the daemon manages the VIPs' addresses.
    pub manage_vips: bool,
    /// VIPs that were taken away a short while ago: those who still speak to them are told.
    pub former_vips: Vec<MappedAddress>,
    /// The ways to backends, former ones among them. Of one that is not here the maps keep what they hold.
    pub paths: Paths,
    /// Addresses that the daemon has put in place and not taken away yet, wanted or not: the next daemon may have to.
    pub leaving_vips: Vec<MappedAddress>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredFarm {
    pub name: FarmName,
    pub mode: Mode,
    pub gue_port: u16,
    pub scheduler: Scheduler,
    /// What of a client's address counts, and how long it keeps its backend.
    pub rules: Rules,
    /// Clients are told when nobody serves.
    pub refuse: bool,
    /// Its VIPs answer who asks them for an echo.
    pub echo: bool,
    /// The [number](crate::config::model::Lists::id) of its lists, which the maps hold already; 0: it has none.
    pub list: u64,
    pub limits: Limits,
    pub timeouts: TimeoutTicks,
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
    /// In hundredths of the configuration's.
    pub weight: u32,
    /// Takes new connections, weight permitting.
    pub serving: bool,
    /// Why it does, if it does.
    pub ground: Ground,
    /// Not known to be down.
    pub lives: bool,
    /// Packets are not to take the way that leads to it.
    pub unreachable: bool,
    /// Goes on to get the clients that it had, where the farm has affinity: it takes connections, or is drained and lives.
    pub returns: bool,
}

/// Why a backend takes new connections. The next daemon learns it from the maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ground {
    /// Its checks hold it to be up.
    #[default]
    Checked,
    /// Nobody checks it, or it cannot be checked now.
    Unchecked,
    /// It is down, nobody is left, and the farm tries all.
    Tried,
}

/// What a daemon holds of a backend that stands in the maps with `flags`, before it has checked it.
pub fn adopted(flags: u16) -> Judgement {
    let has = |flag: u16| flags & flag != 0;
    if !has(BACKEND_SERVES) {
        Judgement::Starting
    } else if has(BACKEND_TRIED) {
        Judgement::Down
    } else if has(BACKEND_UNCHECKED) {
        Judgement::Unchecked
    } else {
        Judgement::Up
    }
}

impl DesiredBackend {
    /// Takes new connections: its farm's table names it.
    pub fn takes(&self) -> bool {
        self.serving && self.weight > 0
    }
}

impl Desired {
    /// What `config` asks for, with what `facts` says of each farm's backends, in order and ranked. A farm that is disabled
    /// is not there.
    pub fn of(config: &Config, facts: impl Fn(&Farm) -> Vec<BackendFacts>) -> Self {
        let farms = config.farms.iter().filter(|farm| farm.enabled).map(|farm| {
            let facts = facts(farm);
            let serving = serving(farm, &facts);
            let backends = farm.backends.iter().zip(facts).zip(serving).map(|((backend, facts), serving)| {
                DesiredBackend {
                    name: backend.name.clone(),
                    address: backend.address,
                    port: backend.port,
                    weight: u32::from(facts.weight) * u32::from(facts.ramp),
                    serving,
                    ground: match facts.status {
                        BackendStatus::Unchecked => Ground::Unchecked,
                        BackendStatus::Down => Ground::Tried,
                        BackendStatus::Up
                        | BackendStatus::Starting
                        | BackendStatus::Draining
                        | BackendStatus::Maintenance
                        | BackendStatus::Standby => Ground::Checked,
                    },
                    // One that the traffic has ejected may live: nobody who is with it is sent away.
                    // One that is tried in the hope that it lives is held to live.
                    lives: serving || !facts.failing,
                    unreachable: facts.unreachable,
                    returns: serving && facts.weight > 0
                        || facts.status == BackendStatus::Draining && !facts.failing,
                }
            });
            let backends: Vec<_> = backends.collect();
            DesiredFarm {
                name: farm.name.clone(),
                mode: farm.mode,
                gue_port: farm.gue_port,
                scheduler: farm.scheduler,
                rules: rules(farm.affinity),
                refuse: farm.when_all_down == WhenAllDown::Refuse,
                echo: match farm.echo {
                    Echo::Up => backends.iter().any(DesiredBackend::takes),
                    Echo::Always => true,
                    Echo::Never => false,
                },
                list: farm.lists.id(),
                limits: farm.limits,
                timeouts: ticks(&farm.timeouts),
                vips: farm.vips.iter().map(|&vip| mapped(vip)).collect(),
                services: services(farm),
                backends,
            }
        });
        let manage_vips = config.daemon.manage_vips;
        Self { farms: farms.collect(), manage_vips, ..Self::default() }
    }
}

/// An address as the maps' keys have it.
pub fn mapped(address: IpAddr) -> MappedAddress {
    match address {
        IpAddr::V4(v4) => map_ipv4(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Time-outs as the data plane counts them. No connection is idle for shorter than it may.
pub fn ticks(timeouts: &Timeouts) -> TimeoutTicks {
    TimeoutTicks {
        syn: whole_ticks(timeouts.syn),
        established: whole_ticks(timeouts.established),
        half_closed: whole_ticks(timeouts.half_closed),
        fin: whole_ticks(timeouts.fin),
        udp: whole_ticks(timeouts.udp),
    }
}

fn rules(affinity: Option<Affinity>) -> Rules {
    let Affinity { timeout, prefix_v4, prefix_v6 } = affinity.unwrap_or_default();
    Rules { affinity: affinity.map_or(0, |_| whole_ticks(timeout)), ..Rules::new(prefix_v4, prefix_v6) }
}

/// The longest duration of a configuration is 30 days.
fn whole_ticks(duration: Duration) -> u32 {
    let ticks = duration.as_millis().div_ceil(u128::from(TICK_MILLISECONDS));
    u32::try_from(ticks).unwrap_or(u32::MAX).max(1)
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

#[cfg(test)]
#[path = "desired_tests.rs"]
mod tests;
