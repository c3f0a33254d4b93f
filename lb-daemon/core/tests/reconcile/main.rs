//! Plans, against maps as the kernel has them: what a plan ends in, what holds in the middle of one, and what does not
//! depend on how one came there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "it is a test")]

mod cases;
mod kernel;
mod wanted;
mod world;

use lb_core::desired::{Desired, NextHops};
use lb_core::diff::MapOp;
use proptest::prelude::*;
use proptest::sample::Index;

use wanted::{Edit, Wanted};
use world::World;

/// What a step of a history is.
#[derive(Debug, Clone)]
struct Step {
    edits: Vec<Edit>,
    /// Connections that open before the operation of that index, in that slot of that service's table.
    opened: Vec<(Index, Index, Index)>,
    closed: Vec<Index>,
    /// The daemon dies before the operation of that index.
    crash: Option<Index>,
    restart: bool,
    /// Plans again at once, which gives up numbers.
    again: bool,
    /// Where else it might have died.
    elsewhere: Index,
}

fn step() -> impl Strategy<Value = Step> {
    (
        prop::collection::vec(wanted::edit(), 1..8),
        prop::collection::vec(any::<(Index, Index, Index)>(), 0..6),
        prop::collection::vec(any::<Index>(), 0..5),
        prop::option::weighted(0.2, any::<Index>()),
        prop::bool::weighted(0.3),
        any::<bool>(),
        any::<Index>(),
    )
        .prop_map(|(edits, opened, closed, crash, restart, again, elsewhere)| Step {
            edits,
            opened,
            closed,
            crash,
            restart,
            again,
            elsewhere,
        })
}

/// From what a crash before operation `at` leaves, a daemon that knows nothing leads to what is desired.
fn assert_recovers(world: &World, ops: &[MapOp], at: usize, desired: &Desired, hops: &NextHops) {
    let mut other = World::new();
    other.kernel = world.kernel.clone();
    other.connections = world.connections.clone();
    ops[..at].iter().for_each(|op| other.kernel.apply(op));
    other.kernel.forget_resets();
    other.observed = other.kernel.observe();
    let before = other.observed.clone();
    for op in other.plan(desired, hops) {
        other.carry_out(&op);
    }
    other.assert_means(desired, hops, &before);
}

fn live_through(world: &mut World, wanted: &mut Wanted, step: &Step) {
    for index in &step.closed {
        if !world.connections.is_empty() {
            let at = index.index(world.connections.len());
            world.connections.swap_remove(at);
        }
    }
    step.edits.iter().for_each(|edit| wanted.edit(edit));
    let (desired, hops) = (wanted.desired(), wanted.hops());
    let before = world.observed.clone();
    let ops = world.plan(&desired, &hops);
    assert_recovers(world, &ops, step.elsewhere.index(ops.len() + 1), &desired, &hops);
    world.kernel.forget_resets();
    let end = step.crash.map_or(ops.len(), |index| index.index(ops.len() + 1));
    for (at, op) in ops[..end].iter().enumerate() {
        for (_, service, slot) in step.opened.iter().filter(|(when, ..)| when.index(ops.len()) == at) {
            world.open(*service, *slot);
        }
        world.carry_out(op);
    }
    if end < ops.len() {
        world.observed = world.kernel.observe();
        return;
    }
    world.assert_means(&desired, &hops, &before);
    if step.restart {
        world.restart();
    }
    // No number is given up while it might be in use: then there is nothing left to do.
    let more = world.planner.plan(&world.observed, &desired, &hops, |_| true).unwrap();
    assert!(more.is_empty(), "{} operations more", more.len());
    if step.again {
        let before = world.observed.clone();
        world.kernel.forget_resets();
        for op in world.plan(&desired, &hops) {
            assert!(
                !matches!(op, MapOp::Table(..) | MapOp::Service(..) | MapOp::ResetCounters(_)),
                "only numbers are given up"
            );
            world.carry_out(&op);
        }
        // Nothing has got a new owner.
        world.assert_means(&desired, &hops, &before);
        assert_eq!(world.plan(&desired, &hops).len(), 0, "nothing is left to do");
        world.assert_no_number_is_hoarded(&desired);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 400, ..ProptestConfig::default() })]
    #[test]
    fn any_history_ends_in_what_is_desired_and_harms_nobody_on_the_way(steps in prop::collection::vec(step(), 1..8)) {
        let (mut world, mut wanted) = (World::new(), Wanted::default());
        for step in &steps {
            live_through(&mut world, &mut wanted, step);
        }
    }
}
