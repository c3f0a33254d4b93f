//! Desired states, and random changes of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::abi::{NextHop, Rules, ServiceKey, TimeoutTicks};
use lb_core::config::model::{Addresses, BackendName, FarmName, Limits, Mode, Over, Scheduler, Word as _};
use lb_core::desired::{Desired, DesiredBackend, DesiredFarm, Ground, NextHops, Path, Paths, mapped};
use proptest::prelude::*;

const FARMS: usize = 4;
const BACKENDS: usize = 5;
const ADDRESSES: usize = 6;
const SERVICES: usize = 12;

#[derive(Debug, Clone)]
pub struct Backend {
    address: usize,
    port: Option<u16>,
    weight: u32,
    serving: bool,
    lives: bool,
}

/// One change of what is wanted; farms, backends and services by their place in small pools.
#[derive(Debug, Clone)]
pub enum Edit {
    AddFarm {
        farm: usize,
        mode: Mode,
        backends: Vec<Option<Backend>>,
    },
    RemoveFarm(usize),
    /// Unless there is one of that name.
    RenameFarm {
        from: usize,
        to: usize,
    },
    Mode {
        farm: usize,
        mode: Mode,
    },
    /// The scheduler, by its place among their words, and how much of an address counts.
    Scheduler {
        farm: usize,
        scheduler: usize,
        prefix: u8,
        affinity: u32,
    },
    /// The number of its list; 0: it has none.
    List {
        farm: usize,
        list: u64,
    },
    /// The time-out of everything, in ticks.
    Timeout {
        farm: usize,
        ticks: u32,
    },
    Backend {
        farm: usize,
        backend: usize,
        to: Option<Backend>,
    },
    Serving {
        farm: usize,
        backend: usize,
        serving: bool,
    },
    Service {
        service: usize,
        farm: Option<usize>,
    },
    Hop {
        address: usize,
        hop: Option<u8>,
    },
    Managed(bool),
    Reverse,
}

fn backend() -> impl Strategy<Value = Backend> {
    (
        0..ADDRESSES,
        prop_oneof![Just(None), Just(Some(80)), Just(Some(8443))],
        0..=3u16,
        prop::bool::weighted(0.8),
        any::<bool>(),
    )
        .prop_map(|(address, port, weight, serving, lives)| Backend {
            address,
            port,
            weight: u32::from(weight),
            serving,
            lives: serving || lives,
        })
}

fn mode() -> impl Strategy<Value = Mode> {
    prop::sample::select(vec![Mode::Nat, Mode::Dnat, Mode::Dsr, Mode::Ipip, Mode::Gue])
}

pub fn edit() -> impl Strategy<Value = Edit> {
    let farm = 0..FARMS;
    let some = || prop::option::weighted(0.7, backend());
    prop_oneof![
        6 => (farm.clone(), mode(), prop::collection::vec(some(), BACKENDS))
            .prop_map(|(farm, mode, backends)| Edit::AddFarm { farm, mode, backends }),
        1 => (farm.clone(), 1..4u32).prop_map(|(farm, ticks)| Edit::Timeout { farm, ticks }),
        3 => (farm.clone(), 0..4u64).prop_map(|(farm, list)| Edit::List { farm, list }),
        1 => farm.clone().prop_map(Edit::RemoveFarm),
        1 => (farm.clone(), farm.clone()).prop_map(|(from, to)| Edit::RenameFarm { from, to }),
        1 => (farm.clone(), mode()).prop_map(|(farm, mode)| Edit::Mode { farm, mode }),
        2 => (farm.clone(), 0..Scheduler::WORDS.len(), 0..=32u8, 0..3u32)
            .prop_map(|(farm, scheduler, prefix, affinity)| Edit::Scheduler { farm, scheduler, prefix, affinity }),
        4 => (farm.clone(), 0..BACKENDS, some())
            .prop_map(|(farm, backend, to)| Edit::Backend { farm, backend, to }),
        4 => (farm.clone(), 0..BACKENDS, any::<bool>())
            .prop_map(|(farm, backend, serving)| Edit::Serving { farm, backend, serving }),
        12 => (0..SERVICES, prop::option::weighted(0.8, farm))
            .prop_map(|(service, farm)| Edit::Service { service, farm }),
        3 => (0..ADDRESSES, prop::option::weighted(0.8, 1..4u8))
            .prop_map(|(address, hop)| Edit::Hop { address, hop }),
        1 => any::<bool>().prop_map(Edit::Managed),
        1 => Just(Edit::Reverse),
    ]
}

#[derive(Debug, Clone)]
struct Farm {
    mode: Mode,
    scheduler: Scheduler,
    prefix: u8,
    affinity: u32,
    timeout: u32,
    list: u64,
    backends: BTreeMap<usize, Backend>,
}

#[derive(Debug, Clone, Default)]
pub struct Wanted {
    farms: BTreeMap<usize, Farm>,
    services: BTreeMap<usize, usize>,
    hops: BTreeMap<usize, u8>,
    managed: bool,
    reversed: bool,
}

