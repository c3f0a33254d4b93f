//! The API as a client sees it: requests in, status, media type and body out.

// What helpers unwrap, their tests would.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "api/keys.rs"]
mod keys;
#[path = "api/versions.rs"]
mod versions;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Method, Request, StatusCode, header};
use common::Fake;
use http_body_util::BodyExt;
use lb_daemon::api;
use serde_json::{Value, json};
use tower::ServiceExt;

struct Answer {
    status: StatusCode,
    media_type: String,
    tag: Option<String>,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let media_type = response.headers().get(header::CONTENT_TYPE);
    let media_type = media_type.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let status = response.status();
    let tag = response.headers().get(header::ETAG).map(|tag| tag.to_str().unwrap().to_owned());
    Answer { status, media_type, tag, body: response.into_body().collect().await.unwrap().to_bytes() }
}

async fn call(router: &Router, line: &str, media_type: &str, body: &str) -> Answer {
    let (method, target) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(target);
    if !media_type.is_empty() {
        request = request.header(header::CONTENT_TYPE, media_type);
    }
    send(router, request.body(Body::from(body.to_owned())).unwrap()).await
}

async fn get(router: &Router, target: &str) -> Answer {
    call(router, &format!("GET {target}"), "", "").await
}

fn fixture() -> (Fake, Router) {
    let fake = common::start();
    let router = api::router(fake.handle.clone());
    (fake, router)
}

#[tokio::test]
async fn status_tells_node_interfaces_and_counts() {
    let (fake, router) = fixture();
    let status = get(&router, "/v1/status").await.json();
    assert_eq!(status["version"], "0.1.0");
    assert!((90.0..100.0).contains(&status["uptime_seconds"].as_f64().unwrap()), "{status}");
    assert_eq!(status["config_generation"], 4);
    let interface = json!({
        "name": "eth0", "index": 2, "xdp_mode": "native", "up": true, "missing": false, "mtu": 1500,
    });
    assert_eq!(status["interfaces"], json!([interface]));
    let message = "the log cannot be written (no storage space): 12 lines of it are lost";
    let ill = json!({"kind": "log", "since": "1970-01-01T00:01:00.000Z", "message": message});
    assert_eq!(status["ills"], json!([ill]));
    let counts = &status["counts"];
    let counted = ["farms", "farms_degraded", "backends", "backends_up", "backends_down", "connections"];
    assert_eq!(counted.map(|name| counts[name].as_u64().unwrap()), [2, 1, 4, 1, 1, 6]);
    let family = |family: &str, used, load, measures: &[&str]| json!({"family": family, "lines": 4096, "lines_used": used, "load_percent": load, "measures": measures});
    let table = json!({
        "connections": 1024,
        "bytes": 524_288,
        "families": [family("ipv4", 3300, 80, &["UDP has its share"]), family("ipv6", 2, 0, &[])],
        "lookups_away": 31,
        "refused": 32,
        "evicted": 33,
        "ports_taken": 34,
    });
    assert_eq!(status["connection_table"], table);
    assert_eq!(status["config_file"], json!({"state": "same", "detail": null}));
    assert_eq!(status["defects"], json!([]));
    fake.file.send(lb_daemon::config::FileState::Differs).unwrap();
    let file = &get(&router, "/v1/status").await.json()["config_file"];
    assert_eq!(file["state"], "differs");
    assert!(file["detail"].as_str().unwrap().contains("drover reload"), "{file}");
}

