//! Changes that are asked for, one at a time, in the order in which they came. Each is a row of steps that others carry out
//! (a file is read, the network is asked, a file is written), so the loop goes on while one is under way; each step has its
//! time, and what takes longer is refused. A change that is begun is ended, whether or not somebody still waits for it.
//!
//! Which step follows which, `lb_core::change` says; what a change needs of the rest of the daemon is [`Ground`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_core::change::{Ended, Then, then};
use lb_core::config::model::FarmName;
use lb_core::state::Peer;

use super::former::Former;
use super::ground::{Ground, discard, end, refused, take_back};
use super::in_force::Loaded;
use super::jobs::{Done, Pass};
use super::patch::Patch;
use super::steps::{
    Answer, Applied, CUT_WITHIN, DISK_WITHIN, NETWORK_WITHIN, Ready, Request, Step, no_disk,
    not_known_to_be_written,
};
use crate::clock;
use crate::handle::{Changes, Command, Format, Order, Refusal, Reply};
use crate::refusal::Failed;

/// So many changes wait; more are refused, so that what is no change is still answered.
const WAITING_MAX: usize = 128;

/// The change under way, and those that wait.
#[derive(Default)]
pub(super) struct Changing {
    waiting: VecDeque<Request>,
    now: Option<Change>,
    /// Who asked for the one under way.
    by: Option<Peer>,
    count: u64,
}

struct Change {
    number: u64,
    step: Step,
    /// Until when the step may take.
    until: Instant,
}

impl Changing {
    /// Whether another one may wait.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }

    /// What comes back if the change under way is refused, while it is in the maps and not yet certain.
    pub fn former(&mut self) -> Option<&mut Former> {
        match &mut self.now.as_mut()?.step {
            Step::Written { former, .. } => Some(former),
            Step::Read { .. }
            | Step::Resolved { .. }
            | Step::Placed { .. }
            | Step::Cut { .. }
            | Step::Kept { .. }
            | Step::Saved { .. } => None,
        }
    }

    /// Takes a request in, and begins with it if nothing is under way.
    pub fn requested(&mut self, ground: &mut impl Ground, request: Request) {
        let twice = matches!(request, Request::Reload)
            && self.waiting.iter().any(|waiting| matches!(waiting, Request::Reload));
        if !twice {
            self.waiting.push_back(request);
        }
        self.begin_next(ground);
    }

    /// Begins with the next request when nothing is under way. To be called whenever a change may have ended.
    pub fn begin_next(&mut self, ground: &mut impl Ground) {
        while self.now.is_none()
            && let Some(request) = self.waiting.pop_front()
        {
            self.count += 1;
            let number = self.count;
            let (command, by) = match request {
                Request::Reload => (None, None),
                Request::Command(Order { command, by }) => (Some(command), by),
            };
            self.by = by;
            ground.set_by(by);
            match command {
                None => self.reload(ground, number, Answer::Log),
                Some(command) => self.begin(ground, number, command),
            }
        }
    }

    fn set(&mut self, number: u64, step: Step, within: Duration) {
        self.now = Some(Change { number, step, until: clock::now() + within });
    }

    /// Takes the step of the change under way if it is the one; what is told from now on is told of who asked for it.
    fn take(&mut self, ground: &mut impl Ground, is_it: impl Fn(&Change) -> bool) -> Option<(u64, Step)> {
        let Change { number, step, .. } = self.now.take_if(|change| is_it(change))?;
        ground.set_by(self.by);
        Some((number, step))
    }

    /// The same for what a job has done that was begun for the change of that number. It may have been given up.
    fn take_from_job(&mut self, ground: &mut impl Ground, number: u64) -> Option<Step> {
        let taken = self.take(ground, |change| change.number == number);
        if taken.is_none() {
            ground.jobs().came_back();
        }
        Some(taken?.1)
    }

