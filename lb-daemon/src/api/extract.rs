//! What a handler takes out of a request; what does not fit becomes a [`Problem`].

use std::sync::Arc;

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use super::client::Client;
use super::problem::Problem;
use super::types::ProblemItem;
use crate::handle::Format;

/// The media type, in lower case and without parameters; `None` if the request does not say.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?;
    let text = value.to_str().unwrap_or("unreadable");
    Some(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

async fn body(request: Request) -> Result<axum::body::Bytes, Problem> {
    let client = request.extensions().get::<Arc<Client>>().cloned();
    let bytes = axum::body::Bytes::from_request(request, &()).await;
    if let Some(client) = client {
        client.has_asked();
    }
    bytes.map_err(|rejection: BytesRejection| {
        let detail = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => format!("the body is larger than {} bytes", super::BODY_MAX),
            _ => rejection.body_text(),
        };
        Problem::plain(rejection.status(), detail)
    })
}

/// A JSON body. A request that names no media type is taken at its word.
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        if let Some(other) = media_type(request.headers()).filter(|media| media != "application/json") {
            let detail = format!("the body must be application/json, not {other}");
            return Err(Problem::plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let bytes = body(request).await?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| malformed_json(&error))
    }
}

fn malformed_json(error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    // serde_json ends its text with the position, which has fields of its own here.
    let message = text.split(" at line ").next().unwrap_or(&text).to_owned();
    let position = |n: usize| u32::try_from(n).ok().filter(|&n| n > 0);
    let (line, column) = (position(error.line()), position(error.column()));
    let detail = format!("the body does not fit: {message}");
    let item = ProblemItem { message, line, column, ..ProblemItem::default() };
    Problem { errors: vec![item], ..Problem::plain(StatusCode::BAD_REQUEST, detail) }
}

/// A whole configuration as the file would have it, TOML or JSON by its media type.
pub struct ConfigBody {
    pub text: String,
    pub format: Format,
}

impl<S: Send + Sync> FromRequest<S> for ConfigBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let format = match media_type(request.headers()).as_deref() {
            Some("application/toml") => Format::Toml,
            Some("application/json") => Format::Json,
            other => {
                let got = other.map_or_else(|| "absent".to_owned(), |media| format!("{media:?}"));
                let detail =
                    format!("the content type must be application/toml or application/json; it is {got}");
                return Err(Problem::plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
            }
        };
        let bytes = body(request).await?;
        let text = String::from_utf8(bytes.to_vec()).map_err(|error| {
            Problem::bad_request("", format!("the body is not UTF-8: {}", error.utf8_error()))
        })?;
        Ok(Self { text, format })
    }
}

/// The query, by name; unknown names are refused by the type.
pub struct QueryOf<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryOf<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(Problem::plain(rejection.status(), rejection.body_text())),
        }
    }
}

/// The path's parts.
pub struct PathOf<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathOf<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(path)) => Ok(Self(path)),
            Err(rejection) => Err(Problem::plain(rejection.status(), rejection.body_text())),
        }
    }
}
