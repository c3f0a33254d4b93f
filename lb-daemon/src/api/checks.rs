//! `/v1/checks`: what each check found and when it runs next, and a run by hand.

use axum::Json;
use axum::extract::State;
use lb_core::config::model::{BackendName, FarmName};
use lb_core::health::HISTORY;
use lb_core::state::Snapshot;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::extract::{JsonBody, QueryOf};
use super::problem::Problem;
use super::types::{CheckRunRequest, CheckRuns, Checks};
use crate::clock;
use crate::handle::Refusal;
use crate::refusal::Conflict;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ChecksQuery {
    /// Only this farm's.
    farm: Option<String>,
    /// Only this backend's, by its name in the farm.
    backend: Option<String>,
    /// No more than so many results of each check: 20, which is all that are kept, unless given.
    history: Option<usize>,
}

/// What each check found, and when it runs next
///
/// One entry for each check at each address and port of each backend of the enabled farms.
#[utoipa::path(
    get, path = "/v1/checks", tag = "state", params(ChecksQuery),
    responses(
        (status = 200, description = "By farm and backend", body = Checks),
        (status = 400, description = "A bad query",
         body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such farm or backend",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list_checks(
    State(api): State<Api>,
    QueryOf(query): QueryOf<ChecksQuery>,
) -> Result<Json<Checks>, Problem> {
    let (farm, backend) = named(&api.handle.snapshot(), query.farm, query.backend)?;
    let told = api.handle.checks.tell(farm, backend, query.history.unwrap_or(HISTORY)).await?;
    Ok(Json(Checks::new(&told, clock::wall())))
}

/// Run the checks of a farm, or of one backend, now
///
/// Answers when all have ended, at their time-outs at the latest. The results count for nothing: a look neither brings
/// a backend up nor takes it out.
#[utoipa::path(
    post, path = "/v1/checks/run", tag = "state", request_body = CheckRunRequest,
    responses(
        (status = 200, description = "What they said, passed or not", body = CheckRuns),
        (status = 400, description = "Not such a body",
         body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such farm or backend",
         body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The farm is disabled or has no checks",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn run_checks(
    State(api): State<Api>,
    JsonBody(request): JsonBody<CheckRunRequest>,
) -> Result<Json<CheckRuns>, Problem> {
    let snapshot = api.handle.snapshot();
    let (farm, backend) = named(&snapshot, Some(request.farm.clone()), request.backend)?;
    let farm = farm.ok_or_else(|| Problem::unknown_farm(&snapshot, &request.farm))?;
    let nothing = match snapshot.config.farm(farm.as_str()) {
        Some(config) if !config.enabled => Some(Conflict::Disabled(farm.clone())),
        Some(config) if config.checks.is_empty() => Some(Conflict::NoChecks(farm.clone())),
        Some(config) if config.backends.is_empty() => Some(Conflict::NoBackends(farm.clone())),
        Some(_) | None => None,
    };
    if let Some(conflict) = nothing {
        return Err(Refusal::Conflict(conflict).into());
    }
    let runs = api.handle.checks.run(farm, backend).await?;
    Ok(Json(CheckRuns::new(runs)))
}

/// The names asked for, if there are such a farm and backend.
fn named(
    snapshot: &Snapshot,
    farm: Option<String>,
    backend: Option<String>,
) -> Result<(Option<FarmName>, Option<BackendName>), Problem> {
    let Some(name) = farm else {
        let message = "a backend has its name within a farm: give the farm too";
        return match backend {
            Some(_) => Err(Problem::bad_request("backend", message)),
            None => Ok((None, None)),
        };
    };
    let farm = snapshot.farm(&name).ok_or_else(|| Problem::unknown_farm(snapshot, &name))?;
    let Some(name) = backend else { return Ok((Some(farm.name.clone()), None)) };
    let found = farm.backends.iter().find(|backend| backend.name.as_str() == name);
    let backend = found.ok_or_else(|| Problem::unknown_backend(farm, &name))?;
    Ok((Some(farm.name.clone()), Some(backend.name.clone())))
}
