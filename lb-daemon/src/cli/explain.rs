//! `drover explain`

use std::fmt::Write as _;

use hyper::Method;
use serde_json::json;

use super::args::ExplainArgs;
use super::client::Body;
use super::text::{self, Style, Tone};
use super::{Context, Failure};
use crate::api::types::{Connection, Explained, PacketProtocol};

/// Where what is said of each step begins.
const INDENT: usize = 14;

pub async fn run(context: &Context, args: ExplainArgs) -> Result<String, Failure> {
    let ExplainArgs { src, dst, proto, flags, interface, seq, ack } = args;
    let mut request = json!({ "source": src, "destination": dst, "protocol": proto });
    let given = [("flags", flags.map(Into::into)), ("interface", interface.map(Into::into))];
    let numbers = [("sequence", seq.map(Into::into)), ("acknowledgment", ack.map(Into::into))];
    for (key, value) in given.into_iter().chain(numbers) {
        if let Some(value) = value {
            request[key] = value;
        }
    }
    let answer = context.client.send(Method::POST, "/v1/explain", Some(Body::json(&request))).await?;
    context.show(&answer, |told: Explained| explained(&told, context.style))
}

pub(super) fn explained(told: &Explained, style: Style) -> String {
    let packet = &told.packet;
    let mut head = format!("{} > {}", packet.source, packet.destination);
    match packet.protocol {
        PacketProtocol::Udp => head.push_str(", udp"),
        PacketProtocol::Tcp => {
            let numbers = format!("seq {}, ack {}", packet.sequence, packet.acknowledgment);
            // Writing to a string does not fail.
            write!(head, ", tcp {}, {numbers}", packet.flags).ok();
        }
    }
    write!(head, ", in by {}", packet.interface).ok();
    let mut lines = text::hang(&head, 2);
    for step in &told.steps {
        lines += &line(&step.about, &step.text, style);
    }
    lines += &line("verdict", &told.outcome, style);
    match &told.sent {
        Some(sent) => {
            let what = if told.action == "sent" { "leaves" } else { "answer" };
            let text =
                format!("{} > {}, by {} to {}", sent.source, sent.destination, sent.interface, sent.next_hop);
            lines += &line(what, &text, style);
        }
        None => {
            lines +=
                &line("leaves", if told.action == "passed" { "no: it is the host's" } else { "no" }, style)
        }
    }
    if let Some(entry) = &told.entry {
        lines += &line("entry", &connection(entry), style);
    }
    lines
}

fn line(about: &str, text: &str, style: Style) -> String {
    let body = text::wrap(text, INDENT);
    let about = format!("  {about:<width$}", width = INDENT - 2);
    format!("{}{}", style.paint(Tone::Faint, &about), body.trim_start())
}

fn connection(of: &Connection) -> String {
    let backend = of.backend.as_deref().unwrap_or("(gone)");
    format!(
        "{} {}: {} > {} to {} ({backend}) from {}",
        of.protocol, of.state, of.client, of.vip, of.backend_address, of.source
    )
}
