//! What users get: small HTTP requests, wrk in one network namespace and nginx in another, and between them a balancer.
//! Drover's daemon with its program attached natively, nftables doing the same translation, HAProxy in TCP mode, and hops
//! that only route, turn by turn, each in a network of its own that is idle in the meantime.
//!
//! ```text
//! client c0 -- b0 balancer b1 -- s0 server
//! ```
//!
//! All of it stays on one CPU: what is compared is the work for a request, the ends' included.
//!
//! A virtual link with an XDP program copies each packet into a buffer that XDP can work on, and hands it over by a ring; a
//! network card has both anyway. One without hands the packet over as it is. So there are two hops that only route: one on
//! links as they are made, as the rivals have them, and one on links like Drover's, whose program passes everything.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::daemon::Daemon;
use crate::netns::{Netns, Process};
use crate::nginx::Nginx;
use crate::pass;
use crate::wait::wait_for;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 2);
const PORT: u16 = 80;
/// The balancer's.
const LINKS: [&str; 2] = ["b0", "b1"];
/// Connections that the client has open at a time.
pub const OPEN: u8 = 32;

/// Who is between client and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Drover,
    Routed,
    /// The same on links with a program.
    RoutedXdp,
    Nftables,
    Haproxy,
}

impl Way {
    pub const ALL: [Self; 5] = [Self::Drover, Self::Routed, Self::RoutedXdp, Self::Nftables, Self::Haproxy];

    /// Whom the client asks.
    fn target(self) -> Ipv4Addr {
        match self {
            Self::Routed | Self::RoutedXdp => SERVER,
            Self::Drover | Self::Nftables | Self::Haproxy => VIP,
        }
    }
}

/// What a connection is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// One request after the other.
    KeepAlive,
    /// One request; then the server closes it and the client opens another.
    Close,
}

/// What runs in the balancer's network, until it is dropped.
#[derive(Debug)]
enum Middle {
    Kernel { _programs: Vec<OwnedFd> },
    Drover { _daemon: Daemon },
    Haproxy { _process: Process, _folder: tempfile::TempDir },
}

/// One way's network.
#[derive(Debug)]
pub struct Lane {
    way: Way,
    // Ended before their networks are.
    _middle: Middle,
    _server: Nginx,
    client: Netns,
    _networks: [Netns; 2],
}

impl Lane {
    /// Builds the network; a request is answered when this returns.
    pub fn new(way: Way) -> Result<Self> {
        let [client, balancer, server] = ["client", "lb", "server"].map(Netns::new);
        let (client, balancer, server) = (client?, balancer?, server?);
        connect(way, &client, &balancer, &server)?;
        let nginx = Nginx::start(&server, "small", PORT, b"")?;
        let middle = match way {
            Way::Drover => balance(&balancer)?,
            Way::Routed => forward(&balancer, &[])?,
            Way::RoutedXdp => forward(&balancer, &LINKS)?,
            Way::Nftables => translate(&balancer)?,
            Way::Haproxy => proxy(&balancer)?,
        };
        let lane = Self { way, _middle: middle, _server: nginx, client, _networks: [balancer, server] };
        let url = lane.url();
        let ask = || lane.client.run("curl", &["--silent", "--fail", "--max-time", "1", &url]);
        let answer = wait_for(&format!("an answer through {way:?}"), Duration::from_secs(10), ask)?;
        ensure!(answer == "small\n", "{answer:?} through {way:?}");
        Ok(lane)
    }

    fn url(&self) -> String {
        format!("http://{}:{PORT}/", self.way.target())
    }

    /// Requests a second, asked for `seconds`.
    pub fn measure(&self, kind: Use, seconds: u32) -> Result<f64> {
        let (url, connections, duration) = (self.url(), format!("-c{OPEN}"), format!("-d{seconds}s"));
        let mut args = vec!["-t1", &connections, &duration, "--timeout", "10s"];
        if kind == Use::Close {
            args.extend(["-H", "Connection: close"]);
        }
        args.push(&url);
        let printed = self.client.run("wrk", &args)?;
        requests_per_second(&printed).with_context(|| format!("through {:?}", self.way))
    }
}

/// What wrk counted; an error if a request failed.
fn requests_per_second(printed: &str) -> Result<f64> {
    let complaints = ["Socket errors:", "Non-2xx"];
    if let Some(line) = printed.lines().find(|line| complaints.iter().any(|it| line.contains(it))) {
        bail!("wrk says: {}", line.trim());
    }
    let figure = printed.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    let rate: f64 = figure.with_context(|| format!("no rate in: {printed}"))?.trim().parse()?;
    ensure!(rate > 0.0, "no request was answered");
    Ok(rate)
}

