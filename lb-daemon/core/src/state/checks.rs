//! What is told of the checks, in plain data. Times are told as ages: what the clock on the wall does meanwhile changes
//! nothing in them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::model::{BackendName, FarmName};
use crate::health::Judgement;

/// What came of one run of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckVerdict {
    Passed,
    Failed,
    /// It could not be made, through no fault of the backend: says nothing of it, and does not count.
    Untried,
}

impl CheckVerdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Untried => "untried",
        }
    }
    pub fn of(passed: bool) -> Self {
        if passed { Self::Passed } else { Self::Failed }
    }
}

/// One result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultRecord {
    /// How long ago it ended.
    pub ago: Duration,
    pub took: Duration,
    pub verdict: CheckVerdict,
    /// In the check's words.
    pub reason: Arc<str>,
}

/// One check at one address and port of one backend.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckReport {
    pub farm: FarmName,
    pub backend: BackendName,
    /// Kind and address, as in `tcp 10.0.0.11:443`, and a number if the backend has several such: unique in it.
    pub name: String,
    /// The word for the kind in the configuration.
    pub kind: &'static str,
    pub address: SocketAddr,
    pub judgement: Judgement,
    /// Why the judgement is what it is; the last result's reason may be another.
    pub reason: String,
    /// For how long the judgement has been what it is.
    pub held_for: Duration,
    /// The latest result; it is the last of the history too, if that was asked for.
    pub last: Option<ResultRecord>,
    /// The latest results, oldest first. Those of a check that farms share are all of them those of the shared runs.
    pub history: Vec<ResultRecord>,
    /// Whether it runs now.
    pub running: bool,
    /// Zero: it is due. While it runs, the next run after that.
    pub next_run_in: Duration,
    /// How often the judgement went from up to down or back.
    pub transitions: u64,
    /// How often it could not be run.
    pub untried: u64,
    /// How long the runs took.
    pub durations: Histogram,
    /// How many checks of other farms and backends this one shares its runs with.
    pub shared_with: usize,
}

/// How the checks as a whole are doing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CheckLoad {
    /// Checks of all backends.
    pub targets: usize,
    /// What is run for them: shared checks once.
    pub subjects: usize,
    pub in_flight: usize,
    /// How much later than planned runs started.
    pub lateness: Histogram,
}

/// What a check said that was run by hand. It counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckRun {
    pub farm: FarmName,
    pub backend: BackendName,
    /// Kind and address.
    pub name: String,
    pub kind: &'static str,
    pub address: SocketAddr,
    pub verdict: CheckVerdict,
    pub took: Duration,
    pub reason: String,
    /// The whole output of a command; nothing for the other kinds.
    pub output: String,
}

/// How often a duration was how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// One for each of [`Histogram::BOUNDS`], and one for what is longer.
    counts: [u64; Self::BOUNDS.len() + 1],
    sum: Duration,
    max: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; Self::BOUNDS.len() + 1], sum: Duration::ZERO, max: Duration::ZERO }
    }
}

impl Histogram {
    /// The longest duration that falls into each bucket but the last.
    pub const BOUNDS: [Duration; 11] = [
        Duration::from_millis(1),
        Duration::from_micros(2500),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(25),
        Duration::from_millis(50),
        Duration::from_millis(100),
        Duration::from_millis(250),
        Duration::from_millis(500),
        Duration::from_secs(2),
        Duration::from_secs(10),
    ];

    pub fn record(&mut self, duration: Duration) {
        let bucket = Self::BOUNDS.partition_point(|&bound| bound < duration);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(duration);
        self.max = self.max.max(duration);
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
    pub fn sum(&self) -> Duration {
        self.sum
    }
    pub fn max(&self) -> Duration {
        self.max
    }

    /// How many fell into each bucket, with its bound; the last has none. Not cumulative.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        let bounds = Self::BOUNDS.into_iter().map(Some).chain([None]);
        bounds.zip(self.counts.iter().copied())
    }

    /// A duration that at least the share `q` (0 to 1) of them did not exceed: the bound of a bucket, or the longest.
    pub fn quantile(&self, q: f64) -> Duration {
        let wanted = (q * self.count() as f64).ceil() as u64;
        let mut seen = 0;
        for (bound, count) in self.buckets() {
            seen += count;
            if seen >= wanted {
                return bound.map_or(self.max, |bound| bound.min(self.max));
            }
        }
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let ms = Duration::from_millis;
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.99), Duration::ZERO);
        for duration in [ms(0), ms(1), Duration::from_micros(1001), ms(700), ms(11_000)] {
            histogram.record(duration);
        }
        let filled: Vec<_> = histogram.buckets().filter(|(_, count)| *count > 0).collect();
        let expected =
            [(Some(ms(1)), 2), (Some(Duration::from_micros(2500)), 1), (Some(ms(2000)), 1), (None, 1)];
        assert_eq!(filled, expected);
        assert_eq!((histogram.count(), histogram.max()), (5, ms(11_000)));
        assert_eq!((histogram.quantile(0.4), histogram.quantile(0.8)), (ms(1), ms(2000)));
        assert_eq!(histogram.quantile(0.99), ms(11_000));
    }
}
