//! How many requests are answered.

use serde_json::{Value, json};

use super::{Spread, quotient, spread};
use crate::bench::bar::{Bar, Judgement};
use crate::bench::http::{OPEN, Way};

/// A row of requests a second: the turns of all ways, round by round.
pub struct Requests {
    pub name: &'static str,
    /// For the ratio to a hop that only routes. Drover is to be above all rivals besides.
    pub bar: Bar,
    pub rounds: Vec<[f64; Way::ALL.len()]>,
}

/// Who balances, too.
const RIVALS: [(Way, &str); 2] = [(Way::Nftables, "nftables"), (Way::Haproxy, "HAProxy")];

impl Requests {
    /// Requests a second.
    fn rate(&self, way: Way) -> f64 {
        spread(self.rounds.iter().filter_map(|round| round.get(way as usize)).copied()).median
    }

    /// What share of another way's requests Drover has answered.
    fn ratio(&self, to: Way) -> Spread {
        quotient(&self.rounds, Way::Drover as usize, to as usize)
    }

    /// A rival that answers more than Drover.
    fn better(&self) -> Option<&'static str> {
        RIVALS.iter().find(|(way, _)| self.ratio(*way).median <= 1.0).map(|(_, name)| *name)
    }

    fn judgement(&self) -> Judgement {
        if self.better().is_some() {
            return Judgement::Missed;
        }
        self.bar.judge(self.ratio(Way::Routed).median)
    }

    /// What was asked and missed.
    pub fn missed(&self) -> Option<String> {
        if let Some(rival) = self.better() {
            return Some(format!("{}: {rival} answers no fewer requests", self.name));
        }
        (self.judgement() == Judgement::Missed).then(|| {
            let ratio = self.ratio(Way::Routed).median;
            format!("{}: {ratio:.2} of a routed hop, {} wanted", self.name, self.bar.must)
        })
    }

    pub fn json(&self) -> Value {
        json!({
            "name": self.name,
            "drover_per_second": self.rate(Way::Drover),
            "routed_per_second": self.rate(Way::Routed),
            "routed_xdp_per_second": self.rate(Way::RoutedXdp),
            "nftables_per_second": self.rate(Way::Nftables),
            "haproxy_per_second": self.rate(Way::Haproxy),
            "ratio": self.ratio(Way::Routed).json(),
            "ratio_to_routed_xdp": self.ratio(Way::RoutedXdp).json(),
            "ratio_to_nftables": self.ratio(Way::Nftables).json(),
            "ratio_to_haproxy": self.ratio(Way::Haproxy).json(),
            "goal": self.bar.goal,
            "must": self.bar.must,
            "met": self.judgement() != Judgement::Missed,
        })
    }

    fn line(&self) -> String {
        let ratio = self.ratio(Way::Routed);
        let [drover, routed, xdp, nftables, haproxy] = Way::ALL.map(|way| self.rate(way) / 1e3);
        format!(
            "{:<5} {drover:>6.1} {routed:>6.1} {xdp:>6.1} {nftables:>5.1} {haproxy:>7.1} {:>5.2} {:>9} {:>5.2} {:>5.2} {:>4} {}",
            self.name.trim_start_matches("http, "),
            ratio.median,
            ratio.range(),
            self.ratio(Way::RoutedXdp).median,
            self.ratio(Way::Nftables).median,
            self.bar.text(),
            self.judgement().text(),
        )
    }
}

/// The lines of the table; none if there are no rows.
pub fn table(rows: &[Requests]) -> Vec<String> {
    if rows.is_empty() {
        return Vec::new();
    }
    let head = format!(
        "\nSmall HTTP requests, thousands a second, {OPEN} connections of wrk to nginx, over\n\
         veth, all on one CPU; medians. `close`: a connection for each, so connections a\n\
         second. Ratio: drover to a hop that only routes; it is to be above nftables and\n\
         HAProxy as well. `xdp`: that hop on links like drover's, with a program on them.\n"
    );
    let titles = format!(
        "{:<5} {:>6} {:>6} {:>6} {:>5} {:>7} {:>5} {:>9} {:>5} {:>5} {:>4}",
        "", "drover", "routed", "xdp", "nft", "haproxy", "ratio", "low-high", "/xdp", "/nft", "bar"
    );
    [head, titles].into_iter().chain(rows.iter().map(Requests::line)).collect()
}
