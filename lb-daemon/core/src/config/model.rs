//! What is valid: the configuration by type. Only [`super::read`] makes one from a text.
//!
//! What each key means, its table says (`keys`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

mod affinity;
mod check;
mod limits;
mod lists;
mod mode;

pub use affinity::Affinity;
pub use check::{BodyMatch, Check, CheckKind, CommandCheck, CommandContract, HttpCheck, Tls};
pub use limits::{Limits, Over};
pub use lists::{Lists, Rule};
pub use mode::{GUE_PORT, Mode};

/// The longest name of a farm or a backend, in bytes.
pub const NAME_MAX: usize = 63;
/// The largest weight of a backend.
pub const WEIGHT_MAX: u16 = 256;
/// Who runs commands unless the file says otherwise.
pub const USER: &str = "nobody";

/// A type of which the file has a word for each value.
pub trait Word: Copy + PartialEq + 'static {
    /// The first is the default.
    const WORDS: &'static [(&'static str, Self)];

    fn word(self) -> &'static str {
        let found = Self::WORDS.iter().find(|(_, value)| *value == self);
        found.map_or("", |(word, _)| word)
    }
}

/// A whole, valid configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Config {
    pub daemon: Daemon,
    /// In the file's order; names are unique, and no two overlap in VIP, protocol and port.
    pub farms: Vec<Farm>,
}

impl Config {
    pub fn farm(&self, name: &str) -> Option<&Farm> {
        self.farms.iter().find(|farm| farm.name.as_str() == name)
    }
}

/// The `[daemon]` table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Daemon {
    /// Where XDP attaches; at least one, without repeats.
    pub interfaces: Vec<String>,
    pub xdp_mode: XdpMode,
    pub socket: PathBuf,
    pub socket_group: Option<String>,
    pub state_dir: PathBuf,
    pub bpffs_dir: PathBuf,
    /// The most connections tracked at once, per address family. `None`: by the machine's memory, see
    /// [`crate::sizing::default_connections`].
    pub connections: Option<u32>,
    /// Whether the daemon puts VIPs on an interface and announces them.
    pub manage_vips: bool,
}

/// How the XDP program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum XdpMode {
    /// Native, else generic.
    Auto,
    Native,
    Generic,
}

impl Word for XdpMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("native", Self::Native), ("generic", Self::Generic)];
}

/// A farm's name: `[a-z0-9-]`, 1 to [`NAME_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FarmName(pub(super) String);

impl FarmName {
    pub fn new(text: &str) -> Option<Self> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (!text.is_empty() && text.len() <= NAME_MAX && text.bytes().all(legal)).then(|| Self(text.to_owned()))
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FarmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A backend's name, unique in its farm: `[a-zA-Z0-9.:_-]`, 1 to [`NAME_MAX`] bytes (an address is a name).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendName(pub(super) String);

impl BackendName {
    pub fn new(text: &str) -> Option<Self> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b".:_-".contains(&b);
        (!text.is_empty() && text.len() <= NAME_MAX && text.bytes().all(legal)).then(|| Self(text.to_owned()))
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One virtual service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Farm {
    pub name: FarmName,
    /// At least one, without repeats.
    pub vips: Vec<IpAddr>,
    pub ports: Ports,
    pub protocols: Protocols,
    pub mode: Mode,
    /// Where backends take packets that are wrapped in UDP.
    pub gue_port: u16,
    pub scheduler: Scheduler,
    /// A source keeps the backend it had.
    pub affinity: Option<Affinity>,
    pub timeouts: Timeouts,
    pub limits: Limits,
    /// Shared: they may be long.
    pub lists: Arc<Lists>,
    pub enabled: bool,
    /// Names are unique in the farm. May be empty: the farm is then down.
    pub backends: Vec<Backend>,
    /// All of them must pass. Empty: nobody checks, and the status says `unchecked`.
    pub checks: Vec<Check>,
    pub on_down: OnDown,
    pub when_all_down: WhenAllDown,
    /// When its VIPs answer who asks them for an echo.
    pub echo: Echo,
    /// Over how long a backend that has recovered gets back its full weight; zero: at once.
    pub slow_start: Duration,
    pub passive: Passive,
    /// Commands that are told of every change of a backend's state.
    pub on_change: Vec<Hook>,
}

/// What happens to a backend's connections when it goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnDown {
    Cut,
    Keep,
}

impl Word for OnDown {
    const WORDS: &'static [(&'static str, Self)] = &[("cut", Self::Cut), ("keep", Self::Keep)];
}

/// What a client meets when no backend of a farm is healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WhenAllDown {
    /// It is told at once: a reset, or an ICMP error.
    Refuse,
    /// Any backend, in the hope that the checks are wrong.
    TryAll,
}

impl Word for WhenAllDown {
    const WORDS: &'static [(&'static str, Self)] = &[("refuse", Self::Refuse), ("try-all", Self::TryAll)];
}

