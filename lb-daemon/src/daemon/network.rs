//! What the loop knows of the network, by the news of the task that follows it, and what it wants of it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::SystemTime;

use lb_common::abi::NextHop;
use lb_core::config::model::Config;
use lb_core::desired::NextHops;
use lb_core::state::EventLevel;

use super::ways::Ways;
use crate::netlink::Link;
use crate::network::{Network, News, Wanted};

/// See the module.
pub(super) struct Surroundings {
    task: Network,
    news: News,
    ways: Ways,
}

impl Surroundings {
    /// `links`: as they are known to be; `hops`: as the daemon before this one has left them.
    pub fn new(task: Network, links: Vec<Link>, hops: NextHops) -> Self {
        let news = News { links, ..News::default() };
        Self { task, news, ways: Ways::new(hops) }
    }

    /// The next news; `None` when the task has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<News> {
        self.task.next().await
    }

    /// Wants something else; from which [`News::of`] on it has been tried.
    pub fn want(&self, wanted: Wanted) -> u64 {
        self.task.want(wanted)
    }

    /// Up to which number what was wanted has been tried.
    pub fn tried(&self) -> u64 {
        self.news.of
    }

    /// Takes news. The data plane has followed the links by then: `admits` says whether a hop leads by an interface that has the
    /// program.
    pub fn take(&mut self, news: News, now: SystemTime, admits: impl Fn(&NextHop) -> bool) {
        self.ways.take(&news.resolutions, &news.links, now, admits);
        self.news = news;
    }

    /// The ways to backends.
    pub fn ways(&self) -> &Ways {
        &self.ways
    }

    pub fn links(&self) -> &[Link] {
        &self.news.links
    }

    /// Of which of the addresses the next hop has been looked for.
    pub fn knows(&self, addresses: &BTreeSet<IpAddr>) -> bool {
        addresses.iter().all(|address| self.news.resolutions.contains_key(address))
    }

    pub fn ours(&self) -> &BTreeSet<IpAddr> {
        &self.news.ours
    }

    /// Takes the VIPs away.
    pub async fn end(self) {
        self.task.end().await;
    }
}

/// What a configuration wants of the network. `more` are backends that it does not have, but connections do.
pub(super) fn wanted(config: &Config, more: BTreeSet<IpAddr>) -> Wanted {
    let mut backends = more;
    let all = config.farms.iter().flat_map(|farm| &farm.backends);
    backends.extend(all.flat_map(|backend| backend.address.iter()));
    let interfaces = config.daemon.interfaces.clone();
    Wanted { number: 0, interfaces, backends, vips: managed_vips(config) }
}

/// The VIPs of enabled farms, if the daemon is to put them in place.
fn managed_vips(config: &Config) -> BTreeSet<IpAddr> {
    let farms = config.farms.iter().filter(|farm| farm.enabled && config.daemon.manage_vips);
    farms.flat_map(|farm| farm.vips.iter().copied()).collect()
}

/// Who of the interfaces came, went, rose or fell, in words.
pub(super) fn turns(names: &[String], before: &[Link], now: &[Link]) -> Vec<(EventLevel, String)> {
    let turn = |name: &String| {
        let find = |links: &[Link]| links.iter().find(|link| link.name == *name).map(|link| link.up);
        let (level, what) = match (find(before), find(now)) {
            (Some(_), None) => (EventLevel::Error, "is gone"),
            (Some(true), Some(false)) => (EventLevel::Warning, "is down"),
            (Some(false), Some(true)) => (EventLevel::Info, "is up"),
            (None, Some(_)) => (EventLevel::Info, "is back"),
            (Some(true), Some(true)) | (Some(false), Some(false)) | (None, None) => return None,
        };
        Some((level, format!("interface '{name}' {what}")))
    };
    names.iter().filter_map(turn).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_that_turn_are_told() {
        let link = |up| Link { name: "eth0".to_owned(), index: 2, mac: [2; 6], mtu: 1500, up };
        let (up, down) = ([link(true)], [link(false)]);
        let names = ["eth0".to_owned()];
        let table: [(&[Link], &[Link], Option<&str>); 8] = [
            (&up, &[], Some("interface 'eth0' is gone")),
            (&down, &[], Some("interface 'eth0' is gone")),
            (&up, &down, Some("interface 'eth0' is down")),
            (&down, &up, Some("interface 'eth0' is up")),
            (&[], &up, Some("interface 'eth0' is back")),
            (&[], &[], None),
            (&up, &up, None),
            (&down, &down, None),
        ];
        for (before, now, expected) in table {
            let told = turns(&names, before, now);
            assert_eq!(told.first().map(|(_, text)| text.as_str()), expected, "{before:?} {now:?}");
        }
        assert_eq!(turns(&["eth9".to_owned()], &up, &[]), [], "nobody asked for it");
    }
}
