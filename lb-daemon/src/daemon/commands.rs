//! What the API asks for.

use std::sync::Arc;

use lb_core::config::model::{BackendName, Config, Farm, FarmName};
use lb_core::config::{changes, needs_restart};
use lb_core::state::{AdminState, ConnectionFilter, EventKind, EventLevel, News};

use super::departed::stays;
use super::{Daemon, describe};
use crate::config::{self, Staged};
use crate::handle::{BackendPatch, Changes, Command, FarmEdit, Format, Order, Refusal, Reply};
use crate::precondition::{Precondition, Version};

impl Daemon {
    /// Carries a command out and answers it. Whoever asked may be gone by then; it was done all the same.
    pub(super) async fn command(&mut self, order: Order) {
        self.by = order.by;
        self.carry_out(order.command).await;
        self.by = None;
    }

    async fn carry_out(&mut self, command: Command) {
        match command {
            Command::PatchBackend { farm, backend, patch, reply } => {
                reply.send(self.patch_backend(&farm, &backend, patch)).ok();
            }
            Command::EditFarm { farm, edit, only_if, reply } => {
                let result = self.edit_farm(&farm, &edit, &only_if).await;
                reply.send(result).ok();
            }
            Command::Apply { text, format, only_if, reply } => {
                let result = match only_if.holds(Some(Version::of(&*self.text))) {
                    true => self.apply(text, format, true).await,
                    false => Err(Refusal::Stale("the configuration".to_owned())),
                };
                reply.send(result).ok();
            }
            Command::DryRun { text, format, reply } => {
                reply.send(self.dry_run(&text, format)).ok();
            }
            Command::Reload { reply } => {
                let result = self.reload().await;
                reply.send(result).ok();
            }
            Command::Cut { filter, reply } => self.cut(filter, reply),
        }
    }

    async fn edit_farm(
        &mut self,
        farm: &FarmName,
        edit: &FarmEdit,
        only_if: &Precondition,
    ) -> Result<Changes, Refusal> {
        let version = |config: &Config| config.farm(farm.as_str()).map(Version::of);
        if !only_if.holds(version(&self.config)) {
            return Err(Refusal::Stale(format!("farm '{farm}'")));
        }
        let text = config::edit(&self.text, self.format, farm, edit)?;
        let changes = self.apply(text, self.format, true).await?;
        Ok(Changes { version: version(&self.config), ..changes })
    }

    fn patch_backend(
        &mut self,
        farm: &FarmName,
        name: &BackendName,
        patch: BackendPatch,
    ) -> Result<(), Refusal> {
        let Some((config, backend)) = self.find(farm, name) else {
            return Err(Refusal::NotFound(self.whom_instead(farm, name)));
        };
        let who = describe::backend(config, backend);
        let before = self.overrides.get(farm, name);
        let mut after = before;
        after.admin = patch.admin.unwrap_or(before.admin);
        // The configured weight is no override.
        after.weight = patch.weight.or(before.weight).filter(|&weight| weight != backend.weight);
        if after == before {
            return Ok(());
        }
        let weight = after.weight.unwrap_or(backend.weight);
        let failed = |error: anyhow::Error| Refusal::Failed(format!("{error:#}"));
        self.overrides.set(farm, name, after).map_err(failed)?;
        if let Err(error) = self.reconcile() {
            self.overrides.set(farm, name, before).map_err(failed)?;
            self.follow();
            return Err(Refusal::Failed(format!("{error:#}")));
        }
        self.touched.insert((farm.clone(), name.clone()), crate::clock::wall());
        let what = match (after.admin == before.admin, after.admin) {
            (true, _) => format!("has weight {weight} by an operator"),
            (false, AdminState::Up) => "was put back by an operator".to_owned(),
            (false, AdminState::Drain) => "is drained by an operator: no new connections".to_owned(),
            (false, AdminState::Maintenance) => "was put into maintenance by an operator".to_owned(),
        };
        let message = format!("BackEnd {who} in farm: '{farm}' {what}");
        self.tell(EventLevel::Info, EventKind::BackendAdmin, Some(farm), Some(name), message);
        self.publish();
        Ok(())
    }

    fn whom_instead(&self, farm: &FarmName, backend: &BackendName) -> String {
        match self.config.farm(farm.as_str()) {
            None => {
                let names: Vec<&str> = self.config.farms.iter().map(|farm| farm.name.as_str()).collect();
                format!("there is no farm '{farm}'; there is {}", describe::list(&names))
            }
            Some(found) => {
                let names: Vec<&str> = found.backends.iter().map(|backend| backend.name.as_str()).collect();
                format!("farm '{farm}' has no backend '{backend}'; it has {}", describe::list(&names))
            }
        }
    }

    /// Reads the configuration file again.
    pub(super) async fn reload(&mut self) -> Result<Changes, Refusal> {
        match config::read_text(&self.config_path) {
            Ok(text) => self.apply(text, self.format, false).await,
            Err(error) => Err(self.refused(Refusal::Failed(error.to_string()))),
        }
    }

