//! Modes in which packets reach backends in tunnels, with far ends that take them out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is a test")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use lb_tests::daemon::Daemon;
use lb_tests::http::get;
use lb_tests::server::{Server, checksum, checksum_of_download};
use lb_tests::topology::{Arms, Family, Topology};
use lb_tests::traffic::{Short, udp_flows};
use lb_tests::tunnel::{Exit, Kind};
use lb_tests::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(10);
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const BYTES: usize = 2_000_000;
const UP: u16 = 81;
const GUE: u16 = 6080;

/// The backend's own address of IPv4, behind a gateway; that of IPv6 is a neighbour.
const V4: &str = "10.9.0.1";
const V6: &str = "fd00:1::51";

/// Fields go in this order: what runs in the network before the network.
struct Scene {
    daemon: Daemon,
    exit: Exit,
    _server: Server,
    topology: Topology,
}

/// Takes what each client sends, and answers with its checksum.
fn take(listener: &TcpListener) {
    while let Ok((mut stream, _)) = listener.accept() {
        let mut got = Vec::new();
        if stream.read_to_end(&mut got).is_ok() {
            stream.write_all(&checksum(&got).to_be_bytes()).ok();
        }
    }
}

/// A backend's name: the status of one that has it is not that of the one before.
fn name(mode: &str, addresses: &[&str]) -> String {
    format!("{mode}-{}", addresses.join("-"))
}

fn farm(topology: &Topology, mode: &str, addresses: &[&str]) -> String {
    let [v4, v6] = FAMILIES.map(|family| topology.vip(family, 0));
    let name = name(mode, addresses);
    format!(
        "[[farm]]\nname = \"web\"\nvip = [\"{v4}\", \"{v6}\"]\nports = [80, {UP}]\nprotocol = [\"tcp\", \"udp\"]\n\
         mode = \"{mode}\"\ncheck = []\n[[farm.backend]]\nname = \"{name}\"\naddress = {addresses:?}\n"
    )
}

impl Scene {
    fn new() -> Self {
        let topology = Topology::new(Arms::Flat, 1).unwrap();
        let host = &topology.backends[0].netns;
        let [v4, v6] = FAMILIES.map(|family| topology.vip(family, 0));
        let exit = Exit::open(host, GUE).unwrap();
        host.ip(&format!(
            "addr add {v4}/32 dev lo\naddr add {v6}/128 dev lo nodad\naddr add {V4}/32 dev lo\n"
        ))
        .unwrap();
        host.enter(|| {
            for (key, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
                std::fs::write(format!("/proc/sys/net/ipv4/conf/all/{key}"), value).unwrap();
            }
            let listener = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, UP))).unwrap();
            // Ends with the process.
            std::thread::spawn(move || take(&listener));
        })
        .unwrap();
        topology.balancer.ip(&format!("route add {V4} via 10.1.0.51\n")).unwrap();
        let _server = Server::start(host, "b1", &[80], &[80]).unwrap();
        let daemon = Daemon::start(&topology, "native", &farm(&topology, "ipip", &[V4])).unwrap();
        Self { daemon, exit, _server, topology }
    }

    /// Brings the farm to this mode and these addresses; clients forget what they know of the way.
    fn set(&self, mode: &str, addresses: &[&str]) {
        self.daemon.write_config(&farm(&self.topology, mode, addresses)).unwrap();
        let (status, answer) = self.daemon.api("POST", "/v1/config/reload", None).unwrap();
        assert!(status < 300, "{answer}");
        self.daemon.wait_status("web", &name(mode, addresses), "unchecked", LIMIT).unwrap();
        for family in ["-4", "-6"] {
            self.topology.client.run("ip", &[family, "route", "flush", "cache"]).unwrap();
        }
    }

    fn upload(&self, family: Family, content: &[u8]) -> u64 {
        let target = self.topology.target(family, UP);
        let connect = || TcpStream::connect_timeout(&target, LIMIT);
        let mut stream = self.topology.client.enter(connect).unwrap().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream.write_all(content).expect("the whole upload");
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).expect("an answer");
        u64::from_be_bytes(answer)
    }

    fn count(&self, verdict: &str) -> u64 {
        let metrics = self.daemon.get_text("/metrics").unwrap();
        let line = metrics.lines().find(|line| line.contains(&format!("verdict=\"{verdict}\"")));
        line.and_then(|line| line.rsplit(' ').next()).map_or(0, |count| count.parse().unwrap())
    }
}

