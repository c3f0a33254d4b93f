//! Networks to put a balancer into.
//!
//! ```text
//! Two   client 10.1.0.2 -- segment -- front 10.1.0.1 balancer 10.2.0.1 back -- segment -- 10.2.0.11 backends
//! One   the same addresses, with all hosts on one segment and the balancer's two addresses on `front`
//! Flat  one segment and one subnet: backends are 10.1.0.51 and on, and know no way but the segment
//! ```
//!
//! IPv6 likewise in `fd00:1::/64` and `fd00:2::/64`. VIPs are taken from the client's subnet; the daemon puts them there. The
//! balancer does not route by itself. A segment is a bridge in a namespace of its own.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result};
use lb_common::wire::eth::Mac;

use crate::netns::Netns;
use crate::pass;
use crate::wait::wait_until;
use crate::wire::{NOTHING, Wire};

/// Where the balancer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arms {
    /// Between two networks.
    Two,
    /// Beside one segment that carries both networks.
    One,
    /// On one segment with one network. Without a way back through the balancer, so not for `dnat`.
    Flat,
}

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// How many more addresses the client has than its first.
pub const EXTRA_SOURCES: u8 = 10;

/// A backend's host.
#[derive(Debug)]
pub struct Backend {
    /// `b1`, `b2`, ...
    pub name: String,
    pub netns: Netns,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

/// A network of namespaces.
#[derive(Debug)]
pub struct Topology {
    pub arms: Arms,
    pub client: Netns,
    pub balancer: Netns,
    pub backends: Vec<Backend>,
    segments: Vec<Netns>,
    /// The programs at the far ends of the balancer's links.
    links: Vec<OwnedFd>,
}

impl Topology {
    /// Builds the network; every address answers when this returns.
    pub fn new(arms: Arms, backends: u8) -> Result<Self> {
        let mut segments = vec![segment("front")?];
        if arms == Arms::Two {
            segments.push(segment("back")?);
        }
        let mut topology = Self {
            arms,
            client: Netns::new("client")?,
            balancer: Netns::new("lb")?,
            backends: Vec::new(),
            segments,
            links: Vec::new(),
        };
        topology.build_balancer()?;
        topology.build_client()?;
        for number in 1..=backends {
            let backend = topology.build_backend(number)?;
            topology.backends.push(backend);
        }
        topology.receive_redirected()?;
        topology.wait_connected()?;
        Ok(topology)
    }

    /// Waits until the balancer reaches every host: a new link carries nothing until the kernel has looked at it,
    /// which may take a second. What it has learnt of its neighbours on the way is forgotten.
    fn wait_connected(&self) -> Result<()> {
        let mut hosts: Vec<IpAddr> = Vec::new();
        for family in [Family::V4, Family::V6] {
            hosts.extend(self.sources(family).first());
            hosts.extend(self.backends.iter().map(|backend| backend.address(family)));
        }
        // Nobody listens there: the answer is a refusal.
        let refuses = |host: IpAddr| {
            let port = SocketAddr::new(host, 9);
            TcpStream::connect_timeout(&port, Duration::from_millis(50))
                .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        };
        self.balancer.enter(|| -> Result<()> {
            for host in hosts {
                wait_until(&format!("an answer of {host}"), Duration::from_secs(10), || refuses(host))?;
            }
            Ok(())
        })??;
        self.balancer.ip("neigh flush all\n")
    }

    fn front(&self) -> Result<&Netns> {
        self.segments.first().context("every topology has a front segment")
    }

    fn back(&self) -> Result<&Netns> {
        self.segments.last().context("every topology has a segment")
    }

    fn build_balancer(&self) -> Result<()> {
        plug(self.front()?, &self.balancer, "front")?;
        self.balancer.ip("addr add 10.1.0.1/24 dev front\naddr add fd00:1::1/64 dev front nodad\n")?;
        let back = match self.arms {
            Arms::Flat => return Ok(()),
            Arms::One => "front",
            Arms::Two => {
                plug(self.back()?, &self.balancer, "back")?;
                "back"
            }
        };
        self.balancer
            .ip(&format!("addr add 10.2.0.1/24 dev {back}\naddr add fd00:2::1/64 dev {back} nodad\n"))
    }

    fn build_client(&self) -> Result<()> {
        plug(self.front()?, &self.client, "eth0")?;
        full_checksums(&self.client)?;
        let mut lines = String::new();
        for host in std::iter::once(2).chain(10..10 + EXTRA_SOURCES) {
            lines +=
                &format!("addr add 10.1.0.{host}/24 dev eth0\naddr add fd00:1::{host}/64 dev eth0 nodad\n");
        }
        lines += "route add default via 10.1.0.1 src 10.1.0.2\n";
        lines += "route add default via fd00:1::1 src fd00:1::2\n";
        self.client.ip(&lines)
    }

