//! Attaching the program to interfaces, by links that are pinned: they outlive the daemon, and the next one only replaces
//! the program in them, without a packet passing in between.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{ProgramError, Xdp};
use lb_core::config::model;

use super::Datapath;

/// The program on one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    pub interface: String,
    pub native: bool,
}

impl Attached {
    pub fn mode(&self) -> &'static str {
        if self.native { "native" } else { "generic" }
    }
}

/// Why the program could not be attached, said for people.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("interface '{0}' does not exist (`ip link` lists those that do)")]
    NoInterface(String),
    #[error(
        "another XDP program is attached to '{0}'; stop its owner, or detach it with `ip link set dev {0} xdp off`"
    )]
    Busy(String),
    #[error(
        "the driver of '{0}' has no native XDP, or not with its present MTU and offloads; `xdp_mode = \"auto\"` or \"generic\" works without"
    )]
    NoNative(String),
    #[error("cannot attach to '{interface}': {reason}")]
    Other { interface: String, reason: String },
}

impl Datapath {
    /// Attaches the program to `interface` (of number `ifindex`), or puts it into the pinned link that is there.
    ///
    /// # Errors
    ///
    /// Says what stands in the way and what to do; nothing is attached then.
    pub fn attach(
        &mut self,
        interface: &str,
        ifindex: u32,
        mode: model::XdpMode,
    ) -> Result<Attached, AttachError> {
        let dir = self.dir.clone();
        let other = |error: &dyn std::fmt::Display| AttachError::Other {
            interface: interface.to_owned(),
            reason: error.to_string(),
        };
        let program = self.program().map_err(|error| other(&error))?;
        let modes: &[bool] = match mode {
            model::XdpMode::Auto => &[true, false],
            model::XdpMode::Native => &[true],
            model::XdpMode::Generic => &[false],
        };
        for native in [true, false] {
            let pin = pin(&dir, interface, native);
            if !pin.exists() {
                continue;
            }
            if modes.contains(&native) && replace(program, &pin).is_ok() {
                return Ok(Attached { interface: interface.to_owned(), native });
            }
            // Of another mode than is wanted now, or its interface is gone.
            std::fs::remove_file(&pin).map_err(|error| other(&error))?;
        }
        let mut refusal = AttachError::NoNative(interface.to_owned());
        for &native in modes {
            match attach(program, ifindex, native) {
                Ok(link) => {
                    link.pin(pin(&dir, interface, native)).map_err(|error| other(&error))?;
                    return Ok(Attached { interface: interface.to_owned(), native });
                }
                Err(error) => refusal = explain(interface, native, &error),
            }
            // A program that is in the way is in the way in every mode.
            if matches!(refusal, AttachError::Busy(_) | AttachError::NoInterface(_)) {
                break;
            }
        }
        Err(refusal)
    }

    /// Detaches from every interface but those named.
    ///
    /// # Errors
    ///
    /// If a pin cannot be removed.
    pub fn detach_others(&self, keep: &[Attached]) -> anyhow::Result<()> {
        let wanted: Vec<PathBuf> =
            keep.iter().map(|attached| pin(&self.dir, &attached.interface, attached.native)).collect();
        for path in links(&self.dir)? {
            if !wanted.contains(&path) {
                std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Pins the program as `<dir>/program`, in place of an earlier one.
    ///
    /// # Errors
    ///
    /// If the bpffs refuses.
    pub fn pin_program(&mut self) -> anyhow::Result<()> {
        let (path, fresh) = (self.dir.join("program"), self.dir.join("program-new"));
        if fresh.exists() {
            std::fs::remove_file(&fresh)?;
        }
        self.program()?.pin(&fresh).context("cannot pin the program")?;
        std::fs::rename(&fresh, &path).with_context(|| format!("cannot rename {}", fresh.display()))
    }
}

/// Removes every pin of a link: the program is detached when the last holder of the link is gone.
pub(super) fn unpin_all(dir: &Path) -> anyhow::Result<()> {
    for path in links(dir)? {
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// The mode is in the name: a link does not tell it.
fn pin(dir: &Path, interface: &str, native: bool) -> PathBuf {
    dir.join(format!("link-{}-{interface}", if native { "native" } else { "generic" }))
}

fn links(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("link-") {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Puts the program into the pinned link, atomically.
fn replace(program: &mut Xdp, pin: &Path) -> anyhow::Result<()> {
    let link: FdLink = PinnedLink::from_pin(pin)?.into();
    program.attach_to_link(XdpLink::try_from(link)?)?;
    Ok(())
}

fn attach(program: &mut Xdp, ifindex: u32, native: bool) -> Result<FdLink, ProgramError> {
    let mode = if native { XdpMode::Driver } else { XdpMode::Skb };
    let id = program.attach_to_if_index(ifindex, mode)?;
    let link = program.take_link(id)?;
    // Without BPF links (before kernel 5.9) there would be nothing to pin; such a link ends with this value.
    FdLink::try_from(link)
        .map_err(|_| ProgramError::IOError(std::io::Error::other("the kernel has no BPF links")))
}

fn explain(interface: &str, native: bool, error: &ProgramError) -> AttachError {
    let errno =
        if let ProgramError::SyscallError(error) = error { error.io_error.raw_os_error() } else { None };
    match errno {
        Some(libc::ENODEV) => AttachError::NoInterface(interface.to_owned()),
        Some(libc::EBUSY | libc::EEXIST) => AttachError::Busy(interface.to_owned()),
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE) if native => {
            AttachError::NoNative(interface.to_owned())
        }
        _ => AttachError::Other { interface: interface.to_owned(), reason: chain(error) },
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
