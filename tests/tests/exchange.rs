//! The Exchange scene: two servers with eight virtual directories each, one of which falls ill. A check that asks every
//! directory takes the server out, says which one it was, and costs clients nothing after that; and a check that hangs
//! holds up nobody but itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it is a test"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lb_tests::daemon::Daemon;
use lb_tests::nginx::{Nginx, PAGE};
use lb_tests::steady::Steady;
use lb_tests::topology::{Arms, Family, Topology};
use lb_tests::traffic::Short;
use lb_tests::wait::{wait_for, wait_until};

const DIRECTORIES: [&str; 8] =
    ["owa", "ecp", "ews", "mapi", "rpc", "oab", "autodiscover", "Microsoft-Server-ActiveSync"];
const LIMIT: Duration = Duration::from_secs(5);
const BACKLOG: u16 = 511;

/// The keys that the checks of this scene have in common: out within 1.5 s, by two failures.
const PACE: &str = "interval = \"1s\"\nfast_interval = \"250ms\"\ntimeout = \"1s\"\nrise = 2\nfall = 2\n";
/// What that makes at most, with what a busy machine adds: until the next probe, the time-outs of two, and between them.
const OUT: Duration = Duration::from_secs(5);

fn path(directory: &str) -> String {
    format!("/{directory}/{PAGE}")
}

