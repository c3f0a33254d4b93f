//! VIPs that were taken away: for a while the program still knows them, so that whoever speaks to one is told by a reset.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use lb_core::config::model::Config;
use lb_core::departed::{gone, vips};

/// For how long: longer than a connection that was cut is remembered, and than a neighbour remembers whose the address was.
const KEPT: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct FormerVips {
    until: BTreeMap<IpAddr, Instant>,
}

impl FormerVips {
    /// Remembers those that `old` has and `new` has not: these.
    pub fn remember(&mut self, old: &Config, new: &Config, now: Instant) -> Vec<IpAddr> {
        let (there, gone) = (vips(new), gone(old, new));
        self.until.extend(gone.iter().map(|vip| (*vip, now + KEPT)));
        self.until.retain(|vip, _| !there.contains(vip));
        gone
    }

    /// Those that were to go stay after all.
    pub fn stay(&mut self, gone: &[IpAddr]) {
        self.until.retain(|vip, _| !gone.contains(vip));
    }

    /// Forgets those whose time is over; whether there were any.
    pub fn forget(&mut self, now: Instant) -> bool {
        let before = self.until.len();
        self.until.retain(|_, until| now < *until);
        self.until.len() != before
    }

    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        self.until.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::test_config::{parse, web};

    #[test]
    fn a_vip_that_was_taken_away_is_known_for_a_while_unless_it_comes_back_or_stays() {
        let (with, without, now) = (parse(&web("")), parse(&web("enabled = false")), Instant::now());
        let mut former = FormerVips::default();
        let vip: IpAddr = "192.0.2.10".parse().unwrap();
        assert_eq!(former.remember(&with, &with, now), [] as [IpAddr; 0]);
        assert_eq!(former.remember(&with, &without, now), [vip]);
        assert_eq!(former.iter().collect::<Vec<_>>(), [vip]);
        assert!(!former.forget(now + KEPT / 2));
        assert!(former.forget(now + KEPT));
        assert_eq!(former.iter().count(), 0);
        former.remember(&with, &without, now);
        former.remember(&without, &with, now);
        assert_eq!(former.iter().count(), 0, "it is there again");
        let gone = former.remember(&with, &without, now);
        former.stay(&gone);
        assert_eq!(former.iter().count(), 0, "the change was taken back");
    }
}
