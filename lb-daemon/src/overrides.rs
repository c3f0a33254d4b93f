//! What operators have set on backends by hand. It outlives the daemon: a server in maintenance does not come back into
//! traffic because a process was restarted.
//!
//! The daemon owns one [`Overrides`] and has the next one saved before it comes into force, in `<state_dir>/backends.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use lb_core::config::model::{BackendName, Config, FarmName, WEIGHT_MAX};
use lb_core::config::renames::Heirs;
use lb_core::state::AdminState;
use serde::{Deserialize, Serialize};

use crate::config::write_atomically;

/// What was set on one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Override {
    pub admin: AdminState,
    /// In place of the configuration's.
    pub weight: Option<u16>,
}

/// All of them, and where they are kept.
#[derive(Debug, Clone)]
pub struct Overrides {
    path: PathBuf,
    set: BTreeMap<(FarmName, BackendName), Override>,
}

/// As in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    farm: String,
    backend: String,
    admin_state: AdminState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<u16>,
}

impl Overrides {
    /// Reads what is kept under `state_dir`; nothing is no error.
    ///
    /// # Errors
    ///
    /// If the directory cannot be made, or the file cannot be read.
    pub fn load(state_dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(state_dir)
            .with_context(|| format!("cannot create {}", state_dir.display()))?;
        let path = state_dir.join("backends.json");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self { path, set: BTreeMap::new() });
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let entries: Vec<Entry> = serde_json::from_str(&text).with_context(|| {
            format!(
                "{} is damaged; mend it, or remove it to forget drained and maintained backends",
                path.display()
            )
        })?;
        let set = entries.into_iter().filter_map(|entry| {
            let key = (FarmName::new(&entry.farm)?, BackendName::new(&entry.backend)?);
            Some((
                key,
                Override {
                    admin: entry.admin_state,
                    weight: entry.weight.filter(|&weight| weight <= WEIGHT_MAX),
                },
            ))
        });
        Ok(Self { path, set: set.collect() })
    }

    pub fn get(&self, farm: &FarmName, backend: &BackendName) -> Override {
        self.set.get(&(farm.clone(), backend.clone())).copied().unwrap_or_default()
    }

    /// Where they are kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same with another setting of one backend. Not saved yet.
    pub fn with(&self, farm: &FarmName, backend: &BackendName, to: Override) -> Self {
        let mut next = self.clone();
        if to == Override::default() {
            next.set.remove(&(farm.clone(), backend.clone()));
        } else {
            next.set.insert((farm.clone(), backend.clone()), to);
        }
        next
    }

    /// The same as they concern the backends of `config`, of whom some had other names; `None` if that is the same.
    pub fn handed_on(&self, heirs: &Heirs, config: &Config) -> Option<Self> {
        let known = |farm: &FarmName, name: &BackendName| {
            config
                .farm(farm.as_str())
                .is_some_and(|farm| farm.backends.iter().any(|backend| backend.name == *name))
        };
        let mut set = self.set.clone();
        set.retain(|(farm, backend), _| known(farm, backend));
        for (to, from) in heirs {
            if let Some(inherited) = self.set.get(from) {
                set.insert(to.clone(), *inherited);
            }
        }
        (set != self.set).then(|| Self { path: self.path.clone(), set })
    }

    /// Writes them where they are kept. Waits for the disk: not for the loop.
    ///
    /// # Errors
    ///
    /// If the file cannot be written; it is as it was then.
    pub fn save(&self) -> anyhow::Result<()> {
        let entries: Vec<Entry> = self
            .set
            .iter()
            .map(|((farm, backend), to)| Entry {
                farm: farm.to_string(),
                backend: backend.to_string(),
                admin_state: to.admin,
                weight: to.weight,
            })
            .collect();
        let text = serde_json::to_string_pretty(&entries)?;
        Ok(write_atomically(&self.path, &text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_outlives_the_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let (farm, backend) = (FarmName::new("web").unwrap(), BackendName::new("10.0.0.11").unwrap());
        let other = BackendName::new("10.0.0.12").unwrap();
        let drained = Override { admin: AdminState::Drain, weight: Some(7) };
        let empty = Overrides::load(folder.path()).unwrap();
        let maintained = Override { admin: AdminState::Maintenance, weight: None };
        let set = empty.with(&farm, &backend, drained).with(&farm, &other, maintained);
        set.with(&farm, &other, Override::default()).save().unwrap();
        let again = Overrides::load(folder.path()).unwrap();
        assert_eq!(again.get(&farm, &backend), drained);
        assert_eq!(again.get(&farm, &other), Override::default());
    }

    #[test]
    fn a_damaged_file_is_said_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("backends.json"), "[{").unwrap();
        let error = Overrides::load(folder.path()).unwrap_err();
        assert!(format!("{error:#}").contains("is damaged"), "{error:#}");
    }
}
