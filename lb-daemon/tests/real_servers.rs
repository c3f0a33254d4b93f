//! Every kind of probe against a real server of its protocol, up and down, on loopback.
//!
//! The servers come from Debian (`cargo xtask setup`). Each has a folder of its own, a port that was free, and is stopped
//! when its test ends, by a panic too. exim and dovecot give up root by themselves, so the tests need root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what tests share may fail as they do"
)]

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lb_core::config::model::{BackendName, BodyMatch, Check, CheckKind, FarmName, HttpCheck, Tls};
use lb_daemon::checks::{Judgement, Runner, Target};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// A server in the foreground, and its files.
struct Server {
    child: Child,
    address: SocketAddr,
    /// Outlives the server.
    folder: TempDir,
}

impl Server {
    /// Starts `program`; `configure` writes what it needs into the folder and gives the arguments.
    fn start(program: &str, configure: impl FnOnce(&Path, u16) -> Vec<String>) -> Self {
        let folder = tempfile::Builder::new().prefix("drover-real-").tempdir().unwrap();
        // Some of them give up root before they write.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let address = free();
        let arguments = configure(folder.path(), address.port());
        let output =
            || fs::File::options().create(true).append(true).open(folder.path().join("output")).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null()).stdout(output()).stderr(output());
        let child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; cargo xtask setup"));
        let mut server = Self { child, address, folder };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            let said = || fs::read_to_string(server.folder.path().join("output")).unwrap_or_default();
            assert!(server.child.try_wait().unwrap().is_none(), "{program} ended: {}", said());
            assert!(Instant::now() < deadline, "{program} does not listen: {}", said());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// Stops it; the address where it was.
    fn stop(mut self) -> SocketAddr {
        self.end();
        self.address
    }

    fn end(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        if kill(pid, Signal::SIGTERM).is_err() {
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                self.child.kill().ok();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end();
        }
    }
}

/// An address that no other process of the tests uses.
fn host() -> Ipv4Addr {
    let [a, b, ..] = std::process::id().to_ne_bytes();
    Ipv4Addr::new(127, a, b, 1)
}

/// A port there that is free.
fn free() -> SocketAddr {
    TcpListener::bind((host(), 0)).unwrap().local_addr().unwrap()
}

/// Writes `certificate.pem` and `key.pem` for `mail.example.org`, signed by itself.
fn certify(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(vec!["mail.example.org".to_owned()]).unwrap();
    fs::write(folder.join("certificate.pem"), made.cert.pem()).unwrap();
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
}

/// What the first probe makes of a backend.
fn verdict(address: SocketAddr, kind: CheckKind) -> (Judgement, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let check = Check { kind, timeout: Duration::from_secs(5), ..Check::tcp() };
    let farm = FarmName::new("real").unwrap();
    let backend = BackendName::new("b").unwrap();
    runtime.block_on(async {
        let (sender, mut reports) = tokio::sync::mpsc::channel(16);
        let runner = Runner::spawn(sender);
        runner.set_targets(vec![Target {
            farm,
            backend,
            address,
            check,
            vip: None,
            adopted: Judgement::Starting,
        }]);
        loop {
            let report = tokio::time::timeout(PATIENCE, reports.recv()).await.expect("a verdict in time");
            let report = report.expect("the runner lives");
            if report.status != Judgement::Starting {
                return (report.status, report.reason);
            }
        }
    })
}

/// The probe must pass with a reason that starts so.
fn up(server: &Server, kind: &CheckKind, start: &str) {
    let (status, reason) = verdict(server.address, kind.clone());
    let start = format!("{} {}: {start}", kind.as_str(), server.address);
    assert!(status == Judgement::Up && reason.starts_with(&start), "{status:?} {reason:?}, wanted {start:?}");
}

/// The probe must fail with this reason.
fn down(address: SocketAddr, kind: &CheckKind, reason: &str) {
    let expected = (Judgement::Down, format!("{} {address}: {reason}", kind.as_str()));
    assert_eq!(verdict(address, kind.clone()), expected);
}

fn any_certificate() -> Tls {
    Tls { verify: false, server_name: Some("mail.example.org".into()) }
}

