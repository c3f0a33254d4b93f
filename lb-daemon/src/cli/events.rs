//! `drover events`: what happened, and with `--follow` what happens.

use std::io;

use super::client::query;
use super::text::{self, Style, Tone, WIDTH};
use super::{Context, Failure, print};
use crate::api::types::{Event, Events, LostEvents};

/// How far in the lines of an event begin that follow its first.
const CONTINUED: usize = 6;

pub async fn run(context: &Context, follow: bool, since: Option<String>) -> Result<String, Failure> {
    let target = format!("/v1/events{}", query([("since", since)]));
    if !follow {
        let answer = context.client.get(&target).await?;
        return context.show(&answer, |answer: Events| {
            answer.events.iter().map(|event| line(event, context.style)).collect()
        });
    }
    let mut result = Ok(String::new());
    let show = |data: &str| match serde_json::from_str::<LostEvents>(data) {
        Ok(lost) => context.show(data, |_: LostEvents| lost_line(lost)),
        Err(_) => context.show(data, |event: Event| line(&event, context.style)),
    };
    let each = |data: &str| match show(data) {
        Ok(text) => match print(&text) {
            Ok(()) => true,
            // The reader has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => false,
            Err(error) => {
                result = Err(Failure::refused(format!("cannot write to stdout: {error}")));
                false
            }
        },
        Err(failure) => {
            result = Err(failure);
            false
        }
    };
    context.client.follow(&target, each).await?;
    result
}

fn lost_line(LostEvents { lost }: LostEvents) -> String {
    format!("{} lost: this reader has fallen behind\n", text::count(lost, "event"))
}

/// `2026-11-03T12:34:56Z  WARNING  BackEnd ...`, one line for a script, and as many as a screen needs.
pub(super) fn line(event: &Event, style: Style) -> String {
    let seconds = event.time.get(..19).map_or_else(|| event.time.clone(), |seconds| format!("{seconds}Z"));
    let (word, tone) = match event.level.as_str() {
        "warning" => ("WARNING", Tone::Warning),
        "error" => ("ERROR", Tone::Bad),
        other => (other, Tone::Plain),
    };
    let padding = " ".repeat("WARNING".len().saturating_sub(word.len()));
    let head = format!("{seconds}  {}{padding}  ", style.paint(tone, word));
    let column = seconds.chars().count() + 2 + word.len() + padding.len() + 2;
    if !style.narrow || column + event.message.chars().count() <= WIDTH {
        return format!("{head}{}\n", event.message);
    }
    // The first line has what fits behind the head.
    let told = text::wrap(
        &format!("{} {}", "-".repeat(column.saturating_sub(CONTINUED + 1)), event.message),
        CONTINUED,
    );
    let (_, told) = told.split_at(column.min(told.len()));
    format!("{head}{}", told.trim_start_matches(' '))
}
