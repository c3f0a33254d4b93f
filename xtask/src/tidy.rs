//! `tidy`: cheap checks of the tree that the compiler and clippy do not make.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::root;

/// A Rust file may have this many lines; a longer one needs its reason in [`LONG_FILES`].
const LINES_MAX: usize = 400;

/// Long files, each with the reason why it is one file.
const LONG_FILES: &[(&str, &str)] = &[("lb-daemon/tests/api.rs", "one table of calls and their answers")];

/// Written in two halves, so that this file does not mention them.
const FORBIDDEN: &[&str] = &[concat!("to", "do!("), concat!("unimple", "mented!("), concat!("FIX", "ME")];

const TEXT: &[&str] =
    &["rs", "toml", "md", "sh", "json", "html", "css", "js", "ts", "tsx", "yml", "yaml", "service", "conf"];

/// Folders that are not looked into: what others made, and files that are bad on purpose.
const SKIPPED: &[&str] = &["target", ".git", "node_modules", "bad-configs"];

pub fn run() -> Result<()> {
    let mut files = Vec::new();
    walk(root(), &mut files)?;
    let mut faults = Vec::new();
    for file in &files {
        let bytes = fs::read(root().join(file)).with_context(|| file.display().to_string())?;
        let Ok(text) = String::from_utf8(bytes) else {
            faults.push(format!("{}: not UTF-8", file.display()));
            continue;
        };
        faults.extend(faults_of(&file.to_string_lossy(), &text));
    }
    for (long, _) in LONG_FILES {
        if !files.iter().any(|file| file == Path::new(long)) {
            faults.push(format!("xtask/src/tidy.rs: {long} is excused and does not exist"));
        }
    }
    for fault in &faults {
        eprintln!("{fault}");
    }
    if !faults.is_empty() {
        bail!("{} faults in {} files", faults.len(), files.len());
    }
    eprintln!("tidy: {} files, nothing to complain about", files.len());
    Ok(())
}

/// Collects the text files below `folder`, by their paths from the repository's root.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            if !SKIPPED.iter().any(|name| entry.file_name() == *name) {
                walk(&path, files)?;
            }
        } else if kind.is_file()
            && (path.extension().is_some_and(|it| TEXT.iter().any(|text| it == *text))
                || path.parent().and_then(Path::file_name).is_some_and(|it| it == ".ci"))
        {
            files.push(path.strip_prefix(root()).unwrap_or(&path).to_owned());
        }
    }
    Ok(())
}

/// What is wrong with one file.
fn faults_of(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        if line.ends_with([' ', '\t', '\r']) {
            faults.push(format!("{path}:{number}: trailing blanks"));
        }
        if let Some(word) = FORBIDDEN.iter().find(|word| line.contains(**word)) {
            faults.push(format!("{path}:{number}: '{word}' is work left undone"));
        }
    }
    if text.is_empty() || !text.ends_with('\n') || text.ends_with("\n\n") {
        faults.push(format!("{path}: does not end in one newline"));
    }
    let lines = text.lines().count();
    let excused = LONG_FILES.iter().any(|(long, _)| *long == path);
    if path.ends_with(".rs") && lines > LINES_MAX && !excused {
        faults.push(format!("{path}: {lines} lines; split it, or give its reason in xtask/src/tidy.rs"));
    }
    if excused && lines <= LINES_MAX {
        faults.push(format!("xtask/src/tidy.rs: {path} is excused and has only {lines} lines"));
    }
    if path.ends_with("Cargo.toml") && text.contains("[package]") && !inherits_lints(text) {
        faults.push(format!("{path}: does not inherit the workspace's lints"));
    }
    faults
}

fn inherits_lints(manifest: &str) -> bool {
    let lints = manifest.lines().skip_while(|line| line.trim() != "[lints]").skip(1);
    lints.take_while(|line| !line.starts_with('[')).any(|line| line.replace(' ', "") == "workspace=true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_named_with_its_place() {
        let manifest = "[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n";
        let long = "//\n".repeat(LINES_MAX + 1);
        let undone = format!("fn f() {{ {}) }}\n", FORBIDDEN[0]);
        let cases: &[(&str, &str, &[&str])] = &[
            ("a.rs", "fn f() {}\n", &[]),
            ("a.rs", "fn f() {} \n", &["a.rs:1: trailing blanks"]),
            ("a.rs", "fn f() {}", &["one newline"]),
            ("a.md", "a\n\n", &["one newline"]),
            ("a.rs", &undone, &["a.rs:1: "]),
            ("a.rs", &long, &["401 lines"]),
            ("a.md", &long, &[]),
            ("a/Cargo.toml", manifest, &[]),
            ("a/Cargo.toml", "[package]\n[dependencies]\nworkspace = true\n", &["does not inherit"]),
        ];
        for (path, text, expected) in cases {
            let faults = faults_of(path, text);
            assert_eq!(faults.len(), expected.len(), "{path}: {faults:?}");
            for (fault, part) in faults.iter().zip(*expected) {
                assert!(fault.contains(part), "{fault}");
            }
        }
    }
}
