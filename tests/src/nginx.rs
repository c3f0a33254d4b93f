//! nginx as a backend, in one process, with its files in a folder of its own.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::Signal;

use crate::netns::{Netns, Process};
use crate::wait::wait_for;

/// The page that tells whether a directory is well.
pub const PAGE: &str = "healthcheck.htm";
/// A page with a file beside it that ends in this answers 503.
const SICK: &str = ".sick";
const ACCESS: &str = "access";

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
        fs::write(folder.path().join("big"), big)?;
        let locations = format!("location = / {{ return 200 \"{name}\\n\"; }}\n    location = /big {{ }}\n");
        Self::launch(netns, folder, (port, ""), "access_log off;", &locations)
    }

    /// Starts nginx with a `healthcheck.htm` in each of `directories`, which holds `200 OK`. What it answers with 200 names
    /// it in headers, as the test server's answers do, `/` among it. Every request is noted. No more than `backlog`
    /// connections wait to be accepted.
    pub fn with_directories(
        netns: &Netns,
        name: &str,
        port: u16,
        directories: &[&str],
        backlog: u16,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("drover-nginx-").tempdir()?;
        for directory in directories {
            fs::create_dir(folder.path().join(directory))?;
            fs::write(folder.path().join(directory).join(PAGE), "200 OK\n")?;
        }
        fs::write(folder.path().join("index.html"), format!("{name}\n"))?;
        let at = folder.path().display();
        let notes = format!("log_format noted '$msec $request_uri';\n  access_log {at}/{ACCESS} noted;");
        let locations = format!(
            "if (-f $document_root$uri{SICK}) {{ return 503; }}\n    add_header X-Backend {name};\n    \
             add_header X-Port $server_port;\n    add_header X-Peer $remote_addr:$remote_port;\n"
        );
        let options = format!(" backlog={backlog}");
        Self::launch(netns, folder, (port, &options), &notes, &locations)
    }

    fn launch(
        netns: &Netns,
        folder: tempfile::TempDir,
        (port, options): (u16, &str),
        notes: &str,
        locations: &str,
    ) -> Result<Self> {
        let at = folder.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("  {kind}_temp_path {at}/{kind};\n"))
            .concat();
        let config = format!(
            "daemon off;\nmaster_process off;\nuser root;\npid {at}/pid;\nerror_log {at}/log;\n\
             events {{ worker_connections 2048; }}\nhttp {{\n  {notes}\n{temporary}  client_max_body_size 0;\n  \
             server {{\n    listen {port}{options};\n    listen [::]:{port}{options};\n    root {at};\n    {locations}  }}\n}}\n"
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

    /// The page of a directory answers 503 from now on, as Exchange's does when the application behind it has stopped.
    pub fn sicken(&self, directory: &str) -> Result<()> {
        fs::write(self.page(directory, SICK), "").with_context(|| directory.to_owned())
    }

    /// Undoes [`Self::sicken`].
    pub fn mend(&self, directory: &str) -> Result<()> {
        fs::remove_file(self.page(directory, SICK)).with_context(|| directory.to_owned())
    }

    fn page(&self, directory: &str, ending: &str) -> PathBuf {
        self.folder.path().join(directory).join(format!("{PAGE}{ending}"))
    }

    /// When each request for `path` was answered, in seconds.
    pub fn requests(&self, path: &str) -> Result<Vec<f64>> {
        let text = fs::read_to_string(self.folder.path().join(ACCESS))?;
        let noted = text.lines().filter_map(|line| line.split_once(' '));
        noted.filter(|(_, uri)| *uri == path).map(|(time, _)| Ok(time.parse()?)).collect()
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}
