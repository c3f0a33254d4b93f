use super::*;
use crate::api::types::{CheckResult, CheckSchedule};

const STYLE: Style = Style { colour: false, narrow: true };

fn check(backend: &str, name: &str, state: CheckState, result: CheckVerdict, reason: &str) -> Check {
    let last = CheckResult {
        time: "2026-11-03T08:00:00Z".to_owned(),
        result,
        duration_seconds: 0.0124,
        reason: reason.to_owned(),
    };
    Check {
        farm: "web".to_owned(),
        backend: backend.to_owned(),
        check: name.to_owned(),
        kind: "tcp".to_owned(),
        address: "10.0.0.11:80".to_owned(),
        state,
        since: "2026-11-03T07:00:00Z".to_owned(),
        reason: "of the state".to_owned(),
        last: Some(last),
        running: false,
        next_run_in_seconds: 6.54,
        transitions: 0,
        shared_with: 0,
        history: Vec::new(),
    }
}

fn list(checks: Vec<Check>) -> String {
    let schedule = CheckSchedule {
        checks: checks.len(),
        distinct: 1,
        running: 0,
        lateness_p99_seconds: 0.0,
        lateness_max_seconds: 0.0,
    };
    let now = humantime::parse_rfc3339_weak("2026-11-03T08:00:03Z").unwrap();
    listed(&Checks { checks, schedule }, STYLE, now)
}

#[test]
fn each_check_has_a_line_and_what_does_not_fit_has_another() {
    use CheckState::{Down, Starting, Up};
    use CheckVerdict::{Failed, Passed, Untried};
    let mut fresh = check("10.0.0.14", "tcp 10.0.0.14:80", Starting, Untried, "x");
    fresh.last = None;
    fresh.running = true;
    let listed = list(vec![
        check("10.0.0.11", "tcp 10.0.0.11:80", Up, Passed, "connected"),
        check("10.0.0.12", "tcp 10.0.0.12:80", Down, Failed, "/owa: status 503, not 200-399"),
        check("10.0.0.13", "tcp 10.0.0.13:80", Down, Passed, "connected"),
        fresh,
    ]);
    let expected = "  FARM  BACKEND    CHECK             STATE     LAST  TOOK     NEXT
  web   10.0.0.11  tcp 10.0.0.11:80  up          3s  12ms     6.5s  connected
! web   10.0.0.12  tcp 10.0.0.12:80  DOWN        3s  12ms     6.5s
      /owa: status 503, not 200-399
! web   10.0.0.13  tcp 10.0.0.13:80  DOWN        3s  12ms     6.5s
      passed: connected
  web   10.0.0.14  tcp 10.0.0.14:80  starting     -     -  running  of the state
";
    assert_eq!(listed, expected, "\n{listed}");
    assert!(listed.lines().all(|line| line.chars().count() <= WIDTH));
}

#[test]
fn no_checks_are_said_to_be_none() {
    assert_eq!(list(Vec::new()), "no checks: nobody knows whether the backends work\n");
}

#[test]
fn spans_are_told_in_a_unit_that_fits() {
    let cases = [(0.0004, "<1ms"), (0.0124, "12ms"), (0.9996, "1.0s"), (3.12, "3.1s"), (300.0, "5m")];
    for (seconds, expected) in cases {
        assert_eq!(span(seconds), expected);
    }
}
