//! Cases that stand for themselves: dying at any moment, numbers given up in time, limits, and how long planning takes.

use std::time::{Duration, Instant};

use lb_common::abi::*;
use lb_core::config::model::{Addresses, BackendName, FarmName, Limits, Mode, Scheduler, Timeouts};
use lb_core::desired::{Desired, DesiredBackend, DesiredFarm, Ground, NextHops, mapped, ticks};
use lb_core::diff::{DiffError, MapOp, Number, Observed, Planner};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::assert_recovers;
use crate::world::{World, addresses, admits};

/// `farms` farms of `backends` backends each, one service a farm.
fn uniform(farms: u16, backends: u16) -> (Desired, NextHops) {
    let mut hops = NextHops::new();
    let farms = (0..farms).map(|farm| {
        let [high, low] = farm.to_be_bytes();
        let backends = (0..backends).map(|backend| {
            let address = [10, high, low, backend as u8].into();
            let hop = NextHop { ifindex: 1, destination: [2; 6], source: [4; 6] };
            hops.insert(std::net::IpAddr::V4(address), hop);
            DesiredBackend {
                name: BackendName::new(&address.to_string()).unwrap(),
                address: Addresses { v4: Some(address), v6: None },
                port: None,
                weight: 1,
                serving: true,
                ground: Ground::Checked,
                lives: true,
                unreachable: false,
                returns: true,
            }
        });
        let vip = mapped([192, 0, high, low].into());
        DesiredFarm {
            name: FarmName::new(&format!("farm-{farm}")).unwrap(),
            mode: Mode::Nat,
            gue_port: 6080,
            scheduler: Scheduler::Maglev,
            rules: Rules::new(32, 128),
            list: 0,
            limits: Limits::default(),
            refuse: true,
            echo: false,
            timeouts: ticks(&Timeouts::default()),
            vips: vec![vip],
            services: vec![ServiceKey::new(vip, [0, 80], 6)],
            backends: backends.collect(),
        }
    });
    let farms = farms.collect();
    (Desired { farms, ..Desired::default() }, hops)
}

fn settle(world: &mut World, desired: &Desired, hops: &NextHops) -> Vec<MapOp> {
    let ops = world.plan(desired, hops);
    ops.iter().for_each(|op| world.carry_out(op));
    ops
}

#[test]
fn a_daemon_may_die_before_any_operation() {
    let (mut first, mut hops) = uniform(3, 3);
    first.farms[1].mode = Mode::Dnat;
    let mut world = World::new();
    let ops = world.plan(&first, &hops);
    (0..=ops.len()).for_each(|at| assert_recovers(&world, &ops, at, &first, &hops));
    settle(&mut world, &first, &hops);

    // One farm goes and leaves its service to another, one is renamed, one gets other backends.
    let mut second = first.clone();
    let gone = second.farms.remove(0);
    second.farms[0].services.extend(gone.services);
    second.farms[0].vips.extend(gone.vips);
    second.farms[0].backends[0].serving = false;
    // One VIP goes, another comes.
    let (vip, new) = (second.farms[1].vips[0], mapped([192, 0, 2, 99].into()));
    second.farms[1].vips = vec![new];
    second.farms[1].services = vec![ServiceKey::new(new, [0, 80], 6)];
    assert!(world.kernel.vips.values().any(|address| *address == vip));
    second.farms[1].name = FarmName::new("renamed").unwrap();
    let (others, more_hops) = uniform(5, 2);
    second.farms[1].backends.extend(others.farms[4].backends.clone());
    hops.extend(more_hops);
    let ops = world.plan(&second, &hops);
    (0..=ops.len()).for_each(|at| assert_recovers(&world, &ops, at, &second, &hops));
}

#[test]
fn a_backend_that_served_a_moment_ago_keeps_its_number_for_one_more_plan() {
    let (desired, hops) = uniform(1, 2);
    let mut world = World::new();
    settle(&mut world, &desired, &hops);
    let mut one = desired.clone();
    let gone = one.farms[0].backends.remove(0);
    // Nobody was connected when the daemon looked, but a client may come until the new table is in force.
    settle(&mut world, &one, &hops);
    assert_eq!(world.kernel.backend_labels.len(), 2);
    let ops = settle(&mut world, &one, &hops);
    assert_eq!(world.kernel.backend_labels.len(), 1);
    assert_eq!(ops.len(), 3, "entry, label and address are cleared");
    assert!(!world.kernel.addresses.contains_key(&map_ipv4(gone.address.v4.unwrap().octets())));
}