/// A folder for programs as an administrator has it: root's own, for everybody to read.
fn folder_of_programs() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("drover-plugins-").tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn install(folder: &Path, name: &str, text: &str) -> PathBuf {
    let program = folder.join(name);
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

/// A farm `exchange` on port 80 of the first IPv4 VIP; `checks` are tables, or nothing: it is not checked.
fn farm(topology: &Topology, checks: &str) -> String {
    let vip = topology.vip(Family::V4, 0);
    let mut text = format!("[[farm]]\nname = \"exchange\"\nvip = \"{vip}\"\nports = [80]\n");
    if checks.is_empty() {
        text += "check = []\n";
    }
    for backend in &topology.backends {
        write!(text, "[[farm.backend]]\nname = \"{}\"\naddress = \"{}\"\n", backend.name, backend.v4)
            .unwrap();
    }
    text + checks
}

/// Lets one directory of b1 fall ill under traffic, and mends it. Its path must be in the reason.
fn one_directory_falls_ill(how: &str, sick: &str, checks: &str) {
    let topology = Topology::new(Arms::Two, 2).unwrap();
    let servers: Vec<Nginx> = topology
        .backends
        .iter()
        .map(|it| Nginx::with_directories(&it.netns, &it.name, 80, &DIRECTORIES, BACKLOG).unwrap())
        .collect();
    let daemon = Daemon::start(&topology, "native", &farm(&topology, checks)).unwrap();
    for name in ["b1", "b2"] {
        daemon.wait_status("exchange", name, "up", LIMIT).unwrap();
    }
    for server in &servers {
        for directory in DIRECTORIES {
            assert!(!server.requests(&path(directory)).unwrap().is_empty(), "{directory} is asked for");
        }
    }
    let target = topology.target(Family::V4, 80);
    let sources = topology.sources(Family::V4);
    let steady = Steady::start(&topology.client, target, &sources, Duration::from_millis(10), LIMIT).unwrap();
    wait_until("traffic", LIMIT, || steady.samples().len() > 50).unwrap();

    servers[0].sicken(sick).unwrap();
    let ill = Instant::now();
    let reason = daemon.wait_status("exchange", "b1", "down", OUT).unwrap();
    let out = Instant::now();
    println!("{how}: out after {:?}: {reason}", out - ill);
    assert!(reason.contains(&path(sick)), "{reason}");
    let phrase = format!("BackEnd {}:80 down in farm: 'exchange'", topology.backends[0].v4);
    wait_until("the phrase in the log", LIMIT, || {
        daemon.log().lines().any(|line| line.contains(&phrase) && line.contains(&path(sick)))
    })
    .unwrap();
    assert_eq!(daemon.get("/v1/farms/exchange").unwrap()["status"], "degraded");
    let after = |from: Instant, count: usize| {
        wait_until("traffic after it", LIMIT, || {
            steady.samples().iter().filter(|sample| sample.began > from).count() > count
        })
        .unwrap();
    };
    after(out, 300);

    let mending = Instant::now();
    servers[0].mend(sick).unwrap();
    daemon.wait_status("exchange", "b1", "up", OUT).unwrap();
    let up = Instant::now();
    println!("{how}: back after {:?}", up - mending);
    assert_eq!(daemon.get("/v1/farms/exchange").unwrap()["status"], "up");
    after(up, 300);
    let samples = steady.finish();
    let (mut out_of, mut hit) = (BTreeSet::new(), 0);
    for sample in &samples {
        match &sample.result {
            Ok(name) if sample.began > out && sample.ended < mending => {
                out_of.insert(name.clone());
            }
            Ok(_) => {}
            // Those that were under way at the take-out are cut with it.
            Err(_) if sample.began <= out && sample.ended >= ill => hit += 1,
            Err(failure) => panic!("{failure}: {:?} after the illness", sample.began - ill),
        }
    }
    let served = samples.iter().filter(|it| it.began > out && it.result.is_ok()).count();
    println!("{how}: all {served} requests after the take-out served, {hit} hit before it");
    assert_eq!(out_of, BTreeSet::from(["b2".to_owned()]));
    let back = samples.iter().filter(|it| it.began > up && it.result.as_deref() == Ok("b1")).count();
    assert!(back > 30, "{back} requests went to b1 when it was back");
}

#[test]
fn by_http_paths() {
    let paths: Vec<String> = DIRECTORIES.iter().map(|it| format!("\"{}\"", path(it))).collect();
    let check =
        format!("[[farm.check]]\ntype = \"http\"\npath = [{}]\nbody = \"200 OK\"\n{PACE}", paths.join(", "));
    one_directory_falls_ill("http", "ews", &check);
}

#[test]
fn by_a_script_that_asks_every_directory() {
    let folder = folder_of_programs();
    let script = format!(
        "#!/bin/bash\n# A FarmGuardian script: HOST PORT.\nfor directory in {}; do\n  \
         code=$(curl --silent --max-time 2 --output /dev/null --write-out '%{{http_code}}' \"http://$1:$2/$directory/{PAGE}\")\n  \
         if [ \"$code\" != 200 ]; then echo \"/$directory/{PAGE} answered $code\"; exit 1; fi\ndone\necho all well\n",
        DIRECTORIES.join(" ")
    );
    let program = install(folder.path(), "check_exchange", &script);
    let check = format!(
        "[[farm.check]]\ntype = \"command\"\ncommand = [\"{}\", \"HOST\", \"PORT\"]\n{PACE}",
        program.display()
    );
    one_directory_falls_ill("script", "Microsoft-Server-ActiveSync", &check);
}

/// A plugin asks for one page: a check for each. It is found in the plugins' folder by its name alone. Its words name the
/// page only where a text is missed.
#[test]
fn by_check_http_of_the_monitoring_plugins() {
    if !Path::new("/usr/lib/nagios/plugins/check_http").exists() {
        panic!("no check_http: apt-get install monitoring-plugins-basic, or cargo xtask setup");
    }
    let check = |directory: &&str| {
        format!(
            "[[farm.check]]\ntype = \"command\"\ncommand = [\"check_http\", \"-H\", \"HOST\", \"-p\", \"PORT\", \"-u\", \
             \"{}\", \"-s\", \"200 OK\"]\n{PACE}",
            path(directory)
        )
    };
    one_directory_falls_ill("check_http", "mapi", &DIRECTORIES.iter().map(check).collect::<String>());
}

/// The processes whose command line has this word, with their states.
fn processes(word: &str) -> Vec<(u32, String)> {
    let with_word = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|it| String::from_utf8_lossy(&it).contains(word))
    };
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).filter(with_word);
    pids.map(|pid| (pid, fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default())).collect()
}

/// The children of a process that have ended and that nobody has asked after.
fn zombies(of: u32) -> Vec<String> {
    let stats = fs::read_dir("/proc").unwrap().flatten();
    let stats = stats.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let is_one = |stat: &String| {
        let after = stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        let fields: Vec<&str> = after.split(' ').collect();
        fields.first() == Some(&"Z") && fields.get(1) == Some(&of.to_string().as_str())
    };
    stats.filter(is_one).collect()
}

const WATCHED: Duration = Duration::from_secs(12);
const EVERY: Duration = Duration::from_secs(1);
const HANGS: Duration = Duration::from_millis(500);