    fn build_backend(&self, number: u8) -> Result<Backend> {
        let name = format!("b{number}");
        let netns = Netns::new(&name)?;
        plug(self.back()?, &netns, "eth0")?;
        full_checksums(&netns)?;
        let (subnet, host) = match self.arms {
            Arms::Two | Arms::One => (2, 10 + number),
            Arms::Flat => (1, 50 + number),
        };
        let v4 = Ipv4Addr::new(10, subnet, 0, host);
        // The decimal digits of the IPv4 address, as people write them.
        let v6: Ipv6Addr = format!("fd00:{subnet}::{host}").parse()?;
        netns.ip(&format!("addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\n"))?;
        if self.arms != Arms::Flat {
            netns.ip("route add default via 10.2.0.1\nroute add default via fd00:2::1\n")?;
        }
        Ok(Backend { name, netns, v4, v6 })
    }

    /// Lets the far ends of the balancer's links receive what XDP sends.
    fn receive_redirected(&mut self) -> Result<()> {
        let ports = [(self.front()?, "front"), (self.back()?, "back")];
        let mut links = Vec::new();
        for (segment, port) in ports.into_iter().take(self.segments.len()) {
            links.push(segment.enter(|| pass::attach(&port_of(&self.balancer, port)))??);
        }
        self.links = links;
        Ok(())
    }

    /// The balancer's interfaces.
    pub fn interfaces(&self) -> &'static [&'static str] {
        match self.arms {
            Arms::Two => &["front", "back"],
            Arms::One | Arms::Flat => &["front"],
        }
    }

    /// The address of the `number`th VIP, from 0.
    pub fn vip(&self, family: Family, number: u8) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(10, 1, 0, 100 + number).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 1, u16::from(number)).into(),
        }
    }

    /// A port of the first VIP.
    pub fn target(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.vip(family, 0), port)
    }

    /// All addresses of the client.
    pub fn sources(&self, family: Family) -> Vec<IpAddr> {
        let hosts = std::iter::once(2).chain(10..10 + EXTRA_SOURCES);
        hosts.filter_map(|host| address(family, 1, host)).collect()
    }

    /// The balancer's own address in the client's network.
    pub fn balancer_address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(10, 1, 0, 1).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1).into(),
        }
    }

    /// The hardware address of the balancer's interface towards the clients.
    pub fn front_mac(&self) -> Result<Mac> {
        Ok(Wire::open(&self.balancer, "front", NOTHING)?.mac())
    }

    /// The last piece of the way to the balancer: the far end of its link towards the clients.
    pub fn front_link(&self) -> Result<Wire> {
        Wire::open(self.front()?, &port_of(&self.balancer, "front"), NOTHING)
    }

    /// `[[farm.backend]]` tables of all backends, each with its two addresses and `more` lines.
    pub fn backend_tables(&self, more: &str) -> String {
        self.backends.iter().map(|backend| backend.table(more)).collect()
    }
}

impl Backend {
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// Its `[[farm.backend]]` table in a farm that has VIPs of both families, with `more` lines.
    pub fn table(&self, more: &str) -> String {
        let Self { name, v4, v6, .. } = self;
        format!("[[farm.backend]]\nname = \"{name}\"\naddress = [\"{v4}\", \"{v6}\"]\n{more}\n")
    }
}

fn address(family: Family, subnet: u8, host: u8) -> Option<IpAddr> {
    match family {
        Family::V4 => Some(Ipv4Addr::new(10, subnet, 0, host).into()),
        Family::V6 => format!("fd00:{subnet}::{host}").parse().ok(),
    }
}

/// A bridge in a namespace of its own that forwards at once.
fn segment(label: &str) -> Result<Netns> {
    let netns = Netns::new(label)?;
    netns.ip("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\nlink set br0 up\n")?;
    Ok(netns)
}

/// The segment's end of a host's interface.
fn port_of(host: &Netns, interface: &str) -> String {
    // The last part of a namespace's name is its label; interface names have at most 15 characters.
    let label = host.name().rsplit('-').next().unwrap_or_default();
    format!("{label}-{interface}")
}

/// Connects a host to a segment, both ends up.
fn plug(segment: &Netns, host: &Netns, interface: &str) -> Result<()> {
    let port = port_of(host, interface);
    host.ip(&format!(
        "link add {interface} type veth peer name {port} netns {}\nlink set {interface} up\n",
        segment.name()
    ))?;
    segment.ip(&format!("link set {port} master br0 up\n"))
}

/// Makes a host send whole checksums, as a network card would. Between virtual links the kernel leaves them to the
/// receiver, and an XDP program that adjusts half a checksum breaks it.
fn full_checksums(host: &Netns) -> Result<()> {
    host.run("ethtool", &["-K", "eth0", "tx", "off"])?;
    Ok(())
}
