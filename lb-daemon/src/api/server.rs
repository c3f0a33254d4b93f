//! Serves the router on the control socket, within limits.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::handle::Handle;

/// Clients served at once; more must wait.
const CONNECTIONS_MAX: usize = 128;
/// How long a client may take over its request's headers (an idle kept-alive connection is one that does).
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const HEADERS_MAX: usize = 64;
/// The request line and the headers together, in bytes.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// How long requests may take to end after the daemon was told to stop.
const GRACE: Duration = Duration::from_secs(2);
/// Pause after a failed `accept`: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers requests on `listener` until `shutdown` resolves, then lets those that run end (streams at once) for two
/// seconds. Dropped, it breaks off every connection; commands already sent are carried out.
pub async fn serve(listener: UnixListener, handle: Handle, shutdown: impl Future) {
    let (stop, stopping) = watch::channel(false);
    let router = super::router_until(handle, stopping.clone());
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut clients = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accept = async {
            // The semaphore is never closed.
            let permit = permits.clone().acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            _ = &mut shutdown => break,
            accepted = accept => accepted,
            Some(ended) = clients.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a client of the control socket was not served to its end");
                }
                continue;
            }
        };
        match accepted {
            Ok((stream, _peer)) => {
                let (router, stopping) = (router.clone(), stopping.clone());
                clients.spawn(async move {
                    serve_client(stream, router, stopping).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket does not accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    stop.send_replace(true);
    let all = async { while clients.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all).await.is_err() {
        tracing::debug!("requests on the control socket were broken off");
    }
}

async fn serve_client(stream: UnixStream, router: Router, mut stopping: watch::Receiver<bool>) {
    let service = TowerToHyperService::new(router);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.max_headers(HEADERS_MAX).max_header_size(HEADER_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let stopped = async { stopping.wait_for(|&stop| stop).await.map_or((), |_| ()) };
    let ended = tokio::select! {
        ended = &mut connection => ended,
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
