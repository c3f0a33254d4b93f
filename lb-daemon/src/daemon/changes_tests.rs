//! What becomes of changes, whatever happens to each of their steps. The rest of the daemon is a [`Fake`] that writes down what
//! it is told.

use std::net::IpAddr;
use std::time::Instant;

use lb_core::state::{AdminState, Peer};
use tokio::sync::oneshot;

use super::changes::Changing;
use super::changes_fake::{Fake, text};
use super::jobs::Done;
use super::steps::{CUT_WITHIN, Request};
use crate::clock;
use crate::handle::{BackendPatch, Changes, Command, Format, Order, Refusal};
use crate::precondition::Precondition;
use crate::refusal::Failed;

type Waits<T> = oneshot::Receiver<Result<T, Refusal>>;

fn order(command: Command) -> Request {
    Request::Command(Order { command, by: None })
}

/// Asks for a configuration in which the farm has another key.
fn apply(fake: &mut Fake, changing: &mut Changing, more: &str) -> Waits<Changes> {
    let (reply, answer) = oneshot::channel();
    let (text, only_if) = (text(more), Precondition::None);
    changing.requested(fake, order(Command::Apply { text, format: Format::Toml, only_if, reply }));
    answer
}

fn drain(fake: &mut Fake, changing: &mut Changing) -> Waits<()> {
    let (reply, answer) = oneshot::channel();
    let (farm, backend) = super::test_config::key("a");
    let patch = BackendPatch { admin: Some(AdminState::Drain), weight: None };
    changing.requested(fake, order(Command::PatchBackend { farm, backend, patch, reply }));
    answer
}

/// Takes the next end of a job.
async fn go_on(fake: &mut Fake, changing: &mut Changing) {
    match fake.inbox.recv().await.unwrap() {
        Done::Read(number, result) => changing.was_read(fake, number, *result),
        Done::Written(number, result) => changing.was_written(fake, number, result),
        Done::Saved(..)
        | Done::VipsCut(_)
        | Done::Broke(_)
        | Done::Judged(..)
        | Done::Swept(..)
        | Done::SweepBroke
        | Done::Cut(_)
        | Done::Nothing => {}
    }
}

/// When every step is overdue.
fn late() -> Instant {
    clock::now() + CUT_WITHIN * 2
}

const KEEP: &str = "on_down = \"keep\"";
const TOLD: &str = "told: configuration 2 applied: farm 'web': on_down cut -> keep";

#[tokio::test]
async fn the_maps_follow_before_the_file_is_written_and_it_is_in_force_afterwards() {
    let (mut fake, mut changing) = (Fake::new(), Changing::default());
    let answer = apply(&mut fake, &mut changing, KEEP);
    go_on(&mut fake, &mut changing).await;
    assert_eq!(fake.did(), ["brought in"]);
    assert!(changing.former().is_some(), "there is a way back");
    go_on(&mut fake, &mut changing).await;
    assert_eq!(fake.did(), ["in force", TOLD]);
    assert!(changing.former().is_none());
    assert_eq!(fake.on_disk(), text(KEEP));
    let told = answer.await.unwrap().unwrap();
    assert_eq!((told.generation, told.lines.len()), (2, 1));
    assert_eq!(told.version, fake.in_force.version(None));
}

#[tokio::test]
async fn everything_goes_back_if_the_kernel_or_the_file_does_not_take_it() {
    type End = fn(&mut Fake, &mut Changing);
    let full = || Refusal::from(Failed::File("full".to_owned()));
    let ends: [(Result<(), Refusal>, End); 3] = [
        (Err(full()), |_, _| {}),
        (Ok(()), |fake, changing| changing.was_written(fake, 1, Err(Failed::File("full".to_owned()).into()))),
        (Ok(()), |fake, changing| changing.broke(fake, 1)),
    ];
    for (index, (kernel, end)) in ends.into_iter().enumerate() {
        let (mut fake, mut changing) = (Fake { kernel, ..Fake::new() }, Changing::default());
        let answer = apply(&mut fake, &mut changing, KEEP);
        go_on(&mut fake, &mut changing).await;
        end(&mut fake, &mut changing);
        let did = fake.did();
        assert_eq!(did[..2], ["brought in", "taken back"], "end {index}");
        assert!(did[2].starts_with("told: a configuration was refused, nothing has changed"), "{did:?}");
        assert!(answer.await.unwrap().is_err());
        assert_eq!((fake.in_force.generation(), &**fake.in_force.text()), (1, &*text("")));
    }
}

/// Runs a test in which one job runs at a time.
fn with_one_thread(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.max_blocking_threads(1).build().unwrap().block_on(test);
}

