//! `/v1/connections`: the tracked connections, to list and to cut.

use std::net::IpAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use lb_core::state::{ConnectionFilter, Snapshot};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::client::By;
use super::extract::QueryOf;
use super::problem::Problem;
use super::types::{Connection, Connections, Cut};
use crate::handle::Command;

/// How many connections are listed unless the request says otherwise, and at most.
const LIMIT: usize = 1000;
const LIMIT_MAX: usize = 100_000;

/// Connections are cut in hundredths of a second. Whoever asked for it is answered after so long in any case.
const CUT_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Only this farm's.
    farm: Option<String>,
    /// Only this backend's, by its name in the farm.
    backend: Option<String>,
    /// Only those of this client, an IP address.
    client: Option<String>,
    /// List no more than so many, 1000 unless given.
    #[param(maximum = 100000)]
    limit: Option<usize>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct CutQuery {
    /// Only this farm's.
    farm: Option<String>,
    /// Only this backend's, by its name in the farm.
    backend: Option<String>,
    /// Only those of this client, an IP address.
    client: Option<String>,
}

/// List tracked connections
///
/// In no order. `total` counts all that match, listed or not.
#[utoipa::path(
    get, path = "/v1/connections", tag = "connections", params(ListQuery),
    responses(
        (status = 200, description = "The connections", body = Connections),
        (status = 400, description = "A bad query",
         body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such farm or backend",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list_connections(
    State(api): State<Api>,
    QueryOf(query): QueryOf<ListQuery>,
) -> Result<Json<Connections>, Problem> {
    let limit = query.limit.unwrap_or(LIMIT);
    if limit > LIMIT_MAX {
        return Err(Problem::bad_request("limit", format!("must be 0 to {LIMIT_MAX}, not {limit}")));
    }
    let snapshot = api.handle.snapshot();
    let filter = filter(&snapshot, query.farm, query.backend, query.client)?;
    let dataplane = api.handle.dataplane.clone();
    let listed = tokio::task::spawn_blocking(move || dataplane.connections(&filter, limit)).await;
    let (connections, total) = listed
        .map_err(|error| Problem::failed(format!("listing the connections broke off: {error}")))?
        .map_err(|error| Problem::failed(format!("the connections cannot be read: {error:#}")))?;
    let connections = connections.iter().map(|connection| Connection::new(connection, &snapshot)).collect();
    Ok(Json(Connections { total, connections }))
}

/// Cut tracked connections
///
/// The next packet of a connection that was cut is treated as if it had never been. Without a filter, all are cut.
#[utoipa::path(
    delete, path = "/v1/connections", tag = "connections", params(CutQuery),
    responses(
        (status = 200, description = "How many were cut", body = Cut),
        (status = 400, description = "A bad query",
         body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such farm or backend",
         body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "It takes too long, and goes on",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn cut_connections(
    State(api): State<Api>,
    By(by): By,
    QueryOf(query): QueryOf<CutQuery>,
) -> Result<Json<Cut>, Problem> {
    let filter = filter(&api.handle.snapshot(), query.farm, query.backend, query.client)?;
    let cut = api.handle.ask(by, |reply| Command::Cut { filter, reply });
    match tokio::time::timeout(CUT_WITHIN, cut).await {
        Ok(cut) => Ok(Json(Cut { cut: cut? })),
        Err(_) => {
            let seconds = CUT_WITHIN.as_secs();
            let detail = format!(
                "the connections are not all cut after {seconds} s; it goes on, and an event tells when it is done"
            );
            Err(Problem::failed(detail))
        }
    }
}

fn filter(
    snapshot: &Snapshot,
    farm: Option<String>,
    backend: Option<String>,
    client: Option<String>,
) -> Result<ConnectionFilter, Problem> {
    let farm = match &farm {
        Some(name) => Some(snapshot.farm(name).ok_or_else(|| Problem::unknown_farm(snapshot, name))?),
        None => None,
    };
    let backend = match (farm, &backend) {
        (_, None) => None,
        (None, Some(_)) => {
            return Err(Problem::bad_request(
                "backend",
                "a backend has its name within a farm: give the farm too",
            ));
        }
        (Some(farm), Some(name)) => {
            let found = farm.backends.iter().find(|backend| backend.name.as_str() == name);
            Some(found.ok_or_else(|| Problem::unknown_backend(farm, name))?)
        }
    };
    let parse = |text: String| {
        text.parse::<IpAddr>()
            .map_err(|_| Problem::bad_request("client", format!("must be an IP address, not '{text}'")))
    };
    Ok(ConnectionFilter {
        farm_id: farm.map(|farm| farm.id),
        backend_id: backend.map(|backend| backend.id),
        client: client.map(parse).transpose()?,
    })
}
