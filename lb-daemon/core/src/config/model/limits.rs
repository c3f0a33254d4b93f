//! How many connections a farm takes.

use super::Word;

/// How many a farm takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Limits {
    /// At a time; `None`: as many as come.
    pub connections: Option<u32>,
    /// New connections a second; `None`: as many as come.
    pub new_per_second: Option<u32>,
    pub over: Over,
}

impl Limits {
    /// Whether there is any.
    pub fn are_some(&self) -> bool {
        self.connections.is_some() || self.new_per_second.is_some()
    }
}

/// What becomes of those that are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Over {
    #[default]
    Drop,
    /// They are told at once: a reset, or an ICMP error.
    Refuse,
}

impl Word for Over {
    const WORDS: &'static [(&'static str, Self)] = &[("drop", Self::Drop), ("refuse", Self::Refuse)];
}
