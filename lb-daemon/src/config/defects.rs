//! What the farms that run need of this host and do not find: a script that somebody has removed, a user that is gone.
//!
//! [`DefectWatch`] owns one task, which looks every ten seconds and at each new configuration; what it finds stands in the
//! status, and each turn is an event. It judges nobody: a check that cannot be made says so itself. Dropped, the task ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lb_core::config::model::Config;
use lb_core::state::{EventKind, EventLevel, News, Snapshot};
use tokio::sync::watch;

use super::host::{Defect, defects_of};
use super::patient::Patient;
use crate::clock;
use crate::events::Events;
use crate::supervise::{self, Supervisor};

const EVERY: Duration = Duration::from_secs(10);

/// A hold on the task.
#[derive(Debug)]
pub struct DefectWatch {
    defects: watch::Receiver<Arc<[Defect]>>,
    task: supervise::Task,
}

impl DefectWatch {
    pub fn spawn(snapshots: watch::Receiver<Arc<Snapshot>>, events: Arc<Events>) -> Self {
        let (sender, defects) = watch::channel(Arc::from([]));
        let task = Task { snapshots, sender, events, patient: Patient::default() };
        Self { defects, task: supervise::Task::spawn(task.run()) }
    }

    pub fn defects(&self) -> watch::Receiver<Arc<[Defect]>> {
        self.defects.clone()
    }

    /// Has the end of its task told.
    pub fn watch(&mut self, supervisor: &Supervisor) {
        self.task.watch(supervisor, "what the farms need of the host");
    }
}

struct Task {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    sender: watch::Sender<Arc<[Defect]>>,
    events: Arc<Events>,
    patient: Patient<Vec<Defect>>,
}

impl Task {
    /// Ends with the daemon.
    async fn run(mut self) {
        loop {
            let config = self.snapshots.borrow_and_update().config.clone();
            let looked_at = config.clone();
            match self.patient.look(move || defects_of(&looked_at)).await {
                Ok(found) => self.found(found),
                Err(why) => tracing::warn!("cannot tell what the farms need of this host: {why}"),
            }
            let next = tokio::time::timeout(EVERY, self.another(&config));
            if let Ok(false) = next.await {
                return;
            }
        }
    }

    /// Waits for another configuration; false if there will be none.
    async fn another(&mut self, than: &Arc<Config>) -> bool {
        let another = |snapshot: &Arc<Snapshot>| !Arc::ptr_eq(&snapshot.config, than);
        self.snapshots.wait_for(another).await.is_ok()
    }

    fn found(&self, found: Vec<Defect>) {
        for (level, farms, message) in turns(&self.sender.borrow(), &found) {
            match level {
                EventLevel::Info => tracing::info!("{message}"),
                EventLevel::Warning | EventLevel::Error => tracing::warn!("{message}"),
            }
            let farm = if farms.len() == 1 { farms.first().copied() } else { None };
            let time = clock::wall();
            let kind = EventKind::HostDefect;
            let news = News { level, kind, farm, backend: None, by: None, message };
            self.events.publish(|log| log.push(time, news));
        }
        self.sender.send_replace(found.into());
    }
}

/// A turn that is worth an event: its level, whom it concerns, and in words.
type Turn<'a> = (EventLevel, Vec<&'a str>, String);

/// What has come and gone between two looks. Farms that lack the same thing are told together.
fn turns<'a>(before: &'a [Defect], now: &'a [Defect]) -> Vec<Turn<'a>> {
    let (before, now) = (by_thing(before), by_thing(now));
    let mut turns = Vec::new();
    for (thing, places) in &now {
        let known = before.get(thing);
        let new: BTreeSet<_> =
            places.iter().filter(|place| known.is_none_or(|it| !it.contains(place))).collect();
        let farms: BTreeSet<&str> = new.iter().map(|(farm, _)| *farm).collect();
        let farms: Vec<&str> = farms.into_iter().collect();
        if !farms.is_empty() {
            let (message, hint) = thing;
            let which = places.first().filter(|_| places.len() == 1).map(|(_, path)| format!("{path}: "));
            let which = which.unwrap_or_default();
            turns.push((
                EventLevel::Warning,
                farms.clone(),
                format!("{}: {which}{message}, and so it cannot be run ({hint})", named(&farms)),
            ));
        }
    }
    for ((message, _), places) in before.iter().filter(|(thing, _)| !now.contains_key(*thing)) {
        let farms: BTreeSet<&str> = places.iter().map(|(farm, _)| *farm).collect();
        let farms: Vec<&str> = farms.into_iter().collect();
        turns.push((EventLevel::Info, farms.clone(), format!("{}: no longer: {message}", named(&farms))));
    }
    turns
}

/// A defect's message and hint, and in which farms it is met, at which keys.
type ByThing<'a> = BTreeMap<(&'a str, &'a str), BTreeSet<(&'a str, &'a str)>>;

fn by_thing(defects: &[Defect]) -> ByThing<'_> {
    let mut things = ByThing::new();
    for Defect { farm, path, unfit } in defects {
        let places = things.entry((&unfit.message, &unfit.hint)).or_default();
        places.insert((farm.as_str(), path));
    }
    things
}

/// `farm 'a'`, `farms a, b and 3 more`.
fn named(farms: &[&str]) -> String {
    match farms {
        [one] => format!("farm '{one}'"),
        [one, two] => format!("farms {one} and {two}"),
        [one, two, rest @ ..] => format!("farms {one}, {two} and {} more", rest.len()),
        [] => "no farm".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use lb_core::config::model::FarmName;

    use super::*;
    use crate::program::Unfit;

    fn defect(farm: &str, what: &str) -> Defect {
        let unfit = Unfit { message: format!("there is no file {what}"), hint: "write it".to_owned() };
        Defect { farm: FarmName::new(farm).unwrap(), path: "check[0].command".to_owned(), unfit }
    }

    #[test]
    fn what_comes_and_goes_is_told_once_for_all_farms() {
        let texts = |before: &[Defect], now: &[Defect]| {
            turns(before, now).into_iter().map(|(_, _, text)| text).collect::<Vec<_>>()
        };
        let one = [defect("a", "/x")];
        let more = ["a", "b", "c", "d"].map(|farm| defect(farm, "/x"));
        assert_eq!(
            texts(&[], &one),
            ["farm 'a': check[0].command: there is no file /x, and so it cannot be run (write it)"]
        );
        assert_eq!(texts(&one, &one), [""; 0]);
        assert_eq!(
            texts(&one, &more),
            ["farms b, c and 1 more: there is no file /x, and so it cannot be run (write it)"]
        );
        assert_eq!(texts(&more, &one), [""; 0], "it is still there");
        assert_eq!(texts(&more, &[]), ["farms a, b and 2 more: no longer: there is no file /x"]);
        let other = [defect("a", "/y")];
        assert_eq!(texts(&one, &other).len(), 2);
    }
}
