//! What people read who have made a mistake: each file in `bad-configs` holds one, and says in its first four
//! lines where it is and what must be told about it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what tests share may fail as they do")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lb_core::config::{ConfigError, Position};
use lb_daemon::cli::check::run;
use lb_daemon::config::parse;
use lb_daemon::handle::Format;
use lb_daemon::report::render;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad-configs")
}

/// What stands after `# key: ` in one of the file's first lines.
fn expected<'a>(text: &'a str, key: &str) -> &'a str {
    let wanted = format!("# {key}:");
    text.lines().take(4).find_map(|line| line.strip_prefix(&wanted)).unwrap().trim()
}

/// What is wrong with the answer to one file, if anything.
fn judge(name: &str, text: &str) -> Result<(), String> {
    let errors = parse(text, Format::Toml).err().ok_or("was accepted")?;
    let [error] = errors.as_slice() else {
        return Err(format!("is one mistake and {} errors: {errors:#?}", errors.len()));
    };
    let (line, column) = expected(text, "at").split_once(':').unwrap();
    let at = Position { line: line.parse().unwrap(), column: column.parse().unwrap() };
    let hint = error.hint.as_deref().unwrap_or("");
    let right = error.at == Some(at)
        && error.path == expected(text, "path")
        && error.message.contains(expected(text, "message"))
        && hint.contains(expected(text, "hint"));
    if !right {
        return Err(format!("got {error:#?}"));
    }
    let report = render(Path::new(name), text, &errors);
    if !report.starts_with(&format!("{name}:{line}:{column}: ")) || !report.ends_with(": 1 error\n") {
        return Err(format!("is reported as\n{report}"));
    }
    // The first line is for editors and scripts; the rest is for a terminal.
    match report.lines().skip(1).find(|line| line.chars().count() > 80) {
        Some(line) => Err(format!("has a report wider than a terminal: {line}")),
        None => Ok(()),
    }
}

