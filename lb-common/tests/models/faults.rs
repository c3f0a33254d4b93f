//! What the models are worth: each fault that is planted is found by one of them, which finds nothing without it.

use std::panic::catch_unwind;

use crate::cast::{connection, hemmed_in, open, with_port_of_first};
use crate::cpu::Fault;
use crate::deeds::Deed;
use crate::scene::Scene;

fn is_found(fault: Fault, opened: u8, at_once: [Deed; 2], said: &str) {
    let scene = Scene::new(&open(opened), &at_once);
    scene.clone().play(Fault::None);
    let panic = catch_unwind(|| scene.play(fault)).expect_err("the fault is not found");
    let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(text.contains(said), "{text}");
}

const ENTER: Deed = Deed::Enter(connection(3));
const EVICT: Deed = Deed::Enter(hemmed_in(5));

#[test]
fn taking_a_line_without_comparing() {
    is_found(Fault::SwapsWithoutComparing, 1, [ENTER, EVICT], "tag");
}

#[test]
fn versions_that_do_not_change() {
    is_found(Fault::NoVersions, 2, [Deed::Read(connection(1)), EVICT], "torn");
}

#[test]
fn a_first_word_read_again_from_memory() {
    is_found(Fault::RereadsFromMemory, 2, [Deed::Read(connection(1)), EVICT], "torn");
}

#[test]
fn no_look_after_the_claim() {
    is_found(Fault::NoLook, 1, [ENTER, ENTER], "duplicate");
}

#[test]
fn no_tag_in_a_claimed_line() {
    is_found(Fault::NoTag, 1, [ENTER, ENTER], "duplicate");
}

#[test]
fn a_bit_that_is_set_after_the_look() {
    is_found(Fault::BitAfterLook, 1, [ENTER, ENTER], "duplicate");
}

#[test]
fn a_second_home_announced_after_the_look() {
    is_found(Fault::CountAfterLook, 2, [ENTER, ENTER], "duplicate");
}

#[test]
fn a_second_home_never_announced() {
    is_found(Fault::NoCount, 2, [ENTER, Deed::Read(connection(1))], "count too low");
}

#[test]
fn a_second_home_announced_for_ever() {
    is_found(
        Fault::CountStays,
        3,
        [Deed::FreePair(connection(3)), Deed::Read(connection(1))],
        "count too high",
    );
}

#[test]
fn a_bit_cleared_in_a_line_that_is_empty_already() {
    is_found(Fault::BitAfterEmpty, 2, [ENTER, Deed::FreePair(connection(2))], "unreachable");
}

#[test]
fn a_bit_that_is_never_cleared() {
    is_found(Fault::BitStays, 2, [Deed::FreePair(connection(2)), Deed::Read(connection(1))], "stale bit");
}

#[test]
fn a_homes_word_changed_in_three_steps() {
    is_found(Fault::TornHops, 1, [ENTER, EVICT], "unreachable");
}

#[test]
fn a_swap_that_is_no_barrier() {
    is_found(Fault::NoBarrier, 1, [EVICT, EVICT], "duplicate");
}

#[test]
fn an_entry_seen_later_than_its_first_word() {
    is_found(Fault::PublishedTooEarly, 2, [Deed::Read(connection(1)), EVICT], "torn");
}

/// So on a processor that loads out of order, a program must keep the order itself.
#[test]
fn an_entry_read_after_its_first_word_was_read_again() {
    is_found(Fault::ReadTooFreely, 2, [Deed::Read(connection(1)), EVICT], "torn");
}

#[test]
fn a_pair_published_by_two_without_a_look() {
    let takes_port = Deed::Open(with_port_of_first(6));
    is_found(Fault::PublishedByTwo, 0, [Deed::Open(connection(1)), takes_port], "half a pair");
}
