//! Which of the two text formats a reader of `/metrics` gets, and how one becomes the other.
//!
//! OpenMetrics names a counter without the `_total` that its samples bear. Prometheus' own format, which older readers,
//! `promtool` and a person with `curl` get, knows no such rule: there the family is called as its samples are.

use axum::http::{HeaderMap, HeaderValue, header};

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextFormat {
    OpenMetrics,
    Prometheus,
}

impl TextFormat {
    /// OpenMetrics for whoever asks for it and does not like plain text better.
    pub(super) fn negotiate(headers: &HeaderMap) -> Self {
        let open = quality(headers, "application/openmetrics-text").unwrap_or(0.0);
        let plain = quality(headers, "text/plain").or_else(|| quality(headers, "*/*")).unwrap_or(0.0);
        if open > 0.0 && open >= plain { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The text in this format, from OpenMetrics.
    pub(super) fn of(self, text: String) -> String {
        match self {
            Self::OpenMetrics => text,
            Self::Prometheus => to_prometheus(&text),
        }
    }
}

/// How much a media type is wanted, from 0 to 1 (RFC 9110, section 12.4.2); `None`: it is not named.
fn quality(headers: &HeaderMap, media: &str) -> Option<f32> {
    let accepts =
        headers.get_all(header::ACCEPT).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
    let ranges = accepts.flat_map(|value| value.split(','));
    let wanted = ranges.filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        parts.next().filter(|name| name.eq_ignore_ascii_case(media))?;
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        Some(quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0)))
    });
    wanted.reduce(f32::max)
}

fn to_prometheus(open: &str) -> String {
    let mut text = String::with_capacity(open.len() + open.len() / 16);
    // The help stands before the type, which says what the help is of.
    let mut help: Option<(&str, &str)> = None;
    for line in open.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
            continue;
        }
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|typed| typed.split_once(' ')) {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, words)) = help.take().filter(|(of, _)| *of == name) {
                text += &format!("# HELP {name}{suffix} {words}\n");
            }
            text += &format!("# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with("# EOF") {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        let cases = [
            (None, TextFormat::Prometheus),
            (Some("*/*"), TextFormat::Prometheus),
            (Some("text/plain"), TextFormat::Prometheus),
            (Some("application/openmetrics-text"), TextFormat::OpenMetrics),
            (Some(prometheus), TextFormat::OpenMetrics),
            (Some("application/openmetrics-text;q=0.2, text/plain;q=0.9"), TextFormat::Prometheus),
            (Some("application/openmetrics-text;q=0"), TextFormat::Prometheus),
        ];
        for (accept, expected) in cases {
            let headers = accept.map(|accept| (header::ACCEPT, HeaderValue::from_static(accept)));
            assert_eq!(TextFormat::negotiate(&headers.into_iter().collect()), expected, "{accept:?}");
        }
    }

    #[test]
    fn a_counter_is_called_as_its_samples_are() {
        let open = "# HELP d_packets Packets.\n# TYPE d_packets counter\nd_packets_total{a=\"b\"} 3\n\
                    # HELP d_up Up.\n# TYPE d_up gauge\nd_up 1\n# EOF\n";
        let plain = "# HELP d_packets_total Packets.\n# TYPE d_packets_total counter\nd_packets_total{a=\"b\"} 3\n\
                     # HELP d_up Up.\n# TYPE d_up gauge\nd_up 1\n";
        assert_eq!(TextFormat::Prometheus.of(open.to_owned()), plain);
        assert_eq!(TextFormat::OpenMetrics.of(open.to_owned()), open);
    }
}
