//! For which version of something a change is meant: what `ETag`, `If-Match` and `If-None-Match` carry.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Tells one content from another, over restarts of the daemon as well. It says nothing of which was first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(u64);

impl Version {
    /// The same for the same content, and hardly ever for another: by accident, that is, since 64 bits do not stand up
    /// to somebody who tries.
    pub fn of(content: &(impl Hash + ?Sized)) -> Self {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        Self(hasher.finish())
    }

    /// What [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let written = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        u64::from_str_radix(text, 16).ok().filter(|_| written).map(Self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What must hold of the thing that is to be changed, at the moment when it is changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Precondition {
    #[default]
    None,
    /// It is there.
    Exists,
    /// It is not there.
    Absent,
    /// It is one of these versions.
    OneOf(Vec<Version>),
}

impl Precondition {
    /// Whether it holds of something whose version is `now`; `None`: there is no such thing.
    pub fn holds(&self, now: Option<Version>) -> bool {
        match self {
            Self::None => true,
            Self::Exists => now.is_some(),
            Self::Absent => now.is_none(),
            Self::OneOf(versions) => now.is_some_and(|now| versions.contains(&now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_written_and_read_back() {
        let version = Version::of("a");
        assert_eq!(Version::parse(&version.to_string()), Some(version));
        assert_ne!(version, Version::of("b"));
        for text in ["", "0", "+000000000000000", "00000000000000000", "ABCDEFABCDEFABCD"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_precondition_holds_of_what_it_names() {
        let (one, other) = (Version::of("1"), Version::of("2"));
        let versions = Precondition::OneOf(vec![one]);
        for (condition, here, changed, gone) in [
            (Precondition::None, true, true, true),
            (Precondition::Exists, true, true, false),
            (Precondition::Absent, false, false, true),
            (versions, true, false, false),
        ] {
            let held = [Some(one), Some(other), None].map(|now| condition.holds(now));
            assert_eq!(held, [here, changed, gone], "{condition:?}");
        }
    }
}
