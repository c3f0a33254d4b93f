//! What came out: a table for people, JSON for scripts.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::cost::Round;
use super::forward::{Rate, Way};
use super::rows::Bar;

/// Forwarding against nftables: what it must be, and what it wants to be.
const FORWARDING_MUST: f64 = 2.5;
const FORWARDING_GOAL: f64 = 3.0;

/// A row of costs.
pub struct Cost {
    pub name: &'static str,
    pub bar: Option<Bar>,
    pub rounds: Vec<Round>,
}

/// A row of rates: the turns of all ways, round by round.
pub struct Forwarding {
    pub name: &'static str,
    /// Whether the bar is for this row.
    pub judged: bool,
    pub rounds: Vec<[Rate; Way::ALL.len()]>,
}

/// Everything that was measured.
#[derive(Default)]
pub struct Report {
    pub machine: String,
    pub costs: Vec<Cost>,
    pub forwarding: Vec<Forwarding>,
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

impl Cost {
    fn ratio(&self) -> Spread {
        spread(self.rounds.iter().map(|round| round.ratio()))
    }

    /// What was asked and missed.
    fn missed(&self) -> Option<String> {
        let (must, ratio) = (self.bar?.must?, self.ratio().median);
        (ratio > must).then(|| format!("{}: {ratio:.2} x the floor, {must} allowed", self.name))
    }

    fn verdict(&self) -> (String, &'static str) {
        let Some(bar) = self.bar else { return (String::new(), "") };
        let ratio = self.ratio().median;
        let met = match bar.must {
            _ if ratio <= bar.goal => "met",
            Some(must) if ratio <= must => "nearly",
            Some(_) | None => "missed",
        };
        let bars = match bar.must {
            Some(must) if must > bar.goal => format!("{}/{must}", bar.goal),
            Some(_) | None => bar.goal.to_string(),
        };
        (bars, met)
    }

    fn json(&self) -> Value {
        let (ratio, without) = (self.ratio(), spread(self.rounds.iter().map(|r| r.ratio_without_restore())));
        let nanoseconds = |part: fn(&Round) -> f64| spread(self.rounds.iter().map(part)).median;
        json!({
            "name": self.name,
            "bare_floor_ns": nanoseconds(|round| round.bare),
            "floor_ns": nanoseconds(|round| round.floor),
            "drover_ns": nanoseconds(|round| round.program),
            "ratio": { "low": ratio.low, "median": ratio.median, "high": ratio.high },
            "ratio_without_restore": without.median,
            "goal": self.bar.map(|bar| bar.goal),
            "must": self.bar.and_then(|bar| bar.must),
            "met": self.bar.map(|bar| ratio.median <= bar.must.unwrap_or(bar.goal)),
        })
    }
}

impl Forwarding {
    fn rate(&self, way: Way) -> Spread {
        spread(self.rounds.iter().filter_map(|round| round.get(way as usize)).map(|rate| rate.packets))
    }

    /// How many times what nftables forwards.
    fn ratio(&self) -> Spread {
        let ways = (Way::Drover as usize, Way::Nftables as usize);
        let pairs = self.rounds.iter().filter_map(|round| round.get(ways.0).zip(round.get(ways.1)));
        spread(pairs.map(|(drover, nftables)| drover.packets / nftables.packets))
    }

    /// The same with the generator's time taken from both.
    fn ratio_without_generator(&self) -> Spread {
        let ways = (Way::Drover as usize, Way::Nftables as usize, Way::Dropped as usize);
        let time =
            |round: &[Rate], way: usize| round.get(way).map_or(f64::NAN, |rate: &Rate| 1.0 / rate.packets);
        spread(self.rounds.iter().map(|round| {
            let generator = time(round, ways.2);
            (time(round, ways.1) - generator) / (time(round, ways.0) - generator)
        }))
    }

    fn missed(&self) -> Option<String> {
        let ratio = self.ratio().median;
        (self.judged && ratio < FORWARDING_MUST)
            .then(|| format!("{}: {ratio:.2} x nftables, {FORWARDING_MUST} wanted", self.name))
    }

    fn json(&self) -> Value {
        let ratio = self.ratio();
        let lost = self.rounds.iter().flatten().map(|rate| rate.lost);
        json!({
            "name": self.name,
            "drover_pps": self.rate(Way::Drover).median,
            "nftables_pps": self.rate(Way::Nftables).median,
            "routed_pps": self.rate(Way::Routed).median,
            "generated_pps": self.rate(Way::Dropped).median,
            "ratio": { "low": ratio.low, "median": ratio.median, "high": ratio.high },
            "ratio_without_generator": self.ratio_without_generator().median,
            "lost": spread(lost).high,
            "goal": self.judged.then_some(FORWARDING_GOAL),
            "must": self.judged.then_some(FORWARDING_MUST),
            "met": self.judged.then_some(ratio.median >= FORWARDING_MUST),
        })
    }
}

impl Report {
    /// What must be and is not.
    pub fn missed(&self) -> Vec<String> {
        let costs = self.costs.iter().filter_map(Cost::missed);
        costs.chain(self.forwarding.iter().filter_map(Forwarding::missed)).collect()
    }

