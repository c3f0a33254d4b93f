//! What can be asked about packets.

use std::net::SocketAddr;

use clap::Args;

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Whom it comes from, a client or a backend
    #[arg(long, value_name = "IP:PORT")]
    pub src: SocketAddr,
    /// Whom it is for; an IPv6 address in brackets
    #[arg(long, value_name = "IP:PORT")]
    pub dst: SocketAddr,
    #[arg(long, default_value = "tcp", value_parser = ["tcp", "udp"], help = "Its protocol")]
    pub proto: String,
    /// TCP's flags: letters of S(YN), A(CK), F(IN), R(ST), P(SH) [default: S]
    #[arg(long, value_name = "FLAGS")]
    pub flags: Option<String>,
    /// The interface it comes in by [default: the backend's, else the first]
    #[arg(long = "in", value_name = "IFACE")]
    pub interface: Option<String>,
    /// TCP's sequence number [default: what its connection expects]
    #[arg(long, value_name = "N")]
    pub seq: Option<u32>,
    /// TCP's acknowledgment number [default: what its connection expects]
    #[arg(long, value_name = "N")]
    pub ack: Option<u32>,
}
