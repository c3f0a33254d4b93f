//! `drover farms` and `drover farm ...`

use std::time::SystemTime;

use hyper::Method;
use lb_core::config::grouped;
use serde_json::json;

use super::args::{FarmAction, FarmName};
use super::client::{Body, encode};
use super::text::{self, Style};
use super::{Context, Failure, changes, view};
use crate::api::types::{BackendStatus, CheckSettings, Directions, Farm, Farms, Prefixes};
use crate::clock;

pub async fn list(context: &Context) -> Result<String, Failure> {
    let answer = context.client.get("/v1/farms").await?;
    context.show(&answer, |farms: Farms| lines(&farms, context.style))
}

pub async fn run(context: &Context, action: FarmAction) -> Result<String, Failure> {
    let target = |name: &FarmName| format!("/v1/farms/{}", encode(&name.farm));
    let enable = async |name: FarmName, enabled: bool| {
        let body = Body::json(&json!({ "enabled": enabled }));
        let target = target(&name);
        let answer = context.client.change(Method::PATCH, &target, Some(body), &target).await?;
        context.show(&answer, |answer| changes::done(&answer))
    };
    match action {
        FarmAction::Show(name) => {
            let answer = context.client.get(&target(&name)).await?;
            context.show(&answer, |farm: Farm| show(&farm, context.style, clock::wall()))
        }
        FarmAction::Enable(name) => enable(name, true).await,
        FarmAction::Disable(name) => enable(name, false).await,
        FarmAction::Delete(name) => {
            let target = target(&name);
            let answer = context.client.change(Method::DELETE, &target, None, &target).await?;
            context.show(&answer, |answer| changes::done(&answer))
        }
    }
}

pub(super) fn lines(farms: &Farms, style: Style) -> String {
    let heading = ["FARM", "STATUS", "BACKENDS UP", "CONNECTIONS", "VIP"].map(str::to_owned).to_vec();
    let rows = farms.farms.iter().map(|farm| {
        let up = farm.backends.iter().filter(|backend| backend.status == BackendStatus::Up).count();
        vec![
            farm.name.clone(),
            view::farm_status(farm.status).0.to_owned(),
            format!("{up} of {}", farm.backends.len()),
            farm.connections.to_string(),
            view::endpoints(farm),
        ]
    });
    text::table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>(), &[2, 3], style)
}

/// The block of the status screen, and what that has no room for.
pub(super) fn show(farm: &Farm, style: Style, now: SystemTime) -> String {
    let mut shown = view::farm(farm, style, now);
    let timeouts = &farm.timeouts;
    let (syn, established, fin, udp) = (&timeouts.syn, &timeouts.established, &timeouts.fin, &timeouts.udp);
    let timeouts = format!("syn {syn}, established {established}, fin {fin}, udp {udp}");
    let checks: Vec<_> = farm.checks.iter().map(check).collect();
    let checks = if checks.is_empty() { "none: nobody checks".to_owned() } else { checks.join("; ") };
    let limits = &farm.limits;
    let most = limits.connections.map(|most| text::count(u64::from(most), "connection"));
    let rate = limits.new_per_second.map(|rate| text::count(u64::from(rate), "new connection") + " a second");
    let all: Vec<_> = most.into_iter().chain(rate).collect();
    let limits = (!all.is_empty()).then(|| ("limits", format!("{}; over: {}", all.join(", "), limits.over)));
    let lists = [("allow", &farm.allow), ("deny", &farm.deny)];
    let lists =
        lists.into_iter().filter(|(_, list)| list.count > 0).map(|(name, list)| (name, prefixes(list)));
    let settings = [("scheduler", farm.scheduler.clone()), ("timeouts", timeouts), ("checks", checks)];
    let settings = settings.into_iter().chain(limits).chain(lists);
    shown.push('\n');
    for (name, value) in settings {
        shown += &text::wrap(&format!("{name}: {value}"), 4);
    }
    shown.push('\n');
    let heading = ["    TRAFFIC", "OPENED", "PACKETS IN", "BYTES IN", "PACKETS OUT", "BYTES OUT"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.push(traffic("all", farm.connections_opened, farm.packets, farm.bytes));
    let backends = farm.backends.iter();
    rows.extend(backends.map(|of| traffic(&of.name, of.connections_opened, of.packets, of.bytes)));
    shown + &text::table(&rows, &[1, 2, 3, 4, 5], style)
}

/// All of a short list, and the number of a long one.
fn prefixes(of: &Prefixes) -> String {
    if of.first.len() < of.count { format!("{} prefixes", grouped(of.count)) } else { of.first.join(", ") }
}

fn check(check: &CheckSettings) -> String {
    let CheckSettings { kind, interval, timeout, rise, fall, port, path, name, command, .. } = check;
    let paths = path.as_ref().map(|paths| paths.join(" "));
    let command = command.as_ref().map(|words| words.join(" "));
    let what = paths.or(command).or(name.clone()).map(|what| format!(" {what}")).unwrap_or_default();
    let port = port.map(|port| format!(" on port {port}")).unwrap_or_default();
    format!("{kind}{what}{port} every {interval}, timeout {timeout}, rise {rise}, fall {fall}")
}

fn traffic(name: &str, opened: u64, packets: Directions, bytes: Directions) -> Vec<String> {
    let amounts = [opened, packets.r#in, bytes.r#in, packets.out, bytes.out].map(text::amount);
    std::iter::once(format!("    {name}")).chain(amounts).collect()
}