    pub fn json(&self) -> Value {
        json!({
            "machine": self.machine,
            "cost": self.costs.iter().map(Cost::json).collect::<Vec<_>>(),
            "forwarding": self.forwarding.iter().map(Forwarding::json).collect::<Vec<_>>(),
            "missed": self.missed(),
        })
    }

    /// The table, 80 columns wide.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.machine);
        // Writing to a string does not fail.
        if !self.costs.is_empty() {
            self.costs_text(&mut text).ok();
        }
        if !self.forwarding.is_empty() {
            self.forwarding_text(&mut text).ok();
        }
        text
    }

    fn costs_text(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "\nOne packet, ns of CPU time, BPF_PROG_TEST_RUN; medians. The floor swaps two MACs\n\
             and sends. Both behind the same wrapper, which restores the packet; `net` is\n\
             the ratio with the wrapper's time taken from both. Bar: goal/must.\n\n\
             {:<29} {:>5} {:>6} {:>6} {:>11} {:>5} {:>5}",
            "", "floor", "drover", "ratio", "low-high", "net", "bar"
        )?;
        for cost in &self.costs {
            let median = |part: fn(&Round) -> f64| spread(cost.rounds.iter().map(part)).median;
            let (ratio, (bars, met)) = (cost.ratio(), cost.verdict());
            let line = format!(
                "{:<29} {:>5.1} {:>6.1} {:>6.2} {:>11} {:>5.2} {bars:>5} {met}",
                cost.name,
                median(|round| round.floor),
                median(|round| round.program),
                ratio.median,
                format!("{:.2}-{:.2}", ratio.low, ratio.high),
                median(|round| round.ratio_without_restore()),
            );
            writeln!(text, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn forwarding_text(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "\nForwarding, thousands of packets a second, UDP of 64 bytes, over veth, all on\n\
             one CPU with generator and sink; medians. Ratio: drover to nftables' NAT; `net`\n\
             with the time taken from both in which the generator's frames are just dropped.\n\n\
             {:<11} {:>6} {:>8} {:>6} {:>7} {:>5} {:>10} {:>5} {:>5}",
            "", "drover", "nftables", "routed", "dropped", "ratio", "low-high", "net", "bar"
        )?;
        for row in &self.forwarding {
            let rate = |way| row.rate(way).median / 1e3;
            let ratio = row.ratio();
            let bars = format!("{FORWARDING_GOAL}/{FORWARDING_MUST}");
            let (bars, met) = match ratio.median {
                _ if !row.judged => (String::new(), ""),
                median if median >= FORWARDING_GOAL => (bars, "met"),
                median if median >= FORWARDING_MUST => (bars, "nearly"),
                _ => (bars, "missed"),
            };
            let line = format!(
                "{:<11} {:>6.0} {:>8.0} {:>6.0} {:>7.0} {:>5.2} {:>10} {:>5.2} {bars:>5} {met}",
                row.name.trim_start_matches("forwarding, "),
                rate(Way::Drover),
                rate(Way::Nftables),
                rate(Way::Routed),
                rate(Way::Dropped),
                ratio.median,
                format!("{:.2}-{:.2}", ratio.low, ratio.high),
                row.ratio_without_generator().median,
            );
            writeln!(text, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(program: f64, packets: f64) -> Report {
        let rate = |packets| Rate { packets, lost: 0.0 };
        Report {
            machine: "a machine".to_owned(),
            costs: vec![Cost {
                name: "known flow, IPv4 TCP",
                bar: Some(Bar { goal: 3.0, must: Some(3.5) }),
                rounds: vec![Round { bare: 30.0, floor: 40.0, program }; 3],
            }],
            forwarding: vec![Forwarding {
                name: "one flow",
                judged: true,
                rounds: vec![[rate(packets), rate(1e5), rate(2e5), rate(9e5)]; 3],
            }],
        }
    }

    #[test]
    fn bars_are_held_to() {
        assert!(report(110.0, 3e5).missed().is_empty());
        assert!(report(139.0, 2.6e5).missed().is_empty(), "a goal is not a must");
        assert_eq!(report(141.0, 2.4e5).missed().len(), 2);
        assert_eq!(report(141.0, 2.4e5).json()["cost"][0]["met"], false);
    }

    #[test]
    fn the_table_fits_a_terminal() {
        let text = report(139.0, 2.6e5).text();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("3.48") && text.contains("nearly"), "{text}");
    }
}