    fn reload(&mut self, ground: &mut impl Ground, number: u64, answer: Answer) {
        let in_force = ground.in_force().clone();
        self.read(ground, number, answer, None, move || in_force.load());
    }

    fn begin(&mut self, ground: &mut impl Ground, number: u64, command: Command) {
        match command {
            Command::Reload { reply } => self.reload(ground, number, Answer::Api(reply)),
            Command::Apply { text, format, only_if, reply } => {
                let fits = ground.in_force().fits(&only_if, None);
                self.prepare(ground, number, fits.map(|()| (text, format)), None, reply);
            }
            Command::EditFarm { farm, edit, only_if, reply } => {
                let in_force = ground.in_force();
                let text = in_force.fits(&only_if, Some(&farm)).and_then(|()| in_force.edited(&farm, &edit));
                self.prepare(ground, number, text, Some(farm), reply);
            }
            Command::PatchBackend { farm, backend, patch, reply } => {
                match ground.plan(farm, backend, patch) {
                    Ok(None) => drop(reply.send(Ok(()))),
                    Ok(Some(setting)) => {
                        ground.save(number, &setting);
                        let patch = Patch::new(setting, reply);
                        self.set(number, Step::Saved { patch }, DISK_WITHIN);
                    }
                    Err(refusal) => drop(reply.send(Err(refusal))),
                }
            }
            other @ (Command::DryRun { .. } | Command::Cut { .. } | Command::Ping { .. }) => {
                ground.answer(other)
            }
        }
    }

    /// Has a text judged that is to be the configuration, and the file's content. `farm`: whose change it is.
    fn prepare(
        &mut self,
        ground: &mut impl Ground,
        number: u64,
        text: Result<(String, Format), Refusal>,
        farm: Option<FarmName>,
        reply: Reply<Changes>,
    ) {
        let (text, format) = match text {
            Ok(found) => found,
            // Whoever asked may have left.
            Err(refusal) => return drop(reply.send(Err(refusal))),
        };
        // One of another format is not written.
        if let Err(refusal) = ground.in_force().may_be_written(format) {
            return drop(reply.send(Err(refused(ground, refusal))));
        }
        let in_force = ground.in_force().clone();
        self.read(ground, number, Answer::Api(reply), farm, move || in_force.prepare(text, format));
    }

    /// Has a configuration read and judged.
    fn read(
        &mut self,
        ground: &mut impl Ground,
        number: u64,
        answer: Answer,
        farm: Option<FarmName>,
        read: impl FnOnce() -> Result<Loaded, Refusal> + Send + 'static,
    ) {
        if ground.jobs().is_stuck() {
            let refusal = no_disk(ground.in_force().path());
            return answer.give(Err(refused(ground, refusal)));
        }
        // Before the configuration comes into force: long lists take their time.
        let lists = ground.lists();
        ground.jobs().run(Done::Broke(number), move || {
            let listed = |loaded: Loaded| match lists(&loaded.config) {
                Ok(()) => Ok(loaded),
                Err(error) => Err(Failed::Kernel(format!("{error:#}")).into()),
            };
            Done::Read(number, Box::new(read().and_then(listed)))
        });
        self.set(number, Step::Read { answer, farm }, DISK_WITHIN);
    }

    /// What was read.
    pub fn was_read(&mut self, ground: &mut impl Ground, number: u64, result: Result<Loaded, Refusal>) {
        match (self.take_from_job(ground, number), result) {
            (Some(Step::Read { answer, farm }), Ok(loaded)) => {
                self.judge(ground, number, loaded, answer, farm);
            }
            (Some(step), Err(refusal)) => self.go_on(ground, number, step, Ended::Refused, Some(refusal)),
            (_, Ok(loaded)) => discard(ground.jobs(), loaded.staged),
            (None, Err(_)) => {}
        }
    }

