//! Changes that are asked for, one at a time, in the order in which they came. Each is a row of steps that others carry out
//! (a file is read, the network is asked, a file is written), so the loop goes on while one is under way; each step has its
//! time, and what takes longer is refused. A change that is begun is ended, whether or not somebody still waits for it.

use std::sync::Arc;
use std::time::Instant;

use lb_core::config::model::FarmName;
use lb_core::config::renames::heirs;
use lb_core::state::{EventKind, EventLevel};

use super::changing::{
    Answer, Applied, CUT_WITHIN, Change, DISK_WITHIN, Former, NETWORK_WITHIN, Ready, Request, Step, no_disk,
    not_known_to_be_written,
};
use super::jobs::{Done, Loaded, Pass};
use super::{Daemon, network};
use crate::config::{self, Staged};
use crate::handle::{Changes, Command, Format, Order, Refusal, Reply};
use crate::precondition::Version;
use crate::refusal::{Failed, Thing};

impl Daemon {
    /// Takes a request in, and begins with it if nothing is under way.
    pub(super) fn requested(&mut self, request: Request) {
        let twice = matches!(request, Request::Reload)
            && self.changing.waiting.iter().any(|waiting| matches!(waiting, Request::Reload));
        if !twice {
            self.changing.waiting.push_back(request);
        }
        self.begin_next();
    }

    /// Begins with the next request when nothing is under way. Called whenever a change may have ended.
    pub(super) fn begin_next(&mut self) {
        while self.changing.now.is_none()
            && let Some(request) = self.changing.waiting.pop_front()
        {
            self.changing.count += 1;
            let number = self.changing.count;
            match request {
                Request::Reload => {
                    (self.changing.by, self.by) = (None, None);
                    self.reload(number, Answer::Log);
                }
                Request::Command(Order { command, by }) => {
                    (self.changing.by, self.by) = (by, by);
                    self.begin(number, command);
                }
            }
        }
    }

    /// Takes the step of the change of that number, if it is under way; what is told from now on is told of who asked for it.
    fn step(&mut self, number: u64) -> Option<Step> {
        let step = self.changing.take(number, &self.jobs)?;
        self.by = self.changing.by;
        Some(step)
    }

    fn reload(&mut self, number: u64, answer: Answer) {
        let in_force = self.in_force();
        self.read(number, answer, None, move || in_force.load());
    }

    fn begin(&mut self, number: u64, command: Command) {
        match command {
            Command::Reload { reply } => self.reload(number, Answer::Api(reply)),
            Command::Apply { text, format, only_if, reply } => {
                if only_if.holds(Some(Version::of(&*self.text))) {
                    self.prepare(number, text, format, None, reply);
                } else {
                    drop(reply.send(Err(Refusal::Stale(Thing::Configuration))));
                }
            }
            Command::EditFarm { farm, edit, only_if, reply } => {
                if !only_if.holds(self.version_of(&farm)) {
                    return drop(reply.send(Err(Refusal::Stale(Thing::Farm(farm)))));
                }
                match config::edit(&self.text, self.format, &farm, &edit) {
                    Ok(text) => self.prepare(number, text, self.format, Some(farm), reply),
                    Err(error) => drop(reply.send(Err(error.into()))),
                }
            }
            Command::PatchBackend { farm, backend, patch, reply } => {
                self.begin_patch(number, farm, backend, patch, reply);
            }
            other @ (Command::DryRun { .. } | Command::Cut { .. } | Command::Ping { .. }) => {
                self.answer(other)
            }
        }
    }

    fn version_of(&self, farm: &FarmName) -> Option<Version> {
        self.config.farm(farm.as_str()).map(Version::of)
    }

    /// Has a text judged that is to be the configuration, and the file's content. `farm`: whose change it is.
    fn prepare(
        &mut self,
        number: u64,
        text: String,
        format: Format,
        farm: Option<FarmName>,
        reply: Reply<Changes>,
    ) {
        // One of another format is not written.
        if let Err(refusal) = self.may_be_written(format) {
            return drop(reply.send(Err(self.refused(refusal))));
        }
        let in_force = self.in_force();
        self.read(number, Answer::Api(reply), farm, move || in_force.prepare(text, format));
    }

    /// Has a configuration read and judged.
    fn read(
        &mut self,
        number: u64,
        answer: Answer,
        farm: Option<FarmName>,
        read: impl FnOnce() -> Result<Loaded, Refusal> + Send + 'static,
    ) {
        if self.jobs.is_stuck() {
            return answer.give(Err(self.refused(no_disk(&self.config_path))));
        }
        self.jobs.run(Done::Broke(number), move || Done::Read(number, Box::new(read())));
        self.changing.set(number, Step::Read { answer, farm }, DISK_WITHIN);
    }

