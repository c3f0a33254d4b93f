//! How many packets are forwarded.

use serde_json::{Value, json};

use super::{Spread, quotient, spread};
use crate::bench::bar::{Bar, Judgement};
use crate::bench::forward::{Rate, Way};

/// A row of rates: the turns of all ways, round by round.
pub struct Forwarding {
    pub name: &'static str,
    /// For the ratio to nftables.
    pub bar: Bar,
    pub rounds: Vec<[Rate; Way::ALL.len()]>,
}

impl Forwarding {
    fn rates(&self) -> Vec<[f64; Way::ALL.len()]> {
        self.rounds.iter().map(|round| round.map(|rate| rate.packets)).collect()
    }

    /// Packets a second.
    fn rate(&self, way: Way) -> f64 {
        spread(self.rates().iter().filter_map(|round| round.get(way as usize)).copied()).median
    }

    /// How many times what nftables forwards.
    fn ratio(&self) -> Spread {
        quotient(&self.rates(), Way::Drover as usize, Way::Nftables as usize)
    }

    /// The same with the generator's time taken from both.
    fn ratio_without_generator(&self) -> f64 {
        let net = |round: &[f64; Way::ALL.len()]| {
            let time = |way: Way| round.get(way as usize).map_or(f64::NAN, |rate| 1.0 / rate);
            let generator = time(Way::Dropped);
            (time(Way::Nftables) - generator) / (time(Way::Drover) - generator)
        };
        spread(self.rates().iter().map(net)).median
    }

    fn judgement(&self) -> Judgement {
        self.bar.judge(self.ratio().median)
    }

    /// What was asked and missed.
    pub fn missed(&self) -> Option<String> {
        (self.judgement() == Judgement::Missed).then(|| {
            format!("{}: {:.2} x nftables, {} wanted", self.name, self.ratio().median, self.bar.must)
        })
    }

    pub fn json(&self) -> Value {
        let lost = self.rounds.iter().flatten().map(|rate| rate.lost);
        json!({
            "name": self.name,
            "drover_pps": self.rate(Way::Drover),
            "nftables_pps": self.rate(Way::Nftables),
            "routed_pps": self.rate(Way::Routed),
            "generated_pps": self.rate(Way::Dropped),
            "ratio": self.ratio().json(),
            "ratio_without_generator": self.ratio_without_generator(),
            "lost": spread(lost).high,
            "goal": self.bar.goal,
            "must": self.bar.must,
            "met": self.judgement() != Judgement::Missed,
        })
    }

    fn line(&self) -> String {
        let ratio = self.ratio();
        let [drover, nftables, routed, dropped] = Way::ALL.map(|way| self.rate(way) / 1e3);
        format!(
            "{:<11} {drover:>6.0} {nftables:>8.0} {routed:>6.0} {dropped:>7.0} {:>5.2} {:>10} {:>5.2} {:>7} {}",
            self.name.trim_start_matches("forwarding, "),
            ratio.median,
            ratio.range(),
            self.ratio_without_generator(),
            self.bar.text(),
            self.judgement().text(),
        )
    }
}

/// The lines of the table; none if there are no rows.
pub fn table(rows: &[Forwarding]) -> Vec<String> {
    if rows.is_empty() {
        return Vec::new();
    }
    let head = "\nForwarding, thousands of packets a second, UDP of 64 bytes, over veth, all on\n\
         one CPU with generator and sink; medians. Ratio: drover to nftables' NAT; `net`\n\
         with the time taken from both in which the generator's frames are just dropped.\n";
    let titles = format!(
        "{:<11} {:>6} {:>8} {:>6} {:>7} {:>5} {:>10} {:>5} {:>7}",
        "", "drover", "nftables", "routed", "dropped", "ratio", "low-high", "net", "bar"
    );
    [head.to_owned(), titles].into_iter().chain(rows.iter().map(Forwarding::line)).collect()
}
