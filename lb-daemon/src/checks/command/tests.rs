//! What a command is told.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use lb_core::config::model::{BackendName, CommandCheck, CommandContract, Farm, FarmName, Ports};
use lb_core::health::Outcome;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{Context, arguments, environment, fill_in, probe};
use crate::clock;

const V4: &str = "10.0.0.11:443";
const V6: &str = "[2001:db8::11]:443";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn check(contract: CommandContract) -> CommandCheck {
    let command = ["check", "-H", "HOST", "--url=http://HOST:PORT/"].map(str::to_owned).to_vec();
    CommandCheck { command, user: "nobody".to_owned(), contract }
}

fn context(vip: Option<&str>) -> Context {
    Context {
        farm: FarmName::new("mail").unwrap(),
        backend: BackendName::new("ex1").unwrap(),
        vip: vip.map(address),
        timeout: Duration::from_secs(3),
    }
}

#[test]
fn host_and_port_are_filled_in_where_they_are_whole_words() {
    let table = [
        ("HOST", "10.0.0.11", "2001:db8::11"),
        ("PORT", "443", "443"),
        ("HOST PORT HOST", "10.0.0.11 443 10.0.0.11", "2001:db8::11 443 2001:db8::11"),
        ("--host=HOST", "--host=10.0.0.11", "--host=2001:db8::11"),
        ("HOST:PORT", "10.0.0.11:443", "[2001:db8::11]:443"),
        ("http://HOST/x", "http://10.0.0.11/x", "http://[2001:db8::11]/x"),
        ("https://HOST:PORT/", "https://10.0.0.11:443/", "https://[2001:db8::11]:443/"),
        ("HOSTNAME", "HOSTNAME", "HOSTNAME"),
        ("MYHOST", "MYHOST", "MYHOST"),
        ("HOST_1", "HOST_1", "HOST_1"),
        ("HOSTPORT", "HOSTPORT", "HOSTPORT"),
        ("host port", "host port", "host port"),
        ("über-HOSTé", "über-10.0.0.11é", "über-2001:db8::11é"),
        ("", "", ""),
    ];
    for (argument, v4, v6) in table {
        assert_eq!(fill_in(argument, address(V4)), v4, "{argument}");
        assert_eq!(fill_in(argument, address(V6)), v6, "{argument}");
    }
}

#[test]
fn each_contract_has_its_arguments() {
    let farm_guardian = arguments(address(V4), &check(CommandContract::FarmGuardian), &context(None));
    assert_eq!(farm_guardian, ["check", "-H", "10.0.0.11", "--url=http://10.0.0.11:443/"]);
    let haproxy = check(CommandContract::Haproxy);
    let own = ["check", "-H", "HOST", "--url=http://HOST:PORT/"];
    let told = |vip| arguments(address(V4), &haproxy, &context(vip)).split_off(own.len());
    assert_eq!(told(Some("192.0.2.20:8443")), ["192.0.2.20", "8443", "10.0.0.11", "443"]);
    assert_eq!(told(None), ["NOT_USED", "NOT_USED", "10.0.0.11", "443"]);
}

#[test]
fn each_contract_has_its_environment() {
    let told = |contract| environment(address(V6), &check(contract), &context(Some("192.0.2.20:8443")));
    let own = [
        ("DROVER_FARM", "mail"),
        ("DROVER_BACKEND", "ex1"),
        ("DROVER_HOST", "2001:db8::11"),
        ("DROVER_PORT", "443"),
    ]
    .map(|(key, value)| (key, value.to_owned()));
    assert_eq!(told(CommandContract::FarmGuardian), own);
    let haproxy = told(CommandContract::Haproxy);
    for expected in [
        ("HAPROXY_PROXY_NAME", "mail"),
        ("HAPROXY_PROXY_ADDR", "192.0.2.20"),
        ("HAPROXY_PROXY_PORT", "8443"),
        ("HAPROXY_SERVER_NAME", "ex1"),
        ("HAPROXY_SERVER_ADDR", "2001:db8::11"),
        ("HAPROXY_SERVER_PORT", "443"),
        ("HAPROXY_SERVER_SSL", "0"),
        ("DROVER_HOST", "2001:db8::11"),
    ] {
        assert!(haproxy.iter().any(|(key, value)| (*key, value.as_str()) == expected), "{expected:?}");
    }
}

