//! The usual scene of a test: a topology, a server on each backend, and the daemon with a configuration.

use std::time::Duration;

use anyhow::Result;

use crate::daemon::Daemon;
use crate::server::Server;
use crate::topology::{Arms, Backend, Family, Topology};

/// How often the checks of [`Farm`] look, how long they wait, and how many failures take a backend out.
pub const INTERVAL: Duration = Duration::from_millis(200);
pub const FALL: u32 = 2;

/// A `[[farm]]` table with both VIPs of its number, every backend of a topology, and a quick check.
#[derive(Debug, Clone)]
pub struct Farm<'a> {
    pub name: &'a str,
    /// Which VIPs: those of [`Topology::vip`].
    pub vip: u8,
    /// Further keys of the farm, one a line; `ports` at least.
    pub keys: &'a str,
    /// Further keys of each backend, one a line; the last stands for those that are not there.
    pub backend_keys: &'a [&'a str],
    /// How many of the topology's backends, from the first.
    pub backends: usize,
    /// The port that is checked; `None`: every port that the farm has.
    pub check_port: Option<u16>,
    /// Whether the backends are checked at all.
    pub checked: bool,
    /// How often, and how long a check waits.
    pub interval: Duration,
}

impl<'a> Farm<'a> {
    /// A farm of the first VIPs with every backend.
    pub fn new(name: &'a str, keys: &'a str) -> Self {
        Self {
            name,
            vip: 0,
            keys,
            backend_keys: &[],
            backends: usize::MAX,
            check_port: None,
            checked: true,
            interval: INTERVAL,
        }
    }

    /// The table's text.
    pub fn text(&self, topology: &Topology) -> String {
        let Self { name, vip, keys, .. } = self;
        let unchecked = if self.checked { "" } else { "check = []\n" };
        let (v4, v6) = (topology.vip(Family::V4, *vip), topology.vip(Family::V6, *vip));
        let mut text =
            format!("[[farm]]\nname = \"{name}\"\nvip = [\"{v4}\", \"{v6}\"]\n{keys}\n{unchecked}");
        for (number, backend) in topology.backends.iter().take(self.backends).enumerate() {
            let more = self.backend_keys.get(number).or(self.backend_keys.last());
            text += &backend.table(more.copied().unwrap_or_default());
        }
        if !self.checked {
            return text + "\n";
        }
        let milliseconds = self.interval.as_millis();
        text += &format!(
            "[[farm.check]]\ntype = \"tcp\"\ninterval = \"{milliseconds}ms\"\ntimeout = \"{milliseconds}ms\"\n\
             rise = 1\nfall = {FALL}\n"
        );
        if let Some(port) = self.check_port {
            text += &format!("port = {port}\n");
        }
        text + "\n"
    }
}

/// A network with servers and a daemon. Fields go in this order: what runs in the network before the network.
#[derive(Debug)]
pub struct Scene {
    pub daemon: Daemon,
    /// One for each backend, in order.
    pub servers: Vec<Server>,
    pub topology: Topology,
}

impl Scene {
    /// Builds the network, starts a server with these ports on each backend, and the daemon with `farms`. It is ready
    /// when this returns.
    pub fn new(
        arms: Arms,
        backends: u8,
        xdp_mode: &str,
        (tcp, udp): (&[u16], &[u16]),
        farms: impl FnOnce(&Topology) -> String,
    ) -> Result<Self> {
        let topology = Topology::new(arms, backends)?;
        let start = |backend: &Backend| Server::start(&backend.netns, &backend.name, tcp, udp);
        let servers = topology.backends.iter().map(start).collect::<Result<Vec<_>>>()?;
        let daemon = Daemon::start(&topology, xdp_mode, &farms(&topology))?;
        Ok(Self { daemon, servers, topology })
    }

    /// Two arms, native mode, HTTP on port 80, one farm `web`.
    pub fn web(backends: u8, farm: &Farm<'_>) -> Result<Self> {
        Self::new(Arms::Two, backends, "native", (&[80], &[]), |topology| farm.text(topology))
    }
    /// As [`Scene::web`], with room for so many connections.
    pub fn web_of_size(connections: u32, backends: u8, farm: &Farm<'_>) -> Result<Self> {
        let topology = Topology::new(Arms::Two, backends)?;
        let start = |backend: &Backend| Server::start(&backend.netns, &backend.name, &[80], &[]);
        let servers = topology.backends.iter().map(start).collect::<Result<Vec<_>>>()?;
        let mut daemon = Daemon::prepare(&topology, "native", &farm.text(&topology))?;
        daemon.edit_config("connections = 65536", &format!("connections = {connections}"))?;
        daemon.launch(&topology.balancer)?;
        daemon.wait_judged()?;
        Ok(Self { daemon, servers, topology })
    }
}
