//! How large the connection tables are: so many connections, so many lines, so many bytes.
//!
//! The tables are taken whole at the start, so their size is settled then: by the configuration, else by the machine's memory.

/// A line of a table, in bytes.
pub const LINE_BYTES: u64 = 64;
/// Lines for a connection: one a direction, in a table that is half full at most, since a fuller one has windows without room.
const LINES_PER_CONNECTION: u32 = 4;
/// Each address family has a table.
const TABLES: u64 = 2;
/// The default takes this part of the memory: beside the balancer the host has to live.
const MEMORY_SHARE: u64 = 16;
/// The smallest and the largest default. More than the largest is for those who know that they need it: in larger tables a
/// look-up costs more, and nearly nobody has so many connections.
const DEFAULT: std::ops::RangeInclusive<u64> = 1 << 14..=1 << 19;

/// The most connections of a machine that has so much memory, unless the configuration says otherwise.
pub fn default_connections(memory_bytes: u64) -> u32 {
    let held = most(memory_bytes / MEMORY_SHARE).clamp(*DEFAULT.start(), *DEFAULT.end());
    // At most 2^19 just above.
    held as u32
}

/// The lines of one family's table: a power of two.
pub fn lines(connections: u32) -> u32 {
    // The largest power of two of a u32, for what no configuration can ask for.
    connections.checked_mul(LINES_PER_CONNECTION).and_then(u32::checked_next_power_of_two).unwrap_or(1 << 31)
}

/// The most connections that a table of so many lines is meant for.
pub fn connections(lines: u32) -> u32 {
    lines / LINES_PER_CONNECTION
}

/// The memory that the tables of both families take.
pub fn bytes(connections: u32) -> u64 {
    u64::from(lines(connections)) * LINE_BYTES * TABLES
}

/// The most connections whose tables fit into so many bytes, a power of two; 0 if there are none.
fn most(bytes: u64) -> u64 {
    let connections = bytes / (LINE_BYTES * TABLES * u64::from(LINES_PER_CONNECTION));
    connections.checked_ilog2().map_or(0, |log| 1 << log)
}

/// So many bytes, for people: `512 MiB`.
pub fn text(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        mebibytes => format!("{mebibytes} MiB"),
    }
}

/// The connection tables do not fit into the memory that is available.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the tables of {connections} connections take {needed} bytes of memory ({} MiB), and {available} bytes are available; {}",
    needed.div_ceil(1 << 20),
    advice(*.available)
)]
pub struct TooLarge {
    pub connections: u32,
    pub needed: u64,
    pub available: u64,
}

fn advice(available: u64) -> String {
    match most(available) {
        0 => "free some memory".to_owned(),
        most => format!("free some memory, or write `connections = {most}` or less in [daemon]"),
    }
}

/// Whether the tables fit into the memory that is available.
///
/// # Errors
///
/// If they do not, with what they take.
pub fn fits(connections: u32, available_bytes: u64) -> Result<(), TooLarge> {
    let (needed, available) = (bytes(connections), available_bytes);
    if needed > available { Err(TooLarge { connections, needed, available }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_in_units() {
        let told = [bytes(1024), bytes(65536), bytes(1 << 20)].map(text);
        assert_eq!(told, ["512 KiB", "32 MiB", "512 MiB"]);
    }

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn the_default_is_what_a_sixteenth_of_the_memory_holds() {
        for (memory, connections) in [
            (0, 16_384),
            (64 * MIB, 16_384),
            (512 * MIB, 65_536),
            (GIB - 1, 65_536),
            (GIB, 131_072),
            (4 * GIB, 524_288),
            (8 * GIB - 1, 524_288),
            (8 * GIB, 524_288),
            (1024 * GIB, 524_288),
            (u64::MAX, 524_288),
        ] {
            assert_eq!(default_connections(memory), connections, "{memory}");
        }
        for memory in (256 * MIB..16 * GIB).step_by(123_456_789) {
            let took = bytes(default_connections(memory));
            assert!(took <= memory / 16, "{took} bytes of {memory}");
        }
    }

    #[test]
    fn tables_are_half_full_at_most_and_powers_of_two() {
        for (connections, expected, memory) in [
            (1024, 4096, 512 * 1024),
            (1025, 8192, MIB),
            (65_536, 262_144, 32 * MIB),
            (1_000_000, 4_194_304, 512 * MIB),
            (1_048_576, 4_194_304, 512 * MIB),
            (16_777_216, 67_108_864, 8 * GIB),
            (u32::MAX, 1 << 31, 256 * GIB),
        ] {
            assert_eq!((lines(connections), bytes(connections)), (expected, memory), "{connections}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_bytes_it_takes() {
        assert_eq!(fits(1_048_576, 512 * MIB), Ok(()));
        let refused = |connections, available| fits(connections, available).unwrap_err().to_string();
        assert_eq!(
            refused(1_048_576, 512 * MIB - 1),
            "the tables of 1048576 connections take 536870912 bytes of memory (512 MiB), and 536870911 bytes are \
             available; free some memory, or write `connections = 524288` or less in [daemon]"
        );
        assert_eq!(
            refused(1024, 511),
            "the tables of 1024 connections take 524288 bytes of memory (1 MiB), and 511 bytes are available; free \
             some memory"
        );
        // Whoever follows the advice is let in.
        for available in [512, 1000, 12_345_678, 3 * GIB + 1] {
            let most = u32::try_from(most(available)).unwrap();
            assert_eq!(fits(most, available), Ok(()), "{available}");
        }
    }
}