/// Holds the one thread until what is returned is dropped.
fn hold_thread() -> std::sync::mpsc::Sender<()> {
    let (hold, wait) = std::sync::mpsc::channel();
    tokio::task::spawn_blocking(move || wait.recv().unwrap_err());
    hold
}

#[test]
fn a_write_that_has_not_begun_in_time_takes_no_effect_any_more() {
    with_one_thread(async {
        let (mut fake, mut changing) = (Fake::new(), Changing::default());
        let answer = apply(&mut fake, &mut changing, KEEP);
        let Some(Done::Read(number, loaded)) = fake.inbox.recv().await else { panic!("it is read") };
        let hold = hold_thread();
        changing.was_read(&mut fake, number, *loaded);
        changing.give_up_overdue(&mut fake, late());
        assert_eq!(fake.did()[..2], ["brought in", "taken back"]);
        assert!(matches!(answer.await.unwrap(), Err(Refusal::Failed(Failed::NoAnswer { .. }))));
        drop(hold);
        go_on(&mut fake, &mut changing).await;
        assert_eq!(fake.on_disk(), text(""));
        assert_eq!(fake.did(), [] as [&str; 0]);
    });
}

#[tokio::test]
async fn a_write_that_may_still_take_effect_leaves_no_way_back() {
    let (mut fake, mut changing) = (Fake::new(), Changing::default());
    let answer = apply(&mut fake, &mut changing, KEEP);
    go_on(&mut fake, &mut changing).await;
    // It has begun, and the news of its end is late.
    let Some(Done::Written(..)) = fake.inbox.recv().await else { panic!("it is written") };
    changing.give_up_overdue(&mut fake, late());
    assert_eq!(fake.did(), ["brought in", "in force", TOLD]);
    assert!(matches!(answer.await.unwrap(), Err(Refusal::Failed(Failed::Unwritten { .. }))));
}

#[tokio::test]
async fn what_cannot_be_read_or_takes_too_long_changes_nothing_and_what_comes_late_is_no_step_of_the_next() {
    let (mut fake, mut changing) = (Fake::new(), Changing::default());
    let answer = apply(&mut fake, &mut changing, "no_such_key = 1");
    go_on(&mut fake, &mut changing).await;
    assert!(matches!(answer.await.unwrap(), Err(Refusal::Invalid(_))));
    let answer = apply(&mut fake, &mut changing, KEEP);
    changing.give_up_overdue(&mut fake, late());
    assert!(matches!(answer.await.unwrap(), Err(Refusal::Failed(Failed::NoAnswer { .. }))));
    let mut answer = apply(&mut fake, &mut changing, "on_down = \"cut\"\nslow_start = \"9s\"");
    // The one that was given up ends before it, or after.
    let told = loop {
        match answer.try_recv() {
            Ok(told) => break told,
            Err(_) => go_on(&mut fake, &mut changing).await,
        }
    };
    let lines = told.unwrap().lines;
    assert_eq!(lines, ["farm 'web': slow_start 0s -> 9s"]);
}

#[tokio::test]
async fn jobs_that_hang_are_few() {
    let (mut fake, mut changing) = (Fake::new(), Changing::default());
    let mut answers = Vec::new();
    while !fake.jobs.is_stuck() {
        answers.push(apply(&mut fake, &mut changing, KEEP));
        changing.give_up_overdue(&mut fake, late());
    }
    let answer = apply(&mut fake, &mut changing, KEEP);
    assert!(matches!(answer.await.unwrap(), Err(Refusal::Failed(Failed::NoAnswer { .. }))), "at once");
    go_on(&mut fake, &mut changing).await;
    assert!(!fake.jobs.is_stuck(), "one has come back");
}

#[tokio::test]
async fn the_next_hops_of_new_backends_are_waited_for_as_long_as_the_network_may_take() {
    for tried in [true, false] {
        let (mut fake, mut changing) = (Fake { unknown: Some(7), ..Fake::new() }, Changing::default());
        let _answer = apply(&mut fake, &mut changing, KEEP);
        go_on(&mut fake, &mut changing).await;
        fake.tried = 6;
        changing.network_tried(&mut fake);
        assert_eq!(fake.did(), [] as [&str; 0]);
        if tried {
            fake.tried = 7;
            changing.network_tried(&mut fake);
        } else {
            changing.give_up_overdue(&mut fake, late());
        }
        assert_eq!(fake.did(), ["brought in"]);
    }
}

