//! The TLS probe against servers that speak what is old, played by `openssl s_server`.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use lb_core::config::model::{CheckKind, Tls};

use super::super::super::test_server::{AMPLE, probed};

/// Killed when it is dropped.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Server {
    fn start(folder: &Path, key: &str, digest: &str, arguments: &[&str]) -> Self {
        let (key_file, certificate) = (folder.join("key"), folder.join("certificate"));
        let kind: &[&str] = match key {
            "rsa" => &["-newkey", "rsa:2048"],
            curve => &["-newkey", "ec", "-pkeyopt", curve],
        };
        let made = Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-days", "90", "-subj", "/CN=mail.example.org", digest])
            .args(kind)
            .arg("-keyout")
            .arg(&key_file)
            .arg("-out")
            .arg(&certificate)
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "openssl makes a certificate");
        let mut process = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-key"])
            .arg(&key_file)
            .arg("-cert")
            .arg(&certificate)
            .args(arguments)
            // At the end of its input it leaves.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It says so once it listens.
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.strip_prefix("ACCEPT ").map(|at| at.parse().unwrap()));
        // It goes on talking, and would wait for a reader.
        std::thread::spawn(move || lines.count());
        Self { process, address: address.expect("openssl s_server says where it listens") }
    }
}

#[tokio::test]
async fn what_mail_clients_still_speak_passes() {
    let p521 = "ec_paramgen_curve:P-521";
    let table: &[(&str, &str, &str, &[&str], &str)] = &[
        (
            "Exchange on Windows Server 2012 R2",
            "rsa",
            "-sha256",
            &["-tls1_2", "-cipher", "ECDHE-RSA-AES256-SHA384:ECDHE-RSA-AES128-SHA:@SECLEVEL=0"],
            "TLS 1.2",
        ),
        ("RSA key exchange", "rsa", "-sha256", &["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"], "TLS 1.2"),
        ("TLS 1.0", "rsa", "-sha256", &["-tls1", "-cipher", "ALL:@SECLEVEL=0"], "TLS 1.0"),
        ("TLS 1.1", "rsa", "-sha256", &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], "TLS 1.1"),
        ("the curve P-521 alone", "rsa", "-sha256", &["-groups", "P-521"], "TLS 1.3"),
        ("a key on P-521", p521, "-sha512", &[], "TLS 1.3"),
        ("signed with SHA-1", "rsa", "-sha1", &["-cipher", "ALL:@SECLEVEL=0"], "TLS 1.3"),
        ("what is usual", "rsa", "-sha256", &[], "TLS 1.3"),
    ];
    for (description, key, digest, arguments, version) in table {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(folder.path(), key, digest, arguments);
        let kind = CheckKind::Tls { tls: Tls { verify: false, server_name: None }, min_days: None };
        let outcome = probed(server.address, kind, AMPLE).await;
        let start = format!("{version}, certificate valid for ");
        assert!(outcome.passed && outcome.reason.starts_with(&start), "{description}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_server_without_a_suite_in_common_is_told_with_its_alert() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["-tls1_2", "-cipher", "aNULL:eNULL:@SECLEVEL=0"];
    let server = Server::start(folder.path(), "rsa", "-sha256", &arguments);
    let kind = CheckKind::Tls { tls: Tls { verify: false, server_name: None }, min_days: None };
    let outcome = probed(server.address, kind, AMPLE).await;
    assert_eq!(outcome.reason, "TLS handshake: the server refused the handshake: HandshakeFailure");
}
