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
    /// Somebody reads it on a screen. A program gets a line for each row, however long.
    pub narrow: bool,
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

/// As [`wrap`], but for the first line, which begins at the left.
pub fn hang(text: &str, indent: usize) -> String {
    // So that the first line has no more room than the others and nothing moves.
    wrap(text, indent).trim_start().to_owned()
}

/// Rows as columns two spaces apart, numbers (columns in `right`) to the right. No spaces end a line. On a screen none is longer
/// than [`WIDTH`] unless a word is: a cell that has no room in its column has a line to itself, and the row goes on below it.
pub fn table(rows: &[Vec<String>], right: &[usize], style: Style) -> String {
    table_rows(rows, right, style).concat()
}

/// As [`table`], a text for each row, of one line or more.
pub fn table_rows(rows: &[Vec<String>], right: &[usize], style: Style) -> Vec<String> {
    let width = if style.narrow { WIDTH } else { usize::MAX };
    let widths = widths(rows, width);
    rows.iter().map(|row| table_row(row, &widths, right, width)).collect()
}

/// The widest that the columns may be. The last has what is left; of the others the widest gives way first, down to its heading.
fn widths(rows: &[Vec<String>], most: usize) -> Vec<usize> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let lengths =
        |column: usize| rows.iter().filter_map(move |row| row.get(column)).map(|it| it.chars().count());
    let mut widths: Vec<usize> = (0..columns).map(|column| lengths(column).max().unwrap_or(0)).collect();
    let heading =
        |column: usize| rows.first().and_then(|row| row.get(column)).map_or(0, |it| it.chars().count());
    let last = columns.saturating_sub(1);
    let wanted = |widths: &[usize]| {
        let others: usize = widths.iter().take(last).map(|width| width + 2).sum();
        others + widths.get(last).map_or(0, |&width| width.min(LAST_MIN))
    };
    while wanted(&widths) > most {
        let widest =
            (0..last).filter(|&column| widths[column] > heading(column)).max_by_key(|&column| widths[column]);
        let Some(widest) = widest else { break };
        let narrower = lengths(widest).filter(|&length| length < widths[widest]).max();
        widths[widest] = narrower.unwrap_or(0).max(heading(widest));
    }
    widths
}

/// What the last column has at least before others give way.
const LAST_MIN: usize = 20;

fn table_row(row: &[String], widths: &[usize], right: &[usize], most: usize) -> String {
    let (mut text, mut line) = (String::new(), String::new());
    let mut start = 0;
    for (column, (cell, &width)) in row.iter().zip(widths).enumerate() {
        let is_last = column + 1 == widths.len();
        let length = cell.chars().count();
        let room = if is_last { most.saturating_sub(start) } else { width };
        if length <= room {
            let width = if is_last { length.max(width.min(room)) } else { width };
            line += &" ".repeat(start.saturating_sub(line.chars().count()));
            line +=
                &if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:width$}") };
        } else {
            // Behind what stands there, if there is room; else on a line of its own.
            let here = line.trim_end().chars().count();
            let begin = if here == 0 { 0 } else { start };
            if begin + length <= most {
                line += &" ".repeat(begin.saturating_sub(line.chars().count()));
                line += cell;
                end_line(&mut text, &mut line);
            } else {
                end_line(&mut text, &mut line);
                text += &wrap(cell, start.min(CONTINUED));
            }
        }
        start += width + 2;
    }
    end_line(&mut text, &mut line);
    text
}

/// How far in a cell begins at most that has a line to itself.
const CONTINUED: usize = 6;

fn end_line(text: &mut String, line: &mut String) {
    if !line.trim_end().is_empty() {
        *text += line.trim_end();
        text.push('\n');
    }
    line.clear();
}

/// Words behind each other, with commas, over as many lines as they need; each is told by its length and its paint.
pub fn listing(parts: &[(usize, String)]) -> String {
    let (mut text, mut column) = (String::new(), 0);
    for (at, (length, painted)) in parts.iter().enumerate() {
        let comma = if at + 1 == parts.len() { "" } else { "," };
        if column > 0 && column + 1 + length + comma.len() > WIDTH {
            text.push('\n');
            column = 0;
        } else if column > 0 {
            text.push(' ');
            column += 1;
        }
        text += &format!("{painted}{comma}");
        column += length + comma.len();
    }
    text.push('\n');
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
        assert_eq!(Style { colour: false, narrow: true }.paint(Tone::Bad, "DOWN"), "DOWN");
        assert_eq!(Style { colour: true, narrow: true }.paint(Tone::Bad, "DOWN"), "\x1b[1;31mDOWN\x1b[0m");
    }

    #[test]
    fn long_lines_break_at_spaces() {
        let text = format!("{} {} {}", "a".repeat(50), "b".repeat(28), "c".repeat(90));
        let expected = format!("  {}\n  {}\n  {}\n", "a".repeat(50), "b".repeat(28), "c".repeat(90));
        assert_eq!(wrap(&text, 2), expected);
        assert_eq!(wrap("", 2), "");
    }

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect()
    }

    #[test]
    fn a_cell_without_room_has_a_line_to_itself_and_the_row_goes_on_below_it() {
        let (long, longer) = ("a".repeat(40), "b".repeat(60));
        let words = "192.0.2.10; tcp ports 25, 80, 143, 443, 465, 587, 993, 995, 8080";
        let rows = rows(&[
            &["NAME", "OTHER", "NUMBER", "REST"],
            &["web", "x", "1", "short"],
            &[&long, &longer, "12", words],
            &["dns", "y", "3", words],
        ]);
        let expected = format!(
            "NAME                                      OTHER  NUMBER  REST\n\
             web                                       x           1  short\n\
             {long}\n      {longer}\n\
             \u{20}                                                    12\n      {words}\n\
             dns                                       y           3\n      {words}\n"
        );
        let style = Style { colour: false, narrow: true };
        assert_eq!(table(&rows, &[2], style), expected);
        let for_programs = table(&rows, &[2], Style { narrow: false, ..style });
        assert_eq!(for_programs.lines().count(), 4, "{for_programs}");
    }

    #[test]
    fn no_table_is_wider_than_the_screen() {
        for (first, second, third) in [(3, 3, 3), (20, 50, 9), (63, 63, 63), (5, 63, 30), (47, 47, 47)] {
            let cells = [first, second, third, 7, 63].map(|length| "x".repeat(length));
            let row: Vec<&str> = cells.iter().map(String::as_str).collect();
            let text = table(
                &rows(&[&["FIRST", "SECOND", "THIRD", "N", "LAST"], &row]),
                &[3],
                Style { colour: false, narrow: true },
            );
            assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
            let letters = text.lines().skip(1).map(|line| line.matches('x').count()).sum::<usize>();
            assert_eq!(letters, first + second + third + 7 + 63, "{text}");
        }
    }

    #[test]
    fn a_listing_breaks_between_its_parts_whatever_their_paint() {
        let style = Style { colour: true, narrow: true };
        let parts = ["a".repeat(50), "b".repeat(28), "c".repeat(20)];
        let painted = |part: &String| (part.chars().count(), style.paint(Tone::Bad, part));
        let text = listing(&parts.iter().map(painted).collect::<Vec<_>>());
        let plain = text.replace("\x1b[1;31m", "").replace("\x1b[0m", "");
        assert_eq!(plain, format!("{},\n{}, {}\n", parts[0], parts[1], parts[2]));
    }
}