const UNTRUSTED: &str = "TLS handshake: certificate is not signed by an authority that this host trusts";

fn nginx(tls: bool) -> Server {
    Server::start("nginx", |folder, port| {
        let at = folder.display();
        certify(folder);
        let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary: String = kinds.map(|kind| format!("{kind}_temp_path {at}/{kind};\n")).concat();
        let host = host();
        let secure = if tls {
            format!(" ssl; ssl_certificate {at}/certificate.pem; ssl_certificate_key {at}/key.pem")
        } else {
            String::new()
        };
        let text = format!(
            "daemon off; master_process off; user root; pid {at}/pid; error_log {at}/log;\nevents {{}}\n\
             http {{ access_log off;\n{temporary}server {{ listen {host}:{port}{secure};\n\
             location /owa/ {{ return 200 \"200 OK\"; }}\nlocation /ews/ {{ return 503; }}\n\
             location /moved/ {{ return 302 /ews/; }} }} }}\n"
        );
        fs::write(folder.join("nginx.conf"), text).unwrap();
        ["-p", &at.to_string(), "-c", "nginx.conf", "-e", "log"].map(str::to_owned).to_vec()
    })
}

fn web(tls: Option<Tls>, paths: &[&str]) -> CheckKind {
    CheckKind::Http(HttpCheck {
        tls,
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        method: "GET".into(),
        host: Some("mail.example.org".into()),
        headers: Vec::new(),
        status: vec![(200, 399)],
        body: None,
    })
}

