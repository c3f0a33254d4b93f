//! `/v1/status`

use axum::Json;
use axum::extract::State;

use super::Api;
use super::problem::Problem;
use super::types::Status;
use crate::clock;

/// The node: version, uptime, interfaces, counts and the connection table
#[utoipa::path(
    get, path = "/v1/status", tag = "state",
    responses((status = 200, description = "The node", body = Status))
)]
pub(super) async fn get_status(State(api): State<Api>) -> Result<Json<Status>, Problem> {
    let occurrences = api
        .handle
        .dataplane
        .occurrences()
        .map_err(|error| Problem::failed(format!("the counters cannot be read: {error:#}")))?;
    let (file, defects) = (api.handle.file.borrow().clone(), api.handle.defects.borrow().clone());
    let condition = api.handle.condition.borrow().clone();
    let beside = (&file, &*defects, &*condition);
    Ok(Json(Status::new(&api.handle.snapshot(), beside, &occurrences, clock::wall())))
}
