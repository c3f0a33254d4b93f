//! `POST /v1/explain`: what the program would do with a packet.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use lb_common::tcp::flag;
use lb_core::explain::Question;
use lb_core::state::{Protocol, Snapshot};

use super::Api;
use super::extract::JsonBody;
use super::problem::Problem;
use super::types::{ExplainRequest, Explained, PacketProtocol};

/// Who may wait while others are answered. One is answered at a time.
pub(super) const WAITING: usize = 8;
/// Loading the program that explains takes a second or two on a slow machine.
const WITHIN: Duration = Duration::from_secs(20);

/// Explain what would become of a packet
///
/// A second instance of the program, which is attached to nothing, runs the packet on the maps in force and on copies of the
/// connections that it comes to. Nothing is sent, counted or remembered. One packet is explained at a time, and fifty a second.
#[utoipa::path(
    post, path = "/v1/explain", tag = "connections", request_body = ExplainRequest,
    responses(
        (status = 200, description = "What the program would do", body = Explained),
        (status = 400, description = "No such packet can come",
         body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many ask at once",
         body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "The kernel does not run packets for trial, or it takes too long",
         body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn explain_packet(
    State(api): State<Api>,
    JsonBody(request): JsonBody<ExplainRequest>,
) -> Result<Json<Explained>, Problem> {
    let snapshot = api.handle.snapshot();
    let (question, flags) = question(&snapshot, &request)?;
    let Ok(turn) = api.explaining.clone().try_acquire_owned() else {
        let detail = format!("{WAITING} packets wait to be explained already; try again");
        return Err(Problem::plain(StatusCode::TOO_MANY_REQUESTS, detail));
    };
    let dataplane = api.handle.dataplane.clone();
    let asked = question.clone();
    let task = tokio::task::spawn_blocking(move || {
        // It is given up when the packet is explained, whether or not somebody still waits for that.
        let _turn = turn;
        dataplane.explain(&asked)
    });
    let told = tokio::time::timeout(WITHIN, task)
        .await
        .map_err(|_| Problem::failed(format!("the packet is not explained after {} s", WITHIN.as_secs())))?
        .map_err(|error| Problem::failed(format!("explaining broke off: {error}")))?
        .map_err(|error| Problem::failed(format!("the packet cannot be explained: {error:#}")))?;
    Ok(Json(Explained::new(&told, &question, &flags, &snapshot)))
}

fn question(snapshot: &Snapshot, request: &ExplainRequest) -> Result<(Question, String), Problem> {
    let (source, destination) = (end("source", &request.source)?, end("destination", &request.destination)?);
    if source.is_ipv4() != destination.is_ipv4() {
        return Err(Problem::bad_request("destination", "must be of the address family of the source"));
    }
    let protocol = match request.protocol.unwrap_or_default() {
        PacketProtocol::Tcp => Protocol::Tcp,
        PacketProtocol::Udp => Protocol::Udp,
    };
    let letters = match (protocol, &request.flags) {
        (Protocol::Tcp, flags) => flags.clone().unwrap_or_else(|| "S".to_owned()),
        (Protocol::Udp, None) => String::new(),
        (Protocol::Udp, Some(_)) => return Err(Problem::bad_request("flags", "UDP has none")),
    };
    let attached = snapshot.interfaces.iter().filter(|interface| interface.xdp_mode != "none");
    let interface = match &request.interface {
        None => None,
        Some(name) => {
            let named = attached.clone().find(|interface| interface.name == *name).ok_or_else(|| {
                let names: Vec<&str> = attached.clone().map(|interface| interface.name.as_str()).collect();
                let message =
                    format!("must be one that Drover is attached to ({}), not '{name}'", names.join(", "));
                Problem::bad_request("interface", message)
            })?;
            Some(named.index)
        }
    };
    let usual = attached.clone().next().map(|interface| interface.index);
    let Some(usual_interface) = usual else {
        return Err(Problem::bad_request("interface", "Drover is attached to no interface at present"));
    };
    let flags = flags(&letters)?;
    let (sequence, acknowledgment) = (request.sequence, request.acknowledgment);
    let question = Question {
        source,
        destination,
        protocol,
        flags,
        interface,
        usual_interface,
        sequence,
        acknowledgment,
    };
    Ok((question, letters))
}

fn end(field: &str, text: &str) -> Result<SocketAddr, Problem> {
    text.parse().map_err(|_| {
        let message =
            format!("must be an address and a port, as in 192.0.2.10:80 or [2001:db8::10]:80, not '{text}'");
        Problem::bad_request(field, message)
    })
}

fn flags(letters: &str) -> Result<u8, Problem> {
    letters.chars().try_fold(0, |flags, letter| match letter {
        'S' => Ok(flags | flag::SYN),
        'A' => Ok(flags | flag::ACK),
        'F' => Ok(flags | flag::FIN),
        'R' => Ok(flags | flag::RST),
        'P' => Ok(flags | PSH),
        other => {
            let message = format!("must be letters of S, A, F, R and P, as in SA, not '{other}'");
            Err(Problem::bad_request("flags", message))
        }
    })
}

/// RFC 9293, section 3.1; to a load balancer it means nothing.
const PSH: u8 = 8;
