//! What a change needs of the rest of the daemon, and what becomes of one that has come to its end.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use lb_core::config::model::{BackendName, Config, FarmName};
use lb_core::state::{EventKind, Peer};

use super::former::Former;
use super::in_force::InForce;
use super::jobs::{Done, Jobs};
use super::operators::Setting;
use super::steps::{Applied, Ready};
use super::tell::Told;
use super::words;
use crate::config::Staged;
use crate::handle::{BackendPatch, Changes, Command, Refusal};

/// Writes the lists of a configuration that are not in the maps yet.
pub(super) type WriteLists = Box<dyn FnOnce(&Config) -> anyhow::Result<()> + Send>;

/// What a change needs of the rest of the daemon.
pub(super) trait Ground {
    fn in_force(&self) -> &InForce;
    fn jobs(&self) -> &Jobs;
    /// Where what operators have set is kept.
    fn kept_at(&self) -> &Path;

    /// What writes, beside the loop, the lists that a configuration brings along.
    fn lists(&self) -> WriteLists;

    /// What becoming `new` would do.
    fn consequences(&self, new: &Config) -> Changes;
    /// Has the network look for what `new` needs; up to which number it must have tried, if something is unknown.
    fn look_around(&mut self, new: &Config) -> Option<u64>;
    /// Up to which number the network has tried.
    fn tried(&self) -> u64;
    /// Has the maps follow a configuration that may still be taken back, and says why they did not.
    fn bring_in(&mut self, new: Arc<Config>) -> (Former, Result<(), Refusal>);
    fn take_back(&mut self, former: Former);
    /// It is certain that the configuration of that text stays: everything else follows. From when on the network will have.
    fn confirm(&mut self, number: u64, text: Arc<str>, former: &Former) -> u64;
    /// Has the connections of VIPs cut, for the change of that number.
    fn cut_vips(&self, number: u64, gone: Vec<IpAddr>);

    /// What a patch sets, if it is anything new.
    fn plan(
        &self,
        farm: FarmName,
        backend: BackendName,
        patch: BackendPatch,
    ) -> Result<Option<Setting>, Refusal>;
    /// Has it saved, before it comes into force.
    fn save(&mut self, number: u64, setting: &Setting);
    /// Brings it into force.
    fn set(&mut self, setting: &Setting) -> Result<(), Refusal>;
    /// A write of what operators have set has ended.
    fn saved(&mut self);
    /// Has what is in force saved, for nobody who waits.
    fn keep(&mut self);
    /// Whether what that change has brought is not saved yet.
    fn owes(&self, number: u64) -> bool;

    /// Carries out what is no change.
    fn answer(&mut self, command: Command);
    /// What is told from now on was asked for by him.
    fn set_by(&mut self, by: Option<Peer>);
    fn tell(&self, told: Told);
    fn publish(&self);
}

/// What was staged is not wanted; to take it away may take a while.
pub(super) fn discard(jobs: &Jobs, staged: Option<Staged>) {
    if let Some(staged) = staged {
        jobs.run(Done::Nothing, move || {
            drop(staged);
            Done::Nothing
        });
    }
}

/// Goes back to the configuration before.
pub(super) fn take_back(ground: &mut impl Ground, ready: Ready, former: Former, refusal: Refusal) {
    ground.take_back(former);
    discard(ground.jobs(), ready.staged);
    ready.answer.give(Err(refused(ground, refusal)));
}

/// A change that is in force has come to its end.
pub(super) fn end(ground: &impl Ground, done: Applied) {
    let Applied { planned, farm, unwritten, answer, .. } = done;
    let generation = ground.in_force().generation();
    ground.tell(words::applied(generation, &planned.lines));
    ground.publish();
    if let Some(refusal) = unwritten {
        return answer.give(Err(refusal));
    }
    let version = ground.in_force().version(farm.as_ref());
    answer.give(Ok(Changes { generation, version, ..planned }));
}

/// Tells that a configuration is refused.
pub(super) fn refused(ground: &impl Ground, refusal: Refusal) -> Refusal {
    let message = format!("a configuration was refused, nothing has changed: {refusal}");
    ground.tell(Told::warning(EventKind::ConfigRefused, message));
    refusal
}
