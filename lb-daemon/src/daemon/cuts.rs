//! Backends that went down, and what becomes of their connections.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::BackendKey;
use super::jobs::Jobs;
use super::words;
use crate::datapath::Reader;
use crate::vitals::Cutting;

/// Connections are cut in hundredths of a second; who is down is told after so long in any case.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// A backend that went down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Down {
    pub key: BackendKey,
    pub reason: String,
    /// Whether its connections are cut, and how many they are.
    pub cut: bool,
    pub connections: u64,
    /// That takes longer than who is down can wait to be told.
    pub unfinished: bool,
    /// Who it was, if the configuration no longer has it.
    pub former: Option<String>,
}

impl Down {
    /// What becomes of its connections.
    pub fn fate(&self) -> String {
        let connections = words::count(self.connections, "connection");
        match (self.unfinished, self.cut) {
            (true, true) => "its connections are still being cut".to_owned(),
            (true, false) => "it keeps its connections".to_owned(),
            (false, true) => format!("{connections} cut"),
            (false, false) => format!("it keeps {connections}"),
        }
    }
}

/// Does with the connections of backends, by number, what is to be done: beside the loop, and in one go for all of them, as a
/// large table takes a while. Each is an event when that is done. Connections that began later than `now`, in ticks, are not
/// meant: a farm may then try all its backends. `cutting` is held until it is done.
pub(super) fn cut(
    down: BTreeMap<u16, Down>,
    now: u32,
    (reader, cutting): (Arc<Reader>, Cutting),
    jobs: &Jobs,
) {
    if down.is_empty() {
        return;
    }
    let unfinished = down.values().map(|down| Down { unfinished: true, ..down.clone() }).collect();
    jobs.cut(TOLD_WITHIN, unfinished, move || {
        let _cutting = cutting;
        counted(down, |doomed| reader.cut_backends(now, doomed))
    });
}

/// Counts what `each` meets of connections, by their backends' numbers, and tells it which of them are to be cut.
fn counted(mut down: BTreeMap<u16, Down>, each: impl FnOnce(&mut dyn FnMut(u16) -> bool)) -> Vec<Down> {
    each(&mut |backend| match down.get_mut(&backend) {
        Some(down) => {
            down.connections += 1;
            down.cut
        }
        None => false,
    });
    down.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::test_config::key;

    #[test]
    fn connections_are_counted_whether_they_are_cut_or_kept() {
        let down = |cut| {
            let (reason, former) = (String::new(), None);
            Down { key: key("a"), reason, cut, connections: 0, unfinished: false, former }
        };
        let both = BTreeMap::from([(1, down(true)), (2, down(false))]);
        let mut cut = Vec::new();
        let told = counted(both, |doomed| cut.extend([1, 2, 3, 2, 1, 1].map(doomed)));
        assert_eq!(cut, [true, false, false, false, true, true]);
        let fates: Vec<String> = told.iter().map(Down::fate).collect();
        assert_eq!(fates, ["3 connections cut", "it keeps 2 connections"]);
    }
}
