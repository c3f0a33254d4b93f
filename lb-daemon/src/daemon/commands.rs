//! What the API asks for. Changes are put in a row; the rest is answered at once, or beside the loop.

use lb_core::config::ConfigError;
use lb_core::config::model::Config;
use lb_core::config::{changes, needs_restart};
use lb_core::state::{ConnectionFilter, EventKind, EventLevel, News};

use super::changing::{DISK_WITHIN, Request, no_disk};
use super::departed::stays;
use super::jobs::{Done, InForce};
use super::{Daemon, describe};
use crate::handle::{Changes, Command, Format, Order, Refusal, Reply};
use crate::precondition::Version;
use crate::refusal::Conflict;

fn too_many() -> Refusal {
    Conflict::TooMany.into()
}

impl Daemon {
    /// Carries a command out and answers it. Whoever asked may be gone by then; it was done all the same.
    pub(super) fn command(&mut self, order: Order) {
        match order.command {
            Command::DryRun { .. } | Command::Cut { .. } | Command::Ping { .. } => {
                self.by = order.by;
                self.answer(order.command);
            }
            Command::PatchBackend { .. }
            | Command::EditFarm { .. }
            | Command::Apply { .. }
            | Command::Reload { .. }
                if self.changing.has_room() =>
            {
                self.requested(Request::Command(order))
            }
            Command::PatchBackend { reply, .. } => drop(reply.send(Err(too_many()))),
            Command::EditFarm { reply, .. } | Command::Apply { reply, .. } | Command::Reload { reply } => {
                drop(reply.send(Err(too_many())));
            }
        }
    }

    /// Answers what changes nothing of the configuration.
    pub(super) fn answer(&mut self, command: Command) {
        match command {
            Command::DryRun { text, format, reply } => {
                let in_force = self.in_force();
                let patience = (DISK_WITHIN, no_disk(&self.config_path));
                self.jobs.judge(patience, move || in_force.judge(&text, format), format, reply);
            }
            Command::Ping { reply } => drop(reply.send(Ok(()))),
            Command::Cut { filter, reply } => self.cut(filter, reply),
            Command::PatchBackend { .. }
            | Command::EditFarm { .. }
            | Command::Apply { .. }
            | Command::Reload { .. } => {}
        }
    }

    /// A text was judged that is not to be applied: says what would come of it.
    pub(super) fn judged_dry(
        &self,
        result: Result<Config, Vec<ConfigError>>,
        format: Format,
        reply: Reply<Changes>,
    ) {
        let new = result.map_err(Refusal::Invalid);
        let told = new.and_then(|new| self.may_become(format, &new).map(|()| self.consequences(&new)));
        reply.send(told).ok();
    }

    /// Cuts connections beside the loop: a large table takes a while.
    fn cut(&self, filter: ConnectionFilter, reply: Reply<u64>) {
        let (reader, events, by) = (self.dataplane.reader(), self.events.clone(), self.by);
        let cutting = self.vitals.cutting();
        self.jobs.run(Done::Nothing, move || {
            let _cutting = cutting;
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
            Done::Nothing
        });
    }

    pub(super) fn in_force(&self) -> InForce {
        let (config, text) = (self.config.clone(), self.text.clone());
        InForce { config, text, format: self.format, path: self.config_path.clone() }
    }

    /// The file keeps its format.
    pub(super) fn may_be_written(&self, format: Format) -> Result<(), Refusal> {
        if format == self.format {
            return Ok(());
        }
        Err(Conflict::OtherFormat { path: self.config_path.clone(), is: self.format }.into())
    }

    pub(super) fn may_become(&self, format: Format, new: &Config) -> Result<(), Refusal> {
        self.may_be_written(format)?;
        match &needs_restart(&self.config, new)[..] {
            [] => Ok(()),
            keys => Err(Conflict::NeedsRestart(keys.to_vec()).into()),
        }
    }

    /// What becoming `new` would do.
    pub(super) fn consequences(&self, new: &Config) -> Changes {
        let pairs = self.config.farms.iter().flat_map(|farm| farm.backends.iter().map(move |b| (farm, b)));
        let orphaned_connections = pairs
            .filter(|(farm, backend)| !stays(new, farm, backend))
            .filter_map(|(farm, backend)| Some(self.sweeping.live(self.backend_id(farm, backend)?)))
            .sum();
        let (generation, lines) = (self.generation, changes(&self.config, new));
        // A dry run says what it was compared with.
        let version = Some(Version::of(&*self.text));
        Changes { generation, lines, orphaned_connections, version }
    }
}
