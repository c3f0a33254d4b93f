//! The HTTP API on the control socket: it reads what the daemon published, sends it commands and tells their answers.
//!
//! Owns nothing but the connections it serves. The daemon calls [`serve`]; a connection dropped in the middle of a
//! request cancels nothing that was already sent to the daemon.

mod check_metrics;
mod checks;
mod client;
mod config;
mod connections;
mod description;
mod events;
mod explain;
mod extract;
mod farms;
mod ill_metrics;
mod keys;
mod metrics;
mod metrics_format;
mod problem;
mod server;
mod status;
mod table_metrics;
pub mod types;
mod versions;
mod wire;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use lb_core::state::Snapshot;
use tokio::sync::{Semaphore, watch};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use problem::{CONTENT_TYPE as PROBLEM_CONTENT_TYPE, Problem};
pub use server::{serve, serve_patiently};

use crate::handle::Handle;

/// The largest request body, in bytes: some ten thousand farms.
pub const BODY_MAX: usize = 4 << 20;

/// What every handler gets.
#[derive(Clone)]
struct Api {
    handle: Handle,
    /// Turns true when streams must end; never, if the sender is gone.
    stopping: watch::Receiver<bool>,
    openapi: Arc<str>,
    /// Turns to have a packet explained.
    explaining: Arc<Semaphore>,
}

impl Api {
    /// The state with its counters, which are read beside the handlers.
    async fn measured(&self) -> Result<Arc<Snapshot>, Problem> {
        let handle = self.handle.clone();
        let measured = tokio::task::spawn_blocking(move || handle.measured()).await;
        let told =
            measured.map_err(|error| Problem::failed(format!("reading the counters broke off: {error}")))?;
        told.map_err(|error| Problem::failed(format!("the counters cannot be read: {error:#}")))
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Drover",
        description = "Controls a running Drover. Served on the daemon's control socket."
    ),
    tags(
        (name = "state", description = "How things are"),
        (name = "farms", description = "Farms and backends, to see and to change"),
        (name = "connections", description = "Tracked connections"),
        (name = "configuration", description = "The configuration as a whole")
    )
)]
struct Description;

/// Every call that there is, answered from `handle`.
pub fn router(handle: Handle) -> Router {
    // Without a sender nothing ever says stop, and streams end with the daemon.
    let (_, stopping) = watch::channel(false);
    router_until(handle, stopping)
}

fn router_until(handle: Handle, stopping: watch::Receiver<bool>) -> Router {
    let (router, description) = described().split_for_parts();
    // The description is made of strings and numbers: it always serialises.
    let mut description = serde_json::to_value(description).unwrap_or_default();
    keys::describe(&mut description);
    let openapi = description::complete(description).to_string().into();
    router
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(Api { handle, stopping, openapi, explaining: Arc::new(Semaphore::new(explain::WAITING)) })
}

/// Routes are added here alone, and so each has its description.
fn described() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(status::get_status))
        .routes(routes!(farms::list_farms))
        .routes(routes!(farms::get_farm, farms::put_farm, farms::delete_farm, farms::patch_farm))
        .routes(routes!(farms::patch_backend))
        .routes(routes!(checks::list_checks))
        .routes(routes!(checks::run_checks))
        .routes(routes!(connections::list_connections, connections::cut_connections))
        .routes(routes!(explain::explain_packet))
        .routes(routes!(events::get_events))
        .routes(routes!(config::get_config, config::put_config))
        .routes(routes!(config::check_config))
        .routes(routes!(config::reload_config))
        .routes(routes!(metrics::get_metrics))
        .routes(routes!(get_openapi))
}

/// This description
#[utoipa::path(get, path = "/openapi.json", tag = "state", responses((status = 200, description = "OpenAPI 3.1")))]
async fn get_openapi(axum::extract::State(api): axum::extract::State<Api>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], api.openapi.to_string()).into_response()
}

async fn no_such_path(uri: Uri) -> Problem {
    let detail = format!("there is nothing at {}; GET /openapi.json describes every call", uri.path());
    Problem::plain(StatusCode::NOT_FOUND, detail)
}

async fn no_such_method(method: Method, uri: Uri) -> Problem {
    Problem::plain(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not answer to {method}", uri.path()))
}
