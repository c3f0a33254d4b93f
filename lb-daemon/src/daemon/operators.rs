//! What operators have set on backends by hand: what is in force, and what is on its way to the disk.

use std::collections::HashMap;
use std::path::Path;
use std::time::SystemTime;

use lb_core::config::model::{Backend, Config};
use lb_core::config::renames::Heirs;

use super::BackendKey;
use super::keeping::{Keeping, NOBODY, Write};
use crate::handle::BackendPatch;
use crate::overrides::{Override, Overrides};

/// See the module. Who gets a [`Write`] begins it.
pub(super) struct Operators {
    overrides: Overrides,
    /// When an operator last touched a backend's state.
    touched: HashMap<BackendKey, SystemTime>,
    keeping: Keeping,
}

/// What an operator sets on one backend.
#[derive(Debug)]
pub(super) struct Setting {
    pub key: BackendKey,
    pub before: Override,
    pub after: Override,
    /// All that is set, with it.
    next: Overrides,
}

impl Operators {
    pub fn new(overrides: Overrides) -> Self {
        Self { overrides, touched: HashMap::new(), keeping: Keeping::default() }
    }

    pub fn of(&self, (farm, backend): &BackendKey) -> Override {
        self.overrides.get(farm, backend)
    }

    pub fn touched(&self, key: &BackendKey) -> Option<SystemTime> {
        self.touched.get(key).copied()
    }

    /// Where it is kept.
    pub fn path(&self) -> &Path {
        self.overrides.path()
    }

    /// What `patch` makes of what is set on a backend; nothing, if that is the same.
    pub fn plan(&self, key: BackendKey, backend: &Backend, patch: BackendPatch) -> Option<Setting> {
        let before = self.of(&key);
        let mut after = before;
        after.admin = patch.admin.unwrap_or(before.admin);
        // The configured weight is no override.
        after.weight = patch.weight.or(before.weight).filter(|&weight| weight != backend.weight);
        let next = self.overrides.with(&key.0, &key.1, after);
        (after != before).then_some(Setting { key, before, after, next })
    }

    /// Has a setting saved, before it comes into force.
    pub fn save(&mut self, number: u64, setting: &Setting) -> Option<Write> {
        self.keeping.want(Write::new(number, setting.next.clone()))
    }

    /// Has what is in force saved, for a change that has brought it.
    pub fn keep_for(&mut self, number: u64) -> Option<Write> {
        self.keeping.want(Write::new(number, self.overrides.clone()))
    }

    /// Has what is in force saved, for nobody who waits, and not what a change wanted that was given up.
    pub fn keep(&mut self) -> Option<Write> {
        self.keep_for(NOBODY)
    }

    /// The write under way has ended.
    pub fn saved(&mut self) -> Option<Write> {
        self.keeping.ended()
    }

    /// Whether what that change has brought is not saved yet.
    pub fn owes(&self, number: u64) -> bool {
        self.keeping.owes(number)
    }

    /// Brings a setting into force; what was set before.
    pub fn set(&mut self, setting: &Setting) -> Overrides {
        std::mem::replace(&mut self.overrides, setting.next.clone())
    }

    pub fn take_back(&mut self, overrides: Overrides) {
        self.overrides = overrides;
    }

    /// A setting is in force.
    pub fn touch(&mut self, key: &BackendKey, at: SystemTime) {
        self.touched.insert(key.clone(), at);
    }

    /// What is set concerns the backends of `new` from now on, of whom some had other names; what was set before, if that is
    /// something else.
    pub fn hand_on(&mut self, heirs: &Heirs, new: &Config) -> Option<Overrides> {
        let next = self.overrides.handed_on(heirs, new)?;
        Some(std::mem::replace(&mut self.overrides, next))
    }

    /// It is certain that the backends have their new names.
    pub fn rename(&mut self, heirs: &Heirs) {
        for (to, from) in heirs {
            if let Some(at) = self.touched.get(from).copied() {
                self.touched.insert(to.clone(), at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_core::state::AdminState;

    use super::*;
    use crate::daemon::test_config::{key, parse, web};

    fn operators() -> (tempfile::TempDir, Operators) {
        let folder = tempfile::tempdir().unwrap();
        let operators = Operators::new(Overrides::load(folder.path()).unwrap());
        (folder, operators)
    }

    fn drain() -> BackendPatch {
        BackendPatch { admin: Some(AdminState::Drain), weight: None }
    }

    #[test]
    fn the_configured_weight_is_nothing_that_is_set() {
        let (_folder, mut operators) = operators();
        let config = parse(&web(""));
        let backend = &config.farms[0].backends[0];
        let weigh = |weight| BackendPatch { admin: None, weight: Some(weight) };
        assert!(operators.plan(key("a"), backend, weigh(1)).is_none());
        let setting = operators.plan(key("a"), backend, weigh(7)).unwrap();
        operators.set(&setting);
        assert_eq!(operators.of(&key("a")).weight, Some(7));
        assert!(operators.plan(key("a"), backend, weigh(7)).is_none(), "it is set already");
        let setting = operators.plan(key("a"), backend, weigh(1)).unwrap();
        assert_eq!(setting.after, Override::default());
    }

    #[test]
    fn a_setting_is_saved_before_it_is_in_force() {
        let (_folder, mut operators) = operators();
        let config = parse(&web(""));
        let setting = operators.plan(key("a"), &config.farms[0].backends[0], drain()).unwrap();
        assert!(operators.save(3, &setting).is_some());
        assert!(operators.owes(3));
        assert_eq!(operators.of(&key("a")), Override::default());
        assert!(operators.keep().is_none(), "one write at a time");
        assert!(operators.saved().is_some(), "what is in force is written after it");
        assert!(!operators.owes(3));
        let before = operators.set(&setting);
        assert_eq!(operators.of(&key("a")).admin, AdminState::Drain);
        operators.take_back(before);
        assert_eq!(operators.of(&key("a")), Override::default());
    }

    #[test]
    fn what_is_set_follows_a_server_to_its_new_name() {
        let (_folder, mut operators) = operators();
        let config = parse(&web(""));
        let setting = operators.plan(key("a"), &config.farms[0].backends[0], drain()).unwrap();
        operators.set(&setting);
        operators.touch(&key("a"), SystemTime::UNIX_EPOCH);
        let renamed = parse(&web("").replace("name = \"a\"", "name = \"c\""));
        let heirs = Heirs::from([(key("c"), key("a")), (key("b"), key("b"))]);
        let before = operators.hand_on(&heirs, &renamed).unwrap();
        operators.rename(&heirs);
        assert_eq!(operators.of(&key("c")).admin, AdminState::Drain);
        assert_eq!(operators.of(&key("a")), Override::default());
        assert_eq!(operators.touched(&key("c")), Some(SystemTime::UNIX_EPOCH));
        assert_eq!(before.get(&key("a").0, &key("a").1).admin, AdminState::Drain);
        assert!(operators.hand_on(&Heirs::from([(key("c"), key("c"))]), &renamed).is_none(), "all the same");
    }
}
