//! `drover check`: says everything that is wrong with a configuration file, and where. Needs no daemon.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use lb_core::config::ConfigError;
use lb_core::config::model::Config;
use serde_json::{Value, json};

use crate::config::{LoadError, load};
use crate::report::{count, render_failure};

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
