//! `drover status`: one screen.

use std::time::{Duration, SystemTime};

use lb_core::ills::Organ;
use lb_core::sizing;
use lb_core::state::tables::is_crowded;

use super::text::{self, Style, Tone};
use super::{Context, Failure, view};
use crate::api::types::{
    BackendStatus, ConnectionTable, Defect, FamilyTable, FarmStatus, Farms, Ill, Interface, Status,
};
use crate::clock;

/// With `problems`, of the farms only what is wrong.
pub async fn run(context: &Context, problems: bool) -> Result<String, Failure> {
    let status = context.client.get("/v1/status").await?;
    if context.json {
        return Ok(format!("{status}\n"));
    }
    let farms = context.client.get("/v1/farms").await?;
    let (status, farms) = (context.client.read(&status)?, context.client.read(&farms)?);
    let farms = if problems { only_problems(farms) } else { worst_first(farms) };
    Ok(screen(&status, &farms, context.style, clock::wall()))
}

/// The farms with the worst first, else in the configuration's order.
fn worst_first(mut farms: Farms) -> Farms {
    farms.farms.sort_by_key(|farm| match farm.status {
        FarmStatus::Down => 0,
        FarmStatus::Degraded => 1,
        FarmStatus::Unchecked => 2,
        FarmStatus::Up | FarmStatus::Disabled => 3,
    });
    farms
}

/// The farms with something wrong, and of each the backends that are not as they should be.
fn only_problems(farms: Farms) -> Farms {
    let mut farms = worst_first(farms);
    for farm in &mut farms.farms {
        farm.backends.retain(|backend| {
            let well = matches!(backend.status, BackendStatus::Up | BackendStatus::Standby);
            !well || !backend.unresolved.is_empty()
        });
    }
    farms.farms.retain(|farm| match farm.status {
        FarmStatus::Down | FarmStatus::Degraded | FarmStatus::Unchecked => true,
        FarmStatus::Up => !farm.backends.is_empty(),
        FarmStatus::Disabled => false,
    });
    farms
}

fn screen(status: &Status, farms: &Farms, style: Style, now: SystemTime) -> String {
    let mut screen = summary(status, style);
    screen += &ill_lines(&status.ills, style);
    let uptime = text::long(Duration::try_from_secs_f64(status.uptime_seconds).unwrap_or_default());
    let (version, generation, path) = (&status.version, status.config_generation, &status.config_path);
    let node = format!("drover {version}, up {uptime}, configuration {generation} of {path}");
    screen.push('\n');
    screen += &text::wrap(&node, 0);
    if let Some(detail) = &status.config_file.detail {
        let told = text::wrap(&format!("configuration file: {detail}"), 2);
        screen += &format!("{} {}", style.paint(Tone::Bad, "!"), told.trim_start());
    }
    screen += &defect_lines(&status.defects, style);
    for interface in &status.interfaces {
        screen += &interface_line(interface, style);
    }
    screen += &table_lines(&status.connection_table, style);
    for farm in &farms.farms {
        screen.push('\n');
        screen += &view::farm(farm, style, now);
    }
    screen
}

/// What a glance must tell: whether all is well, else what is not.
pub(super) fn summary(status: &Status, style: Style) -> String {
    let counts = &status.counts;
    if counts.farms == 0 {
        let advice =
            format!("no farms: nothing is balanced. Add one to {}, then `drover reload`", status.config_path);
        return text::wrap(&advice, 0);
    }
    let farms = [
        (counts.farms_up, "up", Tone::Good),
        (counts.farms_degraded, "DEGRADED", Tone::Bad),
        (counts.farms_down, "DOWN", Tone::Bad),
        (counts.farms_unchecked, "unchecked", Tone::Warning),
        (counts.farms_disabled, "disabled", Tone::Plain),
    ];
    let mut parts = Vec::new();
    let mut part = |tone, text: String| parts.push((text.chars().count(), style.paint(tone, &text)));
    for (at, (n, word, tone)) in farms.into_iter().filter(|(n, ..)| *n > 0).enumerate() {
        let text = match at == 0 {
            true => format!("{} {word}", text::count(n, "farm")),
            false => format!("{n} {word}"),
        };
        part(tone, text);
    }
    let all = counts.backends_up == counts.backends;
    let backends = format!("{} of {} backends up", counts.backends_up, counts.backends);
    part(if all { Tone::Plain } else { Tone::Warning }, backends);
    for interface in status.interfaces.iter().filter(|interface| !interface.up) {
        let word = if interface.missing { "MISSING" } else { "DOWN" };
        part(Tone::Bad, format!("{} {word}", interface.name));
    }
    part(Tone::Plain, text::count(counts.connections, "connection"));
    text::listing(&parts)
}

