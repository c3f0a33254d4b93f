//! `/v1/farms`: farms and their backends, to see and to change.

use axum::Json;
use axum::extract::State;
use lb_core::config::model::{BackendName, FarmName, WEIGHT_MAX};
use lb_core::state::{Peer, Snapshot};
use serde_json::Value;

use super::Api;
use super::client::By;
use super::extract::{JsonBody, PathOf};
use super::problem::Problem;
use super::types::{Backend, BackendPatch, Changes, Farm, FarmPatch, Farms, ProblemItem};
use super::versions::{OnlyIf, Tagged};
use crate::handle::{Command, FarmEdit};
use crate::precondition::{Precondition, Version};

/// All farms with their backends
#[utoipa::path(
    get, path = "/v1/farms", tag = "farms",
    responses((status = 200, description = "In the configuration's order", body = Farms))
)]
pub(super) async fn list_farms(State(api): State<Api>) -> Result<Json<Farms>, Problem> {
    let snapshot = api.measured().await?;
    let farms = snapshot.farms.iter().filter_map(|farm| Farm::new(&snapshot, farm)).collect();
    Ok(Json(Farms { farms }))
}

/// One farm with its backends
#[utoipa::path(
    get, path = "/v1/farms/{farm}", tag = "farms",
    params(("farm" = String, Path, description = "The farm's name")),
    responses(
        (status = 200, description = "The farm", body = Farm,
         headers(("ETag" = String, description = "The version of its configuration, for `If-Match`"))),
        (status = 404, description = "No such farm",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_farm(
    State(api): State<Api>,
    PathOf(name): PathOf<String>,
) -> Result<Tagged<Farm>, Problem> {
    let snapshot = api.measured().await?;
    let farm = snapshot.farm(&name).and_then(|farm| Farm::new(&snapshot, farm));
    let version = snapshot.config.farm(&name).map(Version::of);
    farm.map(|farm| Tagged(version, farm)).ok_or_else(|| Problem::unknown_farm(&snapshot, &name))
}

/// Create or replace a farm
///
/// The body has the keys of a `[[farm]]` table. Written back to the configuration file, its comments kept.
#[utoipa::path(
    put, path = "/v1/farms/{farm}", tag = "farms",
    params(
        ("farm" = String, Path, description = "The farm's name"),
        ("If-Match" = Option<String>, Header, description = "Only if it is that version still: an `ETag`"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is no such farm"),
    ),
    request_body(content = Object, description = "A `[[farm]]` table; `name` may be left out",
        example = json!({"vip": "192.0.2.10", "ports": [80], "backend": [{"address": "10.0.0.11"}]})),
    responses(
        (status = 200, description = "Done", body = Changes,
         headers(("ETag" = String, description = "The farm's new version"))),
        (status = 400, description = "Not JSON, or a header that is no precondition",
         body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The configuration file was changed since by somebody else",
         body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The farm is another version",
         body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Not valid",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn put_farm(
    State(api): State<Api>,
    By(by): By,
    PathOf(name): PathOf<String>,
    OnlyIf(only_if): OnlyIf,
    JsonBody(value): JsonBody<Value>,
) -> Result<Tagged<Changes>, Problem> {
    let invalid = |message: &str| {
        let path = "name".to_owned();
        Problem::invalid(vec![ProblemItem { path, message: message.to_owned(), ..ProblemItem::default() }])
    };
    let farm = FarmName::new(&name)
        .ok_or_else(|| invalid("must be 1 to 63 lower-case letters, digits and hyphens ([a-z0-9-])"))?;
    if !value.is_object() {
        return Err(Problem::bad_request("", "the body must be an object with the keys of a [[farm]] table"));
    }
    if value.get("name").is_some_and(|given| given.as_str() != Some(name.as_str())) {
        return Err(invalid(&format!("must be '{name}', as in the path, or be left out")));
    }
    edit(&api, by, farm, only_if, FarmEdit::Put(value)).await
}

/// Delete a farm
///
/// Its live connections go on until they end. Written back to the configuration file, its comments kept.
#[utoipa::path(
    delete, path = "/v1/farms/{farm}", tag = "farms",
    params(
        ("farm" = String, Path, description = "The farm's name"),
        ("If-Match" = Option<String>, Header, description = "Only if it is that version still: an `ETag`"),
    ),
    responses(
        (status = 200, description = "Done", body = Changes),
        (status = 400, description = "`If-Match` is no `ETag`",
         body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such farm",
         body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The configuration file was changed since by somebody else",
         body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The farm is another version",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete_farm(
    State(api): State<Api>,
    By(by): By,
    PathOf(name): PathOf<String>,
    OnlyIf(only_if): OnlyIf,
) -> Result<Tagged<Changes>, Problem> {
    let farm = known_farm(&api.handle.snapshot(), &name)?;
    edit(&api, by, farm, only_if, FarmEdit::Delete).await
}

/// Enable or disable a farm
///
/// Written back to the configuration file, its comments kept.
#[utoipa::path(
    patch, path = "/v1/farms/{farm}", tag = "farms",
    params(
        ("farm" = String, Path, description = "The farm's name"),
        ("If-Match" = Option<String>, Header, description = "Only if it is that version still: an `ETag`"),
    ),
    request_body = FarmPatch,
    responses(
        (status = 200, description = "Done", body = Changes,
         headers(("ETag" = String, description = "The farm's new version"))),
        (status = 400, description = "Not such a body",
         body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such farm",
         body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The configuration file was changed since by somebody else",
         body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The farm is another version",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn patch_farm(
    State(api): State<Api>,
    By(by): By,
    PathOf(name): PathOf<String>,
    OnlyIf(only_if): OnlyIf,
    JsonBody(patch): JsonBody<FarmPatch>,
) -> Result<Tagged<Changes>, Problem> {
    let farm = known_farm(&api.handle.snapshot(), &name)?;
    edit(&api, by, farm, only_if, FarmEdit::Enable(patch.enabled)).await
}

/// Set a backend's state or weight by hand
///
/// It is not written to the configuration file.
#[utoipa::path(
    patch, path = "/v1/farms/{farm}/backends/{backend}", tag = "farms",
    params(
        ("farm" = String, Path, description = "The farm's name"),
        ("backend" = String, Path, description = "The backend's name"),
    ),
    request_body = BackendPatch,
    responses(
        (status = 200, description = "The backend as it is now", body = Backend),
        (status = 400, description = "Not such a body",
         body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such farm or backend",
         body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A weight above 256",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn patch_backend(
    State(api): State<Api>,
    By(by): By,
    PathOf((farm_name, backend_name)): PathOf<(String, String)>,
    JsonBody(patch): JsonBody<BackendPatch>,
) -> Result<Json<Backend>, Problem> {
    let snapshot = api.handle.snapshot();
    let farm = known_farm(&snapshot, &farm_name)?;
    let backend = known_backend(&snapshot, &farm_name, &backend_name)?;
    if patch == BackendPatch::default() {
        return Err(Problem::bad_request("", "nothing to change: give admin_state, weight or both"));
    }
    if let Some(weight) = patch.weight.filter(|&weight| weight > WEIGHT_MAX) {
        let message = format!("must be 0 to {WEIGHT_MAX}, not {weight}");
        let item = ProblemItem { path: "weight".to_owned(), message, ..ProblemItem::default() };
        return Err(Problem::invalid(vec![item]));
    }
    let (farm, backend, patch) = (farm.clone(), backend.clone(), patch.into());
    api.handle.ask(by, |reply| Command::PatchBackend { farm, backend, patch, reply }).await?;
    // The daemon publishes before it answers.
    let snapshot = api.measured().await?;
    let config = snapshot.config.farm(&farm_name);
    let state = snapshot
        .farm(&farm_name)
        .and_then(|farm| farm.backends.iter().find(|b| b.name.as_str() == backend_name));
    let gone =
        || Problem::not_found(format!("farm '{farm_name}' has just lost its backend '{backend_name}'"));
    config.zip(state).and_then(|(config, state)| Backend::new(config, state)).map(Json).ok_or_else(gone)
}

async fn edit(
    api: &Api,
    by: Option<Peer>,
    farm: FarmName,
    only_if: Precondition,
    edit: FarmEdit,
) -> Result<Tagged<Changes>, Problem> {
    let changes = api.handle.ask(by, |reply| Command::EditFarm { farm, edit, only_if, reply }).await?;
    Ok(Tagged(changes.version, changes.into()))
}

fn known_farm(snapshot: &Snapshot, name: &str) -> Result<FarmName, Problem> {
    let farm = snapshot.farm(name).ok_or_else(|| Problem::unknown_farm(snapshot, name))?;
    Ok(farm.name.clone())
}

fn known_backend(snapshot: &Snapshot, farm: &str, name: &str) -> Result<BackendName, Problem> {
    let farm = snapshot.farm(farm).ok_or_else(|| Problem::unknown_farm(snapshot, farm))?;
    let backend = farm.backends.iter().find(|backend| backend.name.as_str() == name);
    Ok(backend.ok_or_else(|| Problem::unknown_backend(farm, name))?.name.clone())
}
