//! Small words for people: colours, durations, amounts, wrapped lines.

use std::time::{Duration, SystemTime};

/// The columns that every terminal has.
pub const WIDTH: usize = 80;

/// How a word is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Strong,
    Faint,
    Good,
    Warning,
    Bad,
}

/// Whether output is coloured; what a colour says, the text says too.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    pub colour: bool,
}

impl Style {
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Strong => "1",
            Tone::Faint => "2",
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "1;31",
        };
        match self.colour {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

/// A duration in its two largest units, as in `3d 4h`.
pub fn long(duration: Duration) -> String {
    let secs = duration.as_secs();
    match (secs / 86_400, secs / 3600 % 24, secs / 60 % 60, secs % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, m, _) => format!("{h}h {m}m"),
        (d, h, _, _) => format!("{d}d {h}h"),
    }
}

/// A duration in its largest unit, as in `3m`.
pub fn short(duration: Duration) -> String {
    let long = long(duration);
    long.split(' ').next().unwrap_or(&long).to_owned()
}

/// How long ago an RFC 3339 time was.
pub fn ago(time: &str, now: SystemTime) -> String {
    match humantime::parse_rfc3339_weak(time) {
        Ok(time) => short(now.duration_since(time).unwrap_or_default()),
        Err(_) => "?".to_owned(),
    }
}

/// `1 farm`, `2 farms`.
pub fn count(n: u64, singular: &str) -> String {
    match n {
        1 => format!("1 {singular}"),
        n => format!("{n} {singular}s"),
    }
}

/// An amount with a decimal prefix, as in `1.2G`.
pub fn amount(n: u64) -> String {
    const PREFIXES: [(u64, char); 4] =
        [(1_000_000_000_000, 'T'), (1_000_000_000, 'G'), (1_000_000, 'M'), (1000, 'k')];
    match PREFIXES.into_iter().find(|(size, _)| n >= *size) {
        Some((size, prefix)) => {
            let tenths = n / (size / 10);
            format!("{}.{}{prefix}", tenths / 10, tenths % 10)
        }
        None => n.to_string(),
    }
}

/// Breaks a text at spaces into lines of at most [`WIDTH`] columns, each behind `indent` spaces. A longer word
/// has a line of its own.
pub fn wrap(text: &str, indent: usize) -> String {
    let mut wrapped = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column == 0 || column + 1 + length > WIDTH {
            if column > 0 {
                wrapped.push('\n');
            }
            wrapped += &" ".repeat(indent);
            column = indent;
        } else {
            wrapped.push(' ');
            column += 1;
        }
        wrapped += word;
        column += length;
    }
    if column > 0 {
        wrapped.push('\n');
    }
    wrapped
}

/// Rows as columns two spaces apart, numbers (columns in `right`) to the right. No spaces end a line.
pub fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cells_of = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let width = |column| cells_of(column).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_in_their_largest_units() {
        let cases =
            [(0, "0s", "0s"), (75, "1m 15s", "1m"), (3 * 3600, "3h 0m", "3h"), (273_600, "3d 4h", "3d")];
        for (secs, expected_long, expected_short) in cases {
            let duration = Duration::from_secs(secs);
            assert_eq!((long(duration).as_str(), short(duration).as_str()), (expected_long, expected_short));
        }
    }

    #[test]
    fn amounts_have_prefixes() {
        let cases = [(0, "0"), (999, "999"), (1000, "1.0k"), (1_250_000, "1.2M"), (u64::MAX, "18446744.0T")];
        for (n, expected) in cases {
            assert_eq!(amount(n), expected);
        }
    }

    #[test]
    fn colours_are_left_out_when_not_wanted() {
        assert_eq!(Style { colour: false }.paint(Tone::Bad, "DOWN"), "DOWN");
        assert_eq!(Style { colour: true }.paint(Tone::Bad, "DOWN"), "\x1b[1;31mDOWN\x1b[0m");
    }

    #[test]
    fn long_lines_break_at_spaces() {
        let text = format!("{} {} {}", "a".repeat(50), "b".repeat(28), "c".repeat(90));
        let expected = format!("  {}\n  {}\n  {}\n", "a".repeat(50), "b".repeat(28), "c".repeat(90));
        assert_eq!(wrap(&text, 2), expected);
        assert_eq!(wrap("", 2), "");
    }
}