impl Wanted {
    pub fn edit(&mut self, edit: &Edit) {
        match edit {
            Edit::AddFarm { farm, mode, backends } => {
                let backends = backends.iter().cloned().enumerate();
                let backends = backends.filter_map(|(index, backend)| Some((index, backend?))).collect();
                let scheduler = Scheduler::Maglev;
                let new =
                    Farm { mode: *mode, scheduler, prefix: 32, affinity: 0, timeout: 1, list: 0, backends };
                self.farms.insert(*farm, new);
            }
            Edit::RemoveFarm(farm) => {
                self.farms.remove(farm);
            }
            Edit::RenameFarm { from, to } => {
                if !self.farms.contains_key(to)
                    && let Some(farm) = self.farms.remove(from)
                {
                    self.farms.insert(*to, farm);
                    self.services.values_mut().filter(|farm| *farm == from).for_each(|farm| *farm = *to);
                }
            }
            Edit::Mode { farm, mode } => {
                if let Some(farm) = self.farms.get_mut(farm) {
                    farm.mode = *mode;
                }
            }
            Edit::Scheduler { farm, scheduler, prefix, affinity } => {
                if let Some(farm) = self.farms.get_mut(farm) {
                    farm.scheduler = Scheduler::WORDS[*scheduler].1;
                    (farm.prefix, farm.affinity) = (*prefix, *affinity);
                }
            }
            Edit::List { farm, list } => {
                if let Some(farm) = self.farms.get_mut(farm) {
                    farm.list = *list;
                }
            }
            Edit::Timeout { farm, ticks } => {
                if let Some(farm) = self.farms.get_mut(farm) {
                    farm.timeout = *ticks;
                }
            }
            Edit::Backend { farm, backend, to } => {
                if let Some(farm) = self.farms.get_mut(farm) {
                    match to {
                        Some(to) => drop(farm.backends.insert(*backend, to.clone())),
                        None => drop(farm.backends.remove(backend)),
                    }
                }
            }
            Edit::Serving { farm, backend, serving } => {
                if let Some(farm) = self.farms.get_mut(farm)
                    && let Some(backend) = farm.backends.get_mut(backend)
                {
                    (backend.serving, backend.lives) = (*serving, *serving);
                }
            }
            Edit::Service { service, farm: Some(farm) } => drop(self.services.insert(*service, *farm)),
            Edit::Service { service, farm: None } => drop(self.services.remove(service)),
            Edit::Hop { address, hop: Some(hop) } => drop(self.hops.insert(*address, *hop)),
            Edit::Hop { address, hop: None } => drop(self.hops.remove(address)),
            Edit::Managed(managed) => self.managed = *managed,
            Edit::Reverse => self.reversed = !self.reversed,
        }
    }

    pub fn desired(&self) -> Desired {
        let mut farms: Vec<DesiredFarm> =
            self.farms.iter().map(|(name, farm)| self.farm(*name, farm)).collect();
        if self.reversed {
            farms.reverse();
        }
        Desired { farms, manage_vips: self.managed, paths: self.paths(), ..Desired::default() }
    }

    fn farm(&self, name: usize, farm: &Farm) -> DesiredFarm {
        let services = self.services.iter().filter(|(_, owner)| **owner == name);
        let services: Vec<ServiceKey> = services.map(|(service, _)| key(*service)).collect();
        let mut vips: Vec<_> = services.iter().map(|key| key.vip).collect();
        vips.dedup();
        let backends = farm.backends.iter().map(|(name, backend)| DesiredBackend {
            name: BackendName::new(&format!("b{name}")).unwrap(),
            address: address(backend.address),
            port: backend.port,
            weight: backend.weight,
            serving: backend.serving,
            ground: [Ground::Checked, Ground::Unchecked, Ground::Tried][backend.address % 3],
            lives: backend.lives,
            unreachable: false,
            returns: backend.lives,
        });
        DesiredFarm {
            name: FarmName::new(["web", "mail", "dns", "sql"][name]).unwrap(),
            mode: farm.mode,
            gue_port: 6000 + farm.timeout as u16,
            scheduler: farm.scheduler,
            rules: Rules { affinity: farm.affinity, ..Rules::new(farm.prefix, 128) },
            refuse: farm.mode == Mode::Dnat,
            echo: farm.timeout.is_multiple_of(2),
            list: farm.list,
            limits: Limits {
                connections: (farm.list == 2).then_some(farm.timeout),
                new_per_second: (farm.list == 3).then_some(farm.timeout),
                over: Over::Refuse,
            },
            timeouts: TimeoutTicks {
                syn: farm.timeout,
                established: farm.timeout,
                half_closed: farm.timeout,
                fin: farm.timeout,
                udp: farm.timeout,
            },
            vips,
            services,
            backends: backends.collect(),
        }
    }

    fn paths(&self) -> Paths {
        let path = |(address, hop): (IpAddr, NextHop)| {
            let number = hop.ifindex as u8;
            let source = match address {
                IpAddr::V4(_) => IpAddr::from([10, 250, 0, number]),
                IpAddr::V6(_) => IpAddr::from([number; 16]),
            };
            (address, Path { source, mtu: 1400 + hop.ifindex })
        };
        self.hops().into_iter().map(path).collect()
    }

    pub fn hops(&self) -> NextHops {
        let mut hops = NextHops::new();
        for (index, number) in &self.hops {
            let hop =
                NextHop { ifindex: u32::from(*number), destination: [*number; 6], source: [*index as u8; 6] };
            hops.extend(address(*index).iter().map(|address| (address, hop)));
        }
        hops
    }
}

/// IPv4, both families, IPv6.
fn address(index: usize) -> Addresses {
    let v4 = Ipv4Addr::new(10, 0, 0, index as u8 + 1);
    let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, index as u16 + 1);
    Addresses { v4: (index < 5).then_some(v4), v6: (index >= 3).then_some(v6) }
}

fn key(index: usize) -> ServiceKey {
    let vips: [IpAddr; 3] =
        [[192, 0, 2, 1].into(), [192, 0, 2, 2].into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()];
    let (port, protocol) = [(80u16, 6), (443, 6), (0, 6), (53, 17)][index % 4];
    ServiceKey::new(mapped(vips[index / 4]), port.to_be_bytes(), protocol)
}
