//! What a command is given, and what it is not.

use std::collections::BTreeMap;

use lb_core::config::model::CommandContract;
use lb_daemon::checks::command::run;

use crate::scene::{PATIENCE, Scene};

/// `key:   value` lines, as in `/proc/self/status`.
fn fields(text: &str) -> BTreeMap<&str, String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key, value.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect()
}

#[test]
fn it_is_nobody_with_no_rights_at_all() {
    let scene = Scene::new();
    let run = scene.script("cat /proc/self/status", PATIENCE);
    let status = fields(&run.output);
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    assert_eq!(status["Uid"], vec![nobody.uid.to_string(); 4].join(" "));
    assert_eq!(status["Gid"], vec![nobody.gid.to_string(); 4].join(" "));
    assert_eq!(status["Groups"], "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!(status["NoNewPrivs"], "1");
    for set in ["SigBlk", "SigIgn"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    scene.assert_clean();
}

#[test]
fn it_finds_the_documented_environment_and_folder_alone() {
    let scene = Scene::new();
    let run = scene.script("env | sort; echo cwd:$(pwd); echo umask:$(umask)", PATIENCE);
    let names: Vec<&str> = run
        .output
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .filter(|it| *it != "PWD")
        .collect();
    // The shell itself adds PWD, and some add _ and OLDPWD.
    let names: Vec<&str> =
        names.into_iter().filter(|name| !["_", "OLDPWD", "SHLVL"].contains(name)).collect();
    let documented = ["DROVER_BACKEND", "DROVER_FARM", "DROVER_HOST", "DROVER_PORT", "LANG", "PATH"];
    assert_eq!(names, documented, "{}", run.output);
    for line in
        ["DROVER_FARM=mail", "DROVER_HOST=10.0.0.11", "DROVER_PORT=443", "LANG=C", "cwd:/", "umask:0022"]
    {
        assert!(run.output.lines().any(|it| it == line), "{line} in {}", run.output);
    }
    scene.assert_clean();
}

#[test]
fn it_has_its_own_three_descriptors_alone() {
    let scene = Scene::new();
    // As a library might leak one: without close-on-exec.
    let file = std::fs::File::open("/etc/passwd").unwrap();
    let leaked = nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_DUPFD(100)).unwrap();
    let list = scene.run(&["ls", "-l", "/proc/self/fd"], PATIENCE).unwrap();
    nix::unistd::close(leaked).unwrap();
    drop(file);
    let mut there: Vec<(&str, &str)> = list
        .output
        .lines()
        .filter_map(|line| line.split_once(" -> "))
        .map(|(before, to)| (before.rsplit(' ').next().unwrap(), to))
        .collect();
    // The folder that ls itself has open.
    there.retain(|(_, to)| !to.ends_with("/fd"));
    let numbers: Vec<&str> = there.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, ["0", "1", "2"], "{}", list.output);
    assert_eq!(there[0].1, "/dev/null");
    assert!(there[1].1.starts_with("pipe:") && there[1].1 == there[2].1, "{}", list.output);
    scene.assert_clean();
}

#[test]
fn it_has_limits() {
    let scene = Scene::new();
    let run = scene.script("cat /proc/self/limits", PATIENCE);
    let hard = |name: &str| {
        let line = run.output.lines().find(|line| line.starts_with(name)).unwrap();
        let words: Vec<&str> = line[name.len()..].split_whitespace().collect();
        words[1].parse::<u64>().unwrap()
    };
    assert_eq!(hard("Max address space"), 512 << 20);
    assert_eq!(hard("Max core file size"), 0);
    assert_eq!(hard("Max open files"), 256);
    assert_eq!(hard("Max cpu time"), PATIENCE.as_secs() + 2);
    assert_eq!(hard("Max processes"), 256);
    scene.assert_clean();
}

