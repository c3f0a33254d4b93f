//! Numbers of interfaces: connections name the interface towards their client by a number below [`INTERFACES_MAX`], which the
//! program finds by one multiplication. A factor that gives each interface a number of its own is searched for here.
//!
//! Numbers stay as they are for as long as the factor does. When another interface needs another factor, lines are rewritten,
//! and what the old numbers stood for stays in its place until another interface needs that: so a packet that is under way
//! finds a right number before, while and after.

use lb_common::abi::{INTERFACES_MAX, Interface, interface_number};
use lb_common::wire::Ethernet;
use lb_common::wire::eth::Mac;

use super::control::Control;
use super::mapping::Memory;

const PLACES: usize = INTERFACES_MAX as usize;
/// Factors tried for one under which no interface gets a place that was another's, and then for any that will do.
const TRIES: u32 = 1 << 14;
const MORE_TRIES: u32 = 1 << 20;

/// An interface that the program is to be attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    pub ifindex: u32,
    pub mac: Mac,
    /// Bytes of the largest packet that it carries; 0: not known.
    pub mtu: u16,
    /// The index it had before it was made anew.
    pub was: Option<u32>,
}

impl From<(u32, Mac)> for Registered {
    fn from((ifindex, mac): (u32, Mac)) -> Self {
        Self { ifindex, mac, mtu: 0, was: None }
    }
}

/// More interfaces than there is a factor for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} interfaces are too many: at most {INTERFACES_MAX} can be told apart, and few more than half of them surely"
)]
pub struct TooMany(usize);

/// What becomes of the lines that name a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    Stay,
    To(u16),
    /// The interface is gone, and another one gets its number: the connection can reach its client no more.
    Free,
}

/// By number.
pub type Moves = [Move; PLACES];

/// What is to be changed for the interfaces that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    factor: u32,
    /// In their order.
    numbers: Vec<u32>,
    moves: Moves,
}

/// Gives the `wanted` interfaces their numbers. `rewrite` is called if lines have to name others than they do.
///
/// # Errors
///
/// If there are too many, or `rewrite` fails.
pub fn register<M: Memory>(
    control: &Control<M>,
    wanted: &[Registered],
    rewrite: impl FnOnce(&Moves) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let present = control.interfaces();
    let plan = plan(control.interface_factor(), &present.map(|interface| interface.ifindex), wanted)?;
    let entries = plan.numbers.iter().zip(wanted).map(|(&number, wanted)| {
        let Registered { ifindex, mac, mtu, .. } = *wanted;
        let entry = Interface { ifindex, mac, mtu, reserved: [0; 2] };
        (number, entry, present.get(number as usize).copied().unwrap_or_default())
    });
    let (free, held): (Vec<_>, Vec<_>) =
        entries.partition(|(_, entry, before)| before.ifindex == 0 || before.ifindex == entry.ifindex);
    for (number, entry, _) in free.iter().filter(|(_, entry, before)| entry != before) {
        control.set_interface(*number, *entry);
    }
    control.set_interface_factor(plan.factor);
    control.set_largest(largest(wanted));
    if plan.moves.iter().any(|to| *to != Move::Stay) {
        rewrite(&plan.moves)?;
    }
    // Nobody names these places any more.
    held.iter().for_each(|(number, entry, _)| control.set_interface(*number, *entry));
    Ok(())
}

/// Bytes of the largest frame that every interface carries, as far as is known; 0: nothing is.
fn largest(wanted: &[Registered]) -> u32 {
    let known = wanted.iter().map(|wanted| u32::from(wanted.mtu)).filter(|mtu| *mtu != 0);
    known.min().map_or(0, |mtu| mtu + Ethernet::SIZE as u32)
}