/// The plugin asks b2 and b3, and hangs at b1 in every way: it ignores requests to end, and leaves children and a session
/// of their own behind.
#[test]
fn a_plugin_that_hangs_holds_up_nobody_and_leaves_nothing() {
    let topology = Topology::new(Arms::Two, 3).unwrap();
    let servers: Vec<Nginx> = topology
        .backends
        .iter()
        .map(|it| Nginx::with_directories(&it.netns, &it.name, 80, &DIRECTORIES, BACKLOG).unwrap())
        .collect();
    let folder = folder_of_programs();
    let token = format!("4{:08}", std::process::id());
    let script = format!(
        "#!/bin/bash\nif [ \"$1\" = {} ]; then\n  trap '' TERM HUP INT\n  sleep {token} &\n  setsid sleep {token} &\n  \
         (sleep {token} & ) \n  sleep {token}\nfi\nexec curl --silent --fail --output /dev/null http://$1:$2/owa/{PAGE}\n",
        topology.backends[0].v4
    );
    let program = install(folder.path(), "check_hangs", &script);
    let check = format!(
        "[[farm.check]]\ntype = \"command\"\ncommand = [\"{}\", \"HOST\", \"PORT\"]\ninterval = \"{}ms\"\n\
         timeout = \"{}ms\"\nrise = 1\nfall = 1\n",
        program.display(),
        EVERY.as_millis(),
        HANGS.as_millis()
    );
    let mut daemon = Daemon::start(&topology, "native", &farm(&topology, &check)).unwrap();
    let reason = daemon.wait_status("exchange", "b1", "down", LIMIT).unwrap();
    println!("hung: {reason}");
    for name in ["b2", "b3"] {
        daemon.wait_status("exchange", name, "up", LIMIT).unwrap();
    }
    let asked = |server: &Nginx| server.requests("/owa/healthcheck.htm").unwrap();
    let before: Vec<usize> = servers.iter().map(|it| asked(it).len()).collect();
    let begin = Instant::now();
    // How long processes of one run of the plugin are there at a stretch.
    let (mut longest, mut runs, mut since) = (Duration::ZERO, 0, None);
    while begin.elapsed() < WATCHED {
        match (processes(&token).is_empty(), since) {
            (false, None) => (since, runs) = (Some(Instant::now()), runs + 1),
            (false, Some(first)) => longest = longest.max(Instant::now() - first),
            (true, _) => since = None,
        }
        std::thread::sleep(Duration::from_millis(15));
    }
    let watched = begin.elapsed();
    println!("processes of the hung plugin: {runs} runs in {watched:?}, there for {longest:?} at most");
    assert!(runs >= 10, "it was run {runs} times");
    assert!(
        longest < HANGS + Duration::from_millis(350),
        "left over for {longest:?} with a time-out of {HANGS:?}"
    );

    for (number, server) in servers.iter().enumerate().skip(1) {
        let times = asked(server).split_off(before[number]);
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let worst = gaps.iter().map(|gap| (gap - EVERY.as_secs_f64()).abs()).fold(0.0, f64::max);
        let expected = watched.as_secs_f64() / EVERY.as_secs_f64();
        println!(
            "b{}: {} probes in {watched:?}, {mean:.3} s apart, at worst {:.0} ms off",
            number + 1,
            times.len(),
            worst * 1000.0
        );
        // One may fall on either edge of the time that was watched.
        assert!((times.len() as f64 - expected).abs() <= 0.1 * expected + 1.0, "{} probes", times.len());
        assert!((mean - EVERY.as_secs_f64()).abs() <= 0.1 * EVERY.as_secs_f64(), "{mean} s apart");
    }
    assert_eq!(asked(&servers[0]).len(), before[0], "b1 was never reached");

    daemon.write_config(&farm(&topology, "")).unwrap();
    let output = daemon.drover(&["reload"]).unwrap();
    assert!(output.status.success(), "{output:?}");
    wait_for("no process to be left", LIMIT, || {
        let left = processes(&token);
        if left.is_empty() { Ok(()) } else { anyhow::bail!("{left:?}") }
    })
    .unwrap();
    let pid = daemon.process().unwrap().id();
    wait_until("every child to be reaped", LIMIT, || zombies(pid).is_empty()).unwrap();
    let tally = Short::new(topology.target(Family::V4, 80), 50).run(&topology.client).unwrap();
    assert_eq!(tally.failures, Vec::<String>::new());
}
