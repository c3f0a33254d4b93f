//! Checks: which backends are well, and how that is found out.

use std::time::Duration;

use super::{Backend, Farm, Ports, Word};

/// A health check of a farm's backends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Check {
    pub kind: CheckKind,
    pub interval: Duration,
    /// The interval while a backend is between up and down; at most `interval`.
    pub fast_interval: Duration,
    pub timeout: Duration,
    /// So many passes in a row bring a backend up; at least 1.
    pub rise: u32,
    /// So many failures in a row take a backend out; at least 1.
    pub fall: u32,
    /// `None`: the backend's port, or each port of the farm.
    pub port: Option<u16>,
}

impl Check {
    /// The check that a farm gets when the configuration names none.
    pub fn tcp() -> Self {
        Self {
            kind: CheckKind::Tcp,
            interval: Duration::from_secs(10),
            fast_interval: Duration::from_secs(1),
            timeout: Duration::from_secs(3),
            rise: 2,
            fall: 3,
            port: None,
        }
    }
    /// The ports on which this check probes `backend` of `farm`. The one port 0: it probes the address alone.
    pub fn ports(&self, farm: &Farm, backend: &Backend) -> Vec<u16> {
        match (&self.kind, self.port.or(backend.port), &farm.ports) {
            (CheckKind::Icmp, _, _) | (CheckKind::Command(_), None, Ports::All) => vec![0],
            (_, Some(port), _) => vec![port],
            (_, None, ports) => ports.iter().collect(),
        }
    }
}

/// What a check does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CheckKind {
    /// A TCP handshake.
    Tcp,
    /// A request for each path; all must pass. Redirects are not followed.
    Http(HttpCheck),
    /// A TLS handshake.
    Tls {
        tls: Tls,
        /// Down if the certificate has fewer days left; a warning comes earlier by itself.
        min_days: Option<u32>,
    },
    /// A datagram; an ICMP port unreachable is down.
    Udp {
        send: Vec<u8>,
        /// What the answer must contain; `None`: silence passes too.
        expect: Option<Vec<u8>>,
    },
    Dns {
        name: String,
        /// As in `A`, `AAAA`, `MX`, `SOA`.
        record: String,
        /// All must be among the answers; empty: any answer without an error.
        expect: Vec<String>,
    },
    /// An echo request.
    Icmp,
    /// The server's greeting, as the protocol has it, and optionally STARTTLS.
    Smtp {
        starttls: Option<Tls>,
    },
    Imap {
        starttls: Option<Tls>,
    },
    Pop3 {
        starttls: Option<Tls>,
    },
    /// Any command: FarmGuardian's contract, or HAProxy's.
    Command(CommandCheck),
}

impl CheckKind {
    /// The word for it in the configuration.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http(HttpCheck { tls: None, .. }) => "http",
            Self::Http(HttpCheck { tls: Some(_), .. }) => "https",
            Self::Tls { .. } => "tls",
            Self::Udp { .. } => "udp",
            Self::Dns { .. } => "dns",
            Self::Icmp => "icmp",
            Self::Smtp { .. } => "smtp",
            Self::Imap { .. } => "imap",
            Self::Pop3 { .. } => "pop3",
            Self::Command(_) => "command",
        }
    }
}

/// How a TLS client behaves.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tls {
    /// Whether the certificate must be valid for the name and trusted by this host.
    pub verify: bool,
    /// The name asked for; `None`: the check's `host`, else the backend's address.
    pub server_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HttpCheck {
    /// `https` if set.
    pub tls: Option<Tls>,
    /// At least one, each starting with `/`.
    pub paths: Vec<String>,
    pub method: String,
    /// The Host header; `None`: the backend's address.
    pub host: Option<String>,
    pub headers: Vec<(String, String)>,
    /// Inclusive ranges of acceptable status codes; at least one.
    pub status: Vec<(u16, u16)>,
    pub body: Option<BodyMatch>,
}

/// What a body must have in it, within the first 64 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BodyMatch {
    Contains(String),
    /// A pattern that compiles.
    Regex(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandCheck {
    /// Program and arguments, at least the program, as written: HOST and PORT stand for the backend's in FarmGuardian's contract.
    pub command: Vec<String>,
    /// Who runs it; never root.
    pub user: String,
    pub contract: CommandContract,
}

impl CommandCheck {
    /// Whether the command is told a port, and so makes no sense without one.
    pub fn takes_port(&self) -> bool {
        match self.contract {
            CommandContract::FarmGuardian => self.command.iter().skip(1).any(|argument| {
                // As a whole word: in `http://HOST:PORT/` as well, and not in `PORTS`.
                let mut words = argument.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                words.any(|word| word == "PORT")
            }),
            CommandContract::Haproxy => true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CommandContract {
    /// HOST and PORT as whole words among the arguments.
    FarmGuardian,
    /// Four arguments and the environment of HAProxy's external check.
    Haproxy,
}

impl Word for CommandContract {
    const WORDS: &'static [(&'static str, Self)] =
        &[("farmguardian", Self::FarmGuardian), ("haproxy", Self::Haproxy)];
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::{Addresses, BackendName, FarmName, USER};
    use super::*;

    #[test]
    fn a_check_that_needs_no_port_probes_the_address_alone() {
        let command = |words: &[&str], contract| {
            let command = words.iter().map(|&word| word.to_owned()).collect();
            CheckKind::Command(CommandCheck { command, user: USER.to_owned(), contract })
        };
        let plain = || command(&["check", "HOST", "PORTS", "xPORT"], CommandContract::FarmGuardian);
        let (few, all) = (Ports::Ranges(vec![(80, 81)]), Ports::All);
        for (kind, check, backend, ports, expected) in [
            (CheckKind::Tcp, None, None, &few, vec![80, 81]),
            (CheckKind::Tcp, None, Some(8080), &all, vec![8080]),
            (CheckKind::Tcp, Some(8443), Some(8080), &few, vec![8443]),
            (CheckKind::Icmp, None, Some(8080), &few, vec![0]),
            (CheckKind::Icmp, None, None, &all, vec![0]),
            (plain(), None, None, &few, vec![80, 81]),
            (plain(), None, None, &all, vec![0]),
            (plain(), None, Some(8080), &all, vec![8080]),
        ] {
            let farm = Farm { ports: ports.clone(), ..Farm::new(FarmName::new("web").unwrap()) };
            let name = BackendName::new("a").unwrap();
            let address = Addresses { v4: Some(Ipv4Addr::LOCALHOST), v6: None };
            let backend = Backend { name, address, port: backend, weight: 1, priority: 0 };
            let check = Check { kind, port: check, ..Check::tcp() };
            assert_eq!(check.ports(&farm, &backend), expected, "{check:?} {ports:?}");
        }
        for (words, contract, takes) in [
            (&["check", "PORT"][..], CommandContract::FarmGuardian, true),
            (&["check", "http://HOST:PORT/"], CommandContract::FarmGuardian, true),
            (&["check", "MY_PORT", "PORTS"], CommandContract::FarmGuardian, false),
            (&["PORT"], CommandContract::FarmGuardian, false),
            (&["check"], CommandContract::Haproxy, true),
        ] {
            let CheckKind::Command(check) = command(words, contract) else { continue };
            assert_eq!(check.takes_port(), takes, "{check:?}");
        }
    }
}
