//! The only place in the daemon that reads a clock. Everything else is told the time or asks here.

use std::time::{Duration, Instant, SystemTime};

use lb_common::abi::TICK_MILLISECONDS;

/// Now, for intervals and deadlines.
pub fn now() -> Instant {
    Instant::now()
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

/// Now, in ticks of the data plane's clock. It goes on over a restart of the daemon, and not over one of the machine.
pub fn ticks() -> u32 {
    // The monotonic clock is always there.
    let now =
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    (now.as_millis() / u128::from(TICK_MILLISECONDS)) as u32
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
    fn an_instant_of_a_minute_ago_was_a_minute_ago_on_the_wall() {
        let age = wall().duration_since(wall_at(now() - Duration::from_secs(60))).unwrap();
        assert!((59..=61).contains(&age.as_secs()), "{age:?}");
        let ahead = wall_at(now() + Duration::from_secs(60)).duration_since(wall()).unwrap();
        assert!((59..=61).contains(&ahead.as_secs()), "{ahead:?}");
    }
}