#[tokio::test]
async fn a_farm_tells_its_configuration_status_and_counters() {
    let (_fake, router) = fixture();
    let farm = get(&router, "/v1/farms/web").await.json();
    assert_eq!((&farm["name"], &farm["status"]), (&json!("web"), &json!("degraded")));
    assert_eq!(farm["vip"], json!(["192.0.2.10"]));
    assert_eq!(farm["ports"], json!([80, "587-588"]));
    assert_eq!(farm["protocol"], json!(["tcp"]));
    assert_eq!(farm["timeouts"]["established"], "124m");
    assert_eq!(farm["checks"][0]["interval"], "10s");
    assert_eq!(farm["packets"], json!({"in": 30, "out": 40}));
    assert_eq!(farm["connections"], 3);
    let backend = &farm["backends"][1];
    let told = ["name", "status", "admin_state", "reason", "port"].map(|key| backend[key].clone());
    assert_eq!(told, [json!("ex2"), json!("down"), json!("up"), json!("reason 2"), json!(8080)]);
    assert_eq!(backend["bytes"], json!({"in": 1000, "out": 2000}));
    let since = backend["since"].as_str().unwrap();
    assert!(since.len() == 24 && since.ends_with('Z'), "{since}");
    let farms = get(&router, "/v1/farms").await.json();
    assert_eq!(farms["farms"][0], farm);
    assert_eq!(farms["farms"][1]["ports"], "*");
}

