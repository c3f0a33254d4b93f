//! `drover check`: says everything that is wrong with a configuration file, and where. Needs no daemon.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use lb_core::config::ConfigError;
use lb_core::config::model::Config;
use serde_json::{Value, json};

use crate::config::{LoadError, load};

/// How wide a line of the report is at most, but for its first, which editors and scripts parse.
const WIDTH: usize = 80;
/// What stands before a source line.
const INDENT: &str = "    ";

/// Checks the file at `path` and prints what it found: on standard output the summary or the JSON, on standard
/// error the errors. The exit status is 0 if the file is valid, else 2.
pub fn run(path: &Path, json: bool) -> ExitCode {
    let result = load(path);
    let told = match (&result, json) {
        (_, true) => writeln!(io::stdout(), "{}", to_json(path, &result)),
        (Ok((_, _, config)), false) => writeln!(io::stdout(), "{}", summary(path, config)),
        (Err(error), false) => write!(io::stderr(), "{}", render_failure(error)),
    };
    match (result, told) {
        // Whoever closed the pipe does not want to read it; the status still counts.
        (Ok(_), Ok(()) | Err(_)) => ExitCode::SUCCESS,
        (Err(_), Ok(()) | Err(_)) => ExitCode::from(2),
    }
}

/// `drover.toml: valid: 3 farms, 7 backends`
pub fn summary(path: &Path, config: &Config) -> String {
    let backends = config.farms.iter().map(|farm| farm.backends.len()).sum();
    format!(
        "{}: valid: {}, {}",
        path.display(),
        count(config.farms.len(), "farm"),
        count(backends, "backend")
    )
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

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

/// `{valid, errors: [{path, line, column, message, hint}]}`
fn to_json(path: &Path, result: &Result<(String, crate::handle::Format, Config), LoadError>) -> Value {
    let errors: Vec<Value> = match result {
        Ok(_) => Vec::new(),
        Err(LoadError::Invalid { errors, .. }) => errors.iter().map(error_to_json).collect(),
        Err(LoadError::NotUtf8 { at, .. }) => {
            let error = ConfigError {
                path: String::new(),
                at: Some(*at),
                message: "is not UTF-8 text".to_owned(),
                hint: None,
            };
            vec![error_to_json(&error)]
        }
        Err(error @ (LoadError::Read { .. } | LoadError::NoFile { .. } | LoadError::TooLarge(_))) => {
            let message = error.to_string();
            vec![error_to_json(&ConfigError { path: String::new(), at: None, message, hint: None })]
        }
    };
    json!({"file": path.display().to_string(), "valid": result.is_ok(), "errors": errors})
}

fn error_to_json(error: &ConfigError) -> Value {
    json!({
        "path": error.path,
        "line": error.at.map(|at| at.line),
        "column": error.at.map(|at| at.column),
        "message": error.message,
        "hint": error.hint,
    })
}
