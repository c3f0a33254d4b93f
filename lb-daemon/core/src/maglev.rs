//! Maglev tables (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4),
//! with weights, and with a rule of their own for backends that do not serve.
//!
//! The table is a function of the backends alone: every node, and every daemon after a restart, builds the same one. It is
//! built for all backends as if they served; the slots of those that do not are then given away by weighted rendezvous
//! among the others. So a backend that leaves moves nobody but its own flows, whoever else is out at the time, and
//! one that comes back takes back exactly those.

use lb_common::abi::TABLE_SIZE;
use lb_common::hash;

const SLOTS: usize = TABLE_SIZE as usize;
const FREE: usize = usize::MAX;

/// A backend, as far as a table cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<'a> {
    /// What its place in the table is derived from; unique in the table.
    pub name: &'a str,
    /// Its share is in proportion. 0: none.
    pub weight: u16,
    pub serving: bool,
}

/// For each slot the index of the member that serves it; `None` if nobody serves.
pub fn build(members: &[Member<'_>]) -> Option<Vec<usize>> {
    if !members.iter().any(|member| member.serving && member.weight > 0) {
        return None;
    }
    let mut table = populate(members);
    let heirs = heirs(members);
    for (slot, owner) in table.iter_mut().enumerate() {
        if !members[*owner].serving {
            *owner = heir(&heirs, slot)?;
        }
    }
    Some(table)
}

/// The algorithm of the paper: members take turns, each taking the next free slot of its own permutation. A member of half
/// the weight gets every other turn.
fn populate(members: &[Member<'_>]) -> Vec<usize> {
    let heaviest = members.iter().map(|member| u64::from(member.weight)).max().unwrap_or(0);
    let mut walks: Vec<Walk> = members.iter().map(|member| Walk::new(member.name)).collect();
    let mut table = vec![FREE; SLOTS];
    let mut filled = 0;
    for turn in 1.. {
        for (index, (member, walk)) in members.iter().zip(&mut walks).enumerate() {
            if turn * u64::from(member.weight) < walk.due {
                continue;
            }
            walk.due += heaviest;
            let slot = walk.next_free(&table);
            table[slot] = index;
            filled += 1;
            if filled == SLOTS {
                return table;
            }
        }
    }
    table
}

/// A member's permutation of the slots: `offset + i * skip`, complete because the size is prime.
struct Walk {
    at: usize,
    skip: usize,
    /// The turns, times its weight, at which it may move next.
    due: u64,
}

impl Walk {
    fn new(name: &str) -> Self {
        let offset = hash::bytes(1, name.as_bytes()) % SLOTS as u64;
        let skip = hash::bytes(2, name.as_bytes()) % (SLOTS as u64 - 1) + 1;
        Self { at: offset as usize, skip: skip as usize, due: 1 }
    }

    fn next_free(&mut self, table: &[usize]) -> usize {
        while table[self.at] != FREE {
            self.at = (self.at + self.skip) % SLOTS;
        }
        self.at
    }
}

/// Who may serve a slot whose owner does not.
struct Heir {
    index: usize,
    /// Makes its draws its own.
    seed: u64,
    weight: f64,
}

fn heirs(members: &[Member<'_>]) -> Vec<Heir> {
    let serving = members.iter().enumerate().filter(|(_, member)| member.serving && member.weight > 0);
    serving
        .map(|(index, member)| Heir {
            index,
            seed: hash::bytes(3, member.name.as_bytes()),
            weight: f64::from(member.weight),
        })
        .collect()
}

/// Who serves a slot whose owner does not: the heir of the highest weighted score (Thaler and Ravishankar's rendezvous
/// hashing; the logarithm makes shares proportional to weights).
fn heir(heirs: &[Heir], slot: usize) -> Option<usize> {
    let score = |heir: &Heir| {
        let draw = hash::mix(heir.seed, slot as u32);
        let uniform = (hash::mix(draw, 0) >> 11) as f64 / (1u64 << 53) as f64;
        heir.weight / -uniform.max(f64::MIN_POSITIVE).ln()
    };
    let scores = heirs.iter().map(|heir| (score(heir), heir.index));
    scores.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, index)| index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("10.0.0.{i}")).collect()
    }

    fn members<'a>(names: &'a [String], weights: &[u16]) -> Vec<Member<'a>> {
        names.iter().zip(weights).map(|(name, &weight)| Member { name, weight, serving: true }).collect()
    }

    fn share(table: &[usize], index: usize) -> f64 {
        table.iter().filter(|&&owner| owner == index).count() as f64 / table.len() as f64
    }

    #[test]
    fn shares_follow_the_weights() {
        for weights in
            [vec![1, 1], vec![3, 1], vec![256, 1], vec![5, 4, 3, 2, 1], vec![1; 100], vec![7, 0, 7]]
        {
            let names = names(weights.len());
            let table = build(&members(&names, &weights)).unwrap();
            let sum: u16 = weights.iter().sum();
            for (index, &weight) in weights.iter().enumerate() {
                let wanted = f64::from(weight) / f64::from(sum);
                let got = share(&table, index);
                assert!((got - wanted).abs() < 0.001, "{weights:?}: {index} has {got}, wanted {wanted}");
            }
        }
    }

    #[test]
    fn a_new_backend_takes_little_more_than_its_share() {
        for n in [1, 2, 3, 5, 10, 50] {
            let names = names(n + 1);
            let before = build(&members(&names[..n], &vec![1; n])).unwrap();
            let after = build(&members(&names, &vec![1; n + 1])).unwrap();
            let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count() as f64 / SLOTS as f64;
            let fair = 1.0 / (n as f64 + 1.0);
            assert!(moved < fair + 0.03, "{n} -> {}: {moved:.3} moved, {fair:.3} would be least", n + 1);
        }
    }

    #[test]
    fn nobody_serves_an_empty_table() {
        let names = names(2);
        assert_eq!(build(&[]), None);
        assert_eq!(build(&members(&names, &[0, 0])), None);
        let mut out = members(&names, &[1, 1]);
        out.iter_mut().for_each(|member| member.serving = false);
        assert_eq!(build(&out), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_backend_that_leaves_moves_only_its_own_flows(
            weights in proptest::collection::vec(1u16..=20, 2..12),
            out in any::<u16>(),
            leaver in any::<prop::sample::Index>(),
        ) {
            let names = names(weights.len());
            let mut members = members(&names, &weights);
            for (i, member) in members.iter_mut().enumerate() {
                member.serving = out >> i & 1 == 0;
            }
            let leaver = leaver.index(members.len());
            members[leaver].serving = true;
            let before = build(&members).unwrap();
            members[leaver].serving = false;
            let Some(after) = build(&members) else { return Ok(()) };
            for (old, new) in before.iter().zip(&after) {
                prop_assert!(members[*new].serving);
                if *old != leaver {
                    prop_assert_eq!(old, new);
                }
            }
        }
    }
}