/// `places` are indexes of interfaces by number, 0 where there is none.
fn plan(factor: u32, places: &[u32; PLACES], wanted: &[Registered]) -> Result<Plan, TooMany> {
    let factor = find(factor, places, wanted).ok_or(TooMany(wanted.len()))?;
    let numbers = numbers(factor, wanted);
    let number_of = |ifindex: u32| {
        let found = wanted.iter().position(|wanted| wanted.ifindex == ifindex || wanted.was == Some(ifindex));
        found.and_then(|at| numbers.get(at)).copied()
    };
    let mut moves = [Move::Stay; PLACES];
    for ((old, &ifindex), to) in (0..).zip(places).zip(&mut moves).filter(|((_, ifindex), _)| **ifindex != 0)
    {
        *to = match number_of(ifindex) {
            Some(number) if number == old => Move::Stay,
            Some(number) => Move::To(number as u16),
            None if numbers.contains(&old) => Move::Free,
            None => Move::Stay,
        };
    }
    Ok(Plan { factor, numbers, moves })
}

fn numbers(factor: u32, wanted: &[Registered]) -> Vec<u32> {
    wanted.iter().map(|wanted| interface_number(wanted.ifindex, factor)).collect()
}

/// The present factor, if it will do; or one under which nobody gets another's place; or one that will do.
fn find(present: u32, places: &[u32; PLACES], wanted: &[Registered]) -> Option<u32> {
    if wanted.len() > PLACES {
        return None;
    }
    let is_wanted = |ifindex: u32| wanted.iter().any(|wanted| wanted.ifindex == ifindex);
    // How many get a place that another one has which stays. `None`: two would have the same.
    let clashes = |factor: u32| {
        let (mut taken, mut clashes) = (0u64, 0);
        for wanted in wanted {
            let number = interface_number(wanted.ifindex, factor);
            if taken >> number & 1 == 1 {
                return None;
            }
            taken |= 1 << number;
            let holder = places.get(number as usize).copied().unwrap_or(0);
            clashes += u32::from(holder != wanted.ifindex && is_wanted(holder));
        }
        Some(clashes)
    };
    if present != 0 && clashes(present).is_some() {
        return Some(present);
    }
    // Under the first, indexes in a row get numbers in a row.
    let first = (1 << (32 - INTERFACES_MAX.trailing_zeros())) + 1;
    let factors = || {
        let spread = |step: u32| step.wrapping_mul(0x9e37_79b9) | 1;
        std::iter::once(first).chain((1..).map(spread))
    };
    let good = factors().take(TRIES as usize).find(|&factor| clashes(factor) == Some(0));
    good.or_else(|| factors().take(MORE_TRIES as usize).find(|&factor| clashes(factor).is_some()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::AtomicU64;

    use super::super::control;
    use super::*;

    fn wanted(indexes: &[u32]) -> Vec<Registered> {
        let one = |&ifindex: &u32| Registered {
            ifindex,
            mac: [2, 0, 0, 0, 0, ifindex as u8],
            mtu: 1500,
            was: None,
        };
        indexes.iter().map(one).collect()
    }

    /// The map, and a line for each number that ever stood for an interface.
    struct World {
        control: Control<Vec<AtomicU64>>,
        /// The interface that each line means, and the number it names.
        lines: Vec<(u32, u32)>,
    }

    impl World {
        fn new() -> Self {
            let memory = (0..control::WORDS).map(|_| AtomicU64::new(0)).collect();
            Self { control: Control::new(memory).unwrap(), lines: Vec::new() }
        }

        fn register(&mut self, wanted: &[Registered]) -> bool {
            let (control, lines) = (&self.control, &mut self.lines);
            let mut rewritten = false;
            register(control, wanted, |moves| {
                rewritten = true;
                lines.retain(|(_, number)| moves[*number as usize] != Move::Free);
                for (_, number) in lines.iter_mut() {
                    if let Move::To(to) = moves[*number as usize] {
                        *number = u32::from(to);
                    }
                }
                Ok(())
            })
            .unwrap();
            for wanted in wanted {
                let number = interface_number(wanted.ifindex, self.control.interface_factor());
                let entry = self.control.interfaces()[number as usize];
                assert_eq!((entry.ifindex, entry.mac), (wanted.ifindex, wanted.mac), "the program finds it");
                self.lines.push((wanted.ifindex, number));
            }
            rewritten
        }

        /// Each line leads to the interface it means, and those that lead to one of `there` are not lost.
        fn check(&self, there: &[u32]) {
            for (ifindex, number) in &self.lines {
                assert_eq!(self.control.interfaces()[*number as usize].ifindex, *ifindex);
            }
            for ifindex in there {
                assert!(self.lines.iter().any(|(of, _)| of == ifindex));
            }
        }
    }

    #[test]
    fn each_interface_has_a_number_of_its_own_whatever_comes_and_goes() {
        let mut world = World::new();
        // 2 and 66 have the same number under any factor that gives numbers in a row, and so have others.
        let histories: [&[u32]; 7] =
            [&[2, 3], &[2, 3, 4], &[2, 66, 3], &[2, 3, 66, 130, 1000, 64], &[7, 64], &[2, 7, 71, 135], &[2]];
        for indexes in histories {
            world.register(&wanted(indexes));
            world.check(indexes);
        }
    }

    #[test]
    fn numbers_stay_for_as_long_as_they_can() {
        let mut world = World::new();
        assert!(!world.register(&wanted(&[2, 3])));
        let before = world.control.interfaces();
        assert!(!world.register(&wanted(&[2, 3, 9])), "there is room");
        assert!(world.register(&wanted(&[2, 3, 66])), "2 and 66 do not fit together");
        let after = world.control.interfaces();
        for (number, entry) in before.iter().enumerate().filter(|(_, entry)| entry.ifindex != 0) {
            assert_eq!(after[number], *entry, "packets under way still find it");
        }
    }

    #[test]
    fn a_new_hardware_address_is_told() {
        let mut world = World::new();
        world.register(&wanted(&[5]));
        let new = Registered { mac: [2, 9, 9, 9, 9, 9], ..wanted(&[5])[0] };
        assert!(!world.register(&[new]));
        assert!(world.control.interfaces().iter().any(|interface| interface.mac == new.mac));
    }

    #[test]
    fn the_largest_frame_is_that_of_the_narrowest_interface_whose_size_is_known() {
        let of = |mtus: &[u16]| {
            let wanted: Vec<Registered> =
                mtus.iter().map(|mtu| Registered { mtu: *mtu, ..wanted(&[1])[0] }).collect();
            largest(&wanted)
        };
        assert_eq!([of(&[]), of(&[0]), of(&[1500, 9000]), of(&[0, 1300])], [0, 0, 1514, 1314]);
    }

    #[test]
    fn a_new_size_is_told() {
        let mut world = World::new();
        world.register(&wanted(&[5, 6]));
        let narrow = Registered { mtu: 1300, ..wanted(&[5])[0] };
        assert!(!world.register(&[narrow, wanted(&[6])[0]]));
        let mtus: Vec<u16> =
            world.control.interfaces().iter().map(|it| it.mtu).filter(|it| *it != 0).collect();
        assert_eq!(mtus.iter().min(), Some(&1300));
    }

    #[test]
    fn connections_follow_an_interface_that_was_made_anew() {
        let mut world = World::new();
        world.register(&wanted(&[5, 6]));
        let anew = Registered { was: Some(5), ..wanted(&[9])[0] };
        world.register(&[anew, wanted(&[6])[0]]);
        let (_, number) = world.lines[0];
        assert_eq!(world.control.interfaces()[number as usize].ifindex, 9);
    }

    #[test]
    fn dozens_of_interfaces_find_a_factor_and_too_many_are_told() {
        let scattered: Vec<u32> = (1..=32u32).map(|i| i * i * 3 + 2).collect();
        let in_a_row: Vec<u32> = (100..164).collect();
        for indexes in [scattered, in_a_row] {
            let plan = plan(0, &[0; PLACES], &wanted(&indexes)).unwrap();
            assert_eq!(plan.numbers.iter().collect::<BTreeSet<_>>().len(), indexes.len());
            assert_eq!(plan.factor % 2, 1, "odd");
        }
        let many: Vec<u32> = (1..=65).collect();
        assert_eq!(plan(0, &[0; PLACES], &wanted(&many)), Err(TooMany(65)));
    }
}
