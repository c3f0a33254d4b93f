//! Farms and backends as text, 80 columns wide. Pure: answers in, text out.

use std::time::SystemTime;

use super::text::{self, Style, Tone, WIDTH};
use crate::api::types::{Backend, BackendStatus, Farm, FarmStatus};

/// Widths of a backend's columns, but for the backend itself.
const STATUS: usize = "maintenance".len();
const WEIGHT: usize = "WEIGHT".len();
const CONNECTIONS: usize = 7;
const SINCE: usize = "SINCE".len();
const INDENT: usize = 4;
/// What is left for the backend in a line of its own.
const LABEL_MAX: usize = WIDTH - INDENT - STATUS - WEIGHT - CONNECTIONS - SINCE - 4 * 2;

/// A status as it is written: what must catch the eye, in capitals.
pub fn farm_status(status: FarmStatus) -> (&'static str, Tone) {
    match status {
        FarmStatus::Up => ("up", Tone::Good),
        FarmStatus::Degraded => ("DEGRADED", Tone::Bad),
        FarmStatus::Down => ("DOWN", Tone::Bad),
        FarmStatus::Unchecked => ("unchecked", Tone::Warning),
        FarmStatus::Disabled => ("disabled", Tone::Faint),
    }
}

pub fn backend_status(status: BackendStatus) -> (&'static str, Tone) {
    match status {
        BackendStatus::Up => ("up", Tone::Good),
        BackendStatus::Down => ("DOWN", Tone::Bad),
        BackendStatus::Starting => ("starting", Tone::Warning),
        BackendStatus::Draining => ("draining", Tone::Warning),
        BackendStatus::Maintenance => ("maintenance", Tone::Warning),
        BackendStatus::Standby => ("standby", Tone::Faint),
        BackendStatus::Unchecked => ("unchecked", Tone::Warning),
    }
}

/// A farm's name and status, where it listens, and a line for each backend.
pub fn farm(farm: &Farm, style: Style, now: SystemTime) -> String {
    let (word, tone) = farm_status(farm.status);
    let marker = if tone == Tone::Bad { style.paint(tone, "!") } else { " ".to_owned() };
    let mut block =
        format!("{marker} {}  {}\n", style.paint(Tone::Strong, &farm.name), style.paint(tone, word));
    let connections = text::count(farm.connections, "connection");
    block += &text::wrap(&format!("{}; {}; {connections}", endpoints(farm), farm.mode), INDENT);
    if farm.backends.is_empty() {
        block += &text::wrap("no backends: nobody is served", INDENT);
        return block;
    }
    let labels: Vec<_> = farm.backends.iter().map(label).collect();
    let fitting = labels.iter().map(|label| label.chars().count()).filter(|&width| width <= LABEL_MAX);
    let width = fitting.chain(["BACKEND".len()]).max().unwrap_or(LABEL_MAX);
    let heading =
        format!("    {:STATUS$}  {:width$}  WEIGHT  {:>CONNECTIONS$}  SINCE", "STATUS", "BACKEND", "CONNS");
    block += &style.paint(Tone::Faint, &heading);
    block.push('\n');
    for (backend, label) in farm.backends.iter().zip(&labels) {
        block += &backend_line(backend, label, width, style, now);
    }
    block
}

/// One line, and more if the reason or a very long name do not fit.
fn backend_line(backend: &Backend, label: &str, width: usize, style: Style, now: SystemTime) -> String {
    let (word, tone) = backend_status(backend.status);
    let marker = if tone == Tone::Bad { style.paint(tone, "!") } else { " ".to_owned() };
    let mut line = format!("{marker}   {}{}", style.paint(tone, word), " ".repeat(STATUS - word.len() + 2));
    let mut column = INDENT + STATUS + 2;
    if label.chars().count() > width {
        line += text::wrap(label, column).trim_start();
        line += &" ".repeat(column + width);
    } else {
        line += &format!("{label:width$}");
    }
    let since = text::ago(&backend.since, now);
    line += &format!("  {:>WEIGHT$}  {:>CONNECTIONS$}  {since:SINCE$}", backend.weight, backend.connections);
    column += width + 2 + WEIGHT + 2 + CONNECTIONS + 2 + since.len().max(SINCE);
    let reason = reason(backend);
    if !reason.is_empty() && column + 2 + reason.chars().count() <= WIDTH {
        return format!("{line}  {reason}\n");
    }
    format!("{}\n{}", line.trim_end(), text::wrap(&reason, INDENT + STATUS + 2))
}

/// What there is to say beyond the status word.
fn reason(backend: &Backend) -> String {
    let mut parts = Vec::new();
    if backend.status != BackendStatus::Up && !backend.reason.is_empty() {
        parts.push(backend.reason.clone());
    }
    if !backend.unresolved.is_empty() {
        parts.push(format!(
            "next hop not known for {}: packets are dropped",
            backend.unresolved.join(" and ")
        ));
    }
    parts.join("; ")
}

/// `192.0.2.10, 2001:db8::10; tcp ports 80, 443`
pub fn endpoints(farm: &Farm) -> String {
    let ports = match farm.ports.as_array() {
        Some(ports) => {
            let written: Vec<_> = ports
                .iter()
                .map(|port| port.as_str().map_or_else(|| port.to_string(), str::to_owned))
                .collect();
            let single = ports.len() == 1 && ports[0].is_number();
            format!("port{} {}", if single { "" } else { "s" }, written.join(", "))
        }
        None => "every port".to_owned(),
    };
    format!("{}; {} {ports}", farm.vip.join(", "), farm.protocol.join("+"))
}

/// The backend's name, and its addresses unless they are the name.
fn label(backend: &Backend) -> String {
    let addresses: Vec<_> = backend.address.iter().map(|address| with_port(address, backend.port)).collect();
    let addresses = addresses.join(", ");
    match backend.address.as_slice() {
        [only] if *only == backend.name => addresses,
        _ => format!("{} {addresses}", backend.name),
    }
}

fn with_port(address: &str, port: Option<u16>) -> String {
    match port {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address.to_owned(),
    }
}
