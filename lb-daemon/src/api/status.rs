//! `/v1/status`

use axum::Json;
use axum::extract::State;

use super::Api;
use super::types::Status;
use crate::clock;

/// The node: version, uptime, interfaces and counts
#[utoipa::path(
    get, path = "/v1/status", tag = "state",
    responses((status = 200, description = "The node", body = Status))
)]
pub(super) async fn get_status(State(api): State<Api>) -> Json<Status> {
    Json(Status::new(&api.handle.snapshot(), clock::wall()))
}