    fn refused(&self, refusal: Refusal) -> Refusal {
        let message = format!("a configuration was refused, nothing has changed: {refusal}");
        self.tell(EventLevel::Warning, EventKind::ConfigRefused, None, None, message);
        refusal
    }

    /// Makes `text` the configuration, all of it or nothing; with `write`, the file's content too.
    async fn apply(&mut self, text: String, format: Format, write: bool) -> Result<Changes, Refusal> {
        let new = match self.judge(&text, format) {
            Ok(new) => new,
            Err(refusal) => return Err(self.refused(refusal)),
        };
        // What can fail at the disk fails before anything has changed.
        let staged = match write.then(|| config::stage(&self.config_path, &self.text, &text)).transpose() {
            Ok(staged) => staged,
            Err(error) => return Err(self.refused(error.into())),
        };
        let planned = self.consequences(&new);
        let old = std::mem::replace(&mut self.config, Arc::new(new));
        let gone = self.remember_vips(&old);
        if let Err(refusal) = self.bring_in(staged).await {
            self.config = old;
            self.former_vips.retain(|vip, _| !gone.contains(vip));
            self.follow();
            return Err(self.refused(refusal));
        }
        (self.text, self.generation) = (text.into(), self.generation + 1);
        if let Err(error) = self.overrides.retain(&self.config) {
            tracing::warn!("{error:#}");
        }
        self.place_vips().await;
        self.remember_departed(&old);
        self.cut_vips(gone).await;
        self.watch_backends(false);
        let message = match &planned.lines[..] {
            [] => format!("configuration {} applied: nothing new", self.generation),
            lines => format!("configuration {} applied: {}", self.generation, lines.join("; ")),
        };
        self.tell(EventLevel::Info, EventKind::ConfigApplied, None, None, message);
        self.publish();
        let version = Some(Version::of(&*self.text));
        Ok(Changes { generation: self.generation, version, ..planned })
    }

    /// Maps and file follow the configuration that has just been set.
    async fn bring_in(&mut self, staged: Option<Staged>) -> Result<(), Refusal> {
        self.resolve().await;
        self.reconcile().map_err(|error| Refusal::Failed(format!("{error:#}")))?;
        Ok(staged.map_or(Ok(()), Staged::commit)?)
    }

    /// A text that may become the configuration of this daemon.
    fn judge(&self, text: &str, format: Format) -> Result<Config, Refusal> {
        if format != self.format {
            return Err(Refusal::Conflict(format!(
                "the configuration file {} is {}, and stays so",
                self.config_path.display(),
                if self.format == Format::Toml { "TOML" } else { "JSON" }
            )));
        }
        // A farm that changes must have all it needs on this host, and one that runs on as it was keeps no other from
        // being changed.
        let changes = |farm: &Farm| farm.enabled && self.config.farm(farm.name.as_str()) != Some(farm);
        let new =
            config::judge(text, format).and_then(|new| new.unless(changes)).map_err(Refusal::Invalid)?;
        match &needs_restart(&self.config, &new)[..] {
            [] => Ok(new),
            keys => Err(Refusal::Conflict(format!(
                "{} can change only by a restart of the daemon (connections survive one: `drover run --stay`)",
                keys.join(", ")
            ))),
        }
    }

    fn dry_run(&self, text: &str, format: Format) -> Result<Changes, Refusal> {
        let new = self.judge(text, format)?;
        Ok(self.consequences(&new))
    }

    /// What becoming `new` would do.
    fn consequences(&self, new: &Config) -> Changes {
        let pairs = self.config.farms.iter().flat_map(|farm| farm.backends.iter().map(move |b| (farm, b)));
        let orphaned_connections = pairs
            .filter(|(farm, backend)| !stays(new, farm, backend))
            .filter_map(|(farm, backend)| self.sweep.live.get(&self.backend_id(farm, backend)?))
            .sum();
        let (generation, lines) = (self.generation, changes(&self.config, new));
        // A dry run says what it was compared with.
        let version = Some(Version::of(&*self.text));
        Changes { generation, lines, orphaned_connections, version }
    }

    /// Cuts connections beside the loop: a large table takes a while.
    fn cut(&self, filter: ConnectionFilter, reply: Reply<u64>) {
        let (reader, events, by) = (self.reader.clone(), self.events.clone(), self.by);
        tokio::task::spawn_blocking(move || {
            let cut = reader.cut(&filter);
            if cut > 0 {
                let who = by.map(|by| format!(" ({by})")).unwrap_or_default();
                let message = format!("{} cut by an operator{who}", describe::count(cut, "connection"));
                tracing::info!("{message}");
                let (level, kind) = (EventLevel::Info, EventKind::ConnectionsCut);
                let news = News { level, kind, farm: None, backend: None, by, message };
                events.publish(|log| log.push(crate::clock::wall(), news));
            }
            reply.send(Ok(cut)).ok();
        });
    }
}
