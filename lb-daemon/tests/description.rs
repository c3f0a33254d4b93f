//! `/openapi.json` is kept to: what it says is valid is taken, and what is answered, it has described.

// What helpers unwrap, their tests would.
#![allow(clippy::unwrap_used)]

mod common;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use axum::response::Response;
use http_body_util::BodyExt;
use lb_daemon::api;
use serde_json::Value;
use tower::ServiceExt;

async fn send(router: &Router, method: &str, target: &str, media: &str, body: impl Into<Body>) -> Response {
    let request = Request::builder().method(method).uri(target).header(header::CONTENT_TYPE, media);
    router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap()
}

async fn description(router: &Router) -> Value {
    let response = send(router, "GET", "/openapi.json", "application/json", "").await;
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

#[tokio::test]
async fn every_refusal_is_described() {
    let fake = common::start();
    let router = api::router(fake.handle.clone());
    let description = description(&router).await;
    let json = "application/json";
    let large = vec![b' '; api::BODY_MAX + 1];
    let cases: [(&str, &str, &str, &str, Body, u16); 7] = [
        ("POST", "/v1/config/check", "/v1/config/check", json, vec![0xff].into(), 400),
        ("PUT", "/v1/config", "/v1/config", json, vec![0xff].into(), 400),
        ("PUT", "/v1/config", "/v1/config", json, large.clone().into(), 413),
        ("PUT", "/v1/farms/web", "/v1/farms/{farm}", json, large.into(), 413),
        ("PUT", "/v1/farms/web", "/v1/farms/{farm}", "text/plain", "{}".into(), 415),
        ("POST", "/v1/config/reload", "/v1/config/reload", json, "".into(), 409),
        ("GET", "/v1/checks?farm=", "/v1/checks", json, "".into(), 404),
    ];
    for (method, target, path, media, body, status) in cases {
        let response = send(&router, method, target, media, body).await;
        assert_eq!(response.status().as_u16(), status, "{method} {target}");
        let media = response.headers()[header::CONTENT_TYPE].to_str().unwrap();
        let responses = &description["paths"][path][method.to_lowercase()]["responses"];
        let named = &responses[status.to_string()];
        let described = if named.is_null() { &responses["default"] } else { named };
        assert!(described["content"][media].is_object(), "{method} {path}: {status} {media} in {responses}");
    }
}

#[tokio::test]
async fn what_is_described_as_valid_is_taken() {
    let fake = common::start();
    let router = api::router(fake.handle.clone());
    let target = "/v1/farms/web/backends/ex2";
    // To JSON Schema, 5.0 is an integer.
    let response = send(&router, "PATCH", target, "application/json", r#"{"weight": 5.0}"#).await;
    assert_eq!(response.status(), 200);
    assert_eq!(fake.asked(), ["patch web ex2 BackendPatch { admin: None, weight: Some(5) }"]);

    let description = description(&router).await;
    let patch = &description["components"]["schemas"]["BackendPatch"];
    assert_eq!(patch["minProperties"], 1, "an empty patch is refused");
    for key in ["admin_state", "weight"] {
        assert!(!patch["properties"][key].to_string().contains("null"), "null changes nothing: {patch}");
    }
    let operations =
        description["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap());
    let mut parameters = 0;
    for parameter in operations.filter_map(|(_, call)| call["parameters"].as_array()).flatten() {
        assert!(!parameter["schema"].to_string().contains("null"), "no text is null: {parameter}");
        if parameter["schema"]["type"] == "string" {
            assert_eq!(parameter["schema"]["minLength"], 1, "nothing has an empty name: {parameter}");
        }
        parameters += 1;
    }
    assert!(parameters > 10, "{parameters}");
}
