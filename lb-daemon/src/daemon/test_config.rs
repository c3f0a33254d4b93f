//! Configurations for the tests of the parts.

use lb_core::config::model::{BackendName, Config, FarmName};

use super::BackendKey;
use crate::config;
use crate::handle::Format;

/// What stands above the farms.
pub const HEAD: &str = "[daemon]\ninterfaces = [\"eth0\"]\n";

/// The farm `web` with two backends, `a` and `b`; `keys` are the farm's.
pub fn web(keys: &str) -> String {
    format!(
        "[[farm]]\nname = \"web\"\nvip = \"192.0.2.10\"\nports = [80]\n{keys}\n\
         [[farm.backend]]\nname = \"a\"\naddress = \"10.0.0.1\"\n\
         [[farm.backend]]\nname = \"b\"\naddress = \"10.0.0.2\"\n"
    )
}

pub fn parse(farms: &str) -> Config {
    config::parse(&format!("{HEAD}{farms}"), Format::Toml).unwrap()
}

pub fn key(backend: &str) -> BackendKey {
    (FarmName::new("web").unwrap(), BackendName::new(backend).unwrap())
}
