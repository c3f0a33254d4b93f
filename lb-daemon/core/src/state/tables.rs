//! The connection tables, as they are told of.

use lb_common::abi;

use crate::quota::Census;

/// Of a table that is full to this part, in percent, its operator is warned.
pub const WARN_PERCENT: u64 = 80;
/// The warning is over when it is full to less than this part.
const CALM_PERCENT: u64 = 75;

/// Both families' tables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tables {
    /// The most connections that they are meant for, in each family.
    pub connections: u32,
    /// Of memory, both together.
    pub bytes: u64,
    pub families: Vec<Table>,
}

/// A family's table, as of the last sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    pub lines: u64,
    /// A connection has two.
    pub used: u64,
    /// What newcomers may take just now: `POLICY_*`.
    pub policy: u32,
}

impl Table {
    pub fn new(family: &'static str, census: &Census, policy: u32) -> Self {
        Self { family, lines: census.lines, used: census.lines.saturating_sub(census.empty), policy }
    }

    /// How full it is, in percent.
    pub fn load(&self) -> u64 {
        (self.used * 100).checked_div(self.lines).unwrap_or(0)
    }
}

/// Whether a table's operator is to be worried, by whether he was and how full it is.
pub fn is_crowded(was: bool, load_percent: u64) -> bool {
    load_percent >= if was { CALM_PERCENT } else { WARN_PERCENT }
}

/// What happened in the tables since the program was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Occurrences {
    /// Look-ups that had to look away from the home line.
    pub away: u64,
    /// Newcomers for whom there was no line.
    pub full: u64,
    /// Newcomers that took another connection's line.
    pub evicted: u64,
    /// Newcomers that took another connection's source port.
    pub ports_taken: u64,
}

/// What is done to keep room for new connections: the bit of a policy, its name in metrics, and words for people.
pub fn measures() -> impl Iterator<Item = (u32, &'static str, &'static str)> {
    [
        (abi::POLICY_UNANSWERED_FIRST, "unanswered_first", "unanswered connections give way first"),
        (abi::POLICY_TAKE_ANSWERED_TCP, "take_answered_tcp", "handshakes under way give way"),
        (abi::POLICY_TAKE_ANSWERED_UDP, "take_answered_udp", "datagrams answered once give way"),
        (abi::POLICY_TAKE_ONE_SIDED, "take_one_sided", "one-sided datagrams give way"),
        (abi::POLICY_UDP_FULL, "udp_full", "UDP has its share"),
        (abi::POLICY_CHALLENGE, "challenge", "newcomers to a flooded farm are challenged"),
    ]
    .into_iter()
}

/// The words of what a policy asks for; none in quiet times.
pub fn policy_words(policy: u32) -> Vec<&'static str> {
    measures().filter(|(bit, ..)| policy & bit != 0).map(|(.., words)| words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_what_is_not_empty() {
        let census = Census { lines: 1000, empty: 195, ..Census::default() };
        let table = Table::new("ipv4", &census, 0);
        assert_eq!((table.used, table.load()), (805, 80));
        assert_eq!(Table::new("ipv6", &Census::default(), 0).load(), 0);
    }

    #[test]
    fn a_warning_does_not_come_and_go_with_each_connection() {
        let loads = [79, 80, 79, 75, 74, 79, 80];
        let mut crowded = false;
        let told = loads.map(|load| {
            crowded = is_crowded(crowded, load);
            crowded
        });
        assert_eq!(told, [false, true, true, true, false, false, true]);
    }

    #[test]
    fn policies_are_told_in_words() {
        assert!(policy_words(0).is_empty());
        let all = policy_words(u32::MAX);
        assert_eq!(all.len(), measures().count());
        assert_eq!(policy_words(abi::POLICY_UDP_FULL), ["UDP has its share"]);
    }
}