/// When a VIP answers an echo request, `ping`. One of several farms is answered as long as one of them would have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Echo {
    /// While a backend takes new connections.
    Up,
    Always,
    Never,
}

impl Word for Echo {
    const WORDS: &'static [(&'static str, Self)] =
        &[("up", Self::Up), ("always", Self::Always), ("never", Self::Never)];
}

/// What the traffic itself says of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Passive {
    /// A backend that leaves connections unanswered, or resets them, is checked at once.
    pub suspect: bool,
    /// And is taken out without a check's word, for a while that grows each time.
    pub eject: Option<Eject>,
}

impl Default for Passive {
    fn default() -> Self {
        Self { suspect: true, eject: None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Eject {
    /// How long the first time; doubled each time that follows soon.
    pub hold: Duration,
    /// Never more than so many percent of a farm's backends, 1 to 100.
    pub at_most: u8,
}

/// A command that is told of changes: run like a check of kind `command`, with the event as JSON on standard input.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Hook {
    /// Program and arguments; the program was found and may be run.
    pub command: Vec<String>,
    pub user: String,
    pub timeout: Duration,
}

impl Farm {
    /// The defaults of the keys that may be left out, for a farm of that name; it has no VIPs, ports or backends yet.
    pub fn new(name: FarmName) -> Self {
        Self {
            name,
            vips: Vec::new(),
            ports: Ports::Ranges(Vec::new()),
            protocols: Protocols { tcp: true, udp: false },
            mode: Mode::Nat,
            gue_port: GUE_PORT,
            scheduler: Scheduler::Maglev,
            affinity: None,
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            lists: Arc::new(Lists::NONE),
            enabled: true,
            backends: Vec::new(),
            checks: vec![Check::tcp()],
            on_down: OnDown::Cut,
            when_all_down: WhenAllDown::Refuse,
            echo: Echo::Up,
            slow_start: Duration::ZERO,
            passive: Passive::default(),
            on_change: Vec::new(),
        }
    }
}

/// The ports of a farm.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ports {
    /// `"*"`: every port.
    All,
    /// Inclusive ranges `(first, last)` with `1 <= first <= last`, sorted, not overlapping, at least one.
    Ranges(Vec<(u16, u16)>),
}

impl Ports {
    /// Every port of the farm, in order; nothing for [`Ports::All`].
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        let ranges: &[(u16, u16)] = match self {
            Self::All => &[],
            Self::Ranges(ranges) => ranges,
        };
        ranges.iter().flat_map(|&(first, last)| first..=last)
    }
    /// How many ports, 65536 for [`Ports::All`].
    pub fn count(&self) -> usize {
        match self {
            Self::All => 65536,
            Self::Ranges(ranges) => {
                ranges.iter().map(|&(first, last)| usize::from(last) - usize::from(first) + 1).sum()
            }
        }
    }
}

/// The protocols of a farm; at least one is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Protocols {
    pub tcp: bool,
    pub udp: bool,
}

/// How a backend is chosen for a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheduler {
    /// By addresses and ports.
    Maglev,
    /// In turn, as often as its weight says.
    WeightedRoundRobin,
    /// To whoever has least to do, of two.
    LeastConnections,
    /// By the client's address.
    SourceHash,
}

impl Word for Scheduler {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("maglev", Self::Maglev),
        ("weighted-round-robin", Self::WeightedRoundRobin),
        ("least-connections", Self::LeastConnections),
        ("source-hash", Self::SourceHash),
    ];
}

/// How long a connection may stay idle in each of its states. The defaults of `established`, `half_closed` and `udp` are the
/// least that a NAT may have (RFC 5382, REQ-5: 2 hours 4 minutes, so that a keep-alive of TCP comes in time, and 4 minutes
/// for one that is ending; RFC 4787, REQ-5: 2 minutes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// TCP, before the handshake is complete.
    pub syn: Duration,
    pub established: Duration,
    /// One side has sent its FIN.
    pub half_closed: Duration,
    /// Both have, or one has reset the connection, or it was cut.
    pub fin: Duration,
    pub udp: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            syn: Duration::from_secs(10),
            established: Duration::from_secs(2 * 3600 + 4 * 60),
            half_closed: Duration::from_secs(4 * 60),
            fin: Duration::from_secs(10),
            udp: Duration::from_secs(2 * 60),
        }
    }
}

/// A real server of a farm.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Backend {
    pub name: BackendName,
    pub address: Addresses,
    /// `None`: the port that the client used.
    pub port: Option<u16>,
    /// 0 to [`WEIGHT_MAX`]; 0 takes no new connections.
    pub weight: u16,
    /// The lowest number with a healthy backend is used, the others stand by.
    pub priority: u16,
}

impl Backend {
    /// The defaults of the keys that may be left out.
    pub fn new(name: BackendName, address: Addresses) -> Self {
        Self { name, address, port: None, weight: 1, priority: 0 }
    }
}

/// A backend's address in each family that the farm's VIPs have, or in one where tunnels lead to it; at least one is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addresses {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

impl Addresses {
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }
}