#[tokio::test]
async fn checks_tell_their_last_results_and_their_next_run() {
    let (_fake, router) = fixture();
    let checks = get(&router, "/v1/checks").await.json();
    assert_eq!(checks["checks"].as_array().unwrap().len(), 2);
    assert_eq!(checks["schedule"]["checks"], 2);
    let one = get(&router, "/v1/checks?farm=web&backend=ex2&history=1").await.json();
    let check = &one["checks"][0];
    let told = ["farm", "backend", "check", "kind", "address", "state"].map(|key| check[key].clone());
    let expected = ["web", "ex2", "tcp 10.0.0.12:8080", "tcp", "10.0.0.12:8080", "down"];
    assert_eq!(told, expected.map(|text| json!(text)));
    assert_eq!((&check["next_run_in_seconds"], &check["transitions"]), (&json!(7.5), &json!(3)));
    assert_eq!(check["history"].as_array().unwrap().len(), 1);
    let last = &check["last"];
    assert_eq!((&last["result"], &last["reason"]), (&json!("failed"), &json!("connection refused")));
    assert!(last["time"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn a_packet_is_explained() {
    let (_fake, router) = fixture();
    let body = r#"{"source": "192.0.2.1:40000", "destination": "192.0.2.10:80", "flags": "SA", "interface": "eth0"}"#;
    let told = call(&router, "POST /v1/explain", "application/json", body).await.json();
    assert_eq!((&told["verdict"], &told["action"]), (&json!("opened"), &json!("sent")), "{told}");
    assert_eq!((&told["packet"]["flags"], &told["packet"]["interface"]), (&json!("SA"), &json!("eth0")));
    let about: Vec<&str> =
        told["steps"].as_array().unwrap().iter().map(|step| step["about"].as_str().unwrap()).collect();
    assert_eq!(about, ["service", "connection", "backend", "source"]);
    assert_eq!((&told["entry"]["farm"], &told["entry"]["backend"]), (&json!("web"), &json!("10.0.0.11")));
}

#[tokio::test]
async fn checks_are_run_by_hand() {
    let (_fake, router) = fixture();
    let line = "POST /v1/checks/run";
    let all = call(&router, line, "application/json", r#"{"farm": "web"}"#).await.json();
    assert_eq!((&all["passed"], all["runs"].as_array().unwrap().len()), (&json!(false), 2));
    let one = call(&router, line, "", r#"{"farm": "web", "backend": "10.0.0.11"}"#).await.json();
    assert_eq!((&one["passed"], &one["runs"][0]["result"]), (&json!(true), &json!("passed")));
    assert_eq!(one["runs"][0]["output"], "OK\nall is\u{1b}[2J well\n");
    let disabled = call(&router, line, "", r#"{"farm": "dns"}"#).await;
    assert_eq!(
        (disabled.status.as_u16(), disabled.json()["detail"].clone()),
        (409, json!("farm 'dns' has no checks"))
    );
}

#[tokio::test]
async fn requests_that_change_something_become_commands() {
    let cases = [
        (
            "PATCH /v1/farms/web/backends/ex2",
            r#"{"admin_state": "drain", "weight": 5}"#,
            "patch web ex2 BackendPatch { admin: Some(Drain), weight: Some(5) }",
        ),
        ("PATCH /v1/farms/web", r#"{"enabled": false}"#, "edit web Enable(false)"),
        ("DELETE /v1/farms/web", "", "edit web Delete"),
        ("PUT /v1/farms/new", r#"{"name": "new"}"#, r#"edit new Put(Object {"name": String("new")})"#),
        ("POST /v1/config/check", "{}", "dry run Json {}"),
        ("PUT /v1/config", "{}", "apply Json {}"),
        (
            "DELETE /v1/connections?farm=web&backend=ex2&client=2001:db8::7",
            "",
            "cut ConnectionFilter { farm_id: Some(1), backend_id: Some(2), client: Some(2001:db8::7) }",
        ),
        (
            "DELETE /v1/connections",
            "",
            "cut ConnectionFilter { farm_id: None, backend_id: None, client: None }",
        ),
    ];
    let (fake, router) = fixture();
    for (line, body, expected) in cases {
        let answer = call(&router, line, "application/json", body).await;
        assert_eq!(answer.status, 200, "{line}: {}", answer.text());
        assert_eq!(fake.asked(), [expected], "{line}");
    }
    let toml = call(&router, "PUT /v1/config", "application/toml; charset=utf-8", "a = 1").await;
    assert_eq!(fake.asked(), ["apply Toml a = 1"]);
    let expected = json!({"config_generation": 5, "changes": ["farm 'web': backend '10.0.0.13' added"], "orphaned_connections": 2});
    assert_eq!(toml.json(), expected);
}

#[tokio::test]
async fn a_changed_backend_is_answered_as_it_is_now() {
    let (_fake, router) = fixture();
    let line = "PATCH /v1/farms/web/backends/10.0.0.11";
    let backend = call(&router, line, "", r#"{"admin_state": "drain", "weight": 0}"#).await.json();
    let told = ["name", "admin_state", "status", "weight"].map(|key| backend[key].clone());
    assert_eq!(told, [json!("10.0.0.11"), json!("drain"), json!("draining"), json!(0)]);
}

fn explained(source: &str, destination: &str, more: &str) -> String {
    format!(r#"{{"source":"{source}","destination":"{destination}"{more}}}"#)
}

#[tokio::test]
async fn every_error_is_a_problem_document() {
    let json = "application/json";
    let cases = [
        ("GET /nowhere", "", "", 404, "/openapi.json"),
        ("POST /v1/farms", "", "", 405, "does not answer to POST"),
        ("GET /v1/farms/wbe", "", "", 404, "did you mean 'web'?"),
        ("GET /v1/checks?farm=wbe", "", "", 404, "did you mean 'web'?"),
        ("GET /v1/checks?backend=ex2", "", "", 400, "give the farm too"),
        ("GET /v1/checks?farms=web", "", "", 400, "farms"),
        ("POST /v1/checks/run", json, r#"{"farm": "web", "backend": "ex3"}"#, 404, "did you mean 'ex2'?"),
        ("POST /v1/checks/run", json, r#"{"farm": "nope"}"#, 404, "the farms are web, dns"),
        ("POST /v1/checks/run", json, "{}", 400, "missing field `farm`"),
        (
            "POST /v1/explain",
            json,
            &explained("192.0.2.1", "192.0.2.10:80", ""),
            400,
            "an address and a port",
        ),
        ("POST /v1/explain", json, &explained("192.0.2.1:1", "[2001:db8::10]:80", ""), 400, "address family"),
        (
            "POST /v1/explain",
            json,
            &explained("192.0.2.1:1", "192.0.2.10:80", r#","flags":"SX""#),
            400,
            "not 'X'",
        ),
        (
            "POST /v1/explain",
            json,
            &explained("192.0.2.1:1", "192.0.2.10:80", r#","protocol":"udp","flags":"S""#),
            400,
            "UDP has none",
        ),
        (
            "POST /v1/explain",
            json,
            &explained("192.0.2.1:1", "192.0.2.10:80", r#","interface":"eth1""#),
            400,
            "attached to (eth0), not 'eth1'",
        ),
        ("DELETE /v1/farms/nope", "", "", 404, "the farms are web, dns"),
        (
            "PATCH /v1/farms/web/backends/nope",
            json,
            r#"{"weight": 1}"#,
            404,
            "the backends are 10.0.0.11, ex2",
        ),
        ("PATCH /v1/farms/nope/backends/ex2", json, r#"{"weight": 1}"#, 404, "no farm 'nope'"),
        ("PATCH /v1/farms/web/backends/ex2", json, r#"{"wieght": 1}"#, 400, "unknown field `wieght`"),
        ("PATCH /v1/farms/web/backends/ex2", json, r#"{"admin_state": "off"}"#, 400, "unknown variant `off`"),
        ("PATCH /v1/farms/web/backends/ex2", json, "{", 400, "EOF"),
        ("PATCH /v1/farms/web/backends/ex2", json, "{}", 400, "nothing to change"),
        ("PATCH /v1/farms/web/backends/ex2", json, r#"{"weight": 300}"#, 422, "must be 0 to 256, not 300"),
        ("PATCH /v1/farms/web/backends/ex2", json, r#"{"weight": -1}"#, 400, "whole number"),
        ("PATCH /v1/farms/web/backends/ex2", "text/plain", r#"{"weight": 1}"#, 415, "not text/plain"),
        ("PUT /v1/farms/Web", json, "{}", 422, "lower-case"),
        ("PUT /v1/farms/web", json, r#"{"name": "other"}"#, 422, "must be 'web'"),
        ("PUT /v1/farms/web", json, "[]", 400, "must be an object"),
        ("GET /v1/connections?limt=5", "", "", 400, "unknown field `limt`"),
        ("GET /v1/connections?limit=many", "", "", 400, "invalid digit"),
        ("GET /v1/connections?limit=100001", "", "", 400, "0 to 100000"),
        ("GET /v1/connections?backend=ex2", "", "", 400, "give the farm too"),
        ("GET /v1/connections?farm=nope", "", "", 404, "no farm 'nope'"),
        ("GET /v1/connections?farm=web&backend=nope", "", "", 404, "no backend 'nope'"),
        ("DELETE /v1/connections?client=me", "", "", 400, "must be an IP address"),
        ("DELETE /v1/connections?limit=5", "", "", 400, "unknown field `limit`"),
        ("GET /v1/events?since=then", "", "", 400, "RFC 3339"),
        ("PUT /v1/config", "", "a = 1", 415, "it is absent"),
        ("PUT /v1/config", "text/plain", "a = 1", 415, "text/plain"),
        ("PUT /v1/config", "application/toml", "bad", 422, "must be 0 to 256, not 300"),
        ("POST /v1/config/check", "application/toml", "bad", 422, "must be 0 to 256, not 300"),
        ("PUT /v1/config", "application/toml", "unwritable", 500, "read-only"),
        ("PUT /v1/config", "application/toml", "by hand", 409, "reload first"),
        ("POST /v1/config/reload", "", "", 409, "only by a restart"),
    ];
    let (_fake, router) = fixture();
    for (line, media_type, body, status, detail) in cases {
        let answer = call(&router, line, media_type, body).await;
        assert_eq!(answer.status, status, "{line}: {}", answer.text());
        assert_eq!(answer.media_type, api::PROBLEM_CONTENT_TYPE, "{line}");
        let problem: api::Problem = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(problem.status, status, "{line}");
        assert!(problem.detail.contains(detail), "{line}: {problem:?}");
        assert!(!problem.title.is_empty() && !problem.r#type.is_empty(), "{line}");
    }
    let huge = call(&router, "PUT /v1/config", "application/toml", &"#".repeat(api::BODY_MAX + 1)).await;
    assert_eq!((huge.status.as_u16(), huge.media_type.as_str()), (413, api::PROBLEM_CONTENT_TYPE));
}

#[tokio::test]
async fn an_invalid_configuration_is_told_with_its_positions() {
    let (_fake, router) = fixture();
    let problem = call(&router, "POST /v1/config/check", "application/toml", "bad").await.json();
    let expected = json!([{
        "path": "farm[0].backend[1].weight", "message": "must be 0 to 256, not 300", "line": 7, "column": 10,
        "hint": "use 256 for the largest share",
    }]);
    assert_eq!(problem["errors"], expected);
    assert_eq!(problem["type"], "urn:drover:problem:invalid-configuration");
}

#[tokio::test]
async fn a_daemon_that_is_gone_is_a_conflict() {
    let (fake, router) = fixture();
    fake.task.abort();
    let answer = call(&router, "POST /v1/config/reload", "", "").await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["detail"].as_str()),
        (409, Some("the daemon is stopping"))
    );
}

#[tokio::test]
async fn connections_are_listed_by_name_and_limited() {
    let (_fake, router) = fixture();
    let all = get(&router, "/v1/connections?limit=1").await.json();
    assert_eq!((all["total"].as_u64(), all["connections"].as_array().unwrap().len()), (Some(3), 1));
    let one = get(&router, "/v1/connections?farm=web&backend=ex2").await.json();
    let expected = json!([{
        "protocol": "tcp", "state": "established", "client": "[2001:db8::7]:40001", "vip": "[2001:db8::10]:443",
        "farm": "web", "backend": "ex2", "backend_address": "[2001:db8:1::11]:8443",
        "source": "[2001:db8::10]:1024", "age_seconds": 90.5, "idle_seconds": 0.25,
    }]);
    assert_eq!(one["connections"], expected);
    let gone = &get(&router, "/v1/connections").await.json()["connections"][2];
    assert_eq!((&gone["farm"], &gone["backend"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn the_configuration_is_told_as_text_and_with_the_files_keys() {
    let (_fake, router) = fixture();
    let answer = get(&router, "/v1/config").await.json();
    assert_eq!((&answer["format"], &answer["text"]), (&json!("toml"), &json!("# the file\n")));
    let config = &answer["config"];
    assert_eq!(config["daemon"]["interfaces"], json!(["eth0"]));
    assert_eq!(
        config["farm"][0]["backend"][1],
        json!({"name": "ex2", "address": ["10.0.0.12"], "port": 8080, "weight": 1, "priority": 0})
    );
    assert_eq!(config["farm"][1]["check"], json!([]));
}

#[tokio::test]
async fn events_are_listed_since_a_time() {
    let (_fake, router) = fixture();
    let all = get(&router, "/v1/events").await.json();
    let expected = json!({
        "id": 1, "time": "1970-01-01T00:01:00.000Z", "level": "warning", "kind": "backend-down", "farm": "web",
        "backend": "ex2", "message": "event 1",
    });
    assert_eq!((all["events"].as_array().unwrap().len(), &all["events"][0]), (3, &expected));
    let late = get(&router, "/v1/events?since=1970-01-01T00:02:30Z").await.json();
    assert_eq!(late["events"][0]["id"], 3);
    assert_eq!(get(&router, "/v1/events?since=10m").await.json(), json!({"events": []}));
}

/// Opens a stream of events and reads as many as `count`.
async fn stream(
    router: &Router,
    query: &str,
    last: Option<&str>,
    count: usize,
    meanwhile: impl FnOnce(),
) -> Vec<String> {
    let mut request =
        Request::builder().uri(format!("/v1/events{query}")).header(header::ACCEPT, "text/event-stream");
    if let Some(last) = last {
        request = request.header("Last-Event-ID", last);
    }
    let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    meanwhile();
    let (mut body, mut text) = (response.into_body(), String::new());
    while text.matches("\n\n").count() < count {
        let Some(frame) = body.frame().await else { break };
        text += std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap();
    }
    let of = |prefix| text.lines().filter_map(move |line: &str| line.strip_prefix(prefix));
    for data in of("data: ") {
        assert!(serde_json::from_str::<api::types::Event>(data).is_ok(), "{data}");
    }
    of("id: ").map(str::to_owned).collect()
}

#[tokio::test]
async fn a_stream_tells_what_was_kept_and_then_what_happens() {
    let (fake, router) = fixture();
    let events = fake.handle.events.clone();
    let ids = stream(&router, "", None, 5, || (4..=5).for_each(|n| common::event(&events, n))).await;
    assert_eq!(ids, ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn a_stream_resumes_after_the_last_event_and_starts_over_with_a_new_daemon() {
    let (fake, router) = fixture();
    let events = fake.handle.events.clone();
    assert_eq!(stream(&router, "", Some("2"), 2, || common::event(&events, 4)).await, ["3", "4"]);
    assert_eq!(stream(&router, "", Some("900"), 4, || ()).await, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_slow_follower_is_caught_up_from_the_log_and_only_since_its_time() {
    let (fake, router) = fixture();
    let events = fake.handle.events.clone();
    let since = "?since=1970-01-01T00:02:30Z";
    let ids = stream(&router, since, None, 601, || (4..=603).for_each(|n| common::event(&events, n))).await;
    let expected: Vec<_> = (3..=603).map(|n| n.to_string()).collect();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn a_stream_ends_with_the_daemon() {
    let (fake, router) = fixture();
    let ids = stream(&router, "", None, usize::MAX, || fake.task.abort()).await;
    assert_eq!(ids, ["1", "2", "3"]);
}

#[tokio::test]
async fn metrics_are_openmetrics_for_those_who_accept_it() {
    let (_fake, router) = fixture();
    let request = Request::builder().uri("/metrics").header(header::ACCEPT, "application/openmetrics-text");
    let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let media = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    assert_eq!(media, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = response.into_body().collect().await.unwrap().to_bytes();
    let text = std::str::from_utf8(&text).unwrap();
    assert!(text.contains("# TYPE drover_farm_packets counter\n") && text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test]
async fn metrics_are_told_with_their_labels() {
    let (_fake, router) = fixture();
    let answer = get(&router, "/metrics").await;
    assert_eq!(answer.media_type, "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text();
    let expected = [
        r#"drover_build_info{version="0.1.0"} 1"#,
        r#"drover_ill{ill="log"} 1"#,
        r#"drover_ill{ill="loop"} 0"#,
        "drover_loop_latency_seconds_count 1",
        "drover_log_lines_written_total 51",
        "drover_log_lines_lost_total 12",
        "drover_events_lost_total 13",
        "drover_config_generation 4",
        r#"drover_interface_up{interface="eth0",xdp_mode="native"} 1"#,
        r#"drover_farm_status{farm="web",status="degraded"} 1"#,
        r#"drover_farm_status{farm="web",status="up"} 0"#,
        r#"drover_farm_connections{farm="web"} 3"#,
        r#"drover_farm_packets_total{farm="web",direction="in"} 30"#,
        r#"drover_farm_bytes_total{farm="web",direction="out"} 4000"#,
        r#"drover_backend_up{farm="web",backend="10.0.0.11"} 1"#,
        r#"drover_backend_up{farm="web",backend="ex2"} 0"#,
        r#"drover_backend_up{farm="dns",backend="ex2"} 0"#,
        r#"drover_backend_status{farm="dns",backend="ex2",status="unchecked"} 1"#,
        r#"drover_backend_packets_total{farm="web",backend="ex2",direction="in"} 20"#,
        r#"drover_backend_bytes_total{farm="web",backend="ex2",direction="in"} 1000"#,
        r#"drover_backend_connections{farm="web",backend="ex2"} 2"#,
        r#"drover_backend_connections_opened_total{farm="web",backend="ex2"} 3"#,
        r#"drover_farm_refused_total{farm="dns",reason="denied"} 52"#,
        r#"drover_check_up{farm="web",backend="10.0.0.11",check="tcp 10.0.0.11:80"} 1"#,
        r#"drover_check_up{farm="web",backend="ex2",check="tcp 10.0.0.12:8080"} 0"#,
        r#"drover_check_transitions_total{farm="web",backend="ex2",check="tcp 10.0.0.12:8080"} 3"#,
        r#"drover_check_duration_seconds_count{farm="web",backend="ex2",check="tcp 10.0.0.12:8080"} 1"#,
        r#"drover_check_lateness_seconds_bucket{le="0.0025"} 0"#,
        r#"drover_check_lateness_seconds_bucket{le="0.005"} 1"#,
        r#"drover_check_lateness_seconds_bucket{le="+Inf"} 1"#,
        r#"drover_verdict_packets_total{verdict="forwarded"} 41"#,
        r#"drover_table_lines{family="ipv4"} 4096"#,
        r#"drover_table_lines_used{family="ipv4"} 3300"#,
        "drover_table_bytes 524288",
        r#"drover_table_measure{family="ipv4",measure="udp_full"} 1"#,
        r#"drover_table_measure{family="ipv6",measure="udp_full"} 0"#,
        "drover_table_lookups_away_total 31",
        "drover_table_refused_total 32",
        "drover_table_evicted_total 33",
        "drover_table_ports_taken_total 34",
    ];
    for line in expected {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
    }
    // As `promtool check metrics` would have it: each sample's family has a type and a help.
    for sample in text.lines().filter(|line| !line.starts_with('#')) {
        let name = sample.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let family =
            family.filter(|family| text.contains(&format!("# TYPE {family} histogram\n"))).unwrap_or(name);
        assert!(text.contains(&format!("# HELP {family} ")), "{name} has no help");
        let kind = text.split_once(&format!("# TYPE {family} ")).unwrap().1.lines().next().unwrap();
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
    }
    assert!(!text.contains("# EOF"));
}

#[tokio::test]
async fn the_description_and_the_routes_are_the_same() {
    let contract = [
        "GET /v1/status",
        "GET /v1/farms",
        "GET /v1/farms/{farm}",
        "PUT /v1/farms/{farm}",
        "DELETE /v1/farms/{farm}",
        "PATCH /v1/farms/{farm}",
        "PATCH /v1/farms/{farm}/backends/{backend}",
        "GET /v1/connections",
        "DELETE /v1/connections",
        "GET /v1/events",
        "GET /v1/config",
        "PUT /v1/config",
        "POST /v1/config/check",
        "POST /v1/config/reload",
        "GET /metrics",
        "GET /v1/checks",
        "POST /v1/checks/run",
        "POST /v1/explain",
        "GET /openapi.json",
    ];
    let (_fake, router) = fixture();
    let description = get(&router, "/openapi.json").await.json();
    let mut described = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, call) in item.as_object().unwrap() {
            assert!(call["summary"].is_string(), "{method} {path} has no summary");
            described.push(format!("{} {path}", method.to_uppercase()));
        }
    }
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    assert_eq!(sorted(described.clone()), sorted(contract.map(str::to_owned).to_vec()));
    for line in described {
        let line = line.replace("{farm}", "web").replace("{backend}", "ex2");
        let answer = call(&router, &line, "application/json", "{}").await;
        assert!(![404, 405].contains(&answer.status.as_u16()), "{line}: {}", answer.text());
    }
    // A reference to a schema that is not there makes a description useless to generators.
    let text = description.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(description["components"]["schemas"][reference].is_object(), "{reference} is not described");
    }
}

#[tokio::test]
async fn head_is_answered_like_get() {
    let (_fake, router) = fixture();
    let request = Request::builder().method(Method::HEAD).uri("/v1/status").body(Body::empty()).unwrap();
    let answer = send(&router, request).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
}