/// What is wrong with the daemon itself; the file has a line of its own.
fn ill_lines(ills: &[Ill], style: Style) -> String {
    let shown = ills.iter().filter(|ill| ill.kind != Organ::ConfigFile.as_str());
    let line = |ill: &Ill| {
        let told = text::wrap(&ill.message, 2);
        format!("{} {}", style.paint(Tone::Bad, "!"), told.trim_start())
    };
    shown.map(line).collect()
}

/// What farms lack on this host: each thing once, however many farms lack it.
fn defect_lines(defects: &[Defect], style: Style) -> String {
    let mut things: Vec<(&Defect, usize)> = Vec::new();
    for defect in defects {
        match things.iter_mut().find(|(first, _)| first.message == defect.message) {
            Some((_, more)) => *more += 1,
            None => things.push((defect, 0)),
        }
    }
    let mut lines = String::new();
    for (Defect { farm, path, message, hint }, more) in things.iter().take(DEFECTS_MAX) {
        let more = if *more == 0 { String::new() } else { format!(" (and {more} more)") };
        let told = text::wrap(&format!("{farm}: {path}{more}: {message}; {hint}"), 2);
        lines += &format!("{} {}", style.paint(Tone::Bad, "!"), told.trim_start());
    }
    if things.len() > DEFECTS_MAX {
        lines += &format!("  and {} more such; `drover status --json` has all\n", things.len() - DEFECTS_MAX);
    }
    lines
}

/// So many of them stand on the screen.
const DEFECTS_MAX: usize = 4;

fn interface_line(interface: &Interface, style: Style) -> String {
    let (marker, up) = match interface.up {
        true => (" ".to_owned(), style.paint(Tone::Good, "up")),
        false if interface.missing => {
            let (marker, word) = (style.paint(Tone::Bad, "!"), style.paint(Tone::Bad, "MISSING"));
            return format!("{marker} {:15}  {word}: there is no such interface\n", interface.name);
        }
        false => (style.paint(Tone::Bad, "!"), style.paint(Tone::Bad, "DOWN")),
    };
    // IFNAMSIZ leaves 15 characters for a name.
    format!("{marker} {:15}  XDP {:7}  MTU {:5}  {up}\n", interface.name, interface.xdp_mode, interface.mtu)
}

/// How full the connection table is; and, if there is anything to say, what it had to refuse and does about it.
fn table_lines(table: &ConnectionTable, style: Style) -> String {
    let name = |family: &FamilyTable| family.family.replace("ip", "IP");
    let full = table.families.iter().map(|family| {
        let text = format!("{} {}% full", name(family), family.load_percent);
        style.paint(if is_crowded(false, family.load_percent) { Tone::Bad } else { Tone::Plain }, &text)
    });
    let crowded = table.families.iter().any(|family| is_crowded(false, family.load_percent));
    let marker = if crowded { style.paint(Tone::Bad, "!") } else { " ".to_owned() };
    let (full, memory) = (full.collect::<Vec<_>>().join(", "), sizing::text(table.bytes));
    let line = format!("{marker} {:15}  {full}; for {}, {memory}\n", "connections", table.connections);
    let refused = (table.refused > 0).then(|| format!("{} refused for want of a line", table.refused));
    let measures = table.families.iter().flat_map(|family| {
        family.measures.iter().map(move |measure| format!("{measure} ({})", name(family)))
    });
    let more: Vec<String> = refused.into_iter().chain(measures).collect();
    line + &text::wrap(&more.join("; "), DETAILS)
}

/// Where the details of a line begin, after marker and name.
const DETAILS: usize = 19;

#[cfg(test)]
#[path = "status_tests.rs"]
pub(super) mod tests;
