//! Plugins as bad as they come: whatever they do, the check ends in time and nothing is left of them.

use std::time::{Duration, Instant};

use lb_daemon::checks::command::{OUTPUT_MAX, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::scene::{DEADLINE, PATIENCE, Scene, children, eventually, marker, processes_of};

const SOON: Duration = Duration::from_millis(500);
/// What a kill may take on a busy machine.
const MARGIN: Duration = Duration::from_secs(3);

#[test]
fn hung_plugins_are_killed_at_the_time_out() {
    let scene = Scene::new();
    for (script, reason) in [
        ("exec sleep 1000", "no end within 500ms"),
        ("trap '' TERM INT HUP QUIT; while :; do sleep 1; done", "no end within 500ms"),
        ("kill -STOP $$", "no end within 500ms"),
        ("echo asking the server; sleep 1000", "no end within 500ms: asking the server"),
        ("exec >&- 2>&-; sleep 1000", "no end within 500ms"),
    ] {
        let run = scene.script(script, SOON);
        assert!(run.killed && !run.passed(), "{script}");
        assert_eq!(run.reason(SOON), reason);
        assert!((SOON..SOON + MARGIN).contains(&run.duration), "{:?}", run.duration);
        assert!(run.status.is_some(), "it is gone when it is told of");
        assert!(scene.processes().is_empty(), "{script}");
    }
    scene.assert_clean();
}

/// In the background: a child, one in a session of its own, and one forked twice, all holding the output.
const FAMILY: &str = "sleep 1000 & setsid sleep 1000 & (setsid sh -c 'sleep 1000 & sleep 1000' &) ; ";

#[test]
fn children_die_with_a_hung_plugin() {
    let scene = Scene::new();
    let run = scene.script(&format!("{FAMILY} sleep 1000"), SOON);
    assert!(run.killed);
    assert!(scene.processes().is_empty());
    scene.assert_clean();
}

#[test]
fn children_left_behind_hold_nobody_up_and_die() {
    let scene = Scene::new();
    for (end, reason) in
        [("echo done", "done"), ("echo done; exit 2", "done"), ("kill -9 $$", "killed by signal 9")]
    {
        let run = scene.script(&format!("{FAMILY} sleep 0.2; {end}"), PATIENCE);
        assert_eq!((run.killed, run.reason(PATIENCE).as_str()), (false, reason));
        assert!(run.duration < MARGIN, "{:?}", run.duration);
        assert!(scene.processes().is_empty(), "{end}");
    }
    scene.assert_clean();
}

#[test]
fn many_children_that_fork_on_die_together() {
    let scene = Scene::new();
    let run = scene.script(
        "fork() { [ $1 -gt 0 ] && { setsid sh -c 'while :; do sleep 0.01; done' & fork $(($1 - 1)); }; }
         fork 60; while :; do sleep 0.1 & sleep 0.05; done",
        Duration::from_secs(2),
    );
    assert!(run.killed);
    assert!(scene.processes().is_empty());
    scene.assert_clean();
}

const BOMB: &str = "DROVER_TEST_BOMB";
/// So many processes a user may have on the whole machine while a bomb goes off: what holds must hold by less.
const BOMB_MAX: u64 = 400;

/// Not a test: what the next one runs as a process of its own, whose limits it lowers for all that it starts.
#[test]
fn stand_in_for_a_daemon_with_a_fork_bomb() {
    if std::env::var_os(BOMB).is_none() {
        return;
    }
    use nix::sys::resource::{Resource, setrlimit};
    setrlimit(Resource::RLIMIT_NPROC, BOMB_MAX, BOMB_MAX).unwrap();
    let scene = Scene::new();
    let start = |script: &str| {
        let (check, context) = (scene.check(&[&scene.plugin(script)]), scene.context(Duration::from_secs(5)));
        let address = "10.0.0.11:443".parse().unwrap();
        scene.runtime.spawn(async move { run(address, &check, &context).await })
    };
    // One that takes all processes there are and keeps them, and one whose come and go.
    let greedy = start("for i in 1 2 3; do sh -c 'while :; do sleep 1000 & done' & done; exec sleep 1000");
    eventually("the bomb has gone off", || scene.processes().len() > 150);
    let classic = start("bomb() { bomb | bomb & }; bomb; exec sleep 1000");
    // A check of the same user, with children of its own.
    for _ in 0..5 {
        let run = scene.script("a=$(echo a | cat | cat); (sleep 0.01 & wait); echo $a", PATIENCE);
        assert!(run.passed() && run.output == "a\n", "{run:?}");
        assert!(!greedy.is_finished() && !classic.is_finished(), "meanwhile the bombs went on");
    }
    for bomb in [greedy, classic] {
        assert!(scene.runtime.block_on(bomb).unwrap().unwrap().killed);
    }
    scene.assert_clean();
}

#[test]
fn a_fork_bomb_takes_no_process_from_other_checks_of_its_user() {
    let daemon = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "misbehaviour::stand_in_for_a_daemon_with_a_fork_bomb", "--nocapture"])
        .env(BOMB, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&daemon.stderr);
    assert!(daemon.status.success(), "{said}");
}

