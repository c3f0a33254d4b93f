//! The daemon and its kernel, with connections, and what must hold of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::abi::*;
use lb_core::config::model::{Mode, Scheduler};
use lb_core::desired::{Desired, DesiredBackend, DesiredFarm, Ground, NextHops};
use lb_core::diff::{MapOp, Number, Observed, Planner};
use lb_core::health::Judgement;
use lb_core::maglev::{self, Member};
use lb_core::rotation;
use proptest::sample::Index;

use crate::kernel::{Affinity, Kernel, Server, server};

/// A connection, and what must stay as it was when it opened.
#[derive(Debug, Clone)]
pub struct Connection {
    farm: (u16, Label),
    backend: (u16, BackendLabel, Server),
    /// In the program's tables those of IPv6 alone bear it.
    vip: (u16, MappedAddress),
    dnat: bool,
}

/// The daemon and its kernel, with connections.
pub struct World {
    pub kernel: Kernel,
    pub observed: Observed,
    pub planner: Planner,
    pub connections: Vec<Connection>,
    /// The lists that each farm may go by while a plan is carried out: the one of before, and the one that is wanted.
    lists: BTreeMap<Label, [u64; 2]>,
}

impl World {
    pub fn new() -> Self {
        let (kernel, planner) = (Kernel::new(), Planner::default());
        Self {
            kernel,
            observed: Observed::default(),
            planner,
            connections: Vec::new(),
            lists: BTreeMap::new(),
        }
    }

    /// The numbers that connections bear, as a look at the tables shows them now.
    pub fn look(&self) -> BTreeSet<Number> {
        let borne =
            |connection: &Connection| [Number::Backend(connection.backend.0), Number::Vip(connection.vip.0)];
        self.connections.iter().flat_map(borne).collect()
    }

    pub fn plan(&mut self, desired: &Desired, hops: &NextHops) -> Vec<MapOp> {
        // What a daemon does before: lists that are wanted are there, and others are taken out when no farm goes by them.
        let wanted = desired.farms.iter().map(|farm| farm.list).filter(|list| *list != 0);
        self.kernel.lists = wanted.chain(self.observed.lists()).collect();
        let before = |label: &Label| {
            let id = self.kernel.farm_labels.iter().find(|(_, other)| *other == label).map(|(id, _)| *id);
            id.map(|id| self.kernel.list_of(id))
        };
        let farms = desired.farms.iter().map(|farm| (Label::new(farm.name.as_str()).unwrap(), farm.list));
        self.lists = farms.map(|(label, list)| (label, [before(&label).unwrap_or(list), list])).collect();
        let in_use = self.look();
        self.planner.plan(&self.observed, desired, hops, |number| in_use.contains(&number)).unwrap()
    }

    pub fn carry_out(&mut self, op: &MapOp) {
        self.kernel.apply(op);
        self.observed.apply(op);
        self.kernel.assert_consistent();
        self.assert_connections_go_on();
        self.assert_lists_hold();
    }

    /// Between two lists of a farm there is no moment at which it goes by neither.
    fn assert_lists_hold(&self) {
        for entry in self.kernel.services.values() {
            let label = self.kernel.farm_labels[&entry.farm];
            if let Some(lists) = self.lists.get(&label) {
                assert!(lists.contains(&self.kernel.list_of(entry.farm)), "a farm is open for a moment");
            }
        }
    }

    pub fn restart(&mut self) {
        let found = self.kernel.observe();
        assert!(found.filter == self.observed.filter);
        assert!(found.farms == self.observed.farms);
        assert_eq!(found.addresses, self.observed.addresses);
        assert_eq!(found.vips, self.observed.vips);
        assert_eq!(found.services, self.observed.services);
        assert_eq!(found.rules, self.observed.rules);
        assert_eq!(found.backends, self.observed.backends);
        assert_eq!(found.admissions, self.observed.admissions);
        (self.observed, self.planner) = (found, Planner::default());
    }

    /// A client comes, if there is somebody to serve it.
    pub fn open(&mut self, service: Index, slot: Index) {
        if self.kernel.services.is_empty() {
            return;
        }
        let services: Vec<_> = self.kernel.services.iter().map(|(key, entry)| (key.vip, *entry)).collect();
        let (vip, ServiceEntry { farm, vip: number }) = *service.get(&services);
        let entry = self.kernel.farm(farm);
        let returning = self.kernel.returning(farm);
        let backend = if !returning.is_empty() && slot.index(2) == 0 {
            slot.get(&returning).backend
        } else if entry.table == NO_TABLE {
            return;
        } else {
            *slot.get(&self.kernel.table(entry.table).slots)
        };
        let had = (self.kernel.backend_labels[&backend], server(&self.kernel.backend(backend)));
        if entry.flags & FARM_AFFINE != 0 {
            self.kernel.affinities.push(Affinity { farm, backend, had });
        }
        self.connections.push(Connection {
            farm: (farm, self.kernel.farm_labels[&farm]),
            backend: (backend, self.kernel.backend_labels[&backend], server(&self.kernel.backend(backend))),
            vip: (number, vip),
            dnat: entry.mode == MODE_DNAT,
        });
    }

