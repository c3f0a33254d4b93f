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
}

pub static ROOT: Schema = Schema {
    title: "",
    keys: &["daemon", "farm"],
    later: &[
        ("web", "remove the [web] table; the control socket serves the whole API"),
        ("cluster", "remove the [cluster] table; this version runs on a single node"),
    ],
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
        "backend",
        "check",
    ],
    later: &[
        ("affinity", "remove it; a connection stays with its backend, later ones of the client may not"),
        ("limits", "remove it; the farm takes as many connections as [daemon] connections allows"),
        ("allow", "remove it, and let the host's firewall or the backends decide who may connect"),
        ("deny", "remove it, and let the host's firewall or the backends decide who may connect"),
        ("on_down", "remove it; connections to a backend that goes down are left to end by themselves"),
        ("when_all_down", "remove it"),
        ("on_change", "remove it, and follow `drover events --follow` instead"),
        ("slow_start", "remove it; a backend that comes back gets its whole weight at once"),
        ("redirect", "remove this farm; let the backends redirect to HTTPS"),
    ],
};

pub static TIMEOUTS: Schema =
    Schema { title: "timeouts", keys: &["syn", "established", "fin", "udp"], later: &[] };

pub static BACKEND: Schema = Schema {
    title: "[[farm.backend]]",
    keys: &["name", "address", "port", "weight"],
    later: &[
        ("priority", "remove it; all healthy backends of a farm are used"),
        ("limits", "remove it; the backend takes as many connections as it is given"),
        ("slow_start", "remove it; a backend that comes back gets its whole weight at once"),
    ],
};

const ONLY_TCP: &str = "remove it; the only check so far is `type = \"tcp\"`";

pub static CHECK: Schema = Schema {
    title: "[[farm.check]]",
    keys: &["type", "interval", "timeout", "rise", "fall", "port"],
    later: &[
        ("fast_interval", "remove it; `interval` holds in every state"),
        ("path", ONLY_TCP),
        ("host", ONLY_TCP),
        ("status", ONLY_TCP),
        ("body", ONLY_TCP),
        ("body_regex", ONLY_TCP),
        ("method", ONLY_TCP),
        ("headers", ONLY_TCP),
        ("sni", ONLY_TCP),
        ("verify", ONLY_TCP),
        ("send", ONLY_TCP),
        ("expect", ONLY_TCP),
        ("starttls", ONLY_TCP),
        ("command", ONLY_TCP),
        ("user", ONLY_TCP),
    ],
};

/// Every table that has a header of its own, for telling where a key that stands in the wrong one belongs.
pub(super) static TITLED: [&Schema; 5] = [&DAEMON, &FARM, &TIMEOUTS, &BACKEND, &CHECK];
