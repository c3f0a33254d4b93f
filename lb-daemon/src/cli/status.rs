//! `drover status`: one screen.

use std::time::{Duration, SystemTime};

use super::text::{self, Style, Tone};
use super::{Context, Failure, view};
use crate::api::types::{Farms, Interface, Status};
use crate::clock;

pub async fn run(context: &Context) -> Result<String, Failure> {
    let status = context.client.get("/v1/status").await?;
    if context.json {
        return Ok(format!("{status}\n"));
    }
    let farms = context.client.get("/v1/farms").await?;
    let (status, farms) = (context.client.read(&status)?, context.client.read(&farms)?);
    Ok(screen(&status, &farms, context.style, clock::wall()))
}

fn screen(status: &Status, farms: &Farms, style: Style, now: SystemTime) -> String {
    let mut screen = summary(status, style);
    let uptime = text::long(Duration::try_from_secs_f64(status.uptime_seconds).unwrap_or_default());
    let (version, generation, path) = (&status.version, status.config_generation, &status.config_path);
    let node = format!("drover {version}, up {uptime}, configuration {generation} of {path}");
    screen.push('\n');
    screen += &text::wrap(&node, 0);
    for interface in &status.interfaces {
        screen += &interface_line(interface, style);
    }
    for farm in &farms.farms {
        screen.push('\n');
        screen += &view::farm(farm, style, now);
    }
    screen
}

/// What a glance must tell: whether all is well, else what is not.
fn summary(status: &Status, style: Style) -> String {
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
    for (n, word, tone) in farms.into_iter().filter(|(n, ..)| *n > 0) {
        let text = match parts.is_empty() {
            true => format!("{} {word}", text::count(n, "farm")),
            false => format!("{n} {word}"),
        };
        parts.push(style.paint(tone, &text));
    }
    let all = counts.backends_up == counts.backends;
    let backends = format!("{} of {} backends up", counts.backends_up, counts.backends);
    parts.push(style.paint(if all { Tone::Plain } else { Tone::Warning }, &backends));
    for interface in status.interfaces.iter().filter(|interface| !interface.up) {
        parts.push(style.paint(Tone::Bad, &format!("{} DOWN", interface.name)));
    }
    parts.push(text::count(counts.connections, "connection"));
    format!("{}\n", parts.join(", "))
}

fn interface_line(interface: &Interface, style: Style) -> String {
    let (marker, up) = match interface.up {
        true => (" ".to_owned(), style.paint(Tone::Good, "up")),
        false => (style.paint(Tone::Bad, "!"), style.paint(Tone::Bad, "DOWN")),
    };
    // IFNAMSIZ leaves 15 characters for a name.
    format!("{marker} {:15}  XDP {:7}  MTU {:5}  {up}\n", interface.name, interface.xdp_mode, interface.mtu)
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