#[test]
fn a_backend_that_clients_came_back_to_a_moment_ago_keeps_its_number_for_one_more_plan() {
    let (mut desired, hops) = uniform(1, 2);
    desired.farms[0].rules.affinity = 1;
    // It is drained: no table leads to it.
    desired.farms[0].backends[0].serving = false;
    let mut world = World::new();
    settle(&mut world, &desired, &hops);
    desired.farms[0].backends.remove(0);
    for labels in [2, 1] {
        settle(&mut world, &desired, &hops);
        assert_eq!(world.kernel.backend_labels.len(), labels);
    }
}

#[test]
fn a_vip_that_had_a_service_a_moment_ago_keeps_its_number_for_one_more_plan() {
    let (two, hops) = uniform(2, 1);
    let mut one = two.clone();
    let gone = one.farms.remove(0).vips[0];
    let number_of =
        |world: &World| world.kernel.vips.iter().find(|(_, vip)| **vip == gone).map(|(id, _)| *id);
    let mut world = World::new();
    settle(&mut world, &two, &hops);
    let number = number_of(&world);
    assert!(number.is_some());
    // Nobody was connected when the daemon looked, but a client may come until the service is gone.
    settle(&mut world, &one, &hops);
    assert_eq!(number_of(&world), number);
    settle(&mut world, &one, &hops);
    assert_eq!(number_of(&world), None);
}

#[test]
fn the_number_of_a_vip_is_not_given_to_another_while_connections_bear_it() {
    let (three, hops) = uniform(3, 1);
    let only = |farm: usize| Desired { farms: vec![three.farms[farm].clone()], ..Desired::default() };
    let mut world = World::new();
    settle(&mut world, &only(0), &hops);
    world.open(any_index(), any_index());
    for _ in 0..2 {
        settle(&mut world, &only(1), &hops);
    }
    let vip = |farm: usize| three.farms[farm].vips[0];
    assert_eq!(world.kernel.vips, [(0, vip(0)), (1, vip(1))].into());
    world.connections.clear();
    for farm in [1, 2] {
        settle(&mut world, &only(farm), &hops);
    }
    assert_eq!(world.kernel.vips, [(0, vip(2)), (1, vip(1))].into());
}

#[test]
fn a_backend_that_a_table_still_leads_to_keeps_its_number_whatever_its_entry_says() {
    let (desired, hops) = uniform(1, 1);
    let mut world = World::new();
    settle(&mut world, &desired, &hops);
    // A daemon that was to take the backend out died before the farm led nowhere; the next one's configuration does not
    // name it at all.
    let mut out = desired.clone();
    out.farms[0].backends[0].serving = false;
    let ops = world.plan(&out, &hops);
    ops.iter().take_while(|op| !matches!(op, MapOp::Farm(..))).for_each(|op| world.carry_out(op));
    assert_eq!(world.kernel.backend(0).flags & (BACKEND_SERVES | BACKEND_TAKES), 0);
    world.restart();
    out.farms[0].backends.remove(0);
    let ops = world.plan(&out, &hops);
    world.open(any_index(), any_index());
    assert!(world.look().contains(&Number::Backend(0)));
    ops.iter().for_each(|op| world.carry_out(op));
}

#[test]
fn answers_to_connections_of_a_farm_that_was_dnat_are_seen_until_they_end() {
    let (mut desired, hops) = uniform(1, 1);
    desired.farms[0].mode = Mode::Dnat;
    let mut world = World::new();
    settle(&mut world, &desired, &hops);
    world.open(any_index(), any_index());
    assert_eq!(world.connections.len(), 1);
    desired.farms[0].mode = Mode::Nat;
    settle(&mut world, &desired, &hops);
    let backend = addresses(&world.kernel.backend(0))[0];
    assert!(admits(&world.kernel.filter, backend));
    world.connections.clear();
    settle(&mut world, &desired, &hops);
    assert!(!admits(&world.kernel.filter, backend));
}