    /// Whether what was read may take the place of what is in force, and what it needs before that.
    fn judge(
        &mut self,
        ground: &mut impl Ground,
        number: u64,
        loaded: Loaded,
        answer: Answer,
        farm: Option<FarmName>,
    ) {
        let Loaded { text, format, config, staged } = loaded;
        if let Err(refusal) = ground.in_force().may_become(format, &config) {
            discard(ground.jobs(), staged);
            return answer.give(Err(refused(ground, refusal)));
        }
        let (planned, unknown) = (ground.consequences(&config), ground.look_around(&config));
        let (new, text) = (Arc::new(config), text.into());
        let ready = Ready { new, text, staged, planned, farm, unwritten: None, answer };
        match unknown {
            Some(of) => self.set(number, Step::Resolved { of, ready }, NETWORK_WITHIN),
            None => self.bring_in(ground, number, ready),
        }
    }

    /// The maps follow the new configuration; then the files do, if there is anything to write.
    fn bring_in(&mut self, ground: &mut impl Ground, number: u64, mut ready: Ready) {
        let (former, result) = ground.bring_in(ready.new.clone());
        if let Err(refusal) = result {
            return take_back(ground, ready, former, refusal);
        }
        let Some(staged) = ready.staged.take() else {
            return self.follow(ground, number, ready, former);
        };
        let pass = Pass::default();
        let mine = pass.clone();
        ground.jobs().run(Done::Broke(number), move || {
            if !mine.take() {
                return Done::Written(number, Err(Failed::TooLate.into()));
            }
            Done::Written(number, staged.commit().map_err(Refusal::from))
        });
        self.set(number, Step::Written { ready, former, pass }, DISK_WITHIN);
    }

    pub fn was_written(&mut self, ground: &mut impl Ground, number: u64, result: Result<(), Refusal>) {
        match (self.take_from_job(ground, number), result) {
            (Some(step), Ok(())) => self.go_on(ground, number, step, Ended::Done, None),
            (Some(step), Err(refusal)) => self.go_on(ground, number, step, Ended::Refused, Some(refusal)),
            // It was given up.
            (None, Err(refusal)) => tracing::warn!("{refusal}"),
            (None, Ok(())) => {}
        }
    }

    /// The configuration is the new one: everything else follows.
    fn follow(&mut self, ground: &mut impl Ground, number: u64, ready: Ready, former: Former) {
        let Ready { text, planned, farm, unwritten, answer, .. } = ready;
        let of = ground.confirm(number, text, &former);
        let done = Applied { planned, gone: former.gone, farm, unwritten, answer };
        if ground.tried() >= of {
            self.cut_vips(ground, number, done);
        } else {
            self.set(number, Step::Placed { of, done }, NETWORK_WITHIN);
        }
    }

    /// Cuts the connections of VIPs that are gone: whoever asked for the change is answered when it has come to its end.
    fn cut_vips(&mut self, ground: &mut impl Ground, number: u64, done: Applied) {
        if done.gone.is_empty() {
            return self.conclude(ground, number, done);
        }
        ground.cut_vips(number, done.gone.clone());
        self.set(number, Step::Cut { done }, CUT_WITHIN);
    }

    pub fn vips_were_cut(&mut self, ground: &mut impl Ground, number: u64) {
        if let Some(step) = self.take_from_job(ground, number) {
            self.go_on(ground, number, step, Ended::Done, None);
        }
    }

    /// What it has changed of what operators have set is to be saved before anybody relies on it.
    fn conclude(&mut self, ground: &mut impl Ground, number: u64, done: Applied) {
        if ground.owes(number) {
            self.set(number, Step::Kept { done }, DISK_WITHIN);
        } else {
            end(ground, done);
        }
    }

