//! From the tree to the model: the only way to make a [`Config`].
//!
//! Reading goes on after an error, so that one look at the answer is enough to mend a whole file; what a broken
//! value would make of a later rule is left out, so that each mistake is told once.

use std::path::PathBuf;

use super::draft::FarmDraft;
use super::error::ConfigError;
use super::fields::{Errors, Place, Spot, Table};
use super::keys;
use super::model::{Config, Daemon};
use super::overlap;
use super::text;
use super::tree::{Node, quoted};

/// Makes a valid configuration of a parsed file, or says everything that is wrong with it, in the file's order.
pub fn read(root: &Node) -> Result<Config, Vec<ConfigError>> {
    let mut errors = Errors::default();
    let config = read_root(root, &mut errors);
    let Errors(mut errors) = errors;
    if let Some(config) = config
        && errors.is_empty()
    {
        return Ok(config);
    }
    if errors.is_empty() {
        // No reader gives nothing without an error; a configuration is not accepted on that belief alone.
        let (path, message) = (String::new(), "cannot be read".to_owned());
        errors.push(ConfigError { path, at: root.position, message, hint: None });
    }
    errors.sort_by_key(|error| error.at);
    Err(errors)
}

fn read_root(root: &Node, errors: &mut Errors) -> Option<Config> {
    let table = Table::open(&Place::root(root), &keys::ROOT, errors)?;
    let daemon = match table.get("daemon") {
        Some(place) => read_daemon(&place, errors),
        None => {
            let hint = "add [daemon] with interfaces = [\"eth0\"], the interfaces that packets come in by";
            errors.push(&table.spot, "the table [daemon] is missing", hint);
            None
        }
    };
    let places = match table.get("farm") {
        Some(place) => place.tables("[[farm]]", errors),
        None => Some(Vec::new()),
    };
    let drafts: Vec<FarmDraft> =
        places.iter().flatten().filter_map(|place| FarmDraft::read(place, errors)).collect();
    drafts.iter().for_each(|draft| super::rules::judge(draft, errors));
    overlap::judge(&drafts, errors);
    // Draft by draft: one that cannot be finished has reported why.
    let farms = drafts.into_iter().map(FarmDraft::finish).collect::<Option<Vec<_>>>();
    places?;
    Some(Config { daemon: daemon?, farms: farms? })
}

fn read_daemon(place: &Place<'_>, errors: &mut Errors) -> Option<Daemon> {
    let table = Table::open(place, &keys::DAEMON, errors)?;
    let interfaces = table
        .need(
            "interfaces",
            "write interfaces = [\"eth0\"]: where packets of clients and backends come in",
            errors,
        )
        .and_then(|place| read_interfaces(&place, errors));
    let xdp_mode = table.word("xdp_mode", errors);
    let socket = read_path(&table, "socket", errors);
    if let (Some(socket), Some(place)) = (&socket, table.get("socket"))
        && socket.as_os_str().len() > SOCKET_PATH_MAX
    {
        let message = format!("is too long for a socket: at most {SOCKET_PATH_MAX} bytes");
        errors.push(
            &place.spot,
            message,
            format!("write a shorter path, as in {}", table.default_text("socket")),
        );
    }
    let socket_group = table.get("socket_group").map_or(Some(None), |place| {
        let name = place.string("a group's name", "drover", errors)?;
        if name.is_empty() || name.contains(['\0', ':', '/', '\n', ' ']) {
            let hint = "write the name of a group, or remove the key: only root may then use the socket";
            errors.push(&place.spot, format!("{} is not a group's name", quoted(name)), hint);
            return None;
        }
        Some(Some(name.to_owned()))
    });
    let state_dir = read_path(&table, "state_dir", errors);
    let bpffs_dir = read_path(&table, "bpffs_dir", errors);
    let connections = table.number_if_any("connections", errors);
    let manage_vips = table.boolean("manage_vips", errors);
    Some(Daemon {
        interfaces: interfaces?,
        xdp_mode: xdp_mode?,
        socket: socket?,
        socket_group: socket_group?,
        state_dir: state_dir?,
        bpffs_dir: bpffs_dir?,
        connections: connections?,
        manage_vips: manage_vips?,
    })
}

/// The longest path of a Unix socket: `sun_path` of unix(7), without the final zero byte.
const SOCKET_PATH_MAX: usize = 107;
/// The longest name of an interface: `IFNAMSIZ` of the kernel, without the final zero byte.
const INTERFACE_NAME_MAX: usize = 15;

fn read_interfaces(place: &Place<'_>, errors: &mut Errors) -> Option<Vec<String>> {
    let items = place.items();
    if items.is_empty() {
        errors.push(&place.spot, "must name at least one interface", "write [\"eth0\"], for example");
        return None;
    }
    let mut names: Vec<(String, Spot)> = Vec::new();
    let mut whole = true;
    for item in items {
        match read_interface(&item, &names, errors) {
            Some(name) => names.push((name, item.spot)),
            None => whole = false,
        }
    }
    whole.then(|| names.into_iter().map(|(name, _)| name).collect())
}

fn read_interface(item: &Place<'_>, before: &[(String, Spot)], errors: &mut Errors) -> Option<String> {
    let name = item.string("an interface's name", "eth0", errors)?;
    // As the kernel's dev_valid_name() has it.
    let legal = !name.is_empty()
        && name.len() <= INTERFACE_NAME_MAX
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ':');
    if !legal {
        let message = format!(
            "{} is not an interface's name: 1 to {INTERFACE_NAME_MAX} bytes, no spaces, slashes or colons",
            quoted(name)
        );
        errors.push(&item.spot, message, "`ip link` lists the interfaces of this machine");
        return None;
    }
    if let Some((_, first)) = before.iter().find(|(other, _)| other == name) {
        let message = format!("{} stands here twice", quoted(name));
        errors.push(&item.spot, message, format!("remove it; the first is {}", first.path));
        return None;
    }
    Some(name.to_owned())
}

/// An absolute path that can be a file's.
fn read_path(table: &Table<'_>, key: &str, errors: &mut Errors) -> Option<PathBuf> {
    let default = table.default_text(key);
    let default = default.trim_matches('"');
    let Some(place) = table.get(key) else {
        return Some(PathBuf::from(default));
    };
    let path = place.string("an absolute path", default, errors)?;
    if !path.starts_with('/') || path.contains('\0') {
        let message = format!("must be an absolute path, not {}", quoted(path));
        let hint = match text::nearest(path, [default]) {
            Some(near) => format!("write \"{near}\""),
            None => format!("begin it with a slash, as in \"{default}\""),
        };
        errors.push(&place.spot, message, hint);
        return None;
    }
    Some(PathBuf::from(path))
}
