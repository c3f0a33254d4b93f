//! The order in which weighted round robin takes the backends: smooth, so that one of much weight does not take its turns all
//! at once.
//!
//! Each turn, everybody is owed his weight; who is owed most has it, and is charged what all were owed. So nobody ever has had a
//! whole turn more than his share (nginx and LVS take turns likewise).

use lb_common::abi::TABLE_SIZE;

use crate::maglev::Member;

/// A backend that takes turns.
struct Taker {
    index: usize,
    weight: i64,
    owed: i64,
}

/// For each slot the index of the member whose turn it is; `None` if nobody serves.
pub fn build(members: &[Member<'_>]) -> Option<Vec<usize>> {
    let mut takers: Vec<Taker> = members
        .iter()
        .enumerate()
        .filter(|(_, member)| member.serving && member.weight > 0)
        .map(|(index, member)| Taker { index, weight: i64::from(member.weight), owed: 0 })
        .collect();
    let all: i64 = takers.iter().map(|taker| taker.weight).sum();
    (0..TABLE_SIZE).map(|_| turn(&mut takers, all)).collect()
}

fn turn(takers: &mut [Taker], all: i64) -> Option<usize> {
    takers.iter_mut().for_each(|taker| taker.owed += taker.weight);
    // Of equals the first.
    let next = takers.iter_mut().rev().max_by_key(|taker| taker.owed)?;
    next.owed -= all;
    Some(next.index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn order(weights: &[u32]) -> Option<Vec<usize>> {
        let member = |&weight| Member { name: "", weight, serving: true };
        build(&weights.iter().map(member).collect::<Vec<_>>())
    }

    #[test]
    fn turns_are_interleaved() {
        for (weights, first) in [
            (vec![1, 1], vec![0, 1, 0, 1]),
            (vec![5, 1, 1], vec![0, 0, 1, 0, 2, 0, 0]),
            (vec![100, 0, 200], vec![2, 0, 2, 2, 0, 2]),
            (vec![7], vec![0, 0, 0]),
        ] {
            let order = order(&weights).unwrap();
            assert_eq!(order.len(), TABLE_SIZE as usize);
            assert_eq!(order[..first.len()], first, "{weights:?}");
        }
        assert_eq!(order(&[]), None);
        assert_eq!(order(&[0, 0]), None);
    }

    #[test]
    fn who_does_not_serve_has_no_turn() {
        let member = |serving| Member { name: "", weight: 1, serving };
        let order = build(&[member(false), member(true), member(true)]).unwrap();
        assert_eq!(order[..4], [1, 2, 1, 2]);
        assert_eq!(build(&[member(false)]), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn at_every_moment_each_has_had_its_share_but_for_a_turn_or_two(
            weights in proptest::collection::vec(1u32..=256, 1..24),
        ) {
            let sum = f64::from(weights.iter().sum::<u32>());
            let behind = 1.0 + (weights.len() as f64).log2();
            let mut had = vec![0.0; weights.len()];
            for (turn, index) in (1..).zip(order(&weights).unwrap()) {
                had[index] += 1.0;
                for (had, weight) in had.iter().zip(&weights) {
                    let ahead = had - f64::from(turn) * f64::from(*weight) / sum;
                    prop_assert!(ahead < 1.0 && ahead > -behind, "{ahead} of {weight} at turn {turn}");
                }
            }
        }
    }
}
