//! Every pair of things that may be done at the same time.

use lb_common::table::State;

use crate::cast::{connection, hemmed_in, open, with_port_of_first};
use crate::cpu::Fault;
use crate::deeds::Deed;
use crate::scene::{Scene, interruptions};

/// All that the program and the daemon do.
const DEEDS: [Deed; 11] = [
    Deed::Read(connection(1)),
    Deed::Read(connection(2)),
    // Known, or opened anew if the other one has freed it.
    Deed::Open(connection(1)),
    // New: it takes an empty line.
    Deed::Open(connection(3)),
    // New: it takes somebody's.
    Deed::Open(hemmed_in(5)),
    Deed::Open(with_port_of_first(6)),
    Deed::Withdraw(connection(3)),
    Deed::Establish(connection(1)),
    Deed::FreePair(connection(1)),
    Deed::FreePair(connection(2)),
    Deed::FreePair(connection(3)),
];

/// Two who open look at many lines each: everyday, the one interrupts the other once. All others play as often as it says.
fn bound(scene: &Scene, one: Deed, other: Deed) -> usize {
    let opens = |deed| matches!(deed, Deed::Open(_));
    let everyday = if opens(one) && opens(other) { 1 } else { scene.interruptions };
    interruptions(everyday, scene.interruptions)
}

fn play_pairs(scene: &Scene, deeds: &[Deed]) {
    for (i, &one) in deeds.iter().enumerate() {
        for &other in &deeds[i..] {
            let interruptions = bound(scene, one, other);
            Scene { at_once: vec![one, other], interruptions, ..scene.clone() }.play(Fault::None);
        }
    }
}

#[test]
fn every_two_deeds_leave_a_table_whole_in_which_there_is_room() {
    play_pairs(&Scene::new(&open(1), &[]), &DEEDS);
}

#[test]
fn every_two_deeds_leave_a_table_whole_whose_first_homes_are_full() {
    play_pairs(&Scene::new(&open(2), &[]), &DEEDS);
}

#[test]
fn every_two_deeds_leave_a_table_whole_with_entries_at_second_homes() {
    // Two newcomers look at many lines here.
    play_pairs(&Scene { interruptions: interruptions(1, 2), ..Scene::new(&open(3), &[]) }, &DEEDS);
    for deed in DEEDS {
        for at_once in [[deed, Deed::FreePair(connection(3))], [deed, Deed::Withdraw(connection(4))]] {
            Scene::new(&open(3), &at_once).play(Fault::None);
        }
    }
}

/// Half a pair goes with whoever comes across it first, and nobody makes another.
#[test]
fn every_two_deeds_mend_half_a_pair_or_leave_it() {
    let mut before = open(1);
    before.push(Deed::Tear(connection(1).back));
    let half = Deed::FreeHalf(connection(1).flow);
    let scene = Scene { halves: 1, ..Scene::new(&before, &[]) };
    play_pairs(&scene, &DEEDS);
    for deed in DEEDS {
        Scene { at_once: vec![half, deed], ..scene.clone() }.play(Fault::None);
    }
}

/// A line whose owner is gone blocks nobody else; freed, it leaves half a pair at most, and a count too high by one.
#[test]
fn a_line_whose_owner_is_gone_is_freed_under_everybodys_hands() {
    for state in [State::Leaving, State::Claimed] {
        for (opened, index, surplus) in [(2, 1, 0), (3, 4, 1), (4, 5, 1)] {
            for deed in DEEDS {
                let mut scene = Scene::new(&open(opened), &[Deed::FreeStuck(index), deed]);
                (scene.stuck, scene.halves, scene.surplus) = (Some((index, state)), 1, surplus);
                scene.play(Fault::None);
            }
        }
    }
}
