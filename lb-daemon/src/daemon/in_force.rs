//! The configuration in force: what it says, the text that says so, and what another one must be to take its place.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lb_core::config::model::{Backend, BackendName, Config, Farm, FarmName};
use lb_core::config::{ConfigError, changes, needs_restart};
use lb_core::departed::{leavers, stays};

use crate::config::{self, FarmEdit, Staged};
use crate::handle::{Affected, Changes, Format, Refusal};
use crate::precondition::{Precondition, Version};
use crate::refusal::{Conflict, Thing};

/// See the module. A copy is what a text is compared with, beside the loop, that is to take its place.
#[derive(Debug, Clone)]
pub(super) struct InForce {
    config: Arc<Config>,
    text: Arc<str>,
    format: Format,
    /// The configuration file.
    path: PathBuf,
    /// Counts those that have been in force, from 1.
    generation: u64,
}

/// A configuration, valid by itself.
#[derive(Debug)]
pub(super) struct Loaded {
    pub text: String,
    pub format: Format,
    pub config: Config,
    /// Ready to become the file's content, if it is to.
    pub staged: Option<Staged>,
}

impl InForce {
    pub fn new(config: Arc<Config>, text: Arc<str>, format: Format, path: PathBuf) -> Self {
        Self { config, text, format, path, generation: 1 }
    }

    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn farm(&self, name: &FarmName) -> Option<&Farm> {
        self.config.farm(name.as_str())
    }

    pub fn find(&self, farm: &FarmName, backend: &BackendName) -> Option<(&Farm, &Backend)> {
        let farm = self.farm(farm)?;
        Some((farm, farm.backends.iter().find(|candidate| candidate.name == *backend)?))
    }

    /// As [`InForce::find`], for whoever asked for one that is not there.
    pub fn need(&self, farm: &FarmName, backend: &BackendName) -> Result<(&Farm, &Backend), Refusal> {
        self.find(farm, backend).ok_or_else(|| match self.farm(farm) {
            None => {
                let there = self.config.farms.iter().map(|farm| farm.name.to_string()).collect();
                Refusal::NoFarm { farm: farm.clone(), there }
            }
            Some(found) => {
                let there = found.backends.iter().map(|backend| backend.name.to_string()).collect();
                Refusal::NoBackend { farm: farm.clone(), backend: backend.clone(), there }
            }
        })
    }

    pub fn enabled_farms(&self) -> usize {
        self.config.farms.iter().filter(|farm| farm.enabled).count()
    }

    /// Of a farm, or of the whole.
    pub fn version(&self, farm: Option<&FarmName>) -> Option<Version> {
        match farm {
            Some(farm) => self.farm(farm).map(Version::of),
            None => Some(Version::of(&*self.text)),
        }
    }

    /// Whether a change of a farm, or of the whole, is meant for what is in force.
    pub fn fits(&self, only_if: &Precondition, farm: Option<&FarmName>) -> Result<(), Refusal> {
        if only_if.holds(self.version(farm)) {
            return Ok(());
        }
        Err(Refusal::Stale(farm.map_or(Thing::Configuration, |farm| Thing::Farm(farm.clone()))))
    }

    /// The text with another farm.
    pub fn edited(&self, farm: &FarmName, edit: &FarmEdit) -> Result<(String, Format), Refusal> {
        Ok((config::edit(&self.text, self.format, farm, edit)?, self.format))
    }

    /// Reads the configuration file.
    pub fn load(&self) -> Result<Loaded, Refusal> {
        let text = config::read_text(&self.path)?;
        let config = self.judge(&text, self.format).map_err(Refusal::Invalid)?;
        Ok(Loaded { text, format: self.format, config, staged: None })
    }

    /// Judges a text, and stages it to become the file's content: what can fail at the disk fails before anything has changed.
    pub fn prepare(&self, text: String, format: Format) -> Result<Loaded, Refusal> {
        let config = self.judge(&text, format).map_err(Refusal::Invalid)?;
        let staged = Some(config::stage(&self.path, &self.text, &text)?);
        Ok(Loaded { text, format, config, staged })
    }

    /// A farm that changes must have all it needs on this host, and one that runs on as it was keeps no other from being
    /// changed.
    pub fn judge(&self, text: &str, format: Format) -> Result<Config, Vec<ConfigError>> {
        let changes = |farm: &Farm| farm.enabled && self.farm(&farm.name) != Some(farm);
        config::judge(text, format)?.unless(changes)
    }

    /// The file keeps its format.
    pub fn may_be_written(&self, format: Format) -> Result<(), Refusal> {
        if format == self.format {
            return Ok(());
        }
        Err(Conflict::OtherFormat { path: self.path.clone(), is: self.format }.into())
    }

    pub fn may_become(&self, format: Format, new: &Config) -> Result<(), Refusal> {
        self.may_be_written(format)?;
        match &needs_restart(&self.config, new)[..] {
            [] => Ok(()),
            keys => Err(Conflict::NeedsRestart(keys.to_vec()).into()),
        }
    }

    /// What becoming `new` would do. `live`: how many connections a backend has.
    pub fn consequences(&self, new: &Config, live: impl Fn(&Farm, &Backend) -> u64) -> Changes {
        let orphaned_connections =
            leavers(&self.config, new).map(|(farm, backend)| live(farm, backend)).sum();
        let (generation, lines) = (self.generation, changes(&self.config, new));
        // A dry run says what it was compared with.
        Changes { generation, lines, orphaned_connections, affected: Vec::new(), version: self.version(None) }
    }