#[test]
fn a_flood_is_drained_and_thrown_away() {
    let scene = Scene::new();
    let run = scene.script("head -c 100000000 /dev/zero | tr '\\0' x; exit 1", PATIENCE);
    assert_eq!((run.killed, run.passed(), run.truncated), (false, false, true));
    assert_eq!((run.output.len(), run.first_line.len()), (OUTPUT_MAX, 200));
    scene.assert_clean();
}

#[test]
fn an_endless_flood_ends_at_the_time_out() {
    let scene = Scene::new();
    let run = scene.script("exec yes", SOON);
    assert!(run.killed && run.truncated);
    assert_eq!(run.reason(SOON), "no end within 500ms: y");
    assert!(run.duration < SOON + MARGIN, "{:?}", run.duration);
    scene.assert_clean();
}

#[test]
fn ends_by_signal_are_told() {
    let scene = Scene::new();
    for (signal, number) in [("SEGV", 11), ("KILL", 9), ("TERM", 15), ("ABRT", 6), ("PIPE", 13)] {
        let run = scene.script(&format!("kill -{signal} $$; sleep 1000"), PATIENCE);
        assert_eq!(run.reason(PATIENCE), format!("killed by signal {number}"));
        assert!(!run.killed);
    }
    scene.assert_clean();
}

#[test]
fn standard_input_is_empty_and_garbage_is_made_fit_to_print() {
    let scene = Scene::new();
    let run = scene.script("cat; printf 'read'", PATIENCE);
    assert_eq!((run.passed(), run.output.as_str()), (true, "read"));
    let run = scene.script(
        "printf '\\377\\376\\033[2J\\000\\007abc\\n\\r\\n'; head -c 5000 /dev/urandom; exit 1",
        PATIENCE,
    );
    assert_eq!(run.reason(PATIENCE), "\u{fffd}\u{fffd}[2Jabc");
    assert!(!run.output.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
    scene.assert_clean();
}

#[test]
fn memory_is_limited() {
    let scene = Scene::new();
    // dd takes its block from memory at once.
    let run = scene.run(&["dd", "if=/dev/zero", "of=/dev/null", "bs=1G", "count=1"], PATIENCE).unwrap();
    assert!(!run.passed(), "{run:?}");
    assert!(run.first_line.contains("memory"), "{run:?}");
    scene.assert_clean();
}

#[test]
fn a_dropped_future_kills_what_runs() {
    let scene = Scene::new();
    let plugin = scene.plugin(&format!("{FAMILY} sleep 1000"));
    let (check, context) = (scene.check(&[&plugin]), scene.context(PATIENCE));
    let address = "10.0.0.11:443".parse().unwrap();
    let task = scene.runtime.spawn(async move { run(address, &check, &context).await });
    eventually("the family runs", || scene.processes().len() >= 5);
    task.abort();
    scene.assert_clean();
    // And before there is a process.
    let (check, context) = (scene.check(&[&plugin]), scene.context(PATIENCE));
    for wait in [0, 1, 2, 3, 5, 8, 13] {
        let (check, context) = (check.clone(), context.clone());
        let run = async move { run(address, &check, &context).await };
        let cut = async { tokio::time::timeout(Duration::from_millis(wait), run).await };
        scene.runtime.block_on(cut).unwrap_err();
    }
    scene.assert_clean();
}

#[test]
fn a_runtime_that_ends_kills_what_runs() {
    let scene = Scene::new();
    let plugin = scene.plugin(&format!("{FAMILY} sleep 1000"));
    let (check, context) = (scene.check(&[&plugin]), scene.context(PATIENCE));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let address = "10.0.0.11:443".parse().unwrap();
    runtime.spawn(async move { run(address, &check, &context).await });
    eventually("the family runs", || scene.processes().len() >= 5);
    runtime.shutdown_timeout(DEADLINE);
    eventually("no process of a command", || scene.processes().is_empty());
    // The warden is a zombie until the daemon, whose end this is, has ended.
}

const STAND_IN: &str = "DROVER_TEST_STAND_IN";

/// Not a test: what the next one runs as a process of its own, for the daemon.
#[test]
fn stand_in_for_a_daemon() {
    if std::env::var_os(STAND_IN).is_some() {
        Scene::new().script(&format!("{FAMILY} sleep 1000"), Duration::from_secs(1000));
    }
}

#[test]
fn a_killed_daemon_takes_its_commands_along() {
    let scene = Scene::new();
    let mut daemon = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "misbehaviour::stand_in_for_a_daemon"])
        .env(STAND_IN, "1")
        // It has no time to clear up.
        .env("TMPDIR", scene.folder.path())
        .spawn()
        .unwrap();
    let backend = marker(daemon.id(), 0);
    eventually("the family runs", || processes_of(&backend).len() >= 5);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    eventually("no process of a command", || processes_of(&backend).is_empty());
}

