//! The file itself, and `[daemon]`.

use super::{Key, Schema, Takes, list, number, text, word};
use crate::config::model::XdpMode;

/// Where the control socket is unless the file says otherwise.
pub const SOCKET: &str = "/run/drover/control.sock";

pub static ROOT: Schema = Schema {
    title: "",
    keys: &[
        Key::new(
            "daemon",
            Takes::Other { kind: "table", json: &["object"], default: None },
            "The daemon itself.",
        )
        .absent("required"),
        Key::new("farm", list("list of tables", &["array"]), "The farms.").absent("none"),
    ],
    later: &[
        ("web", "remove the [web] table; the control socket serves the whole API"),
        ("cluster", "remove the [cluster] table; this version runs on a single node"),
    ],
    elsewhere: &[],
};

const fn path(default: &'static str) -> Takes {
    Takes::Text { kind: "path", default: Some(default) }
}

pub static DAEMON: Schema = Schema {
    title: "[daemon]",
    keys: &[
        Key::new(
            "interfaces",
            list("list of names", &["string", "array"]),
            "Where packets come in, of clients and of backends: XDP attaches there. At least one, none twice; some 32 at \
             most. One that is not there is shown as missing, and taken when it comes.",
        )
        .absent("required"),
        Key::new(
            "xdp_mode",
            word::<XdpMode>(&[]),
            "`\"native\"`: in the driver. `\"generic\"`: in the kernel's network stack, slower, on every interface. \
             `\"auto\"`: native where the driver can, else generic.",
        ),
        Key::new("socket", path(SOCKET), "The control socket. Absolute, at most 107 bytes."),
        Key::new("socket_group", text("string"), "The group that may use the socket besides root. While there is no such group, the socket is root's alone.").absent("none"),
        Key::new(
            "state_dir",
            path("/var/lib/drover"),
            "What outlives a restart. Absolute. The file `flow-seed` in it is a secret, by which flows find their backends.",
        ),
        Key::new(
            "bpffs_dir",
            path("/sys/fs/bpf/drover"),
            "Where the program and its maps are pinned. Absolute, in a mounted BPF file system.",
        ),
        Key::new(
            "connections",
            number(1024, 1 << 24, None),
            "The most connections tracked at once, in each address family. See below.",
        )
        .absent("what a sixteenth of the machine's memory holds, at most 524,288"),
        Key::new(
            "manage_vips",
            Takes::Boolean(true),
            "Whether Drover puts the VIPs on an interface and announces them.",
        ),
    ],
    later: &[],
    elsewhere: &[],
};