    fn assert_connections_go_on(&self) {
        for connection in &self.connections {
            let (farm, label) = connection.farm;
            assert_eq!(self.kernel.farm_labels.get(&farm), Some(&label), "the farm's number is its own");
            let (id, vip) = connection.vip;
            assert_eq!(self.kernel.vips.get(&id), Some(&vip), "the number is the VIP's own");
            let (id, label, at) = connection.backend;
            assert_eq!(self.kernel.backend_labels.get(&id), Some(&label), "the number is the backend's own");
            let entry = self.kernel.backend(id);
            assert_eq!(server(&entry), at, "the number leads to the same server");
            assert_eq!(entry.farm, farm, "and to the same farm");
            for address in addresses(&entry) {
                let flags = self.kernel.addresses.get(&address).copied().unwrap_or(0);
                assert!(flags & ADDRESS_BACKEND != 0, "its address is known as a backend's");
                assert!(!connection.dnat || admits(&self.kernel.filter, address), "its answers are seen");
            }
        }
    }

    /// The maps mean exactly what was desired. `before` is what they were.
    pub fn assert_means(&self, desired: &Desired, hops: &NextHops, before: &Observed) {
        let (mut services, mut addresses_wanted) = (BTreeMap::new(), BTreeMap::<MappedAddress, u32>::new());
        let (mut least, mut most) = (AddressFilter::EMPTY, AddressFilter::EMPTY);
        let (mut farms, mut listed) = (BTreeSet::new(), BTreeSet::new());
        let managed = if desired.manage_vips { ADDRESS_MANAGED } else { 0 };
        for farm in &desired.farms {
            let label = Label::new(farm.name.as_str()).unwrap();
            let id = self.observed.farm_id(&farm.name).expect("the farm has a number");
            let known = before.farm_id(&farm.name);
            assert!(known.is_none_or(|known| id == known), "a farm keeps its number");
            let resets = self.kernel.farm_resets.iter().filter(|reset| **reset == id).count();
            assert_eq!(resets, usize::from(known.is_none()), "a new farm's counters start from 0");
            assert!(farms.insert(label));
            services.extend(farm.services.iter().map(|key| (*key, id)));
            for vip in farm.services.iter().map(|key| key.vip) {
                let known = before.vips.iter().find(|(_, address)| **address == vip).map(|(id, _)| *id);
                let id = self.vip_id(vip).expect("the VIP has a number");
                assert!(known.is_none_or(|known| id == known), "a VIP keeps its number");
            }
            for vip in &farm.vips {
                let echo = if farm.echo { ADDRESS_ECHO } else { 0 };
                *addresses_wanted.entry(*vip).or_default() |= ADDRESS_VIP | managed | echo;
                [&mut least, &mut most].into_iter().for_each(|filter| admit(filter, *vip));
            }
            let ids: Vec<u16> = farm
                .backends
                .iter()
                .map(|backend| self.assert_backend(farm, backend, desired, hops, before))
                .collect();
            let addresses = ids.iter().flat_map(|id| addresses(&self.kernel.backend(*id)));
            addresses.filter(|_| farm.mode == Mode::Dnat).for_each(|address| admit(&mut least, address));
            self.assert_farm(id, farm, &ids);
            listed.extend(ids);
        }
        let farm_of = |(key, entry): (&ServiceKey, &ServiceEntry)| (*key, entry.farm);
        assert_eq!(self.kernel.services.iter().map(farm_of).collect::<BTreeMap<_, _>>(), services);
        let mut labels: BTreeSet<Label> = BTreeSet::new();
        for (id, label) in &self.kernel.backend_labels {
            labels.insert(label.farm);
            if !listed.contains(id) {
                self.assert_former(*id, before);
            }
            for address in addresses(&self.kernel.backend(*id)) {
                *addresses_wanted.entry(address).or_default() |= ADDRESS_BACKEND;
                admit(&mut most, address);
            }
        }
        assert_eq!(self.kernel.addresses, addresses_wanted);
        for number in 0..4096u32 {
            let stranger = map_ipv4((0x0a00_0000 + number).to_be_bytes());
            assert!(!admits(&least, stranger) || admits(&self.kernel.filter, stranger), "nobody is missed");
            assert!(
                admits(&most, stranger) || !admits(&self.kernel.filter, stranger),
                "nobody else is let in"
            );
        }
        for address in addresses_wanted.keys() {
            assert!(!admits(&least, *address) || admits(&self.kernel.filter, *address), "nobody is missed");
        }
        for label in self.kernel.farm_labels.values().filter(|label| !farms.contains(label)) {
            assert!(labels.contains(label), "a farm that is gone keeps its number for its connections only");
        }
    }