#[test]
fn the_wardens_death_is_the_commands() {
    let scene = Scene::new();
    let plugin = scene.plugin(&format!("{FAMILY} sleep 1000"));
    let (check, context) = (scene.check(&[&plugin]), scene.context(PATIENCE));
    let address = "10.0.0.11:443".parse().unwrap();
    let task = scene.runtime.spawn(async move { run(address, &check, &context).await });
    eventually("the family runs", || scene.processes().len() >= 5);
    let [warden] = children()[..] else { panic!("{:?}", children()) };
    kill(Pid::from_raw(i32::try_from(warden).unwrap()), Signal::SIGKILL).unwrap();
    let run = scene.runtime.block_on(task).unwrap().unwrap();
    assert_eq!(run.reason(PATIENCE), "killed by signal 9");
    scene.assert_clean();
}

#[test]
fn a_hundred_hung_plugins_are_gone_after_the_time_out() {
    let scene = Scene::new();
    let plugin = scene.plugin("sleep 1000 & setsid sleep 1000 & sleep 1000");
    let (check, context) = (scene.check(&[&plugin]), scene.context(Duration::from_secs(2)));
    let address = "10.0.0.11:443".parse().unwrap();
    let started = Instant::now();
    let runs: Vec<_> = (0..100)
        .map(|_| {
            let (check, context) = (check.clone(), context.clone());
            scene.runtime.spawn(async move { run(address, &check, &context).await })
        })
        .collect();
    let mut latest = Duration::ZERO;
    for task in runs {
        let run = scene.runtime.block_on(task).unwrap().unwrap();
        assert!(run.killed);
        latest = latest.max(run.duration);
    }
    eprintln!("100 hung plugins: the last was gone after {latest:?}, all after {:?}", started.elapsed());
    assert!(started.elapsed() < DEADLINE);
    scene.assert_clean();
}

#[test]
fn a_thousand_runs_leave_nothing() {
    let scene = Scene::new();
    let check = scene.check(&["true"]);
    let context = scene.context(PATIENCE);
    let address = "10.0.0.11:443".parse().unwrap();
    let started = Instant::now();
    scene.runtime.block_on(async {
        for _ in 0..50 {
            let runs: Vec<_> = (0..20)
                .map(|_| {
                    let (check, context) = (check.clone(), context.clone());
                    tokio::spawn(async move { run(address, &check, &context).await })
                })
                .collect();
            for run in runs {
                assert!(run.await.unwrap().unwrap().passed());
            }
        }
    });
    eprintln!("1,000 runs of true in {:?}", started.elapsed());
    scene.assert_clean();
}
