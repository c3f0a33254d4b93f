//! One thing that is wrong with a configuration, said so that it can be mended.

use std::fmt;

/// Where a value stands in the text: both count from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

/// One error of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The key, as in `farm[0].backend[1].weight`; empty when the text as a whole is meant.
    pub path: String,
    /// Unknown for what stands in no text, such as a farm that is put through the API.
    pub at: Option<Position>,
    /// What is wrong and what was expected.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl fmt::Display for ConfigError {
    /// `line 7, column 3: farm[0].backend[1].weight: must be 0 to 256, not 300 (hint: ...)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.at {
            write!(f, "line {}, column {}: ", at.line, at.column)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " (hint: {hint})"),
            None => Ok(()),
        }
    }
}
