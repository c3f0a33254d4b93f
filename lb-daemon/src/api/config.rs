//! `/v1/config`: the configuration as a whole, to read, try, replace and read again from its file.

use axum::Json;
use axum::extract::State;

use super::Api;
use super::extract::ConfigBody;
use super::problem::Problem;
use super::types::{Changes, ConfigAnswer, ConfigSettings};
use crate::handle::{Command, Format};

/// The configuration in force
#[utoipa::path(
    get, path = "/v1/config", tag = "configuration",
    responses(
        (status = 200, description = "Its text, and its meaning with every default spelt out", body = ConfigAnswer),
    )
)]
pub(super) async fn get_config(State(api): State<Api>) -> Result<Json<ConfigAnswer>, Problem> {
    let (text, format) = api.handle.ask(|reply| Command::ConfigText { reply }).await?;
    let format = match format {
        Format::Toml => "toml",
        Format::Json => "json",
    };
    let snapshot = api.handle.snapshot();
    let mut config = ConfigSettings::from(&*snapshot.config);
    config.daemon.connections.get_or_insert(snapshot.tables.connections);
    Ok(Json(ConfigAnswer { format: format.to_owned(), text, config }))
}

/// Replace the configuration
///
/// All of it or nothing. The text also becomes the content of the configuration file.
#[utoipa::path(
    put, path = "/v1/config", tag = "configuration",
    request_body(
        description = "The file's text",
        content((String = "application/toml"), (Object = "application/json"))
    ),
    responses(
        (status = 200, description = "Done", body = Changes),
        (status = 415, description = "Neither TOML nor JSON by its content type",
         body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Not valid; nothing was changed",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn put_config(State(api): State<Api>, body: ConfigBody) -> Result<Json<Changes>, Problem> {
    let ConfigBody { text, format } = body;
    Ok(Json(api.handle.ask(|reply| Command::Apply { text, format, reply }).await?.into()))
}

/// Say what replacing the configuration would do
#[utoipa::path(
    post, path = "/v1/config/check", tag = "configuration",
    request_body(
        description = "The file's text",
        content((String = "application/toml"), (Object = "application/json"))
    ),
    responses(
        (status = 200, description = "Valid; nothing was changed", body = Changes),
        (status = 415, description = "Neither TOML nor JSON by its content type",
         body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Not valid",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn check_config(State(api): State<Api>, body: ConfigBody) -> Result<Json<Changes>, Problem> {
    let ConfigBody { text, format } = body;
    Ok(Json(api.handle.ask(|reply| Command::DryRun { text, format, reply }).await?.into()))
}

/// Read the configuration file again
#[utoipa::path(
    post, path = "/v1/config/reload", tag = "configuration",
    responses(
        (status = 200, description = "Done", body = Changes),
        (status = 422, description = "The file is not valid; nothing was changed",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn reload_config(State(api): State<Api>) -> Result<Json<Changes>, Problem> {
    Ok(Json(api.handle.ask(|reply| Command::Reload { reply }).await?.into()))
}
