//! A balancer one of whose links carries less than the other: it tells who sends too much, as a router would.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is a test")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use lb_tests::daemon::Daemon;
use lb_tests::netns::Netns;
use lb_tests::server::{Server, checksum, checksum_of_download};
use lb_tests::topology::{Arms, Family, Topology};
use lb_tests::wait::wait_until;

const LIMIT: Duration = Duration::from_secs(5);
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const BYTES: usize = 1_000_000;
const DOWN: u16 = 80;
const UP: u16 = 81;

/// Fields go in this order: what runs in the network before the network.
struct Scene {
    daemon: Daemon,
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

fn farm(topology: &Topology, mode: &str) -> String {
    let [v4, v6] = FAMILIES.map(|family| topology.vip(family, 0));
    format!(
        "[[farm]]\nname = \"web\"\nvip = [\"{v4}\", \"{v6}\"]\nports = [{DOWN}, {UP}]\nmode = \"{mode}\"\ncheck = []\n{}",
        topology.backend_tables("")
    )
}

/// Has a host forget what it knows of sizes.
fn forget(host: &Netns) {
    for family in ["-4", "-6"] {
        host.run("ip", &[family, "route", "flush", "cache"]).unwrap();
    }
}

impl Scene {
    fn new() -> Self {
        let topology = Topology::new(Arms::Two, 1).unwrap();
        let host = &topology.backends[0].netns;
        host.enter(|| {
            let listener = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, UP))).unwrap();
            // Ends with the process.
            std::thread::spawn(move || take(&listener));
        })
        .unwrap();
        let _server = Server::start(host, "b1", &[DOWN], &[]).unwrap();
        let daemon = Daemon::start(&topology, "native", &farm(&topology, "dnat")).unwrap();
        Self { daemon, _server, topology }
    }

    /// Makes one of the balancer's links the narrow one.
    fn set_narrow(&self, narrow: &str) {
        for link in ["front", "back"] {
            let mtu = if link == narrow { 1300 } else { 1500 };
            self.topology.balancer.ip(&format!("link set {link} mtu {mtu}\n")).unwrap();
            wait_until("the daemon to see it", LIMIT, || {
                let status = self.daemon.get("/v1/status").unwrap();
                let all = status["interfaces"].as_array().unwrap();
                all.iter().any(|interface| interface["name"] == link && interface["mtu"] == mtu)
            })
            .unwrap();
        }
        // A client that has learnt something says so to the other end, by its MSS.
        forget(&self.topology.client);
    }

    /// Everybody forgets what they know of the way.
    fn set_mode(&self, mode: &str) {
        forget(&self.topology.client);
        forget(&self.topology.backends[0].netns);
        if mode == "dsr" {
            let [v4, v6] = FAMILIES.map(|family| self.topology.vip(family, 0));
            let vips = format!("addr add {v4}/32 dev lo\naddr add {v6}/128 dev lo nodad\n");
            self.topology.backends[0].netns.ip(&vips).unwrap();
        }
        self.daemon.write_config(&farm(&self.topology, mode)).unwrap();
        let (status, answer) = self.daemon.api("POST", "/v1/config/reload", None).unwrap();
        assert!(status < 300, "{answer}");
    }

    fn connect(&self, target: SocketAddr) -> TcpStream {
        let connect = || TcpStream::connect_timeout(&target, LIMIT);
        let stream = self.topology.client.enter(connect).unwrap().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream
    }

    fn download(&self, family: Family) -> u64 {
        let mut stream = self.connect(self.topology.target(family, DOWN));
        write!(stream, "GET /download/{BYTES}/1000000000 HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).expect("the whole download");
        checksum(&got[got.len().checked_sub(BYTES).expect("all of it")..])
    }

    fn upload(&self, family: Family, content: &[u8]) -> u64 {
        let mut stream = self.connect(self.topology.target(family, UP));
        stream.write_all(content).expect("the whole upload");
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).expect("an answer");
        u64::from_be_bytes(answer)
    }

    fn told(&self) -> u64 {
        let metrics = self.daemon.get_text("/metrics").unwrap();
        let line = metrics.lines().find(|line| line.contains("verdict=\"too_big\""));
        line.and_then(|line| line.rsplit(' ').next()).map_or(0, |count| count.parse().unwrap())
    }
}

#[test]
fn uploads_and_downloads_complete_where_one_link_of_the_balancer_carries_less_than_the_other() {
    let scene = Scene::new();
    let content: Vec<u8> = (0..BYTES as u32).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    for mode in ["dnat", "nat", "dsr"] {
        scene.set_mode(mode);
        for (narrow, up) in [("back", true), ("front", false)] {
            scene.set_narrow(narrow);
            for family in FAMILIES {
                let before = scene.told();
                if up {
                    assert_eq!(scene.upload(family, &content), checksum(&content), "{mode} {family:?}");
                } else {
                    let expected = checksum_of_download(BYTES as u64);
                    assert_eq!(scene.download(family), expected, "{mode} {family:?}");
                }
                assert!(scene.told() > before, "{mode} {narrow} {family:?}: nothing was too large");
            }
        }
    }
}
