//! nginx as a backend, in one process, with its files in a folder of its own.

use std::fs;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::netns::{Netns, Process};
use crate::wait::wait_for;

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    folder: tempfile::TempDir,
}

impl Nginx {
    /// Starts nginx on all addresses of `netns`. `/` answers with `name`, `/big` with `big`; it takes bodies of any size.
    pub fn start(netns: &Netns, name: &str, port: u16, big: &[u8]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("drover-nginx-").tempdir()?;
        let at = folder.path().display();
        fs::write(folder.path().join("big"), big)?;
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("  {kind}_temp_path {at}/{kind};\n"))
            .concat();
        let config = format!(
            "daemon off;\nmaster_process off;\nuser root;\npid {at}/pid;\nerror_log {at}/log;\n\
             events {{ worker_connections 2048; }}\nhttp {{\n  access_log off;\n{temporary}  client_max_body_size 0;\n  \
             server {{\n    listen {port};\n    listen [::]:{port};\n    root {at};\n    location = / {{ return 200 \"{name}\\n\"; }}\n    \
             location = /big {{ }}\n  }}\n}}\n"
        );
        fs::write(folder.path().join("nginx.conf"), config)?;
        let mut command = netns.command("nginx");
        command.arg("-p").arg(folder.path()).arg("-c").arg(folder.path().join("nginx.conf"));
        command.arg("-e").arg(folder.path().join("log"));
        let mut nginx = Self { process: netns.spawn(&mut command)?, folder };
        wait_for("nginx to listen", Duration::from_secs(10), || {
            if !nginx.process.is_running() {
                return Ok(Err(anyhow!("nginx ended: {}", nginx.log())));
            }
            let listening = netns.enter(|| TcpStream::connect(("127.0.0.1", port)))?;
            listening.map(|_| Ok(())).context("not yet")
        })??;
        Ok(nginx)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}
