//! Versions on the wire: `ETag` of an answer, `If-Match` and `If-None-Match` of a request (RFC 9110, sections 8.8.3 and 13.1).

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::problem::Problem;
use crate::precondition::{Precondition, Version};

/// An answer in JSON, with the version of what it tells of.
pub struct Tagged<T>(pub Option<Version>, pub T);

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let tag = self.0.map(|version| [(header::ETAG, format!("\"{version}\""))]);
        (tag, Json(self.1)).into_response()
    }
}

/// What a request demands of the thing that it changes.
pub struct OnlyIf(pub Precondition);

impl<S: Send + Sync> FromRequestParts<S> for OnlyIf {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        precondition(&parts.headers).map(Self)
    }
}

fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    // One that is there and empty is no precondition, and not none: somebody's script has lost its version.
    let all = |name: header::HeaderName| {
        let values = headers.get_all(name).iter();
        let texts = values.map(|value| value.to_str().unwrap_or("unreadable").trim().to_owned());
        texts.reduce(|all, next| format!("{all}, {next}"))
    };
    let (wanted, unwanted) = (all(header::IF_MATCH), all(header::IF_NONE_MATCH));
    match (wanted.as_deref(), unwanted.as_deref()) {
        (None, None) => Ok(Precondition::None),
        (Some("*"), None) => Ok(Precondition::Exists),
        (None, Some("*")) => Ok(Precondition::Absent),
        (Some(tags), None) => {
            tags.split(',').map(|tag| version(tag.trim())).collect::<Result<_, _>>().map(Precondition::OneOf)
        }
        (None, Some(_)) => Err(Problem::bad_request("If-None-Match", "must be *, for what is to be created")),
        (Some(_), Some(_)) => Err(Problem::bad_request("If-None-Match", "cannot stand beside If-Match")),
    }
}

/// One entity tag, as [`Tagged`] writes it.
fn version(tag: &str) -> Result<Version, Problem> {
    let quoted = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    quoted.and_then(Version::parse).ok_or_else(|| {
        Problem::bad_request("If-Match", format!("must be * or the ETag of an earlier answer, not '{tag}'"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(wanted: &[&str], unwanted: &str) -> Result<Precondition, u16> {
        let mut headers = HeaderMap::new();
        for tag in wanted {
            headers.append(header::IF_MATCH, tag.parse().unwrap());
        }
        if !unwanted.is_empty() {
            headers.insert(header::IF_NONE_MATCH, unwanted.parse().unwrap());
        }
        precondition(&headers).map_err(|problem| problem.status)
    }

    #[test]
    fn headers_are_read_as_preconditions() {
        let (one, two) = (Version::of("1"), Version::of("2"));
        let (tag, both) = (format!("\"{one}\""), format!("\"{one}\" , \"{two}\""));
        assert_eq!(read(&[], ""), Ok(Precondition::None));
        assert_eq!(read(&["*"], ""), Ok(Precondition::Exists));
        assert_eq!(read(&[], "*"), Ok(Precondition::Absent));
        assert_eq!(read(&[&tag], ""), Ok(Precondition::OneOf(vec![one])));
        for tags in [vec![both.as_str()], vec![&tag, &format!("\"{two}\"")]] {
            assert_eq!(read(&tags, ""), Ok(Precondition::OneOf(vec![one, two])));
        }
        for wrong in ["", &one.to_string(), "W/\"0000000000000000\"", "\"x\"", "*, *"] {
            assert_eq!(read(&[wrong], ""), Err(400), "{wrong}");
        }
        assert_eq!(read(&[&tag], "*"), Err(400));
        assert_eq!(read(&[], &tag), Err(400));
    }
}
