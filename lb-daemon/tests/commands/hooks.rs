//! Hooks: told of each change, in order, and never in anybody's way.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_core::config::model::{FarmName, Hook};
use lb_daemon::hooks::Hooks;
use lb_daemon::vitals::Vitals;

use crate::scene::{PATIENCE, Scene, eventually, farm};

fn hook(plugin: &str, arguments: &[&str], timeout: Duration) -> Hook {
    let words = [plugin].into_iter().chain(arguments.iter().copied());
    Hook { command: words.map(str::to_owned).collect(), user: "nobody".to_owned(), timeout }
}

/// A file that nobody may write to.
fn log() -> (tempfile::TempPath, String) {
    use std::os::unix::fs::PermissionsExt;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o666)).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    // Closed: the scene counts descriptors.
    (file.into_temp_path(), path)
}

#[test]
fn changes_arrive_in_order_on_standard_input() {
    let scene = Scene::new();
    let (_file, log) = log();
    let plugin = scene.plugin("echo \"$DROVER_FARM $(cat)\" >> $1");
    let hooks = Hooks::new(Arc::default());
    {
        let _inside = scene.runtime.enter();
        for number in 0..20 {
            hooks.notify(&farm(), &hook(&plugin, &[&log], PATIENCE), format!("{{\"event\":{number}}}"));
        }
    }
    let lines = || fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    eventually("all were told", || lines().len() == 20);
    let expected: Vec<String> = (0..20).map(|number| format!("mail {{\"event\":{number}}}")).collect();
    assert_eq!(lines(), expected);
    scene.assert_clean();
}

#[test]
fn a_large_event_to_a_hook_that_does_not_read_blocks_nothing() {
    let scene = Scene::new();
    let (_file, log) = log();
    let deaf = scene.plugin("echo deaf >> $1; exit 1");
    let vitals = Arc::<Vitals>::default();
    let hooks = Hooks::new(vitals.clone());
    {
        let _inside = scene.runtime.enter();
        hooks.notify(&farm(), &hook(&deaf, &[&log], PATIENCE), "x".repeat(1 << 20));
        hooks.notify(&farm(), &hook("no-such-hook", &[], PATIENCE), String::new());
        hooks.notify(&farm(), &hook(&deaf, &[&log], PATIENCE), String::new());
    }
    eventually("both ran", || fs::read_to_string(&log).unwrap() == "deaf\ndeaf\n");
    let (lost, why) = vitals.hooks_lost();
    assert_eq!(lost, 1, "the one that is not there: the others have run");
    assert!(why.unwrap().starts_with("no-such-hook of farm 'mail': "));
    scene.assert_clean();
}

#[test]
fn a_hung_hook_delays_its_own_farm_alone() {
    let scene = Scene::new();
    let (_file, log) = log();
    let (hung, quick) = (scene.plugin("sleep 1000"), scene.plugin("cat >> $1"));
    let hooks = Hooks::new(Arc::default());
    let (short, other) = (Duration::from_secs(2), FarmName::new("web").unwrap());
    let started = Instant::now();
    {
        let _inside = scene.runtime.enter();
        hooks.notify(&farm(), &hook(&hung, &[], short), String::new());
        hooks.notify(&farm(), &hook(&quick, &[&log], PATIENCE), "after".to_owned());
        hooks.notify(&other, &hook(&quick, &[&log], PATIENCE), "other ".to_owned());
    }
    eventually("both were told", || fs::read_to_string(&log).unwrap() == "other after");
    assert!(started.elapsed() >= short);
    scene.assert_clean();
}

#[test]
fn of_too_many_changes_the_oldest_are_lost() {
    let scene = Scene::new();
    let (_file, log) = log();
    // The first one holds the others up until all are there.
    let (gate, plugin) =
        (scene.plugin("while [ ! -s $1 ]; do sleep 0.02; done"), scene.plugin("echo \"$(cat)\" >> $1"));
    let vitals = Arc::<Vitals>::default();
    let hooks = Hooks::new(vitals.clone());
    {
        let _inside = scene.runtime.enter();
        hooks.notify(&farm(), &hook(&gate, &[&log], PATIENCE), String::new());
    }
    eventually("the first runs", || !crate::scene::children().is_empty());
    {
        let _inside = scene.runtime.enter();
        for number in 1..=70 {
            hooks.notify(&farm(), &hook(&plugin, &[&log], PATIENCE), number.to_string());
        }
    }
    fs::write(&log, "go\n").unwrap();
    let text = || fs::read_to_string(&log).unwrap();
    eventually("the last was told", || text().ends_with("70\n"));
    let expected: String = (7..=70).map(|number| format!("{number}\n")).collect();
    assert_eq!(text(), format!("go\n{expected}"));
    let (lost, why) = vitals.hooks_lost();
    assert_eq!(lost, 6);
    assert!(why.unwrap().contains("too many changes wait"));
    scene.assert_clean();
}

#[test]
fn dropping_the_hooks_kills_what_runs() {
    let scene = Scene::new();
    let hung = scene.plugin("sleep 1000 & setsid sleep 1000 & sleep 1000");
    let hooks = Hooks::new(Arc::default());
    {
        let _inside = scene.runtime.enter();
        hooks.notify(&farm(), &hook(&hung, &[], PATIENCE), String::new());
    }
    eventually("it runs", || !crate::scene::children().is_empty());
    drop(hooks);
    scene.assert_clean();
}
