//! How the mistakes of a configuration are told to people, with the lines in which they stand.

use std::fmt::Write as _;
use std::path::Path;

use lb_core::config::ConfigError;

use crate::config::LoadError;

/// How wide a line of the report is at most, but for its first, which editors and scripts parse.
const WIDTH: usize = 80;
/// What stands before a source line.
const INDENT: &str = "    ";

/// Why a file is not a configuration, for people; ends with a line break.
pub fn render_failure(error: &LoadError) -> String {
    match error {
        LoadError::Invalid { path, text, errors } => render(path, text, errors),
        LoadError::Read { .. }
        | LoadError::NoFile { .. }
        | LoadError::TooLarge(_)
        | LoadError::NotUtf8 { .. } => {
            format!("{error}\n")
        }
    }
}

/// Every error with its source line, and how many there are; ends with a line break.
///
/// ```text
/// drover.toml:12:10: farm[0].backend[1].weight: must be a number from 0 to 256, not 300
///     weight = 300
///              ^
///     hint: the most is 256
/// drover.toml: 1 error
/// ```
pub fn render(path: &Path, text: &str, errors: &[ConfigError]) -> String {
    let lines: Vec<&str> = text.split('\n').map(|line| line.trim_end_matches('\r')).collect();
    let mut report = String::new();
    for error in errors {
        // Writing to a string cannot fail.
        write!(report, "{}:", path.display()).ok();
        if let Some(at) = error.at {
            write!(report, "{}:{}:", at.line, at.column).ok();
        }
        if !error.path.is_empty() {
            write!(report, " {}:", error.path).ok();
        }
        writeln!(report, " {}", error.message).ok();
        if let Some(at) = error.at
            && let Some(line) = (at.line as usize).checked_sub(1).and_then(|index| lines.get(index))
        {
            render_source(line, (at.column as usize).saturating_sub(1), &mut report);
        }
        if let Some(hint) = &error.hint {
            wrap(&format!("hint: {hint}"), &mut report);
        }
    }
    writeln!(report, "{}: {}", path.display(), count(errors.len(), "error")).ok();
    report
}

/// The line and a caret below its character number `column`; of a long line the part around it.
fn render_source(line: &str, column: usize, report: &mut String) {
    let room = WIDTH - INDENT.len();
    // A tab is as wide as the terminal likes, and other control characters may do anything to it.
    let characters: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let blanks = characters.iter().take_while(|c| **c == ' ').count().min(column);
    let start = if column - blanks < room { blanks } else { column - room / 2 };
    let shown: String = characters.iter().skip(start).take(room).collect();
    if shown.trim().is_empty() {
        return;
    }
    writeln!(report, "{INDENT}{}", shown.trim_end()).ok();
    writeln!(report, "{INDENT}{}^", " ".repeat(column - start)).ok();
}

/// Words over as many lines as they need, each after the first further in.
fn wrap(text: &str, report: &mut String) {
    let mut line = String::from(INDENT);
    let mut empty = true;
    for word in text.split(' ') {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            writeln!(report, "{line}").ok();
            line = format!("{INDENT}      ");
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    writeln!(report, "{line}").ok();
}

/// `1 farm`, `3 farms`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
