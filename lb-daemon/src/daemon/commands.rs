//! What the API asks for.

use std::sync::Arc;

use lb_core::config::model::{BackendName, Config, FarmName};
use lb_core::config::{changes, needs_restart};
use lb_core::state::{AdminState, ConnectionFilter, EventKind, EventLevel};

use super::departed::stays;
use super::{Daemon, describe};
use crate::config;
use crate::handle::{BackendPatch, Changes, Command, Format, Refusal, Reply};

impl Daemon {
    /// Carries a command out and answers it. Whoever asked may be gone by then; it was done all the same.
    pub(super) async fn command(&mut self, command: Command) {
        match command {
            Command::PatchBackend { farm, backend, patch, reply } => {
                reply.send(self.patch_backend(&farm, &backend, patch)).ok();
            }
            Command::EditFarm { farm, edit, reply } => {
                let result = match config::edit(&self.text, self.format, &farm, &edit) {
                    Ok(text) => self.apply(text, self.format, true).await,
                    Err(refusal) => Err(refusal),
                };
                reply.send(result).ok();
            }
            Command::Apply { text, format, reply } => {
                let result = self.apply(text, format, true).await;
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
            Command::ConfigText { reply } => {
                reply.send(Ok((self.text.clone(), self.format))).ok();
            }
        }
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
        match config::load(&self.config_path) {
            Ok((text, format, _)) => self.apply(text, format, false).await,
            Err(config::LoadError::Invalid { errors, .. }) => Err(self.refused(Refusal::Invalid(errors))),
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
        let planned = self.consequences(&new);
        let old = std::mem::replace(&mut self.config, Arc::new(new));
        let gone = self.remember_vips(&old);
        let done = self.bring_in(&text, write).await;
        if let Err(error) = done {
            self.config = old;
            self.former_vips.retain(|vip, _| !gone.contains(vip));
            self.follow();
            return Err(self.refused(Refusal::Failed(format!("{error:#}"))));
        }
        (self.text, self.generation) = (text, self.generation + 1);
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
        Ok(Changes { generation: self.generation, ..planned })
    }

    /// Maps and file follow the configuration that has just been set.
    async fn bring_in(&mut self, text: &str, write: bool) -> anyhow::Result<()> {
        self.resolve().await;
        self.reconcile()?;
        if write {
            config::write_atomically(&self.config_path, text)
                .map_err(|error| anyhow::anyhow!("cannot write {}: {error}", self.config_path.display()))?;
        }
        Ok(())
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
        let new = config::parse(text, format).map_err(Refusal::Invalid)?;
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
        Changes { generation: self.generation, lines: changes(&self.config, new), orphaned_connections }
    }

    /// Cuts connections beside the loop: a large table takes a while.
    fn cut(&self, filter: ConnectionFilter, reply: Reply<u64>) {
        let (reader, events) = (self.reader.clone(), self.events.clone());
        tokio::task::spawn_blocking(move || {
            let cut = reader.cut(&filter);
            if cut > 0 {
                let message = format!("{} cut by an operator", describe::count(cut, "connection"));
                tracing::info!("{message}");
                let time = crate::clock::wall();
                events.publish(|log| {
                    log.push(time, EventLevel::Info, EventKind::ConnectionsCut, None, None, message)
                });
            }
            reply.send(Ok(cut)).ok();
        });
    }
}
