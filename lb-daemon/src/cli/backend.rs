//! `drover backend ...`: an operator's word on one backend.

use hyper::Method;

use super::args::{BackendAction, BackendOf};
use super::client::{Body, encode};
use super::{Context, Failure, text, view};
use crate::api::types::{AdminState, Backend, BackendPatch};

pub async fn run(context: &Context, action: BackendAction) -> Result<String, Failure> {
    let state = |state| BackendPatch { admin_state: Some(state), weight: None };
    let (of, patch) = match action {
        BackendAction::Up(of) => (of, state(AdminState::Up)),
        BackendAction::Drain(of) => (of, state(AdminState::Drain)),
        BackendAction::Maintenance(of) => (of, state(AdminState::Maintenance)),
        BackendAction::Weight { of, weight } => {
            (of, BackendPatch { admin_state: None, weight: Some(weight) })
        }
    };
    let BackendOf { farm, backend } = of;
    let target = format!("/v1/farms/{}/backends/{}", encode(&farm), encode(&backend));
    let body = Body::json(&serde_json::json!(patch));
    let answer = context.client.send(Method::PATCH, &target, Some(body)).await?;
    context.show(&answer, |backend: Backend| told(&farm, &backend))
}

pub(super) fn told(farm: &str, backend: &Backend) -> String {
    let (word, _) = view::backend_status(backend.status);
    let connections = text::count(backend.connections, "connection");
    let told = format!(
        "farm '{farm}', backend '{}': {word}, weight {}, {connections}",
        backend.name, backend.weight
    );
    text::hang(&told, 2)
}
