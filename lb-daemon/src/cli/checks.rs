//! `drover checks` and `drover checks run`

use std::time::{Duration, SystemTime};

use hyper::Method;
use serde_json::json;

use super::args::{ChecksAction, ChecksArgs};
use super::client::{Body, query};
use super::text::{self, Style, Tone, WIDTH};
use super::{Context, Failure, print};
use crate::api::types::{Check, CheckRun, CheckRuns, CheckState, CheckVerdict, Checks};
use crate::clock;

/// How long checks run by hand may take in all. Each has its own time-out, and a few run at once.
const PATIENCE: Duration = Duration::from_secs(600);

pub async fn run(context: &Context, args: ChecksArgs) -> Result<String, Failure> {
    match args.action {
        Some(ChecksAction::Run { farm, backend }) => by_hand(context, farm, backend).await,
        None => {
            let values = [("farm", args.farm), ("backend", args.backend)];
            let answer = context.client.get(&format!("/v1/checks{}", query(values))).await?;
            context.show(&answer, |checks: Checks| listed(&checks, context.style, clock::wall()))
        }
    }
}

/// All that the checks said goes to stdout; that one did not pass is told as a refusal is.
async fn by_hand(context: &Context, farm: String, backend: Option<String>) -> Result<String, Failure> {
    let mut request = json!({ "farm": farm });
    if let Some(backend) = backend {
        request["backend"] = backend.into();
    }
    let body = Some(Body::json(&request));
    let answer = context.client.send_within(PATIENCE, Method::POST, "/v1/checks/run", body).await?;
    let runs: CheckRuns = context.client.read(&answer)?;
    if runs.passed {
        return context.show(&answer, |runs| said(&runs, context.style));
    }
    if !context.json {
        // A reader who has seen enough still gets the exit status.
        print(&said(&runs, context.style)).ok();
    }
    let not_passed = runs.runs.iter().filter(|run| run.result != CheckVerdict::Passed).count();
    let message = format!("{not_passed} of {} did not pass", plural(runs.runs.len(), "check"));
    Err(Failure { answer: Some(answer), ..Failure::refused(message) })
}

fn plural(n: usize, singular: &str) -> String {
    text::count(u64::try_from(n).unwrap_or(u64::MAX), singular)
}

pub(super) fn listed(checks: &Checks, style: Style, now: SystemTime) -> String {
    if checks.checks.is_empty() {
        return "no checks: nobody knows whether the backends work\n".to_owned();
    }
    let heading = ["  FARM", "BACKEND", "CHECK", "STATE", "LAST", "TOOK", "NEXT"].map(str::to_owned).to_vec();
    let rows = std::iter::once(heading).chain(checks.checks.iter().map(|check| row(check, now)));
    let mut rows = text::table_rows(&rows.collect::<Vec<_>>(), &[4, 5, 6], style).into_iter();
    let mut listed = style.paint(Tone::Faint, rows.next().unwrap_or_default().trim_end());
    listed.push('\n');
    for (row, check) in rows.zip(&checks.checks) {
        listed += &entry(row.trim_end(), check, style);
    }
    listed
}

fn row(check: &Check, now: SystemTime) -> Vec<String> {
    let last = check.last.as_ref();
    let next = match (check.running, check.next_run_in_seconds) {
        (true, _) => "running".to_owned(),
        (false, 0.0) => "due".to_owned(),
        (false, seconds) => span(seconds),
    };
    vec![
        format!("  {}", check.farm),
        check.backend.clone(),
        check.check.clone(),
        state(check.state).0.to_owned(),
        last.map_or_else(|| "-".to_owned(), |last| text::ago(&last.time, now)),
        last.map_or_else(|| "-".to_owned(), |last| span(last.duration_seconds)),
        next,
    ]
}

/// A row of the table, and what the last result said behind it or below.
fn entry(row: &str, check: &Check, style: Style) -> String {
    let (_, tone) = state(check.state);
    let marker = if tone == Tone::Bad { style.paint(tone, "!") } else { " ".to_owned() };
    let reason = check.last.as_ref().map_or(check.reason.as_str(), |last| last.reason.as_str());
    let words = match check.last.as_ref().map(|last| last.result) {
        Some(CheckVerdict::Failed) if check.state == CheckState::Up => format!("failed: {reason}"),
        Some(CheckVerdict::Passed) if check.state == CheckState::Down => format!("passed: {reason}"),
        Some(CheckVerdict::Untried) => format!("could not be made: {reason}"),
        Some(CheckVerdict::Passed | CheckVerdict::Failed) | None => reason.to_owned(),
    };
    let words = printable(&words);
    let row = row.get(1..).unwrap_or_default();
    // The row begins behind the marker, but for lines after its first.
    let last = row.lines().last().map_or(0, |line| line.chars().count() + usize::from(!row.contains('\n')));
    if last + 2 + words.chars().count() <= WIDTH {
        return format!("{marker}{row}  {words}\n");
    }
    format!("{marker}{row}\n{}", text::wrap(&words, 6))
}

fn state(state: CheckState) -> (&'static str, Tone) {
    match state {
        CheckState::Up => ("up", Tone::Good),
        CheckState::Down => ("DOWN", Tone::Bad),
        CheckState::Unchecked => ("unchecked", Tone::Warning),
        CheckState::Starting => ("starting", Tone::Warning),
    }
}

/// As in `412us`, `12ms`, `3.1s` or `5m`.
fn span(seconds: f64) -> String {
    match seconds {
        s if s < 0.0005 => "<1ms".to_owned(),
        s if s < 0.9995 => format!("{:.0}ms", s * 1000.0),
        s if s < 59.95 => format!("{s:.1}s"),
        s => text::short(Duration::try_from_secs_f64(s).unwrap_or_default()),
    }
}

/// A heading for each check, and below it all that it wrote.
pub(super) fn said(runs: &CheckRuns, style: Style) -> String {
    let mut said = String::new();
    for run in &runs.runs {
        let CheckRun { farm, backend, check, duration_seconds, reason, output, .. } = run;
        let (word, tone) = match run.result {
            CheckVerdict::Passed => ("passed", Tone::Good),
            CheckVerdict::Failed => ("FAILED", Tone::Bad),
            CheckVerdict::Untried => ("COULD NOT BE MADE", Tone::Bad),
        };
        let took = span(*duration_seconds);
        said += &heading(
            &format!("{farm} {backend}, {check}:"),
            word,
            &format!("in {took}: {}", printable(reason)),
            tone,
            style,
        );
        for line in output.lines() {
            said += format!("    {}", printable(line)).trim_end();
            said.push('\n');
        }
    }
    said
}

/// The first line of what a check said, or lines; the verdict is painted.
fn heading(whose: &str, verdict: &str, rest: &str, tone: Tone, style: Style) -> String {
    let wrapped = text::wrap(&format!("{whose} {verdict} {rest}"), 2);
    wrapped.trim_start().replacen(&format!(" {verdict} "), &format!(" {} ", style.paint(tone, verdict)), 1)
}

/// What a server or a plugin wrote, without what would act on a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
