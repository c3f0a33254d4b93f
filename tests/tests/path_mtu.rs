//! Paths with a link that carries less than both ends' own: routers tell the sender of what is too large, and the balancer
//! has to hand that on.
//!
//! ```text
//! client -- near router =1300= router -- front -- balancer -- back -- router =1300= far router -- server
//! ```
//!
//! One of the two links is the narrow one; both ends' own links carry 1500 bytes, so the ends do not know by themselves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is a test")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use lb_tests::daemon::Daemon;
use lb_tests::netns::Netns;
use lb_tests::server::{Server, checksum, checksum_of_download};
use lb_tests::topology::{Arms, Family, Topology};
use lb_tests::wait::wait_until;

const BYTES: usize = 10_000_000;
const DOWN: u16 = 80;
const UP: u16 = 81;
const LIMIT: Duration = Duration::from_secs(10);

/// Fields go in this order: what runs in the network before the network.
struct Path {
    daemon: Daemon,
    _server: Server,
    /// The hosts at both ends, and the routers next to them.
    client: Netns,
    server: Netns,
    near: Netns,
    far: Netns,
    topology: Topology,
}

/// Which of the two links is the narrow one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Narrow {
    Front,
    Back,
}

/// Puts a router and a host behind `edge`, which becomes a router, too: the subnets `subnet` (the link between) and `subnet + 1`.
fn extend(edge: &Netns, label: &str, subnet: u8) -> (Netns, Netns) {
    let router = Netns::new(&format!("{label}-r")).unwrap();
    let host = Netns::new(label).unwrap();
    let behind = subnet + 1;
    edge.ip(&format!(
        "link add far type veth peer name near netns {0}\n\
         addr add 10.{subnet}.0.1/24 dev far\naddr add fd00:{subnet}::1/64 dev far nodad\nlink set far up\n\
         route add 10.{behind}.0.0/24 via 10.{subnet}.0.2\nroute add fd00:{behind}::/64 via fd00:{subnet}::2\n",
        router.name()
    ))
    .unwrap();
    router
        .ip(&format!(
            "addr add 10.{subnet}.0.2/24 dev near\naddr add fd00:{subnet}::2/64 dev near nodad\nlink set near up\n\
             link add host type veth peer name eth0 netns {}\n\
             addr add 10.{behind}.0.1/24 dev host\naddr add fd00:{behind}::1/64 dev host nodad\nlink set host up\n\
             route add default via 10.{subnet}.0.1\nroute add default via fd00:{subnet}::1\n",
            host.name()
        ))
        .unwrap();
    host.ip(&format!(
        "addr add 10.{behind}.0.2/24 dev eth0\naddr add fd00:{behind}::2/64 dev eth0 nodad\nlink set eth0 up\n\
         route add default via 10.{behind}.0.1\nroute add default via fd00:{behind}::1\n"
    ))
    .unwrap();
    // Whole checksums, as a network card would send them.
    host.run("ethtool", &["-K", "eth0", "tx", "off"]).unwrap();
    for routes in [edge, &router] {
        routes
            .enter(|| {
                for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                    std::fs::write(format!("/proc/sys/net/{key}"), "1").unwrap();
                }
            })
            .unwrap();
    }
    (router, host)
}

/// Takes what each client sends, and answers with its checksum.
fn take(listener: &TcpListener) {
    while let Ok((mut stream, _)) = listener.accept() {
        std::thread::spawn(move || {
            let mut got = Vec::new();
            if stream.read_to_end(&mut got).is_ok() {
                stream.write_all(&checksum(&got).to_be_bytes()).ok();
            }
        });
    }
}

