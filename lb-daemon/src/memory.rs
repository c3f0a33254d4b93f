//! The machine's memory, by `/proc/meminfo`.

use anyhow::Context as _;

/// In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    /// What may be taken without driving others out.
    pub available: u64,
}

impl Memory {
    /// As it is now.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell.
    pub fn now() -> anyhow::Result<Self> {
        let text = std::fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
        parse(&text).context("/proc/meminfo does not say how much memory there is")
    }
}

fn parse(text: &str) -> Option<Memory> {
    let bytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
        kilobytes.checked_mul(1024)
    };
    Some(Memory { total: bytes("MemTotal")?, available: bytes("MemAvailable")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        let text = "MemTotal:       24604912 kB\nMemFree:         1099872 kB\nMemAvailable:   22222222 kB\n";
        let expected = Memory { total: 24_604_912 * 1024, available: 22_222_222 * 1024 };
        assert_eq!(parse(text), Some(expected));
        for text in ["", "MemTotal: 5 kB\n", "MemTotal: 5\nMemAvailable: 5\n"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        let now = Memory::now().unwrap();
        assert!(0 < now.available && now.available <= now.total, "{now:?}");
    }
}
