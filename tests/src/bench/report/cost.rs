//! What a packet costs.

use serde_json::{Value, json};

use super::{Spread, spread};
use crate::bench::bar::{Bar, Judgement};
use crate::bench::cost::Round;

/// A row of costs.
pub struct Cost {
    /// The heading that it stands under.
    pub group: &'static str,
    pub name: String,
    pub bar: Option<Bar>,
    pub rounds: Vec<Round>,
}

impl Cost {
    fn ratio(&self) -> Spread {
        spread(self.rounds.iter().map(|round| round.ratio()))
    }

    fn ratio_without_restore(&self) -> f64 {
        spread(self.rounds.iter().map(|round| round.ratio_without_restore())).median
    }

    /// Nanoseconds.
    fn median(&self, part: fn(&Round) -> f64) -> f64 {
        spread(self.rounds.iter().map(part)).median
    }

    /// The bar, and how the row stands to it.
    fn judged(&self) -> Option<(Bar, Judgement)> {
        self.bar.map(|bar| (bar, bar.judge(self.ratio().median)))
    }

    /// What was asked and missed.
    pub fn missed(&self) -> Option<String> {
        let (bar, judgement) = self.judged()?;
        let ratio = self.ratio().median;
        (judgement == Judgement::Missed)
            .then(|| format!("{}: {ratio:.2} x the floor, {} allowed", self.name, bar.must))
    }

    pub fn json(&self) -> Value {
        json!({
            "group": self.group,
            "name": self.name,
            "bare_floor_ns": self.median(|round| round.bare),
            "floor_ns": self.median(|round| round.floor),
            "drover_ns": self.median(|round| round.program),
            "ratio": self.ratio().json(),
            "ratio_without_restore": self.ratio_without_restore(),
            "goal": self.bar.map(|bar| bar.goal),
            "must": self.bar.map(|bar| bar.must),
            "met": self.judged().map(|(_, judgement)| judgement != Judgement::Missed),
        })
    }

    fn line(&self) -> String {
        let ratio = self.ratio();
        let (bar, met) = self.judged().map_or_else(Default::default, |(bar, met)| (bar.text(), met.text()));
        format!(
            "  {:<21} {:>6.1} {:>7.1} {:>6.2} {:>12} {:>6.2} {bar:>6} {met}",
            self.name,
            self.median(|round| round.floor),
            self.median(|round| round.program),
            ratio.median,
            ratio.range(),
            self.ratio_without_restore(),
        )
    }
}

/// The lines of the table; none if there are no rows.
pub fn table(rows: &[Cost]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut group = "";
    for row in rows {
        if lines.is_empty() {
            let head = "\nOne packet (of a handshake: all three), ns of CPU time, BPF_PROG_TEST_RUN;\n\
                 medians. The floor swaps two MACs and sends. Both behind the same wrapper, which\n\
                 restores the packet; `net` is the ratio with its time taken from both.\n";
            lines.push(head.to_owned());
            lines.push(format!(
                "  {:<21} {:>6} {:>7} {:>6} {:>12} {:>6} {:>6}",
                "", "floor", "drover", "ratio", "low-high", "net", "bar"
            ));
        }
        if row.group != group {
            group = row.group;
            lines.push(group.to_owned());
        }
        lines.push(row.line());
    }
    lines
}