    /// What was read.
    pub(super) fn was_read(&mut self, number: u64, result: Result<Loaded, Refusal>) {
        let Some(Step::Read { answer, farm }) = self.step(number) else {
            return self.discard(result.ok().and_then(|loaded| loaded.staged));
        };
        let Loaded { text, format, config, staged } = match result {
            Ok(loaded) => loaded,
            Err(refusal) => return answer.give(Err(self.refused(refusal))),
        };
        if let Err(refusal) = self.may_become(format, &config) {
            self.discard(staged);
            return answer.give(Err(self.refused(refusal)));
        }
        let planned = self.consequences(&config);
        let ready = Ready {
            new: Arc::new(config),
            text: text.into(),
            staged,
            planned,
            farm,
            unwritten: None,
            answer,
        };
        let next = network::wanted(&ready.new, self.dataplane.backend_addresses());
        let unknown = !self.surroundings.knows(&next.backends);
        let mut meanwhile = network::wanted(&self.config, next.backends);
        meanwhile.interfaces = next.interfaces;
        let of = self.surroundings.want(meanwhile);
        if unknown {
            self.changing.set(number, Step::Resolved { of, ready }, NETWORK_WITHIN);
        } else {
            self.bring_in(number, ready);
        }
    }

    /// What was staged is not wanted; to take it away may take a while.
    fn discard(&self, staged: Option<Staged>) {
        if let Some(staged) = staged {
            self.jobs.run(Done::Nothing, move || {
                drop(staged);
                Done::Nothing
            });
        }
    }

    /// The maps follow the new configuration; then the files do, if there is anything to write.
    fn bring_in(&mut self, number: u64, mut ready: Ready) {
        let config = std::mem::replace(&mut self.config, ready.new.clone());
        let gone = self.remember_vips(&config);
        let heirs = heirs(&config, &ready.new);
        let overrides = self.overrides.handed_on(&heirs, &ready.new);
        let overrides = overrides.map(|next| std::mem::replace(&mut self.overrides, next));
        let judgements = self.hand_on_health(&heirs, &config);
        let former = Former { config, gone, overrides, heirs, judgements, missed: Vec::new() };
        if let Err(error) = self.reconcile() {
            let refusal = Failed::Kernel(format!("{error:#}")).into();
            return self.take_back(ready, former, refusal);
        }
        let Some(staged) = ready.staged.take() else {
            return self.came_into_force(number, ready, former);
        };
        let pass = Pass::default();
        let mine = pass.clone();
        self.jobs.run(Done::Broke(number), move || {
            if !mine.take() {
                return Done::Written(number, Err(Failed::TooLate.into()));
            }
            Done::Written(number, staged.commit().map_err(Refusal::from))
        });
        self.changing.set(number, Step::Written { ready, former, pass }, DISK_WITHIN);
    }

    pub(super) fn was_written(&mut self, number: u64, result: Result<(), Refusal>) {
        let Some(Step::Written { ready, former, .. }) = self.step(number) else {
            // It was given up.
            return if let Err(refusal) = result {
                tracing::warn!("{refusal}")
            };
        };
        match result {
            Ok(()) => self.came_into_force(number, ready, former),
            Err(refusal) => self.take_back(ready, former, refusal),
        }
    }

    /// Goes back to the configuration before.
    fn take_back(&mut self, ready: Ready, former: Former, refusal: Refusal) {
        (self.config, self.judgements) = (former.config, former.judgements);
        if let Some(overrides) = former.overrides {
            self.overrides = overrides;
        }
        self.keep_vips(&former.gone);
        self.follow();
        self.want();
        former.missed.into_iter().for_each(|report| self.judged(report));
        self.publish();
        self.discard(ready.staged);
        ready.answer.give(Err(self.refused(refusal)));
    }

    /// The configuration is the new one: everything else follows.
    fn came_into_force(&mut self, number: u64, ready: Ready, former: Former) {
        let Ready { text, planned, farm, unwritten, answer, .. } = ready;
        (self.text, self.generation) = (text, self.generation + 1);
        if former.overrides.is_some() {
            self.keep_for(number);
        }
        self.remember_departed(&former.config, &former.judgements);
        for (to, from) in &former.heirs {
            if let Some(at) = self.touched.get(from).copied() {
                self.touched.insert(to.clone(), at);
            }
        }
        self.watch_backends(|daemon, farm, backend, address| {
            daemon.held_before_change(&former, farm, backend, address)
        });
        let of = self.want();
        let done = Applied { planned, gone: former.gone, farm, unwritten, answer };
        if self.surroundings.tried() >= of {
            self.cut_vips(number, done);
        } else {
            self.changing.set(number, Step::Placed { of, done }, NETWORK_WITHIN);
        }
    }

