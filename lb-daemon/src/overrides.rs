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

use crate::clock;
use crate::config::{LoadError, read_text, write_atomically};

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

/// In `state_dir`.
const FILE: &str = "backends.json";
/// What the name of one that cannot be read goes on with; the time follows.
const ASIDE: &str = ".damaged-";

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
    /// Reads what is kept under `state_dir`; nothing is no error. What cannot be read is put aside under another name
    /// ([`Overrides::damaged`]) and said: all backends are as the configuration has them then.
    ///
    /// # Errors
    ///
    /// If the directory cannot be made.
    pub fn load(state_dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(state_dir)
            .with_context(|| format!("cannot create {}", state_dir.display()))?;
        let path = state_dir.join(FILE);
        let set = read(&path).unwrap_or_else(|why| {
            put_aside(&path, &why);
            BTreeMap::new()
        });
        Ok(Self { path, set })
    }

    /// The files that could not be read at this start or an earlier one, and that nobody has removed since.
    pub fn damaged(state_dir: &Path) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(state_dir) else { return Vec::new() };
        let names = entries.flatten().map(|entry| entry.file_name());
        let damaged = names.filter(|name| name.to_string_lossy().starts_with(&format!("{FILE}{ASIDE}")));
        let mut paths: Vec<PathBuf> = damaged.map(|name| state_dir.join(name)).collect();
        paths.sort();
        paths
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

/// What is kept in a file, if it is there; or why that cannot be told.
fn read(path: &Path) -> Result<BTreeMap<(FarmName, BackendName), Override>, String> {
    let text = match read_text(path) {
        Ok(text) => text,
        Err(LoadError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(BTreeMap::new());
        }
        Err(error) => return Err(error.to_string()),
    };
    let entries: Vec<Entry> =
        serde_json::from_str(&text).map_err(|error| format!("{} is damaged: {error}", path.display()))?;
    let set = entries.into_iter().filter_map(|entry| {
        let key = (FarmName::new(&entry.farm)?, BackendName::new(&entry.backend)?);
        let weight = entry.weight.filter(|&weight| weight <= WEIGHT_MAX);
        Some((key, Override { admin: entry.admin_state, weight }))
    });
    Ok(set.collect())
}

/// Keeps a file that cannot be read from being written over.
fn put_aside(path: &Path, why: &str) {
    let seconds = clock::wall().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let aside = path.with_file_name(format!("{FILE}{ASIDE}{seconds}"));
    let kept = match std::fs::rename(path, &aside) {
        Ok(()) => format!("it is kept as {}", aside.display()),
        Err(error) => format!("it cannot be kept as {}: {error}", aside.display()),
    };
    tracing::error!("{why}; {kept}; what operators had set on backends is not in force");
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
    fn what_cannot_be_read_is_kept_aside_and_hinders_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let load = || {
            let loaded = Overrides::load(folder.path()).unwrap();
            assert!(loaded.set.is_empty());
            loaded.save().unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "[]");
            let damaged = Overrides::damaged(folder.path());
            damaged.iter().for_each(|path| assert!(path.starts_with(folder.path())));
            damaged
        };
        assert_eq!(load(), Vec::<PathBuf>::new(), "there was nothing");
        for bytes in [&b"[{"[..], b"\xff\xfe", b"{\"a\": 1}"] {
            std::fs::write(&path, bytes).unwrap();
            let [aside] = &load()[..] else { panic!("it is not there") };
            assert_eq!(std::fs::read(aside).unwrap(), bytes);
            std::fs::remove_file(aside).unwrap();
        }
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(load().len(), 1, "a pipe that nobody writes to");
    }
}
