//! When a connection has been idle for so long that it may be forgotten.

use std::time::Duration;

use lb_common::abi::TICK_MILLISECONDS;
use lb_common::tcp::State;

use crate::config::model::Timeouts;
use crate::state::Protocol;

/// How long an entry has been idle, in ticks of the data plane's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idle {
    pub now: u32,
    /// Since when the clock has been kept. While no daemon runs it stands still, and packets then leave an old time behind:
    /// nobody ages by that.
    pub floor: u32,
    pub last_seen: u32,
}

impl Idle {
    pub fn duration(self) -> Duration {
        let since = self.last_seen.max(self.floor);
        Duration::from_millis(u64::from(self.now.saturating_sub(since)) * u64::from(TICK_MILLISECONDS))
    }
}

/// How long a connection may be idle.
pub fn timeout(timeouts: &Timeouts, protocol: Protocol, state: State) -> Duration {
    match (protocol, state) {
        (Protocol::Udp, _) => timeouts.udp,
        (Protocol::Tcp, State::Opening) => timeouts.syn,
        (Protocol::Tcp, State::Established) => timeouts.established,
        (Protocol::Tcp, State::Closing | State::Closed | State::Cut) => timeouts.fin,
    }
}

/// Whether an entry has been idle for longer than it may.
pub fn expired(timeouts: &Timeouts, protocol: Protocol, state: State, idle: Idle) -> bool {
    idle.duration() > timeout(timeouts, protocol, state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(now: u32, floor: u32, last_seen: u32) -> Idle {
        Idle { now, floor, last_seen }
    }

    #[test]
    fn each_state_has_its_own_timeout() {
        let timeouts = Timeouts::default();
        for (protocol, state, seconds) in [
            (Protocol::Tcp, State::Opening, 10),
            (Protocol::Tcp, State::Established, 3600),
            (Protocol::Tcp, State::Closing, 10),
            (Protocol::Tcp, State::Closed, 10),
            (Protocol::Udp, State::Opening, 60),
            (Protocol::Udp, State::Established, 60),
        ] {
            let ticks = seconds * 1000 / TICK_MILLISECONDS;
            assert!(
                !expired(&timeouts, protocol, state, idle(1000 + ticks, 0, 1000)),
                "{protocol:?} {state:?}"
            );
            assert!(
                expired(&timeouts, protocol, state, idle(1001 + ticks, 0, 1000)),
                "{protocol:?} {state:?}"
            );
        }
    }

    #[test]
    fn nobody_ages_while_the_clock_stands_still() {
        let timeouts = Timeouts::default();
        let week = 7 * 24 * 3600 * 1000 / TICK_MILLISECONDS;
        assert!(!expired(&timeouts, Protocol::Tcp, State::Opening, idle(week + 50, week, 10)));
        assert!(expired(&timeouts, Protocol::Tcp, State::Opening, idle(week + 101, week, 10)));
    }

    #[test]
    fn a_packet_of_the_future_is_not_idle() {
        assert_eq!(idle(10, 0, 12).duration(), Duration::ZERO);
    }
}
