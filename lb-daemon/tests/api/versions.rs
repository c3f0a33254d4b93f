//! Versions: of two changes that were made from one, the second is refused.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use serde_json::json;

use super::{Answer, fixture, get, send};

async fn conditional(router: &Router, line: &str, name: header::HeaderName, tag: &str) -> Answer {
    let (method, target) = line.split_once(' ').unwrap();
    let body = if target == "/v1/config" { "a = 1" } else { r#"{"enabled": false}"# };
    let media_type = if target == "/v1/config" { "application/toml" } else { "application/json" };
    let request = Request::builder().method(method).uri(target).header(header::CONTENT_TYPE, media_type);
    send(router, request.header(name, tag).body(Body::from(body)).unwrap()).await
}

#[tokio::test]
async fn a_change_is_made_of_the_version_that_it_was_meant_for_alone() {
    let (fake, router) = fixture();
    for (seen, change) in [
        ("/v1/farms/web", "PUT /v1/farms/web"),
        ("/v1/farms/web", "PATCH /v1/farms/web"),
        ("/v1/farms/web", "DELETE /v1/farms/web"),
        ("/v1/config", "PUT /v1/config"),
    ] {
        let tag = get(&router, seen).await.tag.unwrap();
        let done = conditional(&router, change, header::IF_MATCH, &tag).await;
        assert_eq!(done.status, 200, "{change}: {}", done.text());
        let new = done.tag.unwrap();
        assert_ne!(new, tag, "{change}");
        let stale = conditional(&router, change, header::IF_MATCH, &new).await;
        assert_eq!(stale.status, 412, "{change}: {}", stale.text());
        assert_eq!(stale.json()["type"], "urn:drover:problem:changed-since");
        let several = conditional(&router, change, header::IF_MATCH, &format!("{new}, {tag}")).await;
        assert_eq!(several.status, 200, "{change}");
        let asked = fake.asked();
        assert_eq!(asked.len(), 3, "{asked:?}");
    }
}

#[tokio::test]
async fn a_farm_is_created_only_where_there_is_none() {
    let (_fake, router) = fixture();
    for (line, name, status) in [
        ("PUT /v1/farms/web", header::IF_NONE_MATCH, 412),
        ("PUT /v1/farms/new", header::IF_NONE_MATCH, 200),
        ("PUT /v1/farms/web", header::IF_MATCH, 200),
        ("PUT /v1/farms/new", header::IF_MATCH, 412),
    ] {
        let answer = conditional(&router, line, name, "*").await;
        assert_eq!(answer.status, status, "{line}: {}", answer.text());
    }
}

#[tokio::test]
async fn what_is_no_precondition_is_refused_and_not_ignored() {
    let (fake, router) = fixture();
    for (name, tag) in [
        (header::IF_MATCH, "W/\"0123456789abcdef\""),
        (header::IF_NONE_MATCH, "\"x\""),
        (header::IF_MATCH, ""),
        (header::IF_NONE_MATCH, ""),
    ] {
        let answer = conditional(&router, "PUT /v1/farms/web", name, tag).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    assert!(fake.asked().is_empty());
}

#[tokio::test]
async fn another_farms_change_leaves_a_farms_version_alone() {
    let (_fake, router) = fixture();
    let [web, dns] = [get(&router, "/v1/farms/web").await, get(&router, "/v1/farms/dns").await];
    assert_ne!(web.tag, dns.tag);
    assert_eq!(web.tag, get(&router, "/v1/farms/web").await.tag);
    let config = get(&router, "/v1/config").await;
    assert_eq!(config.json()["text"], json!(super::common::TEXT));
    assert_ne!(config.tag, web.tag);
}
