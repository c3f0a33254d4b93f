//! What came out: tables for people, JSON for scripts.

mod cost;
mod forwarding;
mod requests;

use serde_json::{Value, json};

pub use cost::Cost;
pub use forwarding::Forwarding;
pub use requests::Requests;

/// Everything that was measured.
#[derive(Default)]
pub struct Report {
    pub machine: String,
    pub costs: Vec<Cost>,
    pub forwarding: Vec<Forwarding>,
    pub requests: Vec<Requests>,
}

/// Smallest, median and largest of the rounds.
struct Spread {
    low: f64,
    median: f64,
    high: f64,
}

fn spread(values: impl Iterator<Item = f64>) -> Spread {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    Spread { low: at(0), median: at(values.len() / 2), high: at(values.len().saturating_sub(1)) }
}

impl Spread {
    /// `low-high`, to two places.
    fn range(&self) -> String {
        format!("{:.2}-{:.2}", self.low, self.high)
    }

    fn json(&self) -> Value {
        json!({ "low": self.low, "median": self.median, "high": self.high })
    }
}

/// The same figure of two ways, round by round, divided.
fn quotient<const N: usize>(rounds: &[[f64; N]], of: usize, by: usize) -> Spread {
    let pairs = rounds.iter().filter_map(|round| round.get(of).zip(round.get(by)));
    spread(pairs.map(|(of, by)| of / by))
}

impl Report {
    /// What must be and is not.
    pub fn missed(&self) -> Vec<String> {
        let costs = self.costs.iter().filter_map(Cost::missed);
        let forwarding = self.forwarding.iter().filter_map(Forwarding::missed);
        costs.chain(forwarding).chain(self.requests.iter().filter_map(Requests::missed)).collect()
    }

    pub fn json(&self) -> Value {
        json!({
            "machine": self.machine,
            "cost": self.costs.iter().map(Cost::json).collect::<Vec<_>>(),
            "forwarding": self.forwarding.iter().map(Forwarding::json).collect::<Vec<_>>(),
            "requests": self.requests.iter().map(Requests::json).collect::<Vec<_>>(),
            "missed": self.missed(),
        })
    }

    /// The tables, 80 columns wide.
    pub fn text(&self) -> String {
        let tables =
            [cost::table(&self.costs), forwarding::table(&self.forwarding), requests::table(&self.requests)];
        let lines = std::iter::once(self.machine.clone()).chain(tables.into_iter().flatten());
        lines.map(|line| line.trim_end().to_owned() + "\n").collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::bar::Bar;
    use crate::bench::cost::Round;
    use crate::bench::forward::Rate;

    fn report(program: f64, packets: f64, requests: f64) -> Report {
        let rate = |packets| Rate { packets, lost: 0.0 };
        let cost = |name: &str, bar| Cost {
            group: "one known flow",
            name: name.to_owned(),
            bar,
            rounds: vec![Round { bare: 30.0, floor: 40.0, program }; 3],
        };
        Report {
            machine: "a machine".to_owned(),
            costs: vec![
                cost("tcp-v4-lru-hit", Some(Bar::at_most(3.0).but_must(3.5))),
                cost("tcp-v6-2^20-shuffled", None),
            ],
            forwarding: vec![Forwarding {
                name: "one flow",
                bar: Bar::at_least(3.0).but_must(2.5),
                rounds: vec![[rate(packets), rate(1e5), rate(2e5), rate(9e5)]; 3],
            }],
            requests: vec![Requests {
                name: "http, keep",
                bar: Bar::at_least(0.95),
                rounds: vec![[requests, 1e5, 9e4, 92e3, 8e4]; 3],
            }],
        }
    }

    #[test]
    fn bars_are_held_to() {
        assert_eq!(report(110.0, 3e5, 96e3).missed(), [""; 0]);
        assert_eq!(report(139.0, 2.6e5, 95e3).missed(), [""; 0], "a goal is not a must");
        let missed = report(141.0, 2.4e5, 89e3);
        assert_eq!(missed.missed().len(), 3, "{:?}", missed.missed());
        let json = missed.json();
        assert!(
            [&json["cost"], &json["forwarding"], &json["requests"]].iter().all(|it| it[0]["met"] == false)
        );
        assert!(report(110.0, 3e5, 96e3).json()["requests"][0]["met"] == true);
    }

    #[test]
    fn a_rival_that_does_better_is_a_bar_missed() {
        let missed = report(110.0, 3e5, 92e3).missed();
        assert_eq!(missed.len(), 1, "{missed:?}");
        assert!(missed[0].contains("nftables"), "{missed:?}");
    }

    #[test]
    fn the_tables_fit_a_terminal() {
        let text = report(139.0, 2.6e5, 93e3).text();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("3.48") && text.contains("nearly"), "{text}");
        assert_eq!(text.matches("one known flow").count(), 1, "{text}");
    }

    #[test]
    fn tables_without_rows_are_not_there() {
        assert_eq!(Report { machine: "a machine".to_owned(), ..Report::default() }.text(), "a machine\n");
    }
}
