//! The small languages inside strings: durations, port ranges, prefixes; and likeness of words.

use std::fmt::Write as _;
use std::time::Duration;

use ipnet::IpNet;

use super::model::Ports;

/// The longest duration of any key: 30 days.
pub const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Parses `500ms`, `10s`, `5m`, `1h`, `1m30s`: whole numbers, each with its unit. `None` for anything else.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    loop {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at_checked(digits)?;
        let letters = tail.bytes().take_while(u8::is_ascii_lowercase).count();
        let (unit, tail) = tail.split_at_checked(letters)?;
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        let part = number.parse::<u64>().ok()?.checked_mul(milliseconds)?;
        total = total.checked_add(Duration::from_millis(part))?;
        if tail.is_empty() {
            return Some(total);
        }
        rest = tail;
    }
}

/// A duration as the configuration writes it: `1m30s`. What is below a millisecond is left out.
pub fn duration_text(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let parts = [
        (milliseconds / 3_600_000, "h"),
        (milliseconds / 60_000 % 60, "m"),
        (milliseconds / 1000 % 60, "s"),
        (milliseconds % 1000, "ms"),
    ];
    let mut text = String::new();
    for (number, unit) in parts.into_iter().filter(|&(number, _)| number > 0) {
        // Writing to a string cannot fail.
        write!(text, "{number}{unit}").ok();
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// What somebody meant who wrote `text` for a duration.
pub fn duration_hint(text: &str) -> String {
    let general =
        || "write a whole number and its unit, as in \"500ms\", \"10s\", \"5m\" or \"1h\"".to_owned();
    let squeezed: String = text.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase();
    if squeezed.is_empty() || squeezed.len() > 20 {
        return general();
    }
    let number_end = squeezed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(squeezed.len());
    let (number, unit) = squeezed.split_at(number_end);
    let unit = match unit {
        "" | "sec" | "secs" | "second" | "seconds" => "s",
        "min" | "mins" | "minute" | "minutes" => "m",
        "hour" | "hours" | "hr" => "h",
        "msec" | "millis" | "millisecond" | "milliseconds" => "ms",
        "d" | "day" | "days" => {
            let hours = number.parse::<u64>().ok().and_then(|days| days.checked_mul(24));
            return hours.map_or_else(general, |hours| format!("write \"{hours}h\""));
        }
        other => other,
    };
    let milliseconds = match unit {
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 6e4,
        "h" => 3.6e6,
        _ => {
            return if parse_duration(&squeezed).is_some() {
                format!("write \"{squeezed}\"")
            } else {
                general()
            };
        }
    };
    match number.parse::<f64>() {
        Ok(number) if (1.0..=DURATION_MAX.as_secs_f64() * 1e3).contains(&(number * milliseconds)) => {
            // In range just above, so the cast keeps the value.
            format!(
                "write \"{}\"",
                duration_text(Duration::from_millis((number * milliseconds).round() as u64))
            )
        }
        Ok(_) | Err(_) => general(),
    }
}

/// `80, 443, 587-588`, or `*`.
pub fn ports_text(ports: &Ports) -> String {
    match ports {
        Ports::All => "*".to_owned(),
        Ports::Ranges(ranges) => ranges.iter().map(|&range| range_text(range)).collect::<Vec<_>>().join(", "),
    }
}

/// `80`, or `587-588`.
pub fn range_text((first, last): (u16, u16)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// More prefixes are told by their number.
const PREFIXES_TOLD: usize = 4;

/// Whether so many prefixes are told by their number.
pub fn is_long(prefixes: &[IpNet]) -> bool {
    prefixes.len() > PREFIXES_TOLD
}

/// `10.0.0.0/8, 2001:db8::/32`, or `100,000 prefixes`.
pub fn prefixes_text(prefixes: &[IpNet]) -> String {
    if is_long(prefixes) {
        return format!("{} prefixes", grouped(prefixes.len()));
    }
    prefixes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// `100,000`
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

/// Which of `candidates` was probably meant: the nearest, if it is near enough.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    // Longer words are not typing errors of any key, and would only cost time.
    if word.len() > 40 {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.replace('-', "_")), candidate))
        .filter(|&(distance, candidate)| {
            distance <= (candidate.len() / 3).max(1) && distance < candidate.len()
        })
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be put in, taken out, replaced or swapped with their neighbour (each letter at most once).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let (mut before, mut last, mut row) =
        (vec![0; b.len() + 1], vec![0; b.len() + 1], (0..=b.len()).collect::<Vec<_>>());
    for i in 1..=a.len() {
        std::mem::swap(&mut before, &mut last);
        std::mem::swap(&mut last, &mut row);
        row[0] = i;
        for j in 1..=b.len() {
            let change = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = change.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_numbers_with_units() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1m30s", 90_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "10", "s", "1.5s", "10 s", "-1s", "10S", "1d", "99999999999999999999s", "5m ", "é"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(parse_duration("18446744073709551615h"), None);
    }

    #[test]
    fn a_duration_reads_back_as_it_was_written() {
        for text in ["500ms", "10s", "5m", "1h", "1m30s", "26h3m4s5ms", "0s"] {
            assert_eq!(parse_duration(text).map(duration_text).as_deref(), Some(text));
        }
    }

    #[test]
    fn hints_for_durations_guess_what_was_meant() {
        for (wrong, hint) in [
            ("10", "write \"10s\""),
            ("10 s", "write \"10s\""),
            ("1.5s", "write \"1s500ms\""),
            ("5min", "write \"5m\""),
            ("1d", "write \"24h\""),
            ("1M 30S", "write \"1m30s\""),
        ] {
            assert_eq!(duration_hint(wrong), hint, "{wrong}");
        }
        for wrong in ["", "soon", "-3s", "0.0001s", "99999999999999999999999h", "1e9"] {
            assert!(duration_hint(wrong).contains("\"500ms\""), "{wrong}: {}", duration_hint(wrong));
        }
    }

    #[test]
    fn distance_counts_single_typing_errors() {
        for (a, b, expected) in [
            ("backend", "backend", 0),
            ("backends", "backend", 1),
            ("weigth", "weight", 1),
            ("adress", "address", 1),
            ("prots", "ports", 1),
            ("", "vip", 3),
            ("vip", "", 3),
            ("abcd", "badc", 2),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn only_a_near_word_is_suggested() {
        let keys = ["vip", "ports", "protocol", "backend", "socket_group"];
        for (word, expected) in [
            ("backends", Some("backend")),
            ("Port", Some("ports")),
            ("protocols", Some("protocol")),
            ("socket-group", Some("socket_group")),
            ("vips", Some("vip")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, keys), expected, "{word}");
        }
    }
}