#[test]
fn every_mistake_is_told_once_with_its_place_and_what_to_do() {
    let mut files: Vec<_> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 180, "only {} bad files found", files.len());
    let mut failures = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        if let Err(why) = judge(name, &text) {
            failures.push(format!("{name} {why}"));
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn json_is_told_its_mistakes_with_their_places_too() {
    let farm = |keys: &str| {
        format!(
            "{{\"daemon\": {{\"interfaces\": [\"eth0\"]}},\n \"farm\": [{{\"name\": \"web\",\n{keys}}}]}}"
        )
    };
    let backend = |keys: &str| {
        let keys = format!("\"address\": \"10.0.0.11\",\n{keys}");
        farm(&format!("\"vip\": \"192.0.2.10\", \"ports\": [80], \"backend\": [{{{keys}}}]"))
    };
    /// What it is, the text, line and column, path, and parts of message and hint.
    type Case<'a> = (&'a str, String, (u32, u32), &'a str, &'a str, &'a str);
    let table: &[Case<'_>] = &[
        ("empty", String::new(), (1, 1), "", "not JSON: EOF", "begins with {"),
        ("toml", "[daemon]\ninterfaces".to_owned(), (1, 2), "", "not JSON", "is it TOML?"),
        ("cut off", "{\"daemon\": {".to_owned(), (1, 12), "", "not JSON: EOF", "close every"),
        ("comment", "{\n# here\n}".to_owned(), (2, 1), "", "not JSON: key must be a string", "no comments"),
        ("trailing comma", "{\n\"daemon\": 1,\n}".to_owned(), (3, 1), "", "not JSON", "remove the comma"),
        ("trailing text", "{}\n}".to_owned(), (2, 1), "", "trailing characters", "double quotes"),
        ("list", "[]".to_owned(), (1, 1), "", "must be a table", "`daemon`"),
        ("null", farm("\"vip\": null, \"ports\": [80]"), (3, 8), "farm[0].vip", "not null", "192.0.2.10"),
        ("twice", farm("\"vip\": \"1.2.3.4\",\n\"vip\": 1"), (4, 1), "farm[0].vip", "twice", "keep one"),
        ("weight", backend("\"weight\": 300"), (4, 11), "farm[0].backend[0].weight", "not 300", "256"),
        (
            "huge",
            backend("\"weight\": 99999999999999999999"),
            (4, 11),
            "farm[0].backend[0].weight",
            "range",
            "",
        ),
        ("key", backend("\"weigth\": 3"), (4, 1), "farm[0].backend[0].weigth", "unknown", "`weight`"),
        ("escape", backend("\"name\": \"\\ud800\""), (4, 9), "farm[0].backend[0].name", "not JSON", "string"),
        ("number", backend("\"port\": 1.0"), (4, 9), "farm[0].backend[0].port", "not 1.0", "whole"),
        ("later", backend("\"limits\": {}"), (4, 1), "farm[0].backend[0].limits", "not supported yet", ""),
        ("deep", "[".repeat(100) + &"]".repeat(100), (1, 33), &"[0]".repeat(32), "too deeply", ""),
    ];
    for (what, text, (line, column), path, message, hint) in table {
        let errors = parse(text, Format::Json).unwrap_err();
        let [error] = errors.as_slice() else { panic!("{what}: {errors:#?}") };
        assert_eq!(error.at, Some(Position { line: *line, column: *column }), "{what}: {error}");
        assert_eq!(&error.path, path, "{what}: {error}");
        assert!(error.message.contains(message), "{what}: {error}");
        assert!(error.hint.as_deref().unwrap_or("").contains(hint), "{what}: {error}");
    }
}

#[test]
fn a_byte_order_mark_is_no_mistake() {
    let toml = "\u{feff}[daemon]\ninterfaces = [\"eth0\"]\n";
    assert!(parse(toml, Format::Toml).is_ok());
    assert!(parse("\u{feff}{\"daemon\": {\"interfaces\": [\"eth0\"]}}", Format::Json).is_ok());
}

#[test]
fn all_mistakes_of_a_file_are_told_in_its_order() {
    let text = "[daemon]\ninterfaces = []\nconections = 5\n[[farm]]\nname = 'Web'\nvip = '192.0.2.10/24'\n\
                ports = ['9-1', 0]\n[[farm.backend]]\naddress = '10.0.0.11'\nweight = 300\n[web]\n";
    let errors = parse(text, Format::Toml).unwrap_err();
    let places: Vec<_> = errors.iter().map(|error| (error.at.unwrap().line, error.path.as_str())).collect();
    assert_eq!(
        places,
        [
            (2, "daemon.interfaces"),
            (3, "daemon.conections"),
            (5, "farm[0].name"),
            (6, "farm[0].vip"),
            (7, "farm[0].ports[0]"),
            (7, "farm[0].ports[1]"),
            (10, "farm[0].backend[0].weight"),
            (11, "web"),
        ]
    );
    let report = render(Path::new("drover.toml"), text, &errors);
    assert!(report.ends_with("drover.toml: 8 errors\n"), "{report}");
}

#[test]
fn the_report_shows_the_line_and_a_caret() {
    let text = "[daemon]\n\tinterfaces = [\"eth0\"]\n  connections = 5 # few\r\n";
    let errors = parse(text, Format::Toml).unwrap_err();
    assert_eq!(
        render(Path::new("/etc/drover.toml"), text, &errors),
        "/etc/drover.toml:3:17: daemon.connections: must be a number from 1024 to 16777216, not 5\n    \
         connections = 5 # few\n    \
         \x20             ^\n    \
         hint: the least is 1024\n\
         /etc/drover.toml: 1 error\n"
    );
}

#[test]
fn the_caret_stays_on_the_screen_and_below_its_character() {
    let error = |line: u32, column| ConfigError {
        path: String::new(),
        at: Some(Position { line, column }),
        message: "m".to_owned(),
        hint: None,
    };
    let long = format!("{}X{}", "\u{e9}".repeat(500), "-".repeat(500));
    for (text, line, column, character) in [
        (long.as_str(), 1, 501, "X"),
        ("\t\tkey = X", 1, 9, "X"),
        ("key = \u{1b}[31mX", 1, 12, "X"),
        ("X", 1, 1, "X"),
        ("X", 1, 40, ""),
        ("", 1, 1, ""),
        ("X", 9, 9, ""),
    ] {
        let report = render(Path::new("f"), text, &[error(line, column)]);
        assert!(!report.contains('\u{1b}'), "{report}");
        let lines: Vec<&str> = report.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{report}");
        let Some(caret) = lines.iter().position(|line| line.trim() == "^") else {
            assert_eq!(character, "", "{report}");
            continue;
        };
        let column = lines[caret].chars().position(|c| c == '^').unwrap();
        assert_eq!(lines[caret - 1].chars().skip(column).take(1).collect::<String>(), character, "{report}");
    }
}

#[test]
fn the_exit_status_tells_a_valid_file_from_another() {
    // An `ExitCode` can be compared only as it is printed.
    let status = |path: &Path, json| format!("{:?}", run(path, json));
    let (good, bad) = (folder().join("../good-configs/smallest.toml"), folder().join("weight-300.toml"));
    for json in [false, true] {
        assert_eq!(status(&good, json), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(status(&bad, json), format!("{:?}", ExitCode::from(2)));
        assert_eq!(status(Path::new("/nonexistent/drover.toml"), json), format!("{:?}", ExitCode::from(2)));
    }
}
