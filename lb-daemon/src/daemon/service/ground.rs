//! What a change needs of the service.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use lb_core::config::model::{Backend, BackendName, Config, Farm, FarmName};
use lb_core::config::renames::heirs;
use lb_core::state::Peer;

use super::Service;
use crate::clock;
use crate::daemon::former::Former;
use crate::daemon::ground::{Ground, WriteLists};
use crate::daemon::in_force::InForce;
use crate::daemon::jobs::{Done, Jobs};
use crate::daemon::operators::Setting;
use crate::daemon::publish::View;
use crate::daemon::tell::Told;
use crate::daemon::words;
use crate::handle::{BackendPatch, Changes, Command, Refusal};
use crate::refusal::Failed;

impl Ground for Service {
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
        let lists = self.forwarding.lists();
        Box::new(move |config| lists.bring(config))
    }

    fn consequences(&self, new: &Config) -> Changes {
        let forwarding = &self.forwarding;
        let live = |farm: &Farm, backend: &Backend| {
            forwarding.backend_id(farm, backend).map_or(0, |id| forwarding.live(id))
        };
        self.in_force.consequences(new, live)
    }

    fn look_around(&mut self, new: &Config) -> Option<u64> {
        self.forwarding.look_around(self.in_force.config(), new)
    }

    fn tried(&self) -> u64 {
        self.forwarding.tried()
    }

    fn bring_in(&mut self, new: Arc<Config>) -> (Former, Result<(), Refusal>) {
        let config = self.in_force.replace(new.clone());
        let gone = self.forwarding.remember_vips(&config, &new, clock::now());
        let heirs = heirs(&config, &new);
        let overrides = self.operators.hand_on(&heirs, &new);
        let judgements = self.health.hand_on(&heirs, &config, clock::wall());
        let former = Former { config, gone, overrides, heirs, judgements, missed: Vec::new() };
        (former, self.bring().map_err(|error| Failed::Kernel(format!("{error:#}")).into()))
    }

    fn take_back(&mut self, former: Former) {
        self.in_force.replace(former.config);
        self.health.take_back(former.judgements);
        if let Some(overrides) = former.overrides {
            self.operators.take_back(overrides);
        }
        self.forwarding.keep_vips(&former.gone);
        self.follow();
        self.forwarding.tidy_lists(self.in_force.config(), &self.jobs);
        self.forwarding.want(self.in_force.config());
        if !former.missed.is_empty() {
            self.judged(former.missed, None);
        }
        self.publish();
    }

    fn confirm(&mut self, number: u64, text: Arc<str>, former: &Former) -> u64 {
        self.in_force.confirm(text);
        if former.overrides.is_some() {
            let write = self.operators.keep_for(number);
            self.write(write);
        }
        self.operators.rename(&former.heirs);
        let (config, forwarding) = (self.in_force.config(), &self.forwarding);
        forwarding.tidy_lists(config, &self.jobs);
        let id = |farm: &Farm, backend: &Backend| forwarding.backend_id(farm, backend);
        self.health.remember_departed(former, config, id);
        self.checks.set_targets(self.health.targets_after(config, former));
        self.forwarding.want(config)
    }

    fn cut_vips(&self, number: u64, gone: Vec<IpAddr>) {
        let (reader, cutting) = (self.forwarding.reader(), self.forwarding.vitals().cutting());
        self.jobs.run(Done::Broke(number), move || {
            let _cutting = cutting;
            reader.cut_vips(&gone);
            Done::VipsCut(number)
        });
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

    fn save(&mut self, number: u64, setting: &Setting) {
        let write = self.operators.save(number, setting);
        self.write(write);
    }

    fn set(&mut self, setting: &Setting) -> Result<(), Refusal> {
        let before = self.operators.set(setting);
        if let Err(error) = self.bring() {
            self.operators.take_back(before);
            self.follow();
            self.keep();
            return Err(Failed::Kernel(format!("{error:#}")).into());
        }
        self.operators.touch(&setting.key, clock::wall());
        if let Some(found) = self.find(&setting.key) {
            self.tell(words::set(found, setting));
        }
        self.publish();
        Ok(())
    }

    fn saved(&mut self) {
        let write = self.operators.saved();
        self.write(write);
    }

    fn keep(&mut self) {
        let write = self.operators.keep();
        self.write(write);
    }

    fn owes(&self, number: u64) -> bool {
        self.operators.owes(number)
    }

    fn answer(&mut self, command: Command) {
        match command {
            Command::DryRun { text, format, reply } => self.judge(text, format, reply),
            Command::Ping { reply } => drop(reply.send(Ok(()))),
            Command::Cut { filter, reply } => self.cut_by_hand(filter, reply),
            Command::PatchBackend { .. }
            | Command::EditFarm { .. }
            | Command::Apply { .. }
            | Command::Reload { .. } => {}
        }
    }

    fn set_by(&mut self, by: Option<Peer>) {
        self.telling.set_by(by);
    }

    fn tell(&self, told: Told) {
        self.telling.tell(self.in_force.config(), told);
    }

    fn publish(&self) {
        let (in_force, forwarding) = (&self.in_force, &self.forwarding);
        let voices = self.voices();
        self.publisher.publish(View { in_force, forwarding, voices });
    }
}
