//! `/v1/events`: what happened, as a list or as a stream (`text/event-stream`, HTML's server-sent events).
//!
//! A stream tells the events kept and then each new one. A client too slow to follow is caught up from the log: it
//! misses only what the log no longer keeps, and is told how much that is. A stream ends when the daemon stops, the client leaves, or takes nothing of it for too
//! long (`wire`).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use lb_core::state;
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use utoipa::IntoParams;

use super::Api;
use super::extract::QueryOf;
use super::problem::Problem;
use super::types::{Event, Events, LostEvents};
use crate::{clock, handle};

/// How often a silent stream says that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// Only events from then on: an RFC 3339 time, or how long ago, as in `10m`.
    #[param(example = "10m")]
    since: Option<String>,
}

/// The last events, or a stream of them
///
/// With `Accept: text/event-stream`: the events kept, then each new one, one `Event` in each `data:` line with its
/// number as `id:`; `Last-Event-ID` resumes after that number. A reader that has fallen behind by more than the events kept
/// gets `event: lost` and `data: {"lost": 12}`, and then the oldest there is. One that takes nothing for half a minute is
/// let go.
#[utoipa::path(
    get, path = "/v1/events", tag = "state",
    params(EventsQuery, ("Last-Event-ID" = Option<u64>, Header, description = "Streams only: resume after this event")),
    responses(
        (status = 200, description = "Oldest first",
         content((Events = "application/json"), (String = "text/event-stream"))),
        (status = 400, description = "A bad time",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_events(
    State(api): State<Api>,
    headers: HeaderMap,
    QueryOf(query): QueryOf<EventsQuery>,
) -> Result<Response, Problem> {
    let since = query.since.as_deref().map(|text| parse_since(text, clock::wall())).transpose()?;
    let recent = |event: &state::Event| since.is_none_or(|since| event.time >= since);
    if !wants_stream(&headers) {
        let events =
            api.handle.events.follow().0.iter().filter(|event| recent(event)).map(Event::new).collect();
        return Ok(Json(Events { events }).into_response());
    }
    let follower = Follower::new(&api, last_event_id(&headers)?, since);
    let stream = Sse::new(follower.into_stream()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    Ok(stream.into_response())
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepts.flat_map(|value| value.split(',')).any(|range| {
        let media = range.split(';').next().unwrap_or_default();
        media.trim().eq_ignore_ascii_case("text/event-stream")
    })
}

fn last_event_id(headers: &HeaderMap) -> Result<u64, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(0) };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Problem::bad_request("Last-Event-ID", "must be an event's number"))
}

fn parse_since(text: &str, now: SystemTime) -> Result<SystemTime, Problem> {
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(time);
    }
    let bad = || {
        Problem::bad_request(
            "since",
            format!("must be an RFC 3339 time or how long ago (10m, 2h30m), not '{text}'"),
        )
    };
    let ago = humantime::parse_duration(text).map_err(|_| bad())?;
    Ok(now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH))
}

/// What a follower is told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Event(Box<state::Event>),
    /// So many events were before this one that are no longer kept.
    Lost(u64),
}

/// One client's place in the events.
struct Follower {
    events: Arc<handle::Events>,
    /// To be told before anything live.
    kept: VecDeque<state::Event>,
    live: Receiver<state::Event>,
    /// The last one told or passed over.
    last: u64,
    /// What is older is passed over.
    since: Option<SystemTime>,
    stopping: watch::Receiver<bool>,
    /// Closed when the daemon is gone.
    daemon: mpsc::Sender<handle::Order>,
}

impl Follower {
    fn new(api: &Api, last: u64, since: Option<SystemTime>) -> Self {
        let (kept, live) = api.handle.events.follow();
        // A number that nobody has had yet is from before the daemon's last start.
        let last = if kept.last().is_some_and(|newest| newest.id >= last) { last } else { 0 };
        // Who is new here has missed nothing.
        let before = kept.first().map_or(0, |oldest| oldest.id.saturating_sub(1));
        let last = if last == 0 { before } else { last };
        let mut kept = VecDeque::from(kept);
        kept.retain(|event| event.id > last);
        let (events, stopping) = (api.handle.events.clone(), api.stopping.clone());
        Self { events, kept, live, last, since, stopping, daemon: api.handle.commands.clone() }
    }

    /// What is to be told next, or `None` when the daemon stops. Cancel safe.
    async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(event) = self.kept.front() {
                let missed = event.id.saturating_sub(self.last + 1);
                if missed > 0 {
                    self.last = event.id - 1;
                    self.events.lose(missed);
                    return Some(Told::Lost(missed));
                }
            }
            if let Some(event) = self.kept.pop_front() {
                self.last = event.id;
                if self.since.is_some_and(|since| event.time < since) {
                    continue;
                }
                return Some(Told::Event(Box::new(event)));
            }
            let stopped = async {
                if self.stopping.wait_for(|&stop| stop).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let received = tokio::select! {
                received = self.live.recv() => received,
                () = stopped => return None,
                () = self.daemon.closed() => return None,
            };
            match received {
                Ok(event) if event.id > self.last => self.kept.push_back(event),
                Ok(_told) => {}
                Err(RecvError::Lagged(_)) => {
                    let (kept, live) = self.events.follow();
                    self.kept = kept.into_iter().filter(|event| event.id > self.last).collect();
                    self.live = live;
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn into_stream(self) -> impl Stream<Item = Result<sse::Event, Infallible>> {
        futures_util::stream::unfold(self, async |mut follower| {
            let told = follower.next().await?;
            // Strings and numbers always serialise, and JSON has no bare line ends.
            let sent = match told {
                Told::Event(event) => sse::Event::default()
                    .id(event.id.to_string())
                    .data(serde_json::to_string(&Event::new(&event)).unwrap_or_default()),
                Told::Lost(lost) => sse::Event::default()
                    .event("lost")
                    .data(serde_json::to_string(&LostEvents { lost }).unwrap_or_default()),
            };
            Some((Ok(sent), follower))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        let cases = [("10m", at(999_400)), ("2h30m", at(991_000)), ("1970-01-02T00:00:00Z", at(86_400))];
        for (text, expected) in cases {
            assert_eq!(parse_since(text, now).unwrap(), expected, "{text}");
        }
        assert!(parse_since("1000y", now).unwrap() <= SystemTime::UNIX_EPOCH);
        for text in ["", "yesterday", "10"] {
            assert_eq!(parse_since(text, now).unwrap_err().status, 400, "{text}");
        }
    }
}