    /// Numbers that nothing desired has are borne by connections.
    pub fn assert_no_number_is_hoarded(&self, desired: &Desired) {
        let borne = self.look();
        let listed = |id: &u16| self.kernel.backend(*id).flags & BACKEND_LISTED != 0;
        for id in self.kernel.backend_labels.keys().filter(|id| !listed(id)) {
            assert!(borne.contains(&Number::Backend(*id)), "backend {id} is kept for nobody");
        }
        let services = desired.farms.iter().flat_map(|farm| &farm.services);
        let vips: BTreeSet<MappedAddress> = services.map(|key| key.vip).collect();
        for (id, _) in self.kernel.vips.iter().filter(|(_, address)| !vips.contains(*address)) {
            assert!(borne.contains(&Number::Vip(*id)), "VIP {id} is kept for nobody");
        }
    }

    fn assert_farm(&self, id: u16, farm: &DesiredFarm, ids: &[u16]) {
        let entry = self.kernel.farm(id);
        assert_eq!(entry.mode == MODE_DNAT, farm.mode == Mode::Dnat);
        assert_eq!(is_direct(entry.mode), farm.mode.is_direct());
        assert_eq!(self.kernel.list_of(id), farm.list);
        let admission = self.kernel.admission(id);
        let limits = [farm.limits.new_per_second, farm.limits.connections].map(|limit| limit.unwrap_or(0));
        assert_eq!([admission.rate, admission.connections], limits);
        assert_eq!(
            entry.flags & FARM_ADMITS != 0,
            farm.list != 0 || farm.limits.are_some(),
            "who has no list has nothing to look up"
        );
        let names: Vec<&str> = farm.backends.iter().map(|backend| backend.name.as_str()).collect();
        let members: Vec<Member<'_>> = farm
            .backends
            .iter()
            .zip(&names)
            .map(|(backend, &name)| Member { name, weight: backend.weight, serving: backend.serving })
            .collect();
        assert_eq!(self.kernel.rules(id), farm.rules);
        let affine = farm.rules.affinity != 0;
        assert_eq!(
            entry.flags & FARM_LATE != 0,
            affine || farm.limits.are_some() || farm.scheduler != Scheduler::Maglev
        );
        assert_eq!(entry.flags & FARM_AFFINE != 0, affine);
        let (scheduler, owners) = match farm.scheduler {
            Scheduler::Maglev => (SCHEDULER_MAGLEV, maglev::build(&members)),
            Scheduler::LeastConnections => (SCHEDULER_LEAST_CONNECTIONS, maglev::build(&members)),
            Scheduler::SourceHash => (SCHEDULER_SOURCE, maglev::build(&members)),
            Scheduler::WeightedRoundRobin => (SCHEDULER_TURNS, rotation::build(&members)),
        };
        assert_eq!(entry.scheduler, scheduler);
        match owners {
            None => assert_eq!(entry.table, NO_TABLE),
            Some(owners) => {
                let expected: Vec<u16> = owners.iter().map(|owner| ids[*owner]).collect();
                assert!(
                    self.kernel.table(entry.table).slots[..] == expected[..],
                    "the table is the scheduler's"
                );
            }
        }
        let named: BTreeSet<u16> = match entry.table {
            NO_TABLE => BTreeSet::new(),
            number => self.kernel.table(number).slots.iter().copied().collect(),
        };
        for id in ids {
            let takes = self.kernel.backend(*id).flags & BACKEND_TAKES != 0;
            assert_eq!(takes, named.contains(id), "who takes connections is in the table, nobody else");
        }
    }

    /// The entry of a backend that the configuration does not name: as it was, but it takes nothing new.
    fn assert_former(&self, id: u16, before: &Observed) {
        let (entry, was) = (self.kernel.backend(id), before.backends[&id].1);
        assert_eq!(entry.flags, was.flags & (BACKEND_LIVES | BACKEND_COUNTED));
        assert_eq!((server(&entry), entry.farm, entry.timeouts), (server(&was), was.farm, was.timeouts));
    }

    fn vip_id(&self, vip: MappedAddress) -> Option<u16> {
        self.kernel.vips.iter().find(|(_, address)| **address == vip).map(|(id, _)| *id)
    }

