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
    Addresses, BackendName, Config, Echo, Farm, FarmName, Mode, Ports, Scheduler, Timeouts, WhenAllDown,
};
use crate::health::Judgement;
use crate::state::BackendStatus;

/// Where packets for an address go next, for those addresses where it is known.
pub type NextHops = HashMap<IpAddr, NextHop>;

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
    /// Addresses that the daemon has put in place and not taken away yet, wanted or not: the next daemon may have to.
    pub leaving_vips: Vec<MappedAddress>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredFarm {
    pub name: FarmName,
    pub mode: Mode,
    pub scheduler: Scheduler,
    /// What of a client's address counts.
    pub rules: Rules,
    /// Clients are told when nobody serves.
    pub refuse: bool,
    /// Its VIPs answer who asks them for an echo.
    pub echo: bool,
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
                }
            });
            let backends: Vec<_> = backends.collect();
            DesiredFarm {
                name: farm.name.clone(),
                mode: farm.mode,
                scheduler: farm.scheduler,
                rules: Rules::new(32, 128),
                refuse: farm.when_all_down == WhenAllDown::Refuse,
                echo: match farm.echo {
                    Echo::Up => backends.iter().any(DesiredBackend::takes),
                    Echo::Always => true,
                    Echo::Never => false,
                },
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
    let ticks = |duration: Duration| {
        // The longest duration of a configuration is 30 days.
        let ticks = duration.as_millis().div_ceil(u128::from(TICK_MILLISECONDS));
        u32::try_from(ticks).unwrap_or(u32::MAX).max(1)
    };
    TimeoutTicks {
        syn: ticks(timeouts.syn),
        established: ticks(timeouts.established),
        half_closed: ticks(timeouts.half_closed),
        fin: ticks(timeouts.fin),
        udp: ticks(timeouts.udp),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Backend;
    use crate::config::model::{Daemon, XdpMode};
    use BackendStatus::{Down, Draining, Maintenance, Standby, Starting, Unchecked, Up};

    fn farm(priorities: &[u16]) -> Farm {
        let backends = priorities.iter().enumerate().map(|(i, &priority)| Backend {
            name: BackendName::new(&format!("b{i}")).unwrap(),
            address: Addresses { v4: Some([10, 0, 0, i as u8].into()), v6: None },
            port: None,
            weight: 1,
            priority,
        });
        Farm { backends: backends.collect(), ..Farm::new(FarmName::new("web").unwrap()) }
    }

    fn facts(statuses: &[BackendStatus]) -> Vec<BackendFacts> {
        let facts = |&status| BackendFacts {
            status,
            weight: 1,
            ramp: 100,
            failing: status == Down,
            unreachable: false,
        };
        statuses.iter().map(facts).collect()
    }

    fn desired(farm: &Farm, facts: &[BackendFacts]) -> Desired {
        let daemon = Daemon {
            interfaces: vec!["eth0".to_owned()],
            xdp_mode: XdpMode::Auto,
            socket: "/run/x".into(),
            socket_group: None,
            state_dir: "/var/x".into(),
            bpffs_dir: "/sys/x".into(),
            connections: None,
            manage_vips: true,
        };
        Desired::of(&Config { daemon, farms: vec![farm.clone()] }, |_| facts.to_vec())
    }

    #[test]
    fn the_healthy_ones_of_the_best_priority_serve_and_the_others_stand_by() {
        let table: &[(&[u16], &[BackendStatus], &[BackendStatus])] = &[
            (&[0, 0], &[Up, Up], &[Up, Up]),
            (&[0, 1], &[Up, Up], &[Up, Standby]),
            (&[0, 1], &[Down, Up], &[Down, Up]),
            (&[0, 1, 2], &[Down, Up, Up], &[Down, Up, Standby]),
            (&[5, 5, 9], &[Draining, Down, Up], &[Draining, Down, Up]),
            (&[0, 1], &[Starting, Up], &[Starting, Up]),
            (&[0, 1], &[Unchecked, Unchecked], &[Unchecked, Standby]),
            (&[0, 1], &[Down, Down], &[Down, Down]),
        ];
        for (priorities, before, after) in table {
            let mut facts = facts(before);
            rank(&farm(priorities), &mut facts);
            let got: Vec<_> = facts.iter().map(|facts| facts.status).collect();
            assert_eq!(got, *after, "{priorities:?} {before:?}");
        }
    }

    #[test]
    fn one_of_weight_0_does_not_keep_the_others_waiting() {
        let mut facts = facts(&[Up, Up]);
        facts[0].weight = 0;
        rank(&farm(&[0, 1]), &mut facts);
        assert_eq!(facts[1].status, Up);
    }

    #[test]
    fn all_are_tried_only_when_all_are_judged_and_none_serves() {
        let mut farm = farm(&[0, 0]);
        assert_eq!(serving(&farm, &facts(&[Down, Down])), [false, false]);
        farm.when_all_down = WhenAllDown::TryAll;
        assert_eq!(serving(&farm, &facts(&[Down, Down])), [true, true]);
        assert_eq!(serving(&farm, &facts(&[Down, Draining])), [true, false]);
        assert_eq!(serving(&farm, &facts(&[Down, Starting])), [false, false]);
        assert_eq!(serving(&farm, &facts(&[Down, Up])), [false, true]);
        let mut apart = facts(&[Down, Down]);
        apart[0].unreachable = true;
        assert_eq!(serving(&farm, &apart), [false, true], "nothing leads to it");
    }

    #[test]
    fn who_takes_connections_and_who_lives() {
        // (status, weight) -> (serving, takes, lives), beside one that is up.
        let table = [
            ((Up, 1), (true, true, true)),
            ((Up, 0), (true, false, true)),
            ((Unchecked, 1), (true, true, true)),
            ((Starting, 1), (false, false, true)),
            ((Standby, 1), (false, false, true)),
            ((Draining, 1), (false, false, true)),
            ((Maintenance, 1), (false, false, true)),
            ((Down, 1), (false, false, false)),
        ];
        for ((status, weight), expected) in table {
            let mut facts = facts(&[status, Up]);
            facts[0].weight = weight;
            let [backend, _] = &desired(&farm(&[0, 0]), &facts).farms[0].backends[..] else { panic!() };
            assert_eq!((backend.serving, backend.takes(), backend.lives), expected, "{status:?} {weight}");
        }
    }

    #[test]
    fn one_that_is_ejected_takes_nobody_and_lives() {
        let mut facts = facts(&[Down, Up]);
        facts[0].failing = false;
        let [backend, _] = &desired(&farm(&[0, 0]), &facts).farms[0].backends[..] else { panic!() };
        assert_eq!((backend.takes(), backend.lives), (false, true));
    }

    #[test]
    fn vips_answer_while_a_backend_takes_new_connections() {
        // Statuses and weight -> whether it answers by default.
        for (statuses, weight, answers) in [
            ([Up, Down], 1, true),
            ([Up, Down], 0, false),
            ([Unchecked, Down], 1, true),
            ([Down, Draining], 1, false),
            ([Starting, Maintenance], 1, false),
        ] {
            let mut facts = facts(&statuses);
            facts.iter_mut().for_each(|facts| facts.weight = weight);
            let echoes = |echo| desired(&Farm { echo, ..farm(&[0, 0]) }, &facts).farms[0].echo;
            assert_eq!(
                [Echo::Up, Echo::Always, Echo::Never].map(echoes),
                [answers, true, false],
                "{statuses:?} {weight}"
            );
        }
    }

    #[test]
    fn timeouts_are_whole_ticks_and_never_shorter_than_asked_for() {
        let default = Timeouts::default();
        let expected = TimeoutTicks { syn: 100, established: 74_400, half_closed: 2400, fin: 100, udp: 1200 };
        assert_eq!(ticks(&default), expected);
        let thirty_days = 30 * 24 * 3_600_000;
        for (milliseconds, expected) in
            [(0, 1), (1, 1), (99, 1), (100, 1), (101, 2), (thirty_days, 25_920_000)]
        {
            let timeouts = Timeouts { half_closed: Duration::from_millis(milliseconds), ..default };
            assert_eq!(ticks(&timeouts).half_closed, expected, "{milliseconds} ms");
        }
        let farm = Farm { timeouts: Timeouts { udp: Duration::from_secs(1), ..default }, ..farm(&[0]) };
        assert_eq!(desired(&farm, &facts(&[Up])).farms[0].timeouts.udp, 10);
    }

    #[test]
    fn those_that_are_tried_live() {
        let mut farm = farm(&[0, 0]);
        let lives = |farm: &Farm, statuses: &[BackendStatus]| -> Vec<bool> {
            let desired = desired(farm, &facts(statuses));
            desired.farms[0].backends.iter().map(|backend| backend.lives).collect()
        };
        assert_eq!(lives(&farm, &[Down, Down]), [false, false]);
        farm.when_all_down = WhenAllDown::TryAll;
        assert_eq!(lives(&farm, &[Down, Down]), [true, true]);
        assert_eq!(lives(&farm, &[Down, Up]), [false, true]);
    }
}
