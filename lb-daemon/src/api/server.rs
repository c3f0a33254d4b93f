//! Serves the router on the control socket, within limits that nobody can use to keep others out (`lb_core::seats`).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tower::ServiceExt as _;

use super::client::{Client, Place, Room, STREAMS};
use super::problem::Problem;
use super::wire::{STALL_MAX, Wire};
use crate::handle::Handle;

/// How long a client may take over the headers of its request; `client` has the rest of its patience.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const HEADERS_MAX: usize = 64;
/// The request line and the headers together, in bytes.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// How long requests may take to end after the daemon was told to stop.
const GRACE: Duration = Duration::from_secs(2);
/// Pause after a failed `accept`: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How many are told at once that there is no room, and how long each may take to hear it. More hear nothing.
const TURNED_AWAY_MAX: usize = 64;
const TURNED_AWAY_TIMEOUT: Duration = Duration::from_secs(1);

/// Answers requests on `listener` until `shutdown` resolves, then lets those that run end (streams at once) for two
/// seconds. Dropped, it breaks off every connection; commands already sent are carried out.
pub async fn serve(listener: UnixListener, handle: Handle, shutdown: impl Future) {
    serve_patiently(listener, handle, shutdown, STALL_MAX).await;
}

/// The same, with another patience for clients that take nothing of their answer.
pub async fn serve_patiently(
    listener: UnixListener,
    handle: Handle,
    shutdown: impl Future,
    stall_max: Duration,
) {
    let (stop, stopping) = watch::channel(false);
    let mut server = Server {
        router: super::router_until(handle, stopping.clone()),
        stopping,
        room: Room::default(),
        clients: JoinSet::new(),
        seated: BTreeMap::new(),
        turned_away: JoinSet::new(),
        stall_max,
    };
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            _ = &mut shutdown => break,
            accepted = listener.accept() => accepted,
            Some(ended) = server.clients.join_next() => {
                match ended {
                    Ok(place) => drop(server.seated.remove(&place)),
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => tracing::error!(%error, "a client of the control socket was not served to its end"),
                }
                continue;
            }
            Some(_told) = server.turned_away.join_next() => continue,
        };
        match accepted {
            Ok((stream, _unnamed)) => server.welcome(stream),
            Err(error) => {
                tracing::warn!(%error, "the control socket does not accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    stop.send_replace(true);
    let all = async { while server.clients.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all).await.is_err() {
        tracing::debug!("requests on the control socket were broken off");
    }
}

struct Server {
    router: Router,
    stopping: watch::Receiver<bool>,
    room: Room,
    clients: JoinSet<Place>,
    seated: BTreeMap<Place, AbortHandle>,
    turned_away: JoinSet<()>,
    stall_max: Duration,
}

impl Server {
    fn welcome(&mut self, stream: UnixStream) {
        let Some((client, instead_of)) = self.room.admit(&stream) else {
            if self.turned_away.len() < TURNED_AWAY_MAX {
                self.turned_away.spawn(turn_away(stream));
            }
            return;
        };
        if let Some(other) = instead_of.and_then(|place| self.seated.remove(&place)) {
            other.abort();
        }
        let place = client.place();
        let (router, stopping) = (self.router.clone(), self.stopping.clone());
        let client = Arc::new(client);
        let wire = Wire::new(stream, client.clone(), self.stall_max);
        let serving = self.clients.spawn(async move {
            serve_client(wire, client, router, stopping).await;
            place
        });
        self.seated.insert(place, serving);
    }
}

async fn serve_client(wire: Wire, client: Arc<Client>, router: Router, mut stopping: watch::Receiver<bool>) {
    let asking = client.clone();
    let service = service_fn(move |request| {
        let (router, client) = (router.clone(), asking.clone());
        async move { Ok::<_, Infallible>(answer(request, client, router).await) }
    });
    let mut connection = pin!(builder(HEADER_TIMEOUT).serve_connection(TokioIo::new(wire), service));
    let stopped = async { stopping.wait_for(|&stop| stop).await.map_or((), |_| ()) };
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = client.patience_ends() => {
            tracing::debug!("a client of the control socket took too long");
            return;
        }
        () = stopped => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients leave as they please, and idle ones are timed out.
        tracing::debug!(%error, "a client of the control socket left");
    }
}

async fn answer(mut request: Request<Incoming>, client: Arc<Client>, router: Router) -> Response {
    // What has a body is whole when that has been read (`extract`).
    if request.body().is_end_stream() {
        client.has_asked();
    }
    request.extensions_mut().insert(client.clone());
    let response = match router.oneshot(request.map(Body::new)).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    if is_stream(response.headers()) {
        if client.follow() {
            return response;
        }
        let detail = format!("{STREAMS} clients follow the events already; ask for them without a stream");
        client.wait_for();
        return busy(detail);
    }
    client.wait_for();
    response
}

fn is_stream(headers: &HeaderMap) -> bool {
    let media = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    media.is_some_and(|media| media.starts_with(b"text/event-stream"))
}

/// There is no room: says so, whatever was asked.
async fn turn_away(stream: UnixStream) {
    let service = service_fn(|_: Request<Incoming>| async {
        let detail = "all requests that there is room for are being worked at; try again in a second";
        Ok::<_, Infallible>(busy(detail.to_owned()))
    });
    let mut builder = builder(TURNED_AWAY_TIMEOUT);
    let told = builder.keep_alive(false).serve_connection(TokioIo::new(stream), service);
    // Whoever does not listen is let go.
    if let Ok(Err(error)) = tokio::time::timeout(TURNED_AWAY_TIMEOUT, told).await {
        tracing::debug!(%error, "a client of the control socket that found no room left");
    }
}

fn busy(detail: String) -> Response {
    let mut response = Problem::plain(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn builder(header_timeout: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(header_timeout);
    builder.max_headers(HEADERS_MAX).max_header_size(HEADER_BYTES_MAX);
    builder
}