    /// A write of what operators have set has ended, which was begun for the change of that number.
    pub fn was_saved(&mut self, ground: &mut impl Ground, number: u64, result: Result<(), String>) {
        ground.saved();
        let waits = |change: &Change| {
            change.number == number && matches!(change.step, Step::Saved { .. } | Step::Kept { .. })
        };
        let step = self.take(ground, waits);
        let (ended, why) = match result {
            Ok(()) => (Ended::Done, None),
            Err(words) => {
                // Whoever waits for a setting is told.
                if !matches!(step, Some((_, Step::Saved { .. }))) {
                    tracing::warn!("{words}");
                }
                (Ended::Refused, Some(Failed::File(words).into()))
            }
        };
        if let Some((number, step)) = step {
            self.go_on(ground, number, step, ended, why);
        }
    }

    /// The network has tried what was wanted of it.
    pub fn network_tried(&mut self, ground: &mut impl Ground) {
        let tried = ground.tried();
        let waited = |change: &Change| change.step.of().is_some_and(|of| tried >= of);
        if let Some((number, step)) = self.take(ground, waited) {
            self.go_on(ground, number, step, Ended::Done, None);
        }
    }

    /// Whatever takes longer than it may is given up.
    pub fn give_up_overdue(&mut self, ground: &mut impl Ground, now: Instant) {
        let Some((number, step)) = self.take(ground, |change| now >= change.until) else { return };
        let stage = step.stage();
        if stage.has_a_thread() {
            ground.jobs().give_up();
        }
        if stage.is_the_networks() {
            tracing::warn!("the network takes its time; the change goes on without it");
        }
        let stopped = if let Step::Written { pass, .. } = &step { pass.take() } else { true };
        let why = match &step {
            Step::Written { .. } if !stopped => Some(not_known_to_be_written(ground.in_force().path())),
            Step::Read { .. } | Step::Written { .. } => Some(no_disk(ground.in_force().path())),
            Step::Kept { .. } => Some(not_known_to_be_written(ground.kept_at())),
            Step::Saved { .. } => Some(no_disk(ground.kept_at())),
            Step::Resolved { .. } | Step::Placed { .. } | Step::Cut { .. } => None,
        };
        self.go_on(ground, number, step, Ended::Late { stopped }, why);
    }

    /// A step has broken off.
    pub fn broke(&mut self, ground: &mut impl Ground, number: u64) {
        if let Some(step) = self.take_from_job(ground, number) {
            self.go_on(ground, number, step, Ended::Broke, Some(Failed::BrokeOff.into()));
        }
    }

    /// A step has ended; `why`, if not well.
    fn go_on(
        &mut self,
        ground: &mut impl Ground,
        number: u64,
        step: Step,
        ended: Ended,
        why: Option<Refusal>,
    ) {
        let because = why.clone().unwrap_or_else(|| Failed::BrokeOff.into());
        match (then(step.stage(), ended), step) {
            (Then::Refuse, Step::Read { answer, .. }) => answer.give(Err(refused(ground, because))),
            (Then::BringIn, Step::Resolved { ready, .. }) => self.bring_in(ground, number, ready),
            (Then::TakeBack, Step::Written { ready, former, .. }) => {
                take_back(ground, ready, former, because);
            }
            (Then::Follow | Then::FollowUnwritten, Step::Written { mut ready, former, .. }) => {
                ready.unwritten = why;
                self.follow(ground, number, ready, former);
            }
            (Then::CutVips, Step::Placed { done, .. }) => self.cut_vips(ground, number, done),
            (Then::Conclude, Step::Cut { done } | Step::Kept { done }) => {
                self.conclude(ground, number, done);
            }
            (Then::AnswerUnwritten, Step::Kept { mut done }) => {
                done.unwritten.get_or_insert(because);
                end(ground, done);
            }
            (Then::Set, Step::Saved { patch }) => {
                let result = ground.set(&patch.setting);
                patch.answer(result);
            }
            (Then::Refuse, Step::Saved { patch }) => patch.answer(Err(because)),
            (Then::RefuseAndKeep, Step::Saved { patch }) => {
                ground.keep();
                patch.answer(Err(because));
            }
            // No other step has those ends.
            (then, step) => tracing::error!("a change ends at {:?}: no way to {then:?}", step.stage()),
        }
    }
}