    /// The number of a backend, whose entry is right.
    fn assert_backend(
        &self,
        farm: &DesiredFarm,
        backend: &DesiredBackend,
        desired: &Desired,
        hops: &NextHops,
        before: &Observed,
    ) -> u16 {
        let name = |text: &str| Label::new(text).unwrap();
        let label = BackendLabel { farm: name(farm.name.as_str()), name: name(backend.name.as_str()) };
        let id = self
            .observed
            .numbers()
            .get(&label, &backend.address, backend.port, farm.mode)
            .expect("it has a number");
        let known = before.numbers().get(&label, &backend.address, backend.port, farm.mode);
        match known {
            Some(known) => assert_eq!(id, known, "a backend keeps its number"),
            None => assert!(!before.backends.contains_key(&id), "a new backend gets a number that was free"),
        }
        let resets = self.kernel.resets.iter().filter(|reset| **reset == id).count();
        assert_eq!(resets, usize::from(known.is_none()), "a new owner's counters start from 0, no other's");
        let entry = self.kernel.backend(id);
        assert_eq!(entry.address_v4, backend.address.v4.map_or([0; 4], |v4| v4.octets()));
        assert_eq!(entry.address_v6, backend.address.v6.map_or([0; 16], |v6| v6.octets()));
        assert_eq!(
            is_direct(entry.mode),
            farm.mode.is_direct(),
            "a server's mode is its own, whatever becomes of its farm"
        );
        assert_eq!(entry.port, backend.port.unwrap_or(0).to_be_bytes());
        assert_eq!(Some(entry.farm), self.observed.farm_id(&farm.name));
        assert_eq!(entry.timeouts, farm.timeouts);
        let holds = |flag: u16| entry.flags & flag != 0;
        assert!(holds(BACKEND_LISTED));
        assert_eq!(holds(BACKEND_PACED), farm.limits.new_per_second.is_some());
        assert_eq!((holds(BACKEND_SERVES), holds(BACKEND_LIVES)), (backend.serving, backend.lives));
        let counted = farm.scheduler == Scheduler::LeastConnections || farm.limits.connections.is_some();
        assert_eq!(holds(BACKEND_COUNTED), counted);
        assert_eq!(entry.weight, if counted { backend.weight } else { 0 });
        let affine = farm.rules.affinity != 0;
        assert_eq!((holds(BACKEND_AFFINE), holds(BACKEND_RETURNS)), (affine, affine && backend.returns));
        let adopted = match backend.ground {
            _ if !backend.serving => Judgement::Starting,
            Ground::Checked => Judgement::Up,
            Ground::Unchecked => Judgement::Unchecked,
            Ground::Tried => Judgement::Down,
        };
        assert_eq!(lb_core::desired::adopted(entry.flags), adopted);
        let old = before.backends.get(&id).map(|(_, entry)| *entry).unwrap_or_default();
        let (v4, v6) = backend.address.ends(farm.mode);
        for (address, hop, old) in [(v4, entry.hop_v4, old.hop_v4), (v6, entry.hop_v6, old.hop_v6)] {
            assert_eq!(hop, address.and_then(|a| hops.get(&a)).copied().unwrap_or(old));
        }
        let path = |address: Option<IpAddr>| address.and_then(|address| desired.paths.get(&address));
        let four = path(backend.address.v4.map(IpAddr::V4)).map(|path| (path.source, path.mtu as u16));
        let old_four = (old.path.source_v4.into(), old.path.mtu_v4);
        assert_eq!((entry.path.source_v4.into(), entry.path.mtu_v4), four.unwrap_or(old_four));
        let six = path(backend.address.v6.map(IpAddr::V6)).map(|path| (path.source, path.mtu as u16));
        let old_six = (old.path.source_v6.into(), old.path.mtu_v6);
        assert_eq!((entry.path.source_v6.into(), entry.path.mtu_v6), six.unwrap_or(old_six));
        let port = if farm.mode == Mode::Gue { farm.gue_port } else { 0 };
        assert_eq!(entry.path.port, port.to_be_bytes());
        id
    }
}

pub fn addresses(entry: &BackendEntry) -> Vec<MappedAddress> {
    let v4 = (entry.address_v4 != [0; 4]).then(|| map_ipv4(entry.address_v4));
    v4.into_iter().chain((entry.address_v6 != [0; 16]).then_some(entry.address_v6)).collect()
}

fn ipv4(address: MappedAddress) -> Option<[u8; 4]> {
    std::net::Ipv6Addr::from(address).to_ipv4_mapped().map(|v4| v4.octets())
}

fn admit(filter: &mut AddressFilter, address: MappedAddress) {
    match ipv4(address) {
        Some(v4) => filter.insert(&v4),
        None => filter.insert(&address),
    }
}

pub fn admits(filter: &AddressFilter, address: MappedAddress) -> bool {
    ipv4(address).map_or_else(|| filter.may_contain(&address), |v4| filter.may_contain(&v4))
}
