//! Three at once, and two at the same flow in every order.

use crate::cast::{connection, hemmed_in, open, with_port_of_first};
use crate::cpu::Fault;
use crate::deeds::Deed;
use crate::scene::{Scene, interruptions};

fn play(before: &[Deed], at_once: &[Deed], interruptions: usize) {
    Scene { interruptions, ..Scene::new(before, at_once) }.play(Fault::None);
}

#[test]
fn two_of_the_same_flow_are_never_both_entered() {
    for opened in [0, 1, 2, 3] {
        for newcomer in [connection(4), hemmed_in(5)] {
            play(&open(opened), &[Deed::Enter(newcomer), Deed::Enter(newcomer)], interruptions(2, 3));
        }
    }
}

/// Who goes to the second home, since the first is full, and who finds room in the first, meet.
#[test]
fn nor_when_a_line_is_freed_meanwhile() {
    for opened in [1, 2, 3] {
        for freed in [1, 2, 3] {
            let enter = Deed::Enter(connection(4));
            let long = if freed == 1 && opened < 3 { 2 } else { 1 };
            let deeds = [enter, enter, Deed::FreePair(connection(freed))];
            play(&open(opened), &deeds, interruptions(1, long));
        }
    }
}

#[test]
fn a_reader_gets_a_whole_entry_or_none() {
    let others = [
        (2, [Deed::Enter(hemmed_in(5)), Deed::FreePair(connection(1))]),
        (2, [Deed::FreePair(connection(1)), Deed::Enter(connection(3))]),
        (1, [Deed::Enter(hemmed_in(5)), Deed::Enter(hemmed_in(7))]),
        (1, [Deed::Open(hemmed_in(5)), Deed::Establish(connection(1))]),
    ];
    for (long, [one, other]) in others {
        play(&open(2), &[Deed::Read(connection(1)), one, other], interruptions(1, long));
    }
}

#[test]
fn a_source_port_goes_to_one_of_two_who_want_it() {
    let deeds = [Deed::Open(with_port_of_first(6)), Deed::Open(with_port_of_first(7))];
    play(&open(1), &deeds, interruptions(1, 2));
    // Everyday one after the other, in all sequences.
    play(&open(1), &[deeds[0], deeds[1], Deed::FreePair(connection(1))], interruptions(0, 1));
    play(&[], &deeds, 2);
}
