//! `drover connections` and `drover connections cut`

use std::time::Duration;

use hyper::Method;

use super::args::{ConnectionsAction, ConnectionsArgs, Filter};
use super::client::query;
use super::text::{self, Style};
use super::{Context, Failure};
use crate::api::types::{Connection, Connections, Cut};

pub async fn run(context: &Context, args: ConnectionsArgs) -> Result<String, Failure> {
    match args.action {
        Some(ConnectionsAction::Cut { filter, all: _ }) => {
            let target = format!("/v1/connections{}", query(values(filter)));
            let answer = context.client.send(Method::DELETE, &target, None).await?;
            context.show(&answer, |Cut { cut }| format!("{} cut\n", text::count(cut, "connection")))
        }
        None => {
            let values = values(args.filter).into_iter().chain([("limit", Some(args.limit.to_string()))]);
            let answer = context.client.get(&format!("/v1/connections{}", query(values))).await?;
            context.show(&answer, |connections: Connections| listed(&connections, context.style))
        }
    }
}

fn values(filter: Filter) -> [(&'static str, Option<String>); 3] {
    let client = filter.client.map(|ip| ip.to_string());
    [("farm", filter.farm), ("backend", filter.backend), ("client", client)]
}

pub(super) fn listed(answer: &Connections, style: Style) -> String {
    if answer.total == 0 {
        return "no connections\n".to_owned();
    }
    let heading =
        ["PROTO", "STATE", "CLIENT", "VIP", "BACKEND", "AGE", "IDLE", "FARM"].map(str::to_owned).to_vec();
    let rows = answer.connections.iter().map(row);
    let mut listed = text::table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>(), &[5, 6], style);
    let shown = answer.connections.len();
    if u64::try_from(shown).is_ok_and(|shown| shown < answer.total) {
        listed += &format!("{shown} of {} connections; more with --limit\n", answer.total);
    }
    listed
}

fn row(connection: &Connection) -> Vec<String> {
    let time = |seconds| text::short(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    vec![
        connection.protocol.clone(),
        connection.state.clone(),
        connection.client.clone(),
        connection.vip.clone(),
        connection.backend_address.clone(),
        time(connection.age_seconds),
        time(connection.idle_seconds),
        connection.farm.clone().unwrap_or_else(|| "(gone)".to_owned()),
    ]
}
