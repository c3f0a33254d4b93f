//! Which keys may stand in which table, and which ones Drover knows but cannot obey yet.

/// The keys of one table.
#[derive(Debug)]
pub struct Schema {
    /// The table's header as a file has it; empty for the file itself.
    pub title: &'static str,
    /// In the order in which people write them.
    pub keys: &'static [&'static str],
    /// Keys that are refused as not supported yet, and what to do instead.
    pub later: &'static [(&'static str, &'static str)],
    /// What other balancers call a key, and its name here.
    pub elsewhere: &'static [(&'static str, &'static str)],
}

pub static ROOT: Schema = Schema {
    title: "",
    keys: &["daemon", "farm"],
    later: &[
        ("web", "remove the [web] table; the control socket serves the whole API"),
        ("cluster", "remove the [cluster] table; this version runs on a single node"),
    ],
    elsewhere: &[],
};

pub static DAEMON: Schema = Schema {
    title: "[daemon]",
    keys: &[
        "interfaces",
        "xdp_mode",
        "socket",
        "socket_group",
        "state_dir",
        "bpffs_dir",
        "connections",
        "manage_vips",
    ],
    later: &[],
    elsewhere: &[],
};

pub static FARM: Schema = Schema {
    title: "[[farm]]",
    keys: &[
        "name",
        "type",
        "vip",
        "ports",
        "protocol",
        "mode",
        "scheduler",
        "timeouts",
        "enabled",
        "on_down",
        "when_all_down",
        "slow_start",
        "passive",
        "on_change",
        "backend",
        "check",
    ],
    later: &[
        ("affinity", "remove it; a connection stays with its backend, later ones of the client may not"),
        ("limits", "remove it; the farm takes as many connections as [daemon] connections allows"),
        ("allow", "remove it, and let the host's firewall or the backends decide who may connect"),
        ("deny", "remove it, and let the host's firewall or the backends decide who may connect"),
        ("redirect", "remove this farm; let the backends redirect to HTTPS"),
    ],
    elsewhere: &[],
};

pub static TIMEOUTS: Schema = Schema {
    title: "timeouts",
    keys: &["syn", "established", "half_closed", "fin", "udp"],
    later: &[],
    elsewhere: &[],
};

pub static PASSIVE: Schema =
    Schema { title: "passive", keys: &["suspect", "eject", "hold", "at_most"], later: &[], elsewhere: &[] };

pub static ON_CHANGE: Schema =
    Schema { title: "on_change", keys: &["command", "user", "timeout"], later: &[], elsewhere: &[] };

pub static BACKEND: Schema = Schema {
    title: "[[farm.backend]]",
    keys: &["name", "address", "port", "weight", "priority"],
    later: &[("limits", "remove it; the backend takes as many connections as it is given")],
    elsewhere: &[],
};

pub static CHECK: Schema = Schema {
    title: "[[farm.check]]",
    keys: &[
        "type",
        "interval",
        "timeout",
        "fast_interval",
        "rise",
        "fall",
        "port",
        "path",
        "method",
        "host",
        "headers",
        "status",
        "body",
        "body_regex",
        "server_name",
        "verify",
        "min_days",
        "send",
        "name",
        "record",
        "expect",
        "starttls",
        "command",
        "user",
        "contract",
    ],
    later: &[],
    elsewhere: &[
        ("sni", "server_name"),
        ("url", "path"),
        ("uri", "path"),
        ("paths", "path"),
        ("regex", "body_regex"),
        ("code", "status"),
        ("script", "command"),
        ("query", "name"),
        ("tls", "type = \"https\"` or `type = \"tls\""),
    ],
};

/// The types of checks, in the order in which people are told of them.
pub static CHECK_TYPES: [&str; 11] =
    ["tcp", "http", "https", "tls", "udp", "dns", "icmp", "smtp", "imap", "pop3", "command"];

const HTTP: &[&str] = &["http", "https"];
const TLS: &[&str] = &["https", "tls", "smtp", "imap", "pop3"];
const MAIL: &[&str] = &["smtp", "imap", "pop3"];

/// The keys of `[[farm.check]]` that not every type has, and which have them.
pub static CHECK_OWNERS: &[(&str, &[&str])] = &[
    ("port", &["tcp", "http", "https", "tls", "udp", "dns", "smtp", "imap", "pop3", "command"]),
    ("path", HTTP),
    ("method", HTTP),
    ("host", HTTP),
    ("headers", HTTP),
    ("status", HTTP),
    ("body", HTTP),
    ("body_regex", HTTP),
    ("server_name", TLS),
    ("verify", TLS),
    ("min_days", &["tls"]),
    ("send", &["udp"]),
    ("expect", &["udp", "dns"]),
    ("name", &["dns"]),
    ("record", &["dns"]),
    ("starttls", MAIL),
    ("command", &["command"]),
    ("user", &["command"]),
    ("contract", &["command"]),
];

/// Every table that has a header of its own, for telling where a key that stands in the wrong one belongs.
pub(super) static TITLED: [&Schema; 7] = [&DAEMON, &FARM, &TIMEOUTS, &BACKEND, &CHECK, &PASSIVE, &ON_CHANGE];
