//! Secrets: drawn from the system's random numbers, and the one that is kept in a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;

/// The file's name within `state_dir`. Nodes that are to send a flow to the same backend have the same content in it.
const FLOW_SEED: &str = "flow-seed";

/// `N` random numbers that nobody can guess.
///
/// # Errors
///
/// If the system has none.
pub fn draw<const N: usize>() -> io::Result<[u64; N]> {
    // Early at boot this one waits until there is something to draw from; the other would not.
    let mut random = File::open("/dev/random")?;
    let mut numbers = [0; N];
    for number in &mut numbers {
        let mut bytes = [0; 8];
        random.read_exact(&mut bytes)?;
        *number = u64::from_ne_bytes(bytes);
    }
    Ok(numbers)
}

/// The secret of the hash that picks a backend, from `state_dir`; it is drawn and written there if it is missing.
///
/// # Errors
///
/// If the file cannot be read or written, or holds something else.
pub fn flow_seed(state_dir: &Path) -> anyhow::Result<u64> {
    let path = state_dir.join(FLOW_SEED);
    match fs::read_to_string(&path) {
        Ok(text) => parse(&text).with_context(|| {
            format!(
                "{} must hold 16 hexadecimal digits; mend it, or remove it to have another drawn, by which new \
                 connections find other backends",
                path.display()
            )
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let [seed] = draw().context("the system gives no random numbers")?;
            write(state_dir, seed).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(seed)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn parse(text: &str) -> Option<u64> {
    let digits = text.trim();
    let hexadecimal = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hexadecimal { u64::from_str_radix(digits, 16).ok() } else { None }
}

/// Whole or not at all, and for nobody else to read.
fn write(state_dir: &Path, seed: u64) -> io::Result<()> {
    let temporary = state_dir.join(format!(".{FLOW_SEED}.{}", std::process::id()));
    // Of a process of the same number that was killed just here.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    writeln!(file, "{seed:016x}")?;
    file.sync_all()?;
    fs::rename(&temporary, state_dir.join(FLOW_SEED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_flows_secret_is_drawn_once_and_nobody_else_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let seed = flow_seed(dir.path()).unwrap();
        assert_eq!(flow_seed(dir.path()).unwrap(), seed);
        let names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [FLOW_SEED]);
        let path = dir.path().join(FLOW_SEED);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(flow_seed(other.path()).unwrap(), seed);
        fs::copy(&path, other.path().join(FLOW_SEED)).unwrap();
        assert_eq!(flow_seed(other.path()).unwrap(), seed, "a second node has the same");
    }

    #[test]
    fn a_damaged_secret_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "12", "0123456789abcdeg\n", "+123456789abcdef\n", "0123456789abcdef0\n"] {
            fs::write(dir.path().join(FLOW_SEED), text).unwrap();
            let error = flow_seed(dir.path()).unwrap_err().to_string();
            assert!(error.contains("flow-seed must hold 16 hexadecimal digits"), "{text:?}: {error}");
        }
        fs::write(dir.path().join(FLOW_SEED), "0123456789ABCDEF").unwrap();
        assert_eq!(flow_seed(dir.path()).unwrap(), 0x0123_4567_89ab_cdef);
    }
}