#[tokio::test]
async fn a_probe_answers_within_its_time_out_with_what_was_said() {
    let timeout = Duration::from_secs(1);
    let context = Context { timeout, ..context(None) };
    let command = ["sh", "-c", "echo asking; sleep 1000"].map(str::to_owned).to_vec();
    let check = CommandCheck { command, ..check(CommandContract::FarmGuardian) };
    let started = clock::now();
    let outcome = probe(address(V4), &check, &context).await.unwrap();
    assert_eq!(outcome, Outcome::failed("no end within 1s: asking"));
    assert!(clock::now() - started >= timeout * 9 / 10);
}

#[test]
fn the_vip_is_of_the_backends_family_and_port_where_there_is_one() {
    let farm = |vips: &[&str], ports| Farm {
        vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
        ports,
        ..Farm::new(FarmName::new("mail").unwrap())
    };
    let mail = || Ports::Ranges(vec![(25, 25), (443, 443)]);
    let web = || Ports::Ranges(vec![(80, 80)]);
    let table = [
        (farm(&["192.0.2.20", "2001:db8::20"], mail()), V4, Some("192.0.2.20:443")),
        (farm(&["192.0.2.20", "2001:db8::20"], mail()), V6, Some("[2001:db8::20]:443")),
        (farm(&["192.0.2.20"], web()), V4, Some("192.0.2.20:80")),
        (farm(&["192.0.2.20"], web()), V6, Some("192.0.2.20:80")),
        (farm(&["192.0.2.20"], Ports::All), V4, Some("192.0.2.20:443")),
        (farm(&[], web()), V4, None),
    ];
    for (farm, backend, vip) in table {
        assert_eq!(
            lb_core::health::vip_of(&farm, address(backend)),
            vip.map(address),
            "{backend} {:?}",
            farm.vips
        );
    }
}

/// A disk that never answers: nobody serves this file system. When it goes, whoever waits for it is let go.
struct DeadDisk {
    at: tempfile::TempDir,
    _device: File,
}

impl DeadDisk {
    fn new() -> Self {
        let at = tempfile::tempdir().unwrap();
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        mount(Some("dead"), at.path(), Some("fuse"), MsFlags::empty(), Some(options.as_str())).unwrap();
        Self { at, _device: device }
    }
}

impl Drop for DeadDisk {
    fn drop(&mut self) {
        umount2(self.at.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn a_dead_disk_blames_no_backend_and_keeps_no_other_program_from_being_run() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let threads = super::starts::OF_ONE_PROGRAM + 4;
    let runtime = runtime.worker_threads(1).max_blocking_threads(threads).enable_all().build().unwrap();
    // It goes before the runtime does, whose end waits for its threads.
    let disk = DeadDisk::new();
    let run = |program: &str, timeout| {
        let check =
            CommandCheck { command: vec![program.to_owned()], ..check(CommandContract::FarmGuardian) };
        let context = Context { timeout, ..context(None) };
        runtime.spawn(async move { probe(address(V4), &check, &context).await })
    };
    let script = disk.at.path().join("check");
    let hang = |_| run(script.to_str().unwrap(), Duration::from_millis(300));
    let hanging: Vec<_> = (0..2 * threads).map(hang).collect();
    for one in hanging {
        let told = runtime.block_on(one).unwrap();
        assert!(told.as_ref().is_err_and(|untried| untried.0.contains("not be started in time")), "{told:?}");
    }
    let other = runtime.block_on(run("true", Duration::from_secs(20))).unwrap();
    assert_eq!(other, Ok(Outcome::passed("exit status 0")));
}