#[test]
fn clients_reach_backends_through_tunnels_of_every_pair_of_families_and_send_what_fits() {
    let scene = Scene::new();
    let topology = &scene.topology;
    let content: Vec<u8> = (0..BYTES as u32).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    for (mode, kinds) in [("ipip", [Kind::InV4, Kind::InV6]), ("gue", [Kind::GueInV4, Kind::GueInV6])] {
        for (addresses, ends) in [(&[V4][..], [0, 0]), (&[V6], [1, 1]), (&[V4, V6], [0, 1])] {
            scene.set(mode, addresses);
            for (family, end) in FAMILIES.into_iter().zip(ends) {
                let what = format!("{mode} {addresses:?} {family:?}");
                let (target, sources) = (topology.target(family, 80), topology.sources(family));
                let before = (scene.exit.taken(kinds[end]), scene.count("too_big"));
                let mut short = Short::new(target, 10);
                short.sources.clone_from(&sources);
                let tally = short.run(&topology.client).unwrap();
                assert_eq!((tally.of("b1"), tally.failures), (10, vec![]), "{what}");
                let tally = udp_flows(&topology.client, target, &sources, 10, 2).unwrap();
                assert_eq!((tally.of("b1"), tally.failures), (10, vec![]), "{what}");
                let path = format!("/download/{BYTES}/1000000000");
                let source = sources[2];
                let answer = topology.client.enter(|| get(target, Some(source), &path, LIMIT));
                let answer = answer.unwrap().unwrap();
                assert_eq!(answer.peer.ip(), source, "the backend sees its client");
                assert_eq!(checksum(&answer.body), checksum_of_download(BYTES as u64), "{what}");
                assert_eq!(scene.upload(family, &content), checksum(&content), "{what}");
                assert!(scene.exit.taken(kinds[end]) > before.0 + 1000, "{what}: it came another way");
                assert!(scene.count("too_big") > before.1, "{what}: nothing was too large");
            }
        }
    }
    let backend = scene.daemon.backend("web", &name("gue", &[V4, V6])).unwrap();
    assert_eq!(backend["packets"]["out"], 0, "answers do not pass the balancer");
}

#[test]
fn a_tunnel_to_the_balancer_itself_is_refused_with_its_place_and_changes_nothing() {
    let topology = Topology::new(Arms::Flat, 1).unwrap();
    let valid = farm(&topology, "ipip", &["10.1.0.51"]);
    let mut daemon = Daemon::prepare(&topology, "native", &valid).unwrap();
    daemon.launch(&topology.balancer).unwrap();
    for own in ["10.1.0.1", "fd00:1::1"] {
        daemon.write_config(&farm(&topology, "ipip", &[own])).unwrap();
        let (status, answer) = daemon.api("POST", "/v1/config/reload", None).unwrap();
        assert_eq!(status, 422, "{answer}");
        let error = &answer["errors"][0];
        assert_eq!(error["path"], "farm[0].backend[0].address[0]", "{answer}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(&format!("{own} is an address of this host")), "{answer}");
        let old = daemon.get("/v1/config").unwrap().to_string();
        assert!(old.contains("\"10.1.0.51\"") && !old.contains(&format!("\"{own}\"")), "{old}");
    }
    wait_until("the old configuration", LIMIT, || {
        daemon.write_config(&valid).unwrap();
        daemon.api("POST", "/v1/config/reload", None).is_ok_and(|(status, _)| status < 300)
    })
    .unwrap();
}
