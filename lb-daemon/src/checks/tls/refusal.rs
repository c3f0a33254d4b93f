//! Why a handshake failed, in words.

use std::net::IpAddr;

use openssl::ssl::{Error, ErrorCode};
use openssl::x509::X509StoreContextRef;
use rustls_pki_types::ServerName;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::super::probe::{CLOSED, Trouble};
use super::days;
use crate::clock;

/// What is wrong with a certificate of the server's chain.
#[derive(Debug, Clone)]
pub struct Fault {
    /// `X509_V_ERR_*`, openssl/x509_vfy.h.
    code: i32,
    /// The library's word for it.
    words: &'static str,
    /// The certificate.
    der: Vec<u8>,
}

impl Fault {
    pub fn of(context: &X509StoreContextRef) -> Self {
        let error = context.error();
        let der = context.current_cert().and_then(|certificate| certificate.to_der().ok());
        Self { code: error.as_raw(), words: error.error_string(), der: der.unwrap_or_default() }
    }

    /// As in `certificate expired 3 days ago`. `asked`: the name that was asked for.
    fn told(&self, asked: &ServerName<'_>) -> String {
        let parsed = x509_parser::parse_x509_certificate(&self.der).ok().map(|(_, certificate)| certificate);
        let now = clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        match (self.code, parsed) {
            (EXPIRED, Some(certificate)) => {
                format!(
                    "certificate expired {} ago",
                    days(now - certificate.validity().not_after.timestamp())
                )
            }
            (NOT_YET_VALID, Some(certificate)) => {
                let wait = days(certificate.validity().not_before.timestamp() - now);
                format!("certificate is not valid for another {wait}")
            }
            (HOST_MISMATCH | IP_MISMATCH, Some(certificate)) => {
                format!("certificate is for {}, not {}", names(&certificate), asked.to_str())
            }
            (SELF_SIGNED | SELF_SIGNED_IN_CHAIN | NO_ISSUER | NO_ISSUER_LOCALLY | NO_FIRST, _) => {
                "certificate is not signed by an authority that this host trusts".to_owned()
            }
            (REVOKED, _) => "certificate was revoked".to_owned(),
            (WRONG_SIGNATURE, _) => "certificate has a wrong signature".to_owned(),
            _ => format!("certificate is not accepted: {}", self.words),
        }
    }
}

const NO_ISSUER: i32 = 2;
const WRONG_SIGNATURE: i32 = 7;
const NOT_YET_VALID: i32 = 9;
const EXPIRED: i32 = 10;
const SELF_SIGNED: i32 = 18;
const SELF_SIGNED_IN_CHAIN: i32 = 19;
const NO_ISSUER_LOCALLY: i32 = 20;
const NO_FIRST: i32 = 21;
const REVOKED: i32 = 23;
const HOST_MISMATCH: i32 = 62;
const IP_MISMATCH: i32 = 64;

/// The first three names of a certificate.
fn names(certificate: &X509Certificate<'_>) -> String {
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let all = alternatives.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let names: Vec<String> = all.iter().filter_map(name).collect();
    let more = if names.len() > 3 { " and others" } else { "" };
    let shown: Vec<String> = names.into_iter().take(3).collect();
    if shown.is_empty() { "no name".to_owned() } else { format!("{}{more}", shown.join(", ")) }
}

// The library may add kinds; those are no names of servers.
#[allow(clippy::wildcard_enum_match_arm)]
fn name(of: &GeneralName<'_>) -> Option<String> {
    match of {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|ip| IpAddr::from(ip).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|ip| IpAddr::from(ip).to_string()),
        },
        _ => None,
    }
}

/// Reasons of the library, openssl/sslerr.h. An alert of the server's is [`ALERTS`] and its number.
const ALERTS: i32 = 1000;
const HTTP_REQUEST: i32 = 156;
const PACKET_TOO_LONG: i32 = 198;
const UNEXPECTED_MESSAGE: i32 = 244;
const UNKNOWN_PROTOCOL: i32 = 252;
const UNSUPPORTED_PROTOCOL: i32 = 258;
const WRONG_VERSION_NUMBER: i32 = 267;
const UNEXPECTED_EOF: i32 = 294;
const PROTOCOL_VERSION: i32 = ALERTS + 70;
const UNRECOGNISED_NAME: i32 = ALERTS + 112;

pub fn trouble(error: Error, fault: Option<&Fault>, asked: &ServerName<'_>) -> Trouble {
    if let Some(fault) = fault {
        return Trouble::failed(fault.told(asked));
    }
    let reason = error
        .ssl_error()
        .and_then(|stack| stack.errors().first())
        .map(|first| (first.reason_code(), first.reason()));
    let code = error.code();
    match (reason, error.into_io_error()) {
        (_, Ok(error)) => error.into(),
        (Some((UNEXPECTED_EOF, _)), _) => Trouble::failed(CLOSED),
        (Some((code, words)), _) => Trouble::failed(reason_words(code, words)),
        (None, Err(_)) if code == ErrorCode::SYSCALL || code == ErrorCode::ZERO_RETURN => {
            Trouble::failed(CLOSED)
        }
        (None, Err(error)) => Trouble::failed(format!("the handshake failed: {error}")),
    }
}

fn reason_words(code: i32, words: Option<&str>) -> String {
    match code {
        HTTP_REQUEST | PACKET_TOO_LONG | UNEXPECTED_MESSAGE | UNKNOWN_PROTOCOL | WRONG_VERSION_NUMBER => {
            "the server does not speak TLS".to_owned()
        }
        UNSUPPORTED_PROTOCOL | PROTOCOL_VERSION => "the server does not speak TLS 1.0 to 1.3".to_owned(),
        UNRECOGNISED_NAME => "the server does not know the name asked for".to_owned(),
        ALERTS..=1255 => format!("the server refused the handshake: {}", alert(code - ALERTS)),
        _ => format!("the handshake failed: {}", words.unwrap_or("no reason is known")),
    }
}

/// Alerts that servers send in a handshake, RFC 8446 section 6.
fn alert(number: i32) -> String {
    let name = match number {
        10 => "UnexpectedMessage",
        20 => "BadRecordMac",
        40 => "HandshakeFailure",
        42 => "BadCertificate",
        47 => "IllegalParameter",
        50 => "DecodeError",
        51 => "DecryptError",
        71 => "InsufficientSecurity",
        80 => "InternalError",
        86 => "InappropriateFallback",
        90 => "UserCanceled",
        109 => "MissingExtension",
        110 => "UnsupportedExtension",
        116 => "CertificateRequired",
        120 => "NoApplicationProtocol",
        _ => return format!("alert {number}"),
    };
    name.to_owned()
}
