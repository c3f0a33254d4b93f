//! `/v1/config`: the configuration as a whole, to read, try, replace and read again from its file.

use axum::extract::State;

use super::Api;
use super::client::By;
use super::extract::ConfigBody;
use super::problem::Problem;
use super::types::{Changes, ConfigAnswer, ConfigSettings};
use super::versions::{OnlyIf, Tagged};
use crate::config::format_of;
use crate::handle::{Command, Format};
use crate::precondition::Version;

/// The configuration in force
#[utoipa::path(
    get, path = "/v1/config", tag = "configuration",
    responses(
        (status = 200, description = "Its text, and its meaning with every default spelt out", body = ConfigAnswer,
         headers(("ETag" = String, description = "Its version, for `If-Match`"))),
    )
)]
pub(super) async fn get_config(State(api): State<Api>) -> Tagged<ConfigAnswer> {
    let snapshot = api.handle.snapshot();
    let format = match format_of(snapshot.config_path.as_ref()) {
        Format::Toml => "toml",
        Format::Json => "json",
    };
    let mut config = ConfigSettings::from(&*snapshot.config);
    config.daemon.connections.get_or_insert(snapshot.tables.connections);
    let version = Version::of(&*snapshot.text);
    Tagged(Some(version), ConfigAnswer { format: format.to_owned(), text: snapshot.text.to_string(), config })
}

/// Replace the configuration
///
/// All of it or nothing. The text also becomes the content of the configuration file.
#[utoipa::path(
    put, path = "/v1/config", tag = "configuration",
    params(("If-Match" = Option<String>, Header, description = "Only if it is that version still: an `ETag`")),
    request_body(
        description = "The file's text",
        content((String = "application/toml"), (Object = "application/json"))
    ),
    responses(
        (status = 200, description = "Done", body = Changes,
         headers(("ETag" = String, description = "The new version"))),
        (status = 400, description = "`If-Match` is no `ETag`, or the body is no text",
         body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The file was changed since by somebody else, or cannot become this",
         body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The configuration is another version",
         body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Neither TOML nor JSON by its content type",
         body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Not valid; nothing was changed",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn put_config(
    State(api): State<Api>,
    By(by): By,
    OnlyIf(only_if): OnlyIf,
    body: ConfigBody,
) -> Result<Tagged<Changes>, Problem> {
    let ConfigBody { text, format } = body;
    let changes = api.handle.ask(by, |reply| Command::Apply { text, format, only_if, reply }).await?;
    Ok(Tagged(changes.version, changes.into()))
}

/// Say what replacing the configuration would do
#[utoipa::path(
    post, path = "/v1/config/check", tag = "configuration",
    request_body(
        description = "The file's text",
        content((String = "application/toml"), (Object = "application/json"))
    ),
    responses(
        (status = 200, description = "Valid; nothing was changed", body = Changes,
         headers(("ETag" = String, description = "The version that it would replace"))),
        (status = 409, description = "The configuration cannot become this while the daemon runs",
         body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Neither TOML nor JSON by its content type",
         body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Not valid",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn check_config(
    State(api): State<Api>,
    body: ConfigBody,
) -> Result<Tagged<Changes>, Problem> {
    let ConfigBody { text, format } = body;
    let changes = api.handle.ask(None, |reply| Command::DryRun { text, format, reply }).await?;
    Ok(Tagged(changes.version, changes.into()))
}

/// Read the configuration file again
#[utoipa::path(
    post, path = "/v1/config/reload", tag = "configuration",
    responses(
        (status = 200, description = "Done", body = Changes,
         headers(("ETag" = String, description = "The new version"))),
        (status = 409, description = "The configuration cannot become this while the daemon runs",
         body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The file is not valid; nothing was changed",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn reload_config(State(api): State<Api>, By(by): By) -> Result<Tagged<Changes>, Problem> {
    let changes = api.handle.ask(by, |reply| Command::Reload { reply }).await?;
    Ok(Tagged(changes.version, changes.into()))
}
