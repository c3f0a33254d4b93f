//! The tests' programs: which there are, and how each is run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What a program of tests needs of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// It computes, and does not look at the time: behind all others, beside them.
    Patience,
    /// It takes long and mostly waits: begun before others.
    Time,
    /// It mostly waits.
    Little,
    /// It measures, or makes so much traffic that others would notice.
    Everything,
}

/// Those that are not of the many that need little. A name that is none's any more is an error.
const KNOWN: [(&str, Needs); 20] = [
    ("models", Needs::Patience),
    ("dataplane", Needs::Patience),
    ("reconcile", Needs::Patience),
    ("config_properties", Needs::Patience),
    ("properties", Needs::Patience),
    ("stress", Needs::Patience),
    ("lb_common", Needs::Patience),
    ("lb_core", Needs::Patience),
    ("sickness", Needs::Time),
    ("exchange", Needs::Time),
    ("departed", Needs::Time),
    ("restart", Needs::Time),
    ("consequences", Needs::Time),
    ("table_load", Needs::Time),
    ("lb_daemon", Needs::Time),
    ("commands", Needs::Everything),
    ("flood", Needs::Everything),
    ("many_checks", Needs::Everything),
    ("many_connections", Needs::Everything),
    ("many_vips", Needs::Everything),
];

/// A program of tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub name: String,
    pub file: PathBuf,
    /// Its package's folder, where it is run.
    pub folder: PathBuf,
    pub needs: Needs,
}

/// The programs, by the messages of the cargo that built them (`--message-format json`), one a line. In the order in which
/// they are begun.
pub fn of(messages: &str) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).with_context(|| format!("cargo says {line}"))?;
        if message["profile"]["test"] == true
            && let Some(file) = message["executable"].as_str()
        {
            let text =
                |value: &Value| value.as_str().map(str::to_owned).context("no text where cargo has one");
            let (name, manifest) = (text(&message["target"]["name"])?, text(&message["manifest_path"])?);
            let folder = Path::new(&manifest).parent().context("a manifest lies in a folder")?.to_owned();
            let known = KNOWN.iter().find(|(known, _)| *known == name);
            let needs = known.map_or(Needs::Little, |(_, needs)| *needs);
            programs.push(Program { name, file: file.into(), folder, needs });
        }
    }
    if let Some((name, _)) = KNOWN.iter().find(|(name, _)| !programs.iter().any(|it| it.name == *name)) {
        bail!("no tests are called {name}: xtask/src/test/programs.rs knows them");
    }
    programs.sort_by_key(|program| program.needs);
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str, test: bool) -> String {
        let at = "/drover/lb-daemon";
        format!(
            "{{\"reason\":\"compiler-artifact\",\"manifest_path\":\"{at}/Cargo.toml\",\"target\":{{\"name\":\"{name}\"}},\
             \"profile\":{{\"test\":{test}}},\"executable\":\"/target/{name}\"}}\n"
        )
    }

    #[test]
    fn what_is_built_for_tests_is_run_in_its_packages_folder_and_what_computes_is_begun_first() {
        let finished = "{\"reason\":\"build-finished\",\"success\":true}\n";
        let known: String = KNOWN.iter().rev().map(|(name, _)| message(name, true)).collect();
        let text = message("drover", false) + &message("vips", true) + &known + finished;
        let programs = of(&text).unwrap();
        assert_eq!(programs.len(), KNOWN.len() + 1);
        assert!(programs.is_sorted_by_key(|it| it.needs));
        let vips = programs.iter().find(|it| it.name == "vips").unwrap();
        assert_eq!((vips.needs, &*vips.file.to_string_lossy()), (Needs::Little, "/target/vips"));
        assert_eq!(vips.folder, Path::new("/drover/lb-daemon"));
    }

    #[test]
    fn a_name_that_no_tests_have_any_more_is_an_error() {
        let error = of(&message("vips", true)).unwrap_err().to_string();
        assert!(error.contains(KNOWN[0].0), "{error}");
    }
}
