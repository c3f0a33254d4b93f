//! The one place of a key: its table, what it takes, what stands for it when it is absent, and what it means.
//!
//! The reader takes limits and defaults from here; the tables of `docs/configuration.md` and the descriptions in
//! `/openapi.json` are made of it; a test (`tests/keys.rs`) holds the model and the API's types to it. What it cannot say,
//! such as rules between keys, is the reader's.

mod check;
mod daemon;
mod farm;
pub mod plain;

use std::time::Duration;

use super::model::Word;
use super::text::duration_text;

pub use check::{CHECK, CHECK_TYPES, owners};
pub use daemon::{DAEMON, ROOT, SOCKET};
pub use farm::{AFFINITY, BACKEND, FARM, LIMITS, ON_CHANGE, PASSIVE, TIMEOUTS};

/// One table of the file.
#[derive(Debug)]
pub struct Schema {
    /// The table's header as a file has it; empty for the file itself.
    pub title: &'static str,
    /// In the order in which people write them.
    pub keys: &'static [Key],
    /// Keys that are refused as not supported yet, and what to do instead.
    pub later: &'static [(&'static str, &'static str)],
    /// What other balancers call a key, and its name here.
    pub elsewhere: &'static [(&'static str, &'static str)],
}

/// One key.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    pub takes: Takes,
    /// What happens without it, in words, if that is no plain value.
    pub absent: Option<&'static str>,
    /// What it means, in Markdown. Limits follow from [`Takes`].
    pub words: &'static str,
    /// The types of checks that have it; all of them if it is empty.
    pub of: &'static [&'static str],
    /// Its field in the model, if it is a plain one.
    pub place: Option<plain::Place>,
}

/// What a key takes, and its default.
#[derive(Debug, Clone, Copy)]
pub enum Takes {
    Boolean(bool),
    /// A whole number within these bounds.
    Number {
        least: i64,
        most: i64,
        default: Option<i64>,
    },
    Duration {
        least: Duration,
        default: Option<Duration>,
    },
    /// One of these words, of which the first is the default; and those that are known and refused.
    Word {
        words: fn() -> Vec<&'static str>,
        later: &'static [&'static str],
    },
    /// A text, and what kind of one, in words.
    Text {
        kind: &'static str,
        default: Option<&'static str>,
    },
    /// Something that has a reader of its own: in words, in types of JSON, and its default in TOML.
    Other {
        kind: &'static str,
        json: &'static [&'static str],
        default: Option<&'static str>,
    },
}

impl Schema {
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The default of a key that takes a duration.
    pub fn duration(&self, name: &str) -> Option<Duration> {
        match self.key(name)?.takes {
            Takes::Duration { default, .. } => default,
            Takes::Boolean(_)
            | Takes::Number { .. }
            | Takes::Word { .. }
            | Takes::Text { .. }
            | Takes::Other { .. } => None,
        }
    }

    /// Every name once: a key that means something else in another type of check stands twice.
    pub fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = Vec::new();
        for key in self.keys {
            if !names.contains(&key.name) {
                names.push(key.name);
            }
        }
        names
    }
}

impl Key {
    pub const fn new(name: &'static str, takes: Takes, words: &'static str) -> Self {
        Self { name, takes, absent: None, words, of: &[], place: None }
    }

    pub const fn absent(self, words: &'static str) -> Self {
        Self { absent: Some(words), ..self }
    }

    pub const fn of(self, types: &'static [&'static str]) -> Self {
        Self { of: types, ..self }
    }

    /// What stands for it when it is absent, as the file would write it.
    pub fn default(&self) -> Option<String> {
        match self.takes {
            Takes::Boolean(default) => Some(default.to_string()),
            Takes::Number { default, .. } => default.map(|default| default.to_string()),
            Takes::Duration { default, .. } => {
                default.map(|default| format!("\"{}\"", duration_text(default)))
            }
            Takes::Word { words, .. } => words().first().map(|word| format!("\"{word}\"")),
            Takes::Text { default, .. } => default.map(|default| format!("\"{default}\"")),
            Takes::Other { default, .. } => default.map(str::to_owned),
        }
    }

    /// Its limits in words; empty if it has none that can be said in general.
    pub fn limits(&self) -> String {
        match self.takes {
            Takes::Number { least, most, .. } => format!("{least} to {most}."),
            Takes::Duration { least, .. } if least > Duration::from_millis(1) => {
                format!("At least `\"{}\"`.", duration_text(least))
            }
            Takes::Duration { .. }
            | Takes::Boolean(_)
            | Takes::Word { .. }
            | Takes::Text { .. }
            | Takes::Other { .. } => String::new(),
        }
    }
}

/// The words of a type, for [`Takes::Word`].
pub fn words<T: Word>() -> Vec<&'static str> {
    T::WORDS.iter().map(|(word, _)| *word).collect()
}

const fn text(kind: &'static str) -> Takes {
    Takes::Text { kind, default: None }
}

const fn number(least: i64, most: i64, default: Option<i64>) -> Takes {
    Takes::Number { least, most, default }
}

const fn duration(least_ms: u64, default_ms: u64) -> Takes {
    Takes::Duration {
        least: Duration::from_millis(least_ms),
        default: Some(Duration::from_millis(default_ms)),
    }
}

const fn word<T: Word>(later: &'static [&'static str]) -> Takes {
    Takes::Word { words: words::<T>, later }
}

/// A list of something, of which one may stand without its brackets.
const fn list(kind: &'static str, json: &'static [&'static str]) -> Takes {
    Takes::Other { kind, json, default: None }
}

/// Every table that has a header of its own, for telling where a key that stands in the wrong one belongs.
pub(super) static TITLED: [&Schema; 9] =
    [&DAEMON, &FARM, &AFFINITY, &TIMEOUTS, &LIMITS, &BACKEND, &CHECK, &PASSIVE, &ON_CHANGE];