impl Path {
    fn new() -> Self {
        let topology = Topology::new(Arms::Two, 1).unwrap();
        let (near, client) = extend(&topology.client, "c", 3);
        let (far, server) = extend(&topology.backends[0].netns, "s", 5);
        topology
            .balancer
            .ip("route add 10.5.0.0/16 via 10.2.0.11\nroute add fd00:5::/64 via fd00:2::11\nroute add fd00:6::/64 via fd00:2::11\n\
                 route add 10.6.0.0/16 via 10.2.0.11\n")
            .unwrap();
        let _server = Server::start(&server, "s", &[DOWN], &[]).unwrap();
        server
            .enter(|| {
                let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, UP));
                let listener = TcpListener::bind(any).unwrap();
                // Ends with the process.
                std::thread::spawn(move || take(&listener));
            })
            .unwrap();
        let mut daemon = Daemon::prepare(&topology, "native", &farm(&topology, "nat")).unwrap();
        daemon.launch(&topology.balancer).unwrap();
        Self { daemon, _server, client, server, near, far, topology }
    }

    /// Brings the farm to `mode`.
    fn set_mode(&self, mode: &str) {
        self.daemon.write_config(&farm(&self.topology, mode)).unwrap();
        wait_until("the configuration", LIMIT, || {
            self.daemon.api("POST", "/v1/config/reload", None).is_ok_and(|(status, _)| status < 300)
        })
        .unwrap();
        self.daemon.wait_status("web", "s", "up", LIMIT).unwrap();
    }

    /// Makes one link the narrow one, and has everybody forget what they know of the path.
    fn set_narrow(&self, narrow: Narrow) {
        let mtu = |link| if link == narrow { 1300 } else { 1500 };
        let ends = [
            (Narrow::Front, &self.topology.client, &self.near),
            (Narrow::Back, &self.topology.backends[0].netns, &self.far),
        ];
        for (link, edge, router) in ends {
            edge.ip(&format!("link set far mtu {}\n", mtu(link))).unwrap();
            router.ip(&format!("link set near mtu {}\n", mtu(link))).unwrap();
        }
        for host in [&self.client, &self.server, &self.near, &self.far] {
            for family in ["-4", "-6"] {
                host.run("ip", &[family, "route", "flush", "cache"]).unwrap();
            }
        }
    }

    fn connect(&self, target: SocketAddr) -> TcpStream {
        let connect = || TcpStream::connect_timeout(&target, LIMIT);
        let stream = self.client.enter(connect).unwrap().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream
    }

    fn download(&self, vip: IpAddr) -> u64 {
        let mut stream = self.connect(SocketAddr::new(vip, DOWN));
        write!(stream, "GET /download/{BYTES}/1000000000 HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).expect("the whole download");
        checksum(&got[got.len().checked_sub(BYTES).expect("all of it")..])
    }

    fn upload(&self, vip: IpAddr, content: &[u8]) -> u64 {
        let mut stream = self.connect(SocketAddr::new(vip, UP));
        stream.write_all(content).expect("the whole upload");
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).expect("an answer");
        u64::from_be_bytes(answer)
    }

    fn translated(&self) -> u64 {
        let metrics = self.daemon.get_text("/metrics").unwrap();
        let line = metrics.lines().find(|line| line.contains("verdict=\"icmp_translated\""));
        line.and_then(|line| line.rsplit(' ').next()).map_or(0, |count| count.parse().unwrap())
    }
}

fn farm(topology: &Topology, mode: &str) -> String {
    let (v4, v6) = (topology.vip(Family::V4, 0), topology.vip(Family::V6, 0));
    format!(
        "[[farm]]\nname = \"web\"\nvip = [\"{v4}\", \"{v6}\"]\nports = [{DOWN}, {UP}]\nmode = \"{mode}\"\n\
         [[farm.backend]]\nname = \"s\"\naddress = [\"10.6.0.2\", \"fd00:6::2\"]\n\
         [[farm.check]]\ntype = \"tcp\"\nport = {DOWN}\ninterval = \"200ms\"\ntimeout = \"200ms\"\nrise = 1\n"
    )
}

#[test]
fn downloads_and_uploads_complete_over_a_path_that_carries_less_than_its_ends() {
    let path = Path::new();
    let expected = checksum_of_download(BYTES as u64);
    let content: Vec<u8> = (0..BYTES as u32).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    let sent = checksum(&content);
    for mode in ["nat", "dnat"] {
        path.set_mode(mode);
        for narrow in [Narrow::Front, Narrow::Back] {
            for family in [Family::V4, Family::V6] {
                let what = format!("{mode} {narrow:?} {family:?}");
                let vip = path.topology.vip(family, 0);
                let before = path.translated();
                path.set_narrow(narrow);
                assert_eq!(path.download(vip), expected, "{what}");
                // Who has learnt something says so to the other end, by its MSS.
                path.set_narrow(narrow);
                assert_eq!(path.upload(vip, &content), sent, "{what}");
                assert!(path.translated() > before, "{what}: nothing was too large");
            }
        }
    }
}