fn connect(way: Way, client: &Netns, balancer: &Netns, server: &Netns) -> Result<()> {
    let link = |name: &str, peer: &str| {
        format!("link add {name} type veth peer name {peer} netns {}\nlink set {name} up\n", balancer.name())
    };
    client.ip(&(link("c0", "b0") + "addr add 10.1.0.2/24 dev c0\n"))?;
    server.ip(&(link("s0", "b1") + &format!("addr add {SERVER}/24 dev s0\n")))?;
    balancer
        .ip("link set b0 up\nlink set b1 up\naddr add 10.1.0.1/24 dev b0\naddr add 10.2.0.1/24 dev b1\n")?;
    if matches!(way, Way::Nftables | Way::Haproxy) {
        balancer.ip(&format!("addr add {VIP}/32 dev b0\n"))?;
    }
    client.ip("route add default via 10.1.0.1\n")?;
    server.ip("route add default via 10.2.0.1\n")?;
    for (host, link) in [(client, "c0"), (server, "s0")] {
        // Whole checksums, as they come from a network card.
        host.run("ethtool", &["-K", link, "tx", "off"])?;
    }
    if matches!(way, Way::Drover | Way::RoutedXdp) {
        for (host, link) in [(client, "c0"), (server, "s0")] {
            // Otherwise it would not receive what XDP sends.
            host.run("ethtool", &["-K", link, "gro", "on"])?;
        }
    }
    for host in [client, balancer] {
        set(host, "ipv4/ip_local_port_range", "10000 65000")?;
    }
    Ok(())
}

/// Sets a key of a namespace's own `net`.
fn set(host: &Netns, key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{key}");
    host.enter(|| std::fs::write(&path, value))?.with_context(|| path.clone())
}

fn balance(balancer: &Netns) -> Result<Middle> {
    let farm = format!(
        "[[farm]]\nname = \"http\"\nvip = \"{VIP}\"\nports = [{PORT}]\n\
         [[farm.backend]]\naddress = \"{SERVER}\"\n"
    );
    let mut daemon = Daemon::prepare_on(&LINKS, None, "native", &farm)?;
    daemon.launch(balancer)?;
    daemon.wait_judged()?;
    Ok(Middle::Drover { _daemon: daemon })
}

/// The kernel as a router, with a program on some of its links.
fn forward(balancer: &Netns, links: &[&str]) -> Result<Middle> {
    set(balancer, "ipv4/ip_forward", "1")?;
    let attach = || links.iter().map(|link| pass::attach(link)).collect::<Result<_>>();
    Ok(Middle::Kernel { _programs: balancer.enter(attach)?? })
}

/// The same translation as Drover's, by the kernel.
fn translate(balancer: &Netns) -> Result<Middle> {
    let rules = format!(
        "table ip bench {{
            chain before {{
                type nat hook prerouting priority dstnat;
                ip daddr {VIP} tcp dport {PORT} dnat to {SERVER}:{PORT}
            }}
            chain after {{
                type nat hook postrouting priority srcnat;
                ip daddr {SERVER} tcp dport {PORT} masquerade
            }}
        }}"
    );
    balancer.run("nft", &[&rules])?;
    // A network card would have checked the checksums.
    set(balancer, "netfilter/nf_conntrack_checksum", "0")?;
    forward(balancer, &[])
}

fn proxy(balancer: &Netns) -> Result<Middle> {
    let folder = tempfile::Builder::new().prefix("drover-haproxy-").tempdir()?;
    let config = folder.path().join("haproxy.cfg");
    let text = format!(
        "global\n  maxconn 4096\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  \
         timeout server 60s\nlisten http\n  bind {VIP}:{PORT}\n  server server {SERVER}:{PORT}\n"
    );
    std::fs::write(&config, text)?;
    let mut command = balancer.command("haproxy");
    let process = balancer.spawn(command.args(["-db", "-q", "-f"]).arg(&config));
    let process = process.context("`cargo xtask bench` installs it")?;
    Ok(Middle::Haproxy { _process: process, _folder: folder })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_and_failed_requests_are_not_passed_over() {
        let good =
            "  38018 requests in 2.10s, 6.42MB read\nRequests/sec:  18104.55\nTransfer/sec:      3.06MB\n";
        assert_eq!(requests_per_second(good).unwrap(), 18104.55);
        for bad in
            ["  Socket errors: connect 0, read 3, write 0, timeout 0\n", "  Non-2xx or 3xx responses: 7\n"]
        {
            let error = requests_per_second(&format!("{bad}{good}")).unwrap_err().to_string();
            assert!(error.contains(bad.trim()), "{error}");
        }
        assert!(requests_per_second("Requests/sec:      0.00\n").is_err());
        assert!(requests_per_second("").is_err());
    }
}
