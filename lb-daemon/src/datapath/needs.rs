//! What the daemon must be allowed to do before it can load anything. Without CAP_PERFMON the kernel's verifier says so in a hundred
//! lines, none of which names it.

use anyhow::Context as _;

/// By number, linux/capability.h. The first two are in CAP_SYS_ADMIN, too.
const NEEDED: [(u32, &str); 3] = [(39, "CAP_BPF"), (38, "CAP_PERFMON"), (12, "CAP_NET_ADMIN")];
const SYS_ADMIN: u32 = 21;

/// # Errors
///
/// If this process lacks a capability, in one line.
pub(super) fn check() -> anyhow::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let effective = effective(&status).context("/proc/self/status tells no capabilities")?;
    let missing = missing(effective);
    anyhow::ensure!(
        missing.is_empty(),
        "the daemon lacks {}, and the kernel takes no program from it: run it as root, or give it CAP_BPF, CAP_PERFMON, \
         CAP_NET_ADMIN and CAP_NET_RAW",
        missing.join(" and ")
    );
    Ok(())
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing(effective: u64) -> Vec<&'static str> {
    let has = |number: u32| effective >> number & 1 != 0;
    let needed = NEEDED.iter().filter(|(number, _)| !(has(*number) || *number >= 38 && has(SYS_ADMIN)));
    needed.map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let table: [(u64, &[&str]); 5] = [
            (0x01ff_ffff_ffff, &[]),
            (1 << 39 | 1 << 38 | 1 << 12, &[]),
            (1 << SYS_ADMIN | 1 << 12, &[]),
            (1 << 39 | 1 << 12, &["CAP_PERFMON"]),
            (0, &["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"]),
        ];
        for (effective, names) in table {
            assert_eq!(missing(effective), names, "{effective:x}");
        }
        assert_eq!(effective("Name:\tdrover\nCapEff:\t000001fffeffffff\n"), Some(0x01ff_feff_ffff));
    }
}
