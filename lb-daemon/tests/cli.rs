//! The binary as a process, against the real API of a fake daemon: output and exit status.

// What helpers unwrap, their tests would.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use common::Fake;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixListener;
use tokio::process::Command;
use tokio::sync::oneshot;

struct Served {
    fake: Fake,
    dir: tempfile::TempDir,
    stop: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<()>,
}

impl Served {
    fn start() -> Self {
        let fake = common::start();
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(lb_daemon::api::serve(listener, fake.handle.clone(), stopped));
        Self { fake, dir, stop, server }
    }
    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }
}

struct Output {
    exit: i32,
    stdout: String,
    stderr: String,
}

fn drover(socket: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
    command.arg("--socket").arg(socket).args(line.split_whitespace()).kill_on_drop(true);
    command
}

async fn run(socket: &Path, line: &str) -> Output {
    let output = drover(socket, line).output();
    let output = tokio::time::timeout(Duration::from_secs(20), output).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Output { exit: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[tokio::test]
async fn commands_print_their_answer_and_end_with_0() {
    let cases = [
        (
            "status",
            "1 farm DEGRADED, 1 unchecked, 1 of 4 backends up, 6 connections\n! the log cannot be written \
             (no storage space): 12 lines of it are lost\n\ndrover 0.1.0, up 1m 3",
        ),
        (
            "farms",
            "FARM  STATUS     BACKENDS UP  CONNECTIONS  VIP\nweb   DEGRADED        1 of 2            3  192.0.2.10;",
        ),
        ("status --problems", "\n! web  DEGRADED\n"),
        ("farm show web", "    checks: tcp every 10s, timeout 3s, rise 2, fall 3\n"),
        ("farm show dns", "    192.0.2.53, 2001:db8::53; tcp+udp every port; nat; 3 connections\n"),
        (
            "farm disable web",
            "farm 'web' edited\nconfiguration 5 is in force\n2 live connections to backends taken out",
        ),
        ("farm delete web", "configuration 5 is in force\n"),
        ("backend drain web ex2", "farm 'web', backend 'ex2': draining, weight 1, 2 connections\n"),
        ("backend weight web ex2 256", "weight 256"),
        (
            "connections --farm web --backend ex2",
            "tcp    established  [2001:db8::7]:40001  [2001:db8::10]:443",
        ),
        (
            "checks",
            "  web   10.0.0.11  tcp 10.0.0.11:80    up       2s  <1ms  7.5s\n      connected in 0.4 ms\n",
        ),
        (
            "checks --farm web --backend ex2",
            "! web   ex2      tcp 10.0.0.12:8080  DOWN     2s  <1ms  7.5s  connection refused\n",
        ),
        (
            "checks run web 10.0.0.11",
            "web 10.0.0.11, tcp 10.0.0.11:80: passed in 12ms: connected in 0.4 ms\n    OK\n    all is\u{fffd}[2J well\n",
        ),
        (
            "explain --src [2001:db8::7]:40000 --dst [2001:db8::10]:443",
            "[2001:db8::7]:40000 > [2001:db8::10]:443, tcp S, seq 1000, ack 0, in by eth0\n  service     farm 'web' serves \
             [2001:db8::10]:443\n  connection  none holds this flow\n  backend     10.0.0.11, by the flow's hash, slot 4711",
        ),
        ("connections --limit 1", "1 of 3 connections; more with --limit\n"),
        ("connections cut --client 2001:db8::7", "7 connections cut\n"),
        ("events", "1970-01-01T00:01:00Z  WARNING  event 1\n"),
        ("version", "drover 0.1.0\n"),
        ("completions bash", "_drover()"),
        ("man", ".SH \"drover connections cut\""),
    ];
    let served = Served::start();
    for (line, expected) in cases {
        let output = run(&served.socket(), line).await;
        assert!(output.stdout.contains(expected), "{line}:\n{}{}", output.stdout, output.stderr);
        assert_eq!((output.exit, output.stderr.as_str()), (0, ""), "{line}");
        assert!(!output.stdout.contains('\x1b'), "{line} is coloured");
    }
}

#[tokio::test]
async fn checks_run_by_hand_that_do_not_all_pass_are_shown_and_end_with_1() {
    let served = Served::start();
    let output = run(&served.socket(), "checks run web").await;
    assert!(
        output.stdout.starts_with("web 10.0.0.11, tcp 10.0.0.11:80: passed in 12ms: "),
        "{}",
        output.stdout
    );
    assert!(output.stdout.ends_with("web ex2, tcp 10.0.0.12:8080: FAILED in 12ms: connection refused\n"));
    assert_eq!((output.exit, output.stderr.as_str()), (1, "drover: 1 of 2 checks did not pass\n"));
    let output = run(&served.socket(), "checks run web --json").await;
    let answer: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((output.exit, &answer["passed"]), (1, &serde_json::Value::Bool(false)));
    let output = run(&served.socket(), "checks run dns").await;
    assert_eq!((output.exit, output.stderr.as_str()), (1, "drover: farm 'dns' has no checks\n"));
}

#[tokio::test]
async fn json_is_the_answer_unchanged() {
    let served = Served::start();
    let output = run(&served.socket(), "--json farms").await;
    let answer = lb_daemon::api::types::Farms {
        farms: serde_json::from_str::<serde_json::Value>(&output.stdout).unwrap()["farms"]
            .as_array()
            .map(|farms| farms.iter().map(|farm| serde_json::from_value(farm.clone()).unwrap()).collect())
            .unwrap(),
    };
    assert_eq!(output.stdout, format!("{}\n", serde_json::to_string(&answer).unwrap()));
    let refused = run(&served.socket(), "reload --json").await;
    let problem: lb_daemon::api::Problem = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!((refused.exit, problem.status), (1, 409));
}

#[tokio::test]
async fn a_refusal_is_one_line_and_ends_with_1() {
    let cases = [
        ("farm show wbe", "drover: there is no farm 'wbe'; did you mean 'web'?\n"),
        (
            "backend up web nope",
            "drover: farm 'web' has no backend 'nope'; the backends are 10.0.0.11, ex2\n",
        ),
        ("connections cut --farm nope", "drover: there is no farm 'nope'; the farms are web, dns\n"),
        (
            "reload",
            "drover: interfaces can change only by a restart of the daemon (connections survive one: `drover run --stay`)\n",
        ),
    ];
    let served = Served::start();
    for (line, expected) in cases {
        let output = run(&served.socket(), line).await;
        assert_eq!(
            (output.exit, output.stderr.as_str(), output.stdout.as_str()),
            (1, expected, ""),
            "{line}"
        );
    }
}

#[tokio::test]
async fn wrong_usage_ends_with_2_and_asks_nothing() {
    let cases = [
        "",
        "stauts",
        "connections cut",
        "connections cut --all --farm web",
        "connections --backend ex2",
        "connections --client everyone",
        "backend weight web ex2 257",
        "backend drain web",
        "apply /nowhere/drover.toml",
        "events --since yesterday",
        "run --config /nowhere/drover.toml",
    ];
    let served = Served::start();
    for line in cases {
        let output = run(&served.socket(), line).await;
        assert_eq!(output.exit, 2, "{line}: {}", output.stderr);
        assert!(!output.stderr.is_empty(), "{line}");
    }
    assert_eq!(served.fake.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn apply_sends_the_file_in_its_format_and_tells_every_error() {
    let served = Served::start();
    let file = |name: &str, text: &str| {
        let path = served.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (toml, json, bad) = (file("good.toml", "a = 1"), file("good.json", "{}"), file("bad.toml", "bad"));

    let output = run(&served.socket(), &format!("apply {toml}")).await;
    // Of the version that is there, and of no other.
    let asked = served.fake.asked();
    assert_eq!((output.exit, asked.len()), (0, 1), "{}", output.stderr);
    assert!(asked[0].starts_with("apply Toml a = 1 OneOf([Version("), "{asked:?}");
    assert!(output.stdout.starts_with("farm 'web': backend '10.0.0.13' added\n"), "{}", output.stdout);

    let output = run(&served.socket(), &format!("apply --dry-run {json}")).await;
    assert_eq!(
        (output.exit, served.fake.asked()),
        (0, vec!["dry run Json {}".to_owned()]),
        "{}",
        output.stderr
    );
    assert!(output.stdout.contains("nothing was changed (dry run)\n"), "{}", output.stdout);

    let output = run(&served.socket(), &format!("apply {bad}")).await;
    let expected = "\
drover: the configuration is not valid: must be 0 to 256, not 300
  line 7, column 10: farm[0].backend[1].weight: must be 0 to 256, not 300
    hint: use 256 for the largest share
";
    assert_eq!((output.exit, output.stderr.as_str()), (2, expected));
}

#[tokio::test]
async fn a_daemon_out_of_reach_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = dir.path().join("nothing");
    let output = run(&nothing, "status").await;
    let expected = format!(
        "drover: there is no {}: is the daemon running? start it with `drover run`, or name its --socket\n",
        nothing.display()
    );
    assert_eq!((output.exit, output.stderr), (1, expected));

    let stale = dir.path().join("stale");
    drop(UnixListener::bind(&stale).unwrap());
    let output = run(&stale, "status").await;
    assert_eq!(output.exit, 1);
    assert!(
        output.stderr.contains("the daemon is not running; start it with `drover run`"),
        "{}",
        output.stderr
    );
}

#[tokio::test]
async fn a_socket_without_permission_names_who_may() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    // The binary may lie where nobody else can read.
    let dir = tempfile::tempdir().unwrap();
    let binary = dir.path().join("drover");
    std::fs::copy(env!("CARGO_BIN_EXE_drover"), &binary).unwrap();
    let socket = dir.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    std::os::unix::fs::chown(&socket, Some(0), Some(12)).unwrap();
    let mode =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(dir.path(), 0o755);
    mode(&binary, 0o755);
    mode(&socket, 0o660);
    let mut command = Command::new(&binary);
    let output =
        command.arg("--socket").arg(&socket).arg("status").uid(65534).gid(65534).output().await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("no permission for ") && stderr.contains(": become root"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1);
}

#[tokio::test]
async fn followed_events_are_printed_as_they_happen_until_the_daemon_stops() {
    let served = Served::start();
    let mut command = drover(&served.socket(), "events --follow");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await;
        line.unwrap().unwrap().unwrap_or_default()
    };
    for n in 1..=3 {
        assert_eq!(next().await, format!("1970-01-01T00:0{n}:00Z  WARNING  event {n}"));
    }
    common::event(&served.fake.handle.events, 4);
    assert_eq!(next().await, "1970-01-01T00:04:00Z  WARNING  event 4");

    served.stop.send(()).unwrap();
    // Well before the grace that a request in flight would have.
    tokio::time::timeout(Duration::from_secs(1), served.server).await.unwrap().unwrap();
    let output =
        tokio::time::timeout(Duration::from_secs(20), child.wait_with_output()).await.unwrap().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("the daemon ended the stream"), "{stderr}");
}