#[tokio::test]
async fn it_is_answered_when_vips_are_placed_connections_cut_and_settings_kept() {
    let vip: IpAddr = "192.0.2.9".parse().unwrap();
    let fake = Fake { placed: 7, gone: vec![vip], owes: true, ..Fake::new() };
    let (mut fake, mut changing) = (fake, Changing::default());
    let mut answer = apply(&mut fake, &mut changing, KEEP);
    go_on(&mut fake, &mut changing).await;
    go_on(&mut fake, &mut changing).await;
    assert_eq!(fake.did(), ["brought in", "in force"]);
    fake.tried = 7;
    changing.network_tried(&mut fake);
    assert_eq!(fake.did(), ["cut [192.0.2.9]"]);
    changing.vips_were_cut(&mut fake, 1);
    assert_eq!(fake.did(), [] as [&str; 0]);
    assert!(answer.try_recv().is_err(), "what it has changed of what is set is not written yet");
    fake.owes = false;
    changing.was_saved(&mut fake, 1, Ok(()));
    assert_eq!(fake.did(), [TOLD]);
    assert!(answer.await.unwrap().is_ok());
}

#[tokio::test]
async fn settings_that_are_not_kept_in_time_are_in_force_and_said_not_to_be_kept() {
    let (mut fake, mut changing) = (Fake { owes: true, ..Fake::new() }, Changing::default());
    let answer = apply(&mut fake, &mut changing, KEEP);
    go_on(&mut fake, &mut changing).await;
    go_on(&mut fake, &mut changing).await;
    changing.give_up_overdue(&mut fake, late());
    assert_eq!(fake.did(), ["brought in", "in force", TOLD]);
    assert!(matches!(answer.await.unwrap(), Err(Refusal::Failed(Failed::Unwritten { .. }))));
}

#[tokio::test]
async fn what_an_operator_sets_is_saved_first_and_then_in_force() {
    let (mut fake, mut changing) = (Fake::new(), Changing::default());
    let answer = drain(&mut fake, &mut changing);
    assert_eq!(fake.did(), ["saved"]);
    changing.was_saved(&mut fake, 1, Ok(()));
    assert_eq!(fake.did(), ["set"]);
    assert_eq!(answer.await.unwrap(), Ok(()));
    let again = drain(&mut fake, &mut changing);
    assert_eq!((fake.did().len(), again.await.unwrap()), (0, Ok(())), "nothing new");
}

#[tokio::test]
async fn what_cannot_be_saved_is_not_set_and_what_comes_late_is_written_over() {
    let (mut fake, mut changing) = (Fake::new(), Changing::default());
    let answer = drain(&mut fake, &mut changing);
    changing.was_saved(&mut fake, 1, Err("full".to_owned()));
    assert_eq!(answer.await.unwrap(), Err(Failed::File("full".to_owned()).into()));
    let answer = drain(&mut fake, &mut changing);
    changing.give_up_overdue(&mut fake, late());
    assert!(matches!(answer.await.unwrap(), Err(Refusal::Failed(Failed::NoAnswer { .. }))));
    assert_eq!(fake.did(), ["saved", "saved", "kept what is in force"]);
    changing.was_saved(&mut fake, 2, Ok(()));
    assert_eq!(fake.did(), [] as [&str; 0], "nobody waits for it any more");
}

#[tokio::test]
async fn changes_go_one_after_another_each_told_of_who_asked_and_reloads_that_wait_are_one() {
    let (mut fake, mut changing) = (Fake::new(), Changing::default());
    let _first = apply(&mut fake, &mut changing, KEEP);
    let by = Some(Peer { uid: 7, pid: None });
    let (reply, second) = oneshot::channel();
    let only_if = Precondition::OneOf(vec![fake.in_force.version(None).unwrap()]);
    let command = Command::Apply { text: text(""), format: Format::Toml, only_if, reply };
    changing.requested(&mut fake, Request::Command(Order { command, by }));
    for _ in 0..3 {
        changing.requested(&mut fake, Request::Reload);
    }
    assert_eq!(fake.by, None, "the first is under way");
    go_on(&mut fake, &mut changing).await;
    go_on(&mut fake, &mut changing).await;
    fake.did();
    changing.begin_next(&mut fake);
    // The second was meant for what was in force before the first; the reload is under way.
    assert!(matches!(second.await.unwrap(), Err(Refusal::Stale(_))));
    go_on(&mut fake, &mut changing).await;
    assert_eq!(fake.did(), ["brought in", "in force", "told: configuration 3 applied: nothing new"]);
    changing.begin_next(&mut fake);
    assert!(fake.inbox.try_recv().is_err(), "nothing waits");
}

#[tokio::test]
async fn what_is_no_change_is_answered_in_its_turn() {
    let (mut fake, mut changing) = (Fake::new(), Changing::default());
    let (reply, _answer) = oneshot::channel();
    changing.requested(&mut fake, order(Command::Ping { reply }));
    assert_eq!(fake.did(), ["answered"]);
}
