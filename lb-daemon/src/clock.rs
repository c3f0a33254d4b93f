//! The only place in the daemon that reads a clock. Everything else is told the time or asks here.

use std::time::{Duration, Instant, SystemTime};

use lb_common::abi::TICK_MILLISECONDS;

/// Now, for intervals and deadlines. By the runtime's clock, which tests can stop and advance.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Now, for people.
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// What the clock on the wall said at `instant`, by what it says now.
pub fn wall_at(instant: Instant) -> SystemTime {
    let (wall, now) = (wall(), now());
    let ago = wall.checked_sub(now.saturating_duration_since(instant)).unwrap_or(wall);
    ago + instant.saturating_duration_since(now)
}

/// The data plane's clock, which counts the time that somebody keeps: it goes on from where the daemon before this one left
/// it, and time in which no daemon ran, or the machine slept, is not counted. So nobody ages by it.
#[derive(Debug, Clone, Copy)]
pub struct KeptTime {
    ticks: u32,
    /// When that tick began.
    since: Instant,
}

/// What has passed on the data plane's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    Ticks(u32),
    /// More than a daemon takes that runs; none of it counts.
    Gap(Duration),
}

/// The longest pause between two looks that counts.
const GAP: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(TICK_MILLISECONDS as u64);

impl KeptTime {
    /// Goes on from `ticks`.
    pub fn new(ticks: u32, now: Instant) -> Self {
        Self { ticks, since: now }
    }

    pub fn ticks(&self) -> u32 {
        self.ticks
    }

    /// Counts the whole ticks that have passed.
    pub fn keep(&mut self, now: Instant) -> Passed {
        let passed = now.saturating_duration_since(self.since);
        if passed > GAP {
            self.since = now;
            return Passed::Gap(passed);
        }
        // At most 50.
        let ticks = (passed.as_millis() / TICK.as_millis()) as u32;
        self.ticks = self.ticks.wrapping_add(ticks);
        self.since += TICK * ticks;
        Passed::Ticks(ticks)
    }
}

/// Ends at `deadline`; never if there is none. Cancel-safe.
pub async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_time_loses_no_part_of_a_tick_and_wraps() {
        let start = now();
        let mut clock = KeptTime::new(u32::MAX, start);
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(clock.keep(at(99)), Passed::Ticks(0));
        assert_eq!(clock.keep(at(199)), Passed::Ticks(1));
        assert_eq!(clock.keep(at(201)), Passed::Ticks(1));
        assert_eq!(clock.ticks(), 1);
        for milliseconds in (250..=10_200).step_by(50) {
            clock.keep(at(milliseconds));
        }
        assert_eq!(clock.ticks(), 101);
    }

    #[test]
    fn a_gap_is_no_time() {
        let start = now();
        let mut clock = KeptTime::new(7, start);
        let hour = Duration::from_secs(3600);
        assert_eq!(clock.keep(start + hour), Passed::Gap(hour));
        assert_eq!(clock.ticks(), 7);
        assert_eq!(clock.keep(start + hour + TICK), Passed::Ticks(1));
        assert_eq!(clock.keep(start), Passed::Ticks(0), "nor is time that runs backwards");
    }

    #[test]
    fn an_instant_of_a_minute_ago_was_a_minute_ago_on_the_wall() {
        let age = wall().duration_since(wall_at(now() - Duration::from_secs(60))).unwrap();
        assert!((59..=61).contains(&age.as_secs()), "{age:?}");
        let ahead = wall_at(now() + Duration::from_secs(60)).duration_since(wall()).unwrap();
        assert!((59..=61).contains(&ahead.as_secs()), "{ahead:?}");
    }
}
