//! A ground for the tests of changes: it writes down what it is told.

use std::cell::RefCell;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use lb_core::config::model::{BackendName, Config, FarmName};
use lb_core::config::renames::Heirs;
use lb_core::state::Peer;
use tokio::sync::mpsc;

use super::former::Former;
use super::ground::{Ground, WriteLists};
use super::in_force::InForce;
use super::jobs::{Done, Jobs};
use super::judgements::Judgements;
use super::operators::{Operators, Setting};
use super::tell::Told;
use super::test_config::{HEAD, parse, web};
use crate::handle::{BackendPatch, Changes, Command, Format, Refusal};
use crate::overrides::Overrides;

/// A configuration in which the farm has more keys.
pub(super) fn text(more: &str) -> String {
    format!("{HEAD}{}", web(&format!("check = []\n{more}")))
}

/// See the module.
pub(super) struct Fake {
    pub folder: tempfile::TempDir,
    pub in_force: InForce,
    pub operators: Operators,
    pub jobs: Jobs,
    pub inbox: mpsc::UnboundedReceiver<Done>,
    /// Whether the kernel takes the next configuration.
    pub kernel: Result<(), Refusal>,
    /// What the network is asked for next, and up to where it has tried.
    pub unknown: Option<u64>,
    pub placed: u64,
    pub tried: u64,
    pub gone: Vec<IpAddr>,
    pub owes: bool,
    pub by: Option<Peer>,
    pub did: RefCell<Vec<String>>,
}

impl Fake {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (path, text) = (folder.path().join("drover.toml"), text(""));
        std::fs::write(&path, &text).unwrap();
        let config = Arc::new(parse(&web("check = []")));
        let (jobs, inbox) = Jobs::new();
        Self {
            in_force: InForce::new(config, text.into(), Format::Toml, path),
            operators: Operators::new(Overrides::load(folder.path()).unwrap()),
            folder,
            jobs,
            inbox,
            kernel: Ok(()),
            unknown: None,
            placed: 0,
            tried: 0,
            gone: Vec::new(),
            owes: false,
            by: None,
            did: RefCell::default(),
        }
    }

    fn note(&self, what: impl Into<String>) {
        self.did.borrow_mut().push(what.into());
    }

    /// What it was told since the last time.
    pub fn did(&self) -> Vec<String> {
        self.did.take()
    }

    pub fn on_disk(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("drover.toml")).unwrap()
    }
}

impl Ground for Fake {
    fn in_force(&self) -> &InForce {
        &self.in_force
    }
    fn jobs(&self) -> &Jobs {
        &self.jobs
    }
    fn kept_at(&self) -> &Path {
        self.operators.path()
    }
    fn lists(&self) -> WriteLists {
        Box::new(|_| Ok(()))
    }
    fn consequences(&self, new: &Config) -> Changes {
        self.in_force.consequences(new, |_, _| 0)
    }
    fn look_around(&mut self, _: &Config) -> Option<u64> {
        self.unknown
    }
    fn tried(&self) -> u64 {
        self.tried
    }
    fn bring_in(&mut self, new: Arc<Config>) -> (Former, Result<(), Refusal>) {
        self.note("brought in");
        let former = Former {
            config: self.in_force.replace(new),
            gone: self.gone.clone(),
            overrides: None,
            heirs: Heirs::new(),
            judgements: Judgements::default(),
            missed: Vec::new(),
        };
        (former, self.kernel.clone())
    }
    fn take_back(&mut self, former: Former) {
        self.note("taken back");
        self.in_force.replace(former.config);
    }
    fn confirm(&mut self, _: u64, text: Arc<str>, _: &Former) -> u64 {
        self.note("in force");
        self.in_force.confirm(text);
        self.placed
    }
    fn cut_vips(&self, _: u64, gone: Vec<IpAddr>) {
        self.note(format!("cut {gone:?}"));
    }
    fn plan(
        &self,
        farm: FarmName,
        name: BackendName,
        patch: BackendPatch,
    ) -> Result<Option<Setting>, Refusal> {
        let (_, backend) = self.in_force.need(&farm, &name)?;
        Ok(self.operators.plan((farm, name), backend, patch))
    }
    fn save(&mut self, _: u64, _: &Setting) {
        self.note("saved");
    }
    fn set(&mut self, setting: &Setting) -> Result<(), Refusal> {
        self.note("set");
        self.operators.set(setting);
        Ok(())
    }
    fn saved(&mut self) {}
    fn keep(&mut self) {
        self.note("kept what is in force");
    }
    fn owes(&self, _: u64) -> bool {
        self.owes
    }
    fn answer(&mut self, _: Command) {
        self.note("answered");
    }
    fn set_by(&mut self, by: Option<Peer>) {
        self.by = by;
    }
    fn tell(&self, told: Told) {
        self.note(format!("told: {}", told.message));
    }
    fn publish(&self) {}
}