#[test]
fn the_number_of_a_farm_rests_while_connections_bear_it() {
    let (two, hops) = uniform(2, 1);
    let mut world = World::new();
    settle(&mut world, &Desired { farms: vec![two.farms[0].clone()], ..Desired::default() }, &hops);
    world.open(any_index(), any_index());
    let other = Desired { farms: vec![two.farms[1].clone()], ..Desired::default() };
    settle(&mut world, &other, &hops);
    settle(&mut world, &other, &hops);
    assert_eq!(world.kernel.farm_labels.len(), 2);
    world.connections.clear();
    settle(&mut world, &other, &hops);
    assert_eq!(world.kernel.farm_labels.len(), 1);
}

#[test]
fn all_tables_may_change_at_once() {
    let (mut desired, hops) = uniform(FARMS_MAX as u16, 2);
    let mut world = World::new();
    let apply = |world: &mut World, desired: &Desired| {
        for op in world.plan(desired, &hops) {
            world.kernel.apply(&op);
            world.observed.apply(&op);
        }
        world.kernel.assert_consistent();
    };
    apply(&mut world, &desired);
    desired.farms.iter_mut().for_each(|farm| farm.backends[0].serving = false);
    apply(&mut world, &desired);
    assert_eq!(world.plan(&desired, &hops).len(), 0);
}

#[test]
fn what_does_not_fit_is_refused() {
    let (desired, hops) = uniform(FARMS_MAX as u16 + 1, 0);
    let error = Planner::default().plan(&Observed::default(), &desired, &hops, |_| true).err();
    assert_eq!(error, Some(DiffError::TooMany { what: "farms", wanted: 513, most: 512 }));
    let (mut desired, hops) = uniform(1, 1);
    let vips = (0..=ADDRESSES_MAX).map(|number| map_ipv4(number.to_be_bytes()));
    desired.farms[0].vips = vips.collect();
    let error = Planner::default().plan(&Observed::default(), &desired, &hops, |_| true).err();
    assert!(matches!(error, Some(DiffError::TooMany { what: "addresses", most: ADDRESSES_MAX, .. })));
}

/// The quickest of several runs, since tests share the machine. Without optimisation everything takes far longer.
fn within<T>(what: &str, limit: Duration, mut run: impl FnMut() -> T) -> T {
    let limit = if cfg!(debug_assertions) { 50 * limit } else { limit };
    let mut best = Duration::MAX;
    loop {
        let started = Instant::now();
        let result = run();
        let took = started.elapsed();
        if took < limit {
            println!("{what}: {took:.1?}");
            return result;
        }
        assert!(took < best, "{what} took {best:.1?}, longer than {limit:?}");
        best = took;
    }
}

#[test]
fn plans_are_made_quickly() {
    let mut world = World::new();
    let (mut desired, hops) = uniform(FARMS_MAX as u16, 16);
    let first = || Planner::default().plan(&Observed::default(), &desired, &hops, |_| true).unwrap();
    within("a first plan of 512 farms of 16 backends", Duration::from_secs(2), first);
    let ops = world.plan(&desired, &hops);
    ops.iter().for_each(|op| world.observed.apply(op));
    let nothing =
        within("a plan without a change", Duration::from_millis(100), || world.plan(&desired, &hops));
    assert_eq!(nothing.len(), 0);

    desired.farms.truncate(200);
    let ops = world.plan(&desired, &hops);
    ops.iter().for_each(|op| world.observed.apply(op));
    let mut serving = true;
    let ops = within("a backend that goes or comes in one of 200 farms", Duration::from_millis(50), || {
        serving = !serving;
        desired.farms[100].backends[3].serving = serving;
        world.plan(&desired, &hops)
    });
    let tables = ops.iter().filter(|op| matches!(op, MapOp::Table(..))).count();
    assert_eq!(tables, usize::from(!serving));
}

fn any_index() -> Index {
    use proptest::strategy::ValueTree as _;
    any::<Index>().new_tree(&mut proptest::test_runner::TestRunner::deterministic()).unwrap().current()
}
