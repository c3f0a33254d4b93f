//! Every error's way out: `application/problem+json` (RFC 9457).

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use lb_core::state::Snapshot;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::types::ProblemItem;
use crate::handle::Refusal;

pub const CONTENT_TYPE: &str = "application/problem+json";

/// Why a request was not carried out. Nothing was changed, unless `detail` says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:drover:problem:...`, or `about:blank` where the status says it all.
    pub r#type: String,
    pub title: String,
    pub status: u16,
    /// One sentence for people.
    pub detail: String,
    /// Each thing that is wrong with what was sent; may be empty.
    #[serde(default)]
    pub errors: Vec<ProblemItem>,
}

impl Problem {
    /// A problem that its status names (RFC 9457, section 4.2.1).
    pub fn plain(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error").to_owned();
        let (r#type, status) = ("about:blank".to_owned(), status.as_u16());
        Self { r#type, title, status, detail: detail.into(), errors: Vec::new() }
    }

    fn own(status: StatusCode, name: &str, title: &str, detail: String) -> Self {
        let r#type = format!("urn:drover:problem:{name}");
        Self { r#type, title: title.to_owned(), status: status.as_u16(), detail, errors: Vec::new() }
    }

    pub fn not_found(detail: String) -> Self {
        Self::own(StatusCode::NOT_FOUND, "not-found", "No such farm or backend", detail)
    }

    pub fn invalid(errors: Vec<ProblemItem>) -> Self {
        let detail = match errors.as_slice() {
            [one] => format!("the configuration is not valid: {}", one.message),
            many => format!("the configuration is not valid: {} errors", many.len()),
        };
        let (name, title) = ("invalid-configuration", "The configuration is not valid");
        Self { errors, ..Self::own(StatusCode::UNPROCESSABLE_ENTITY, name, title, detail) }
    }

    pub fn failed(detail: String) -> Self {
        Self::own(StatusCode::INTERNAL_SERVER_ERROR, "failed", "The kernel or a file refused", detail)
    }

    /// A bad value in the path or the query.
    pub fn bad_request(path: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let item = ProblemItem { path: path.to_owned(), message: message.clone(), ..ProblemItem::default() };
        let detail = if path.is_empty() { message } else { format!("{path}: {message}") };
        Self { errors: vec![item], ..Self::plain(StatusCode::BAD_REQUEST, detail) }
    }

    pub fn unknown_farm(snapshot: &Snapshot, name: &str) -> Self {
        let names = snapshot.farms.iter().map(|farm| farm.name.as_str());
        Self::not_found(format!("there is no farm '{name}'; {}", suggestion(name, names, "farms")))
    }

    pub fn unknown_backend(farm: &lb_core::state::FarmState, name: &str) -> Self {
        let names = farm.backends.iter().map(|backend| backend.name.as_str());
        let there_is = suggestion(name, names, "backends");
        Self::not_found(format!("farm '{}' has no backend '{name}'; {there_is}", farm.name))
    }
}

/// The nearest of `names`, else the first few of them.
fn suggestion<'a>(wanted: &str, names: impl Iterator<Item = &'a str>, what: &str) -> String {
    const LISTED: usize = 5;
    let names: Vec<_> = names.collect();
    let near = names.iter().map(|name| (strsim::damerau_levenshtein(wanted, name), name)).min();
    match (near, names.len()) {
        (None, _) => format!("there are no {what}"),
        (Some((distance, name)), _) if distance <= 2 => format!("did you mean '{name}'?"),
        (Some(_), count) if count > LISTED => {
            format!("the {what} are {} and {} more", names[..LISTED].join(", "), count - LISTED)
        }
        (Some(_), _) => format!("the {what} are {}", names.join(", ")),
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::NoFarm { .. } | Refusal::NoBackend { .. } => Self::not_found(detail),
            Refusal::Invalid(errors) => Self::invalid(errors.iter().map(ProblemItem::from).collect()),
            Refusal::Conflict(_) => Self::own(
                StatusCode::CONFLICT,
                "conflict",
                "The request does not fit the daemon's state",
                detail,
            ),
            Refusal::FileChanged(_) => Self::own(
                StatusCode::CONFLICT,
                "file-changed",
                "The configuration file was changed since",
                detail,
            ),
            Refusal::Stale(_) => Self::own(
                StatusCode::PRECONDITION_FAILED,
                "changed-since",
                "It was changed since it was read",
                detail,
            ),
            Refusal::Failed(_) => Self::failed(detail),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Strings and numbers always serialise.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_otherwise_a_few_are_listed() {
        let listed = |names: &[&'static str]| suggestion("wbe", names.iter().copied(), "farms");
        assert_eq!(listed(&["dns", "web"]), "did you mean 'web'?");
        assert_eq!(listed(&["mail-one", "mail-two"]), "the farms are mail-one, mail-two");
        assert_eq!(listed(&[]), "there are no farms");
        let many = ["farm-1", "farm-2", "farm-3", "farm-4", "farm-5", "farm-6"];
        assert_eq!(listed(&many), "the farms are farm-1, farm-2, farm-3, farm-4, farm-5 and 1 more");
    }
}