#[test]
fn http_with_nginx() {
    let server = nginx(false);
    up(&server, &web(None, &["/owa/healthcheck.htm"]), "status 200 in ");
    up(&server, &web(None, &["/owa/healthcheck.htm", "/moved/"]), "2 paths passed in ");
    let broken = web(None, &["/owa/healthcheck.htm", "/ews/healthcheck.htm"]);
    down(server.address, &broken, "/ews/healthcheck.htm: status 503, wanted 200-399");
    let CheckKind::Http(check) = web(None, &["/owa/"]) else { unreachable!() };
    let body = |text: &str| {
        CheckKind::Http(HttpCheck { body: Some(BodyMatch::Contains(text.into())), ..check.clone() })
    };
    up(&server, &body("200 OK"), "status 200 in ");
    down(server.address, &body("201 OK"), r#"/owa/: body lacks "201 OK""#);
    down(server.stop(), &web(None, &["/owa/"]), "connection refused");
}

#[test]
fn https_and_tls_with_nginx() {
    let server = nginx(true);
    let paths = &["/owa/a", "/owa/b"];
    up(&server, &web(Some(any_certificate()), paths), "2 paths passed in ");
    let verified = Tls { verify: true, server_name: None };
    down(server.address, &web(Some(verified.clone()), paths), UNTRUSTED);
    let tls = CheckKind::Tls { tls: any_certificate(), min_days: Some(30) };
    up(&server, &tls, "TLS 1.2, certificate valid for ");
    down(server.address, &CheckKind::Tls { tls: verified, min_days: None }, UNTRUSTED);
    down(server.stop(), &tls, "connection refused");
    let plain = nginx(false);
    down(plain.address, &tls, "TLS handshake: the server does not speak TLS");
}

#[test]
fn dns_and_udp_with_dnsmasq() {
    let server = Server::start("dnsmasq", |_, port| {
        let host = host();
        [
            "--keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --bind-interfaces --user=root",
            "--pid-file= --log-facility=- --local=/example.org/ --host-record=www.example.org,192.0.2.1",
            "--mx-host=example.org,mail.example.org,10",
            &format!("--listen-address={host} --port={port}"),
        ]
        .iter()
        .flat_map(|line| line.split_whitespace())
        .map(str::to_owned)
        .collect()
    });
    let ask = |name: &str, record: &str, expect: &[&str]| CheckKind::Dns {
        name: name.into(),
        record: record.into(),
        expect: expect.iter().map(|text| (*text).to_owned()).collect(),
    };
    up(&server, &ask("www.example.org", "A", &["192.0.2.1"]), "1 answer in ");
    up(&server, &ask("example.org", "MX", &["mail.example.org"]), "1 answer in ");
    let wrong = ask("www.example.org", "A", &["192.0.2.9"]);
    down(server.address, &wrong, "www.example.org A: answers lack 192.0.2.9: got 192.0.2.1");
    let absent = ask("absent.example.org", "A", &[]);
    down(server.address, &absent, "absent.example.org A: there is no such name (NXDOMAIN)");
    let foreign = ask("www.example.com", "A", &[]);
    down(server.address, &foreign, "www.example.com A: the server refused (REFUSED)");
    // The same server by a datagram written out: a question for www.example.org.
    let send =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x03org\x00\x00\x01\x00\x01";
    let datagram = CheckKind::Udp { send: send.to_vec(), expect: Some(vec![192, 0, 2, 1]) };
    up(&server, &datagram, "answered in ");
    let address = server.stop();
    down(address, &ask("www.example.org", "A", &[]), "www.example.org A: port unreachable");
    down(address, &datagram, "port unreachable");
}

#[test]
fn smtp_with_exim() {
    let server = Server::start("exim4", |folder, port| {
        let (at, host) = (folder.display(), host());
        certify(folder);
        let text = format!(
            "spool_directory = {at}/spool\nlog_file_path = {at}/%slog\npid_file_path = {at}/pid\n\
             primary_hostname = mail.example.org\nlocal_interfaces = {host}\ndaemon_smtp_ports = {port}\n\
             tls_advertise_hosts = *\ntls_certificate = {at}/certificate.pem\ntls_privatekey = {at}/key.pem\n\
             host_lookup =\nkeep_environment =\n"
        );
        fs::write(folder.join("exim.conf"), text).unwrap();
        ["-C", &format!("{at}/exim.conf"), "-bdf"].map(str::to_owned).to_vec()
    });
    up(&server, &CheckKind::Smtp { starttls: None }, "greeted in ");
    up(&server, &CheckKind::Smtp { starttls: Some(any_certificate()) }, "greeted, STARTTLS in ");
    let verified = CheckKind::Smtp { starttls: Some(Tls { verify: true, server_name: None }) };
    down(server.address, &verified, UNTRUSTED);
    down(server.stop(), &CheckKind::Smtp { starttls: None }, "connection refused");
}

/// dovecot with one protocol.
fn dovecot(protocol: &str) -> Server {
    Server::start("dovecot", |folder, port| {
        let (at, host) = (folder.display(), host());
        certify(folder);
        let text = format!(
            "base_dir = {at}/run\nstate_dir = {at}/state\nlog_path = /dev/stderr\nprotocols = {protocol}\n\
             listen = {host}\nssl = yes\nssl_cert = <{at}/certificate.pem\nssl_key = <{at}/key.pem\n\
             service {protocol}-login {{\n  inet_listener {protocol} {{\n    port = {port}\n  }}\n  \
             inet_listener {protocol}s {{\n    port = 0\n  }}\n}}\n\
             passdb {{\n  driver = static\n  args = password=none\n}}\n\
             userdb {{\n  driver = static\n  args = uid=nobody gid=nogroup home=/nonexistent\n}}\n"
        );
        fs::write(folder.join("dovecot.conf"), text).unwrap();
        ["-F", "-c", &format!("{at}/dovecot.conf")].map(str::to_owned).to_vec()
    })
}

#[test]
fn imap_and_pop3_with_dovecot() {
    type Kind = fn(Option<Tls>) -> CheckKind;
    let kinds: [(_, Kind, _); 2] = [
        ("imap", |starttls| CheckKind::Imap { starttls }, "greeted, STARTTLS in "),
        ("pop3", |starttls| CheckKind::Pop3 { starttls }, "greeted, STLS in "),
    ];
    for (protocol, kind, secured) in kinds {
        let server = dovecot(protocol);
        up(&server, &kind(None), "greeted in ");
        up(&server, &kind(Some(any_certificate())), secured);
        let smtp = CheckKind::Smtp { starttls: None };
        let (status, reason) = verdict(server.address, smtp);
        assert_eq!(status, Judgement::Down);
        assert!(reason.ends_with("wanted 220"), "{reason}");
        down(server.stop(), &kind(None), "connection refused");
    }
}