    /// The same for a dry run, which says of each backend what it would do. `cut`: how many of its connections are to VIPs that go.
    pub fn affects(
        &self,
        new: &Config,
        live: impl Fn(&Farm, &Backend) -> u64,
        cut: impl Fn(&Farm, &Backend) -> u64,
    ) -> Changes {
        let pairs = self.config.farms.iter().flat_map(|farm| farm.backends.iter().map(move |it| (farm, it)));
        let affected = pairs.map(|(farm, backend)| {
            let cut = cut(farm, backend);
            // Both are counted at different times.
            let left = if stays(new, farm, backend) { 0 } else { live(farm, backend).saturating_sub(cut) };
            Affected { farm: farm.name.clone(), backend: backend.name.clone(), orphaned: left, cut }
        });
        let affected: Vec<_> = affected.filter(|it| it.orphaned + it.cut > 0).collect();
        let orphaned_connections = affected.iter().map(|it| it.orphaned).sum();
        Changes { affected, orphaned_connections, ..self.consequences(new, |_, _| 0) }
    }

    /// Puts another configuration in its place, which may still be taken back; the one before.
    pub fn replace(&mut self, new: Arc<Config>) -> Arc<Config> {
        std::mem::replace(&mut self.config, new)
    }

    /// It is certain that the one in its place stays, and that this is its text.
    pub fn confirm(&mut self, text: Arc<str>) {
        (self.text, self.generation) = (text, self.generation + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::test_config::{HEAD, key, parse, web};

    fn in_force() -> InForce {
        let text = format!("{HEAD}{}", web("check = []"));
        let config = Arc::new(parse(&web("check = []")));
        InForce::new(config, text.into(), Format::Toml, "/etc/drover/drover.toml".into())
    }

    #[test]
    fn connections_of_all_that_leave_are_orphaned() {
        let in_force = in_force();
        let live = |_: &Farm, backend: &Backend| if backend.name == key("a").1 { 5 } else { 7 };
        let orphaned = |new: &Config| in_force.consequences(new, live).orphaned_connections;
        assert_eq!(orphaned(&parse(&web("check = []"))), 0);
        assert_eq!(orphaned(&parse(&web("check = []\nenabled = false"))), 12);
        assert_eq!(orphaned(&parse("")), 12);
        let moved = web("check = []").replace("10.0.0.2", "10.0.0.3");
        assert_eq!(orphaned(&parse(&moved)), 7);
    }

    #[test]
    fn a_dry_run_says_whose_connections_would_be_cut_or_orphaned() {
        let in_force = in_force();
        let number = |a, b| move |_: &Farm, backend: &Backend| if backend.name == key("a").1 { a } else { b };
        let affected = |new: &Config, cut: (u64, u64)| {
            let changes = in_force.affects(new, number(5, 7), number(cut.0, cut.1));
            let of = changes.affected.iter().map(|it| (it.backend.to_string(), it.orphaned, it.cut));
            (of.collect::<Vec<_>>(), changes.orphaned_connections)
        };
        let of = |name: &str, orphaned, cut| (name.to_owned(), orphaned, cut);
        let same = parse(&web("check = []"));
        assert_eq!(affected(&same, (0, 0)), (vec![], 0));
        assert_eq!(affected(&same, (0, 4)), (vec![of("b", 0, 4)], 0), "one of two VIPs goes");
        let moved = parse(&web("check = []").replace("10.0.0.2", "10.0.0.3"));
        assert_eq!(affected(&moved, (1, 3)), (vec![of("a", 0, 1), of("b", 4, 3)], 4));
        assert_eq!(affected(&parse(""), (5, 8)), (vec![of("a", 0, 5), of("b", 0, 8)], 0));
    }

    #[test]
    fn another_format_or_what_needs_a_restart_is_refused() {
        let (in_force, same) = (in_force(), parse(&web("check = []")));
        assert_eq!(in_force.may_become(Format::Toml, &same), Ok(()));
        let refused = in_force.may_become(Format::Json, &same).unwrap_err();
        assert!(matches!(refused, Refusal::Conflict(Conflict::OtherFormat { .. })), "{refused}");
        let mut other = same;
        other.daemon.interfaces = vec!["eth1".to_owned()];
        let refused = in_force.may_become(Format::Toml, &other).unwrap_err();
        assert_eq!(refused, Conflict::NeedsRestart(vec!["interfaces".to_owned()]).into());
    }

    #[test]
    fn a_change_for_another_version_is_stale() {
        let mut in_force = in_force();
        let web = key("a").0;
        let (whole, farm) = (in_force.version(None).unwrap(), in_force.version(Some(&web)).unwrap());
        let only = |version| Precondition::OneOf(vec![version]);
        assert_eq!(in_force.fits(&only(whole), None), Ok(()));
        assert_eq!(in_force.fits(&only(farm), Some(&web)), Ok(()));
        // A comment more is another text, and the same farm.
        in_force.confirm(format!("{}# more\n", in_force.text()).into());
        assert_eq!(in_force.fits(&only(whole), None), Err(Refusal::Stale(Thing::Configuration)));
        assert_eq!(in_force.fits(&only(farm), Some(&web)), Ok(()));
        assert_eq!(in_force.generation(), 2);
        in_force.replace(Arc::new(parse("")));
        assert_eq!(in_force.fits(&only(farm), Some(&web)), Err(Refusal::Stale(Thing::Farm(web))));
    }

    #[test]
    fn who_is_not_there_is_answered_with_those_who_are() {
        let in_force = in_force();
        assert!(in_force.need(&key("a").0, &key("a").1).is_ok());
        let refused = in_force.need(&key("c").0, &key("c").1).unwrap_err();
        assert_eq!(refused.to_string(), "farm 'web' has no backend 'c'; its backends are a, b");
        let refused = in_force.need(&FarmName::new("mail").unwrap(), &key("a").1).unwrap_err();
        assert_eq!(refused.to_string(), "there is no farm 'mail'; farms are web");
    }
}