#[test]
fn it_gets_no_namespace_in_which_it_could_do_more() {
    let scene = Scene::new();
    for kind in ["--user --map-root-user", "--user", "--user --net", "--user --mount", "--user --pid --fork"]
    {
        let run = scene.script(&format!("unshare {kind} cat /proc/self/status"), PATIENCE);
        assert!(!run.passed(), "{kind}: {}", run.output);
        assert!(run.output.contains("Operation not permitted"), "{kind}: {}", run.output);
    }
    // What programs do with clone(2) and clone3(2) goes on.
    let run = scene.script("(echo a | cat) && grep -E 'Seccomp:|NoNewPrivs' /proc/self/status", PATIENCE);
    assert_eq!(run.output, "a\nNoNewPrivs:\t1\nSeccomp:\t2\n");
    scene.assert_clean();
}

#[test]
fn it_has_its_users_number_alone_in_a_user_namespace_of_its_own() {
    let scene = Scene::new();
    let run =
        scene.script("cat /proc/self/uid_map /proc/self/gid_map; readlink /proc/self/ns/user", PATIENCE);
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let words: Vec<String> = run.output.split_whitespace().map(str::to_owned).collect();
    let (uid, gid) = (nobody.uid.to_string(), nobody.gid.to_string());
    assert_eq!(words[..6], [&uid, &uid, "1", &gid, &gid, "1"], "{}", run.output);
    let outside = std::fs::read_link("/proc/self/ns/user").unwrap();
    assert_ne!(words[6], outside.to_str().unwrap());
    scene.assert_clean();
}

#[test]
fn a_shell_is_not_asked() {
    let scene = Scene::new();
    let run = scene.run(&["echo", "HOST", "$PATH", "`id`", "a;b", "PORT|x"], PATIENCE).unwrap();
    assert_eq!(run.output, "10.0.0.11 $PATH `id` a;b 443|x\n");
    scene.assert_clean();
}

#[test]
fn exit_0_is_up_and_anything_else_is_down_with_the_first_line_as_the_reason() {
    let scene = Scene::new();
    for (script, passed, reason) in [
        ("echo all is well; echo more", true, "all is well"),
        ("exit 0", true, "exit status 0"),
        ("echo 'HTTP WARNING: slow'; exit 1", false, "HTTP WARNING: slow"),
        ("exit 2", false, "exit status 2"),
        ("echo no route >&2; exit 3", false, "no route"),
    ] {
        let run = scene.script(script, PATIENCE);
        assert_eq!((run.passed(), run.reason(PATIENCE).as_str()), (passed, reason), "{script}");
        assert!(!run.killed);
    }
    scene.assert_clean();
}

#[test]
fn haproxys_contract_has_four_arguments() {
    let scene = Scene::new();
    let plugin = scene.plugin("echo \"$@\" $HAPROXY_PROXY_NAME $HAPROXY_SERVER_ADDR:$HAPROXY_SERVER_PORT");
    let mut check = scene.check(&[&plugin]);
    check.contract = CommandContract::Haproxy;
    let mut context = scene.context(PATIENCE);
    context.vip = Some("192.0.2.20:8443".parse().unwrap());
    let address = "10.0.0.11:443".parse().unwrap();
    let run = scene.runtime.block_on(run(address, &check, &context)).unwrap();
    assert_eq!(run.first_line, "192.0.2.20 8443 10.0.0.11 443 mail 10.0.0.11:443");
    scene.assert_clean();
}

#[test]
fn what_cannot_be_run_says_nothing_of_the_backend() {
    let scene = Scene::new();
    let not_executable = scene.plugin_with_mode("exit 0", 0o644);
    let for_root_alone = scene.plugin_with_mode("exit 0", 0o700);
    let writable = scene.plugin_with_mode("exit 0", 0o777);
    for (command, words) in [
        (not_executable.as_str(), "not executable"),
        (for_root_alone.as_str(), "user may not run it"),
        (writable.as_str(), "must not be run"),
        ("no-such-plugin", "no program 'no-such-plugin'"),
    ] {
        let error = scene.run(&[command], PATIENCE).unwrap_err();
        assert!(error.0.contains(words), "{command}: {error:?}");
    }
    let mut check = scene.check(&["true"]);
    for user in ["root", "no-such-user"] {
        check.user = user.to_owned();
        let address = "10.0.0.11:443".parse().unwrap();
        scene.runtime.block_on(run(address, &check, &scene.context(PATIENCE))).unwrap_err();
    }
    scene.assert_clean();
}
