//! What is asked of a ratio.

/// A figure to be reached.
#[derive(Debug, Clone, Copy)]
pub struct Bar {
    /// What Drover wants to be.
    pub goal: f64,
    /// What it must be; `--check` holds to it.
    pub must: f64,
    least: bool,
}

/// How a ratio stands to its bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    Met,
    /// What must be, but not what is wanted.
    Nearly,
    Missed,
}

impl Bar {
    pub const fn at_most(goal: f64) -> Self {
        Self { goal, must: goal, least: false }
    }
    pub const fn at_least(goal: f64) -> Self {
        Self { goal, must: goal, least: true }
    }
    /// The same, with less that must be.
    pub const fn but_must(self, must: f64) -> Self {
        Self { must, ..self }
    }

    pub fn judge(self, ratio: f64) -> Judgement {
        let reached = |bar: f64| if self.least { ratio >= bar } else { ratio <= bar };
        if reached(self.goal) {
            Judgement::Met
        } else if reached(self.must) {
            Judgement::Nearly
        } else {
            Judgement::Missed
        }
    }

    /// `goal/must`, or one figure where they are the same.
    pub fn text(self) -> String {
        let Self { goal, must, .. } = self;
        if goal.total_cmp(&must).is_eq() { goal.to_string() } else { format!("{goal}/{must}") }
    }
}

impl Judgement {
    pub const fn text(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Nearly => "nearly",
            Self::Missed => "missed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_over_or_under_the_ratio() {
        let cost = Bar::at_most(3.0).but_must(3.5);
        let judged = [2.9, 3.0, 3.2, 3.5, 3.6].map(|ratio| cost.judge(ratio).text());
        assert_eq!(judged, ["met", "met", "nearly", "nearly", "missed"]);
        let rate = Bar::at_least(4.5).but_must(4.0);
        assert_eq!([4.6, 4.1, 3.9].map(|ratio| rate.judge(ratio).text()), ["met", "nearly", "missed"]);
        assert_eq!((rate.text(), Bar::at_least(3.0).text()), ("4.5/4".to_owned(), "3".to_owned()));
        assert_eq!(Bar::at_least(3.0).judge(f64::NAN), Judgement::Missed);
    }
}