    /// Cuts the connections of VIPs that are gone: whoever asked for the change is answered when it has come to its end.
    fn cut_vips(&mut self, number: u64, done: Applied) {
        if done.gone.is_empty() {
            return self.conclude(number, done);
        }
        let (reader, gone, cutting) = (self.dataplane.reader(), done.gone.clone(), self.vitals.cutting());
        self.jobs.run(Done::Broke(number), move || {
            let _cutting = cutting;
            reader.cut_vips(&gone);
            Done::VipsCut(number)
        });
        self.changing.set(number, Step::Cut { done }, CUT_WITHIN);
    }

    pub(super) fn vips_were_cut(&mut self, number: u64) {
        let Some(Step::Cut { done }) = self.step(number) else { return };
        self.conclude(number, done);
    }

    /// What it has changed of what operators have set is to be saved before anybody relies on it.
    pub(super) fn conclude(&mut self, number: u64, done: Applied) {
        if self.is_keeping(number) {
            self.changing.set(number, Step::Kept { done }, DISK_WITHIN);
        } else {
            self.end(done);
        }
    }

    fn end(&mut self, done: Applied) {
        let Applied { planned, farm, unwritten, answer, .. } = done;
        let message = match &planned.lines[..] {
            [] => format!("configuration {} applied: nothing new", self.generation),
            lines => format!("configuration {} applied: {}", self.generation, lines.join("; ")),
        };
        self.tell(EventLevel::Info, EventKind::ConfigApplied, None, None, message);
        self.publish();
        if let Some(refusal) = unwritten {
            return answer.give(Err(refusal));
        }
        let version = match farm {
            Some(farm) => self.version_of(&farm),
            None => Some(Version::of(&*self.text)),
        };
        answer.give(Ok(Changes { generation: self.generation, version, ..planned }));
    }

    /// The network has tried what was wanted of it.
    pub(super) fn network_tried(&mut self) {
        let tried = self.surroundings.tried();
        let waited = |change: &mut Change| match change.step {
            Step::Resolved { of, .. } | Step::Placed { of, .. } => tried >= of,
            Step::Read { .. }
            | Step::Written { .. }
            | Step::Cut { .. }
            | Step::Kept { .. }
            | Step::Saved { .. } => false,
        };
        if let Some(Change { number, step, .. }) = self.changing.now.take_if(waited) {
            self.by = self.changing.by;
            self.go_on_without_network(number, step);
        }
    }

    fn go_on_without_network(&mut self, number: u64, step: Step) {
        match step {
            Step::Resolved { ready, .. } => self.bring_in(number, ready),
            Step::Placed { done, .. } => self.cut_vips(number, done),
            Step::Read { .. }
            | Step::Written { .. }
            | Step::Cut { .. }
            | Step::Kept { .. }
            | Step::Saved { .. } => {}
        }
    }

    /// Whatever takes longer than it may is given up.
    pub(super) fn give_up_overdue(&mut self, now: Instant) {
        let Some(Change { number, step, .. }) = self.changing.now.take_if(|change| now >= change.until)
        else {
            return;
        };
        self.by = self.changing.by;
        match step {
            Step::Read { answer, .. } => {
                self.jobs.give_up();
                answer.give(Err(self.refused(no_disk(&self.config_path))));
            }
            Step::Resolved { .. } | Step::Placed { .. } => {
                tracing::warn!("the network takes its time; the change goes on without it");
                self.go_on_without_network(number, step);
            }
            Step::Written { mut ready, former, pass } => {
                self.jobs.give_up();
                if pass.take() {
                    let refusal = no_disk(&self.config_path);
                    return self.take_back(ready, former, refusal);
                }
                // The new file may take the old one's place at any time: there is no way back.
                ready.unwritten = Some(not_known_to_be_written(&self.config_path));
                self.came_into_force(number, ready, former);
            }
            Step::Cut { done } => {
                self.jobs.give_up();
                self.conclude(number, done);
            }
            Step::Kept { mut done } => {
                done.unwritten.get_or_insert(not_known_to_be_written(self.overrides.path()));
                self.end(done);
            }
            Step::Saved { patch } => {
                self.keep_in_force();
                patch.refuse(no_disk(self.overrides.path()));
            }
        }
    }

    /// A step has broken off.
    pub(super) fn change_broke(&mut self, number: u64) {
        let broken = || Refusal::Failed(Failed::BrokeOff);
        match self.step(number) {
            None => {}
            Some(Step::Read { answer, .. }) => answer.give(Err(self.refused(broken()))),
            Some(Step::Written { ready, former, .. }) => self.take_back(ready, former, broken()),
            Some(Step::Saved { patch }) => patch.refuse(broken()),
            Some(Step::Cut { done } | Step::Kept { done }) => self.conclude(number, done),
            Some(step @ (Step::Resolved { .. } | Step::Placed { .. })) => {
                self.go_on_without_network(number, step)
            }
        }
    }

    fn refused(&self, refusal: Refusal) -> Refusal {
        let message = format!("a configuration was refused, nothing has changed: {refusal}");
        self.tell(EventLevel::Warning, EventKind::ConfigRefused, None, None, message);
        refusal
    }
}
