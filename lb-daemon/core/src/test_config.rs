//! Configurations for tests of decisions that do not look at what stands above the farms.

use crate::config::model::{Config, Daemon, Farm, XdpMode};

pub fn config_of(farms: Vec<Farm>) -> Config {
    let daemon = Daemon {
        interfaces: vec!["eth0".to_owned()],
        xdp_mode: XdpMode::Auto,
        socket: "/s".into(),
        socket_group: None,
        state_dir: "/d".into(),
        bpffs_dir: "/b".into(),
        connections: None,
        manage_vips: true,
    };
    Config { daemon, farms }
}
