//! Who gets a new connection where the load decides.

use lb_common::load::choose;
use proptest::prelude::*;

/// Backends in a table's slots, drawn by numbers that follow from a seed.
struct Farm {
    weights: Vec<u32>,
    loads: Vec<u32>,
    random: u64,
}

impl Farm {
    fn new(weights: Vec<u32>, random: u64) -> Self {
        Self { loads: vec![0; weights.len()], weights, random }
    }

    fn draw(&mut self) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut at = (self.random >> 33) as u32 % self.weights.iter().sum::<u32>();
        for (backend, weight) in (0..).zip(&self.weights) {
            match at.checked_sub(*weight) {
                Some(rest) => at = rest,
                None => return backend,
            }
        }
        unreachable!()
    }

    /// Who gets the next one, and who was drawn for it.
    fn next(&mut self) -> (usize, Vec<usize>) {
        let appraised: Vec<_> = self.loads.iter().copied().zip(self.weights.clone()).collect();
        let mut drawn = Vec::new();
        let draw = || {
            let backend = self.draw();
            drawn.push(backend as usize);
            backend
        };
        let got = choose(draw, |backend| appraised[backend as usize]);
        (got as usize, drawn)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whoever gets it was drawn, and of two who were drawn nobody else has less for its weight.
    #[test]
    fn of_two_who_are_drawn_it_is_the_one_with_less_to_do(
        backends in prop::collection::vec((1u32..=25_600, 0u32..=1 << 30), 1..12),
        seed: u64,
    ) {
        let mut farm = Farm::new(backends.iter().map(|(weight, _)| *weight).collect(), seed);
        farm.loads = backends.iter().map(|(_, load)| *load).collect();
        let (got, drawn) = farm.next();
        let part = |backend: usize| u64::from(farm.loads[backend]) * 1_000_000 / u64::from(farm.weights[backend]);
        prop_assert!(drawn.contains(&got));
        let (first, last) = (drawn[0], drawn[drawn.len() - 1]);
        prop_assert!(drawn[1..drawn.len() - 1].iter().all(|again| *again == first), "more than two: {drawn:?}");
        for other in [first, last] {
            prop_assert!(part(got) <= part(other), "{got} got it, of {drawn:?}");
        }
    }

    /// Of connections that stay, each backend has its share, within 3 points.
    #[test]
    fn shares_follow_the_weights_where_connections_stay(
        weights in prop::collection::vec(1u32..=100, 1..8),
        seed: u64,
    ) {
        const MANY: u32 = 20_000;
        let mut farm = Farm::new(weights, seed);
        for _ in 0..MANY {
            let (got, _) = farm.next();
            farm.loads[got] += 1;
        }
        let sum: u32 = farm.weights.iter().sum();
        for (load, weight) in farm.loads.iter().zip(&farm.weights) {
            let (share, wanted) = (f64::from(*load) / f64::from(MANY), f64::from(*weight) / f64::from(sum));
            prop_assert!((share - wanted).abs() < 0.03, "{share} for {wanted}: {:?}", farm.loads);
        }
    }

    /// The others share what there is; whoever has more than they ever have gets next to nothing.
    #[test]
    fn a_backend_whose_connections_stay_gets_next_to_nothing(others in 2usize..8, seed: u64) {
        let mut farm = Farm::new(vec![10; others + 1], seed);
        farm.loads[0] = 1000;
        let got = (0..2000).filter(|_| farm.next().0 == 0).count();
        // Only whom all draws met: 1 in 3^5 at most.
        prop_assert!(got <= 30, "{got} of 2000");
    }
}
