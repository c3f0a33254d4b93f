//! What a check of type `http` or `https` asks for, and what it takes for an answer.

use super::fields::{Errors, Place, Table};
use super::model::{BodyMatch, HttpCheck, Tls};
use super::tree::{Value, quoted};

/// The most paths of one check, and the longest of them.
const PATHS_MAX: usize = 64;
const PATH_MAX: usize = 2048;
/// The longest text or pattern that a body is searched for.
const BODY_MAX: usize = 1024;
const HEADERS_MAX: usize = 32;
const HEADER_MAX: usize = 4096;
/// The status codes of RFC 9110, section 15.
const STATUS: std::ops::RangeInclusive<u16> = 100..=599;
/// Headers that the request has anyway, and what to do instead.
const OWN_HEADERS: [(&str, &str); 4] = [
    ("host", "write `host` as a key of the check"),
    ("connection", "remove it: the check knows when to close its connections"),
    ("content-length", "remove it: requests have no body"),
    ("transfer-encoding", "remove it: requests have no body"),
];

pub fn read_http(table: &Table<'_>, tls: Option<Tls>, errors: &mut Errors) -> Option<HttpCheck> {
    let paths = table.get("path").map_or(Some(vec!["/".to_owned()]), |place| read_paths(&place, errors));
    let method = table.get("method").map_or(Some("GET".to_owned()), |place| read_method(&place, errors));
    let host = table.get("host").map_or(Some(None), |place| {
        read_name(&place, "a host's name", errors).map(|name| Some(name.to_owned()))
    });
    let headers = table.get("headers").map_or(Some(Vec::new()), |place| read_headers(&place, errors));
    let status = table.get("status").map_or(Some(vec![(200, 399)]), |place| read_status(&place, errors));
    let body = read_body(table, method.as_deref(), errors);
    Some(HttpCheck {
        tls,
        paths: paths?,
        method: method?,
        host: host?,
        headers: headers?,
        status: status?,
        body: body?,
    })
}

fn read_paths(place: &Place<'_>, errors: &mut Errors) -> Option<Vec<String>> {
    let items = place.items();
    if items.is_empty() || items.len() > PATHS_MAX {
        let message = format!("has {} paths; a check has 1 to {PATHS_MAX}", items.len());
        errors.push(&place.spot, message, "write \"/\", or further checks");
        return None;
    }
    let mut paths: Vec<String> = Vec::new();
    let mut whole = true;
    for item in items {
        let Some(path) = read_path(&item, errors) else {
            whole = false;
            continue;
        };
        if paths.contains(&path) {
            errors.push(&item.spot, format!("{} stands here twice", quoted(&path)), "remove it");
            whole = false;
            continue;
        }
        paths.push(path);
    }
    whole.then_some(paths)
}

/// Path and query as RFC 9112, section 3.2.1 has them; the characters are those of RFC 3986.
fn read_path(item: &Place<'_>, errors: &mut Errors) -> Option<String> {
    let path = item.text("a path", "/owa/healthcheck.htm", PATH_MAX, errors)?;
    if !path.starts_with('/') {
        let hint = match path.split_once("://") {
            Some((_, rest)) => {
                let path = rest.find('/').map_or("/", |slash| rest.get(slash..).unwrap_or("/"));
                format!("write {}; the backend is asked, and `host` says by which name", quoted(path))
            }
            None => format!("write {}", quoted(&format!("/{path}"))),
        };
        errors.push(&item.spot, format!("must begin with a slash, not {}", quoted(path)), hint);
        return None;
    }
    let legal = |c: &char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@%/?[]".contains(*c);
    if let Some(odd) = path.chars().find(|c| !legal(c)) {
        let mut bytes = [0; 4];
        let escaped: String =
            odd.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")).collect();
        let hint = match odd {
            '#' => "remove what begins with it: only browsers know it".to_owned(),
            _ => format!("write {escaped} for it"),
        };
        errors.push(
            &item.spot,
            format!("has {} in it, which no path can have", quoted(&odd.to_string())),
            hint,
        );
        return None;
    }
    Some(path.to_owned())
}

fn read_method(place: &Place<'_>, errors: &mut Errors) -> Option<String> {
    let method = place.text("a method", "GET", 20, errors)?;
    let upper = method.to_ascii_uppercase();
    let legal = method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') && method != "CONNECT";
    if legal {
        return Some(upper);
    }
    let hint = match upper.as_str() {
        "GET" | "HEAD" | "POST" | "PUT" | "OPTIONS" | "DELETE" => format!("write \"{upper}\""),
        _ => "write \"GET\", \"HEAD\" or \"OPTIONS\"".to_owned(),
    };
    errors.push(&place.spot, format!("{} is not a method of a check", quoted(method)), hint);
    None
}

/// A host's name or address, as a Host header or TLS name it.
pub fn read_name<'a>(place: &Place<'a>, wanted: &str, errors: &mut Errors) -> Option<&'a str> {
    let name = place.text(wanted, "mail.example.org", 255, errors)?;
    if name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b)) {
        return Some(name);
    }
    let bare = name.split_once("://").map_or(name, |(_, rest)| rest).split('/').next().unwrap_or("");
    let hint = match name.is_ascii() && !bare.is_empty() && bare != name {
        true => format!("write {}", quoted(bare)),
        false => "write \"mail.example.org\", for example".to_owned(),
    };
    errors.push(&place.spot, format!("{} is not a host's name", quoted(name)), hint);
    None
}

/// By name, since a TOML table has no order.
fn read_headers(place: &Place<'_>, errors: &mut Errors) -> Option<Vec<(String, String)>> {
    let entries = place.entries("write headers = { \"X-Check\" = \"drover\" }, for example", errors)?;
    if entries.len() > HEADERS_MAX {
        let message = format!("has {} headers; {HEADERS_MAX} are the most", entries.len());
        errors.push(&place.spot, message, "remove some");
        return None;
    }
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut whole = true;
    for (name, spot, value) in entries {
        let lower = name.to_ascii_lowercase();
        // RFC 9110, section 5.6.2.
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(token) {
            errors.push(
                &spot,
                format!("{} is not a header's name", quoted(name)),
                "write \"X-Check\", for example",
            );
            whole = false;
        } else if let Some((_, hint)) = OWN_HEADERS.iter().find(|(own, _)| *own == lower) {
            errors.push(&spot, format!("the header {name} is the check's own"), *hint);
            whole = false;
        } else if headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            errors.push(
                &spot,
                format!("the header {name} stands here twice"),
                "capitals make no difference: keep one",
            );
            whole = false;
        }
        match read_header(&value, errors) {
            Some(value) => headers.push((name.to_owned(), value)),
            None => whole = false,
        }
    }
    headers.sort_by_cached_key(|(name, _)| name.to_ascii_lowercase());
    whole.then_some(headers)
}

/// RFC 9110, section 5.5, without the obsolete bytes beyond ASCII.
fn read_header(place: &Place<'_>, errors: &mut Errors) -> Option<String> {
    let text = place.string("a header's value", "drover", errors)?;
    let legal =
        text.len() <= HEADER_MAX && text.bytes().all(|b| (0x20..0x7f).contains(&b)) && text.trim() == text;
    if legal {
        return Some(text.to_owned());
    }
    let message = format!("{} is not a header's value", quoted(text));
    let hint = format!("write ASCII on one line, without blanks around it, at most {HEADER_MAX} bytes");
    errors.push(&place.spot, message, hint);
    None
}

/// Numbers and ranges, in one text or in a list; what overlaps or follows the other is joined.
fn read_status(place: &Place<'_>, errors: &mut Errors) -> Option<Vec<(u16, u16)>> {
    let items = place.items();
    if items.is_empty() {
        errors.push(&place.spot, "must hold at least one status", "write \"200-399\", for example");
        return None;
    }
    let read: Vec<_> = items.iter().map(|item| read_status_range(item, errors)).collect();
    let mut ranges = read.into_iter().collect::<Option<Vec<_>>>()?;
    ranges.sort_unstable();
    let mut joined: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
            Some(_) | None => joined.push((first, last)),
        }
    }
    Some(joined)
}

fn read_status_range(item: &Place<'_>, errors: &mut Errors) -> Option<(u16, u16)> {
    let hint = match item.value {
        Value::Integer(number) => match u16::try_from(*number) {
            Ok(code) if STATUS.contains(&code) => return Some((code, code)),
            Ok(_) | Err(_) => "the least is 100, the most 599".to_owned(),
        },
        Value::String(text) => match parse_status(text) {
            Ok(range) => return Some(range),
            Err(hint) => hint,
        },
        Value::Table(_) | Value::Array(_) | Value::Float(_) | Value::Bool(_) | Value::Other(_) => {
            "write \"200-399\", for example".to_owned()
        }
    };
    let message =
        format!("must be a status or a range, as in 200 or \"200-399\", not {}", item.value.describe());
    errors.push(&item.spot, message, hint);
    None
}

/// Parses `200` and `200-399`; the error is a hint.
fn parse_status(text: &str) -> Result<(u16, u16), String> {
    let code = |text: &str| text.trim().parse::<u16>().ok();
    let ends = match text.split_once('-') {
        Some((first, last)) => (code(first), code(last)),
        None => (code(text), code(text)),
    };
    match ends {
        (Some(first), Some(last)) if !STATUS.contains(&first) || !STATUS.contains(&last) => {
            Err("the least is 100, the most 599".to_owned())
        }
        (Some(first), Some(last)) if first > last => {
            Err(format!("the range is reversed: write \"{last}-{first}\""))
        }
        (Some(first), Some(last)) => Ok((first, last)),
        (None, _) | (_, None) => Err(match text.trim().to_ascii_lowercase().as_bytes() {
            [class @ b'1'..=b'5', b'x', b'x'] => {
                let class = char::from(*class);
                format!("write \"{class}00-{class}99\"")
            }
            _ if text.contains(',') => "write several as a list: [200, \"300-399\"]".to_owned(),
            _ => "write \"200-399\", for example".to_owned(),
        }),
    }
}

fn read_body(table: &Table<'_>, method: Option<&str>, errors: &mut Errors) -> Option<Option<BodyMatch>> {
    let text = table.get("body");
    let pattern = table.get("body_regex");
    if let (Some(_), Some(pattern)) = (&text, &pattern) {
        errors.push(
            &pattern.spot,
            "stands beside `body`, and a check has one of them",
            "write a pattern for both",
        );
        return None;
    }
    let place = match (&text, &pattern) {
        (Some(place), _) | (None, Some(place)) => place,
        (None, None) => return Some(None),
    };
    if method == Some("HEAD") {
        let hint = "remove it, or write method = \"GET\"";
        errors.push(&place.spot, "an answer to HEAD has no body to look at", hint);
        return None;
    }
    // A line break is a legal part of either.
    let wanted = place.string("a text", "200 OK", errors)?;
    if wanted.is_empty() || wanted.len() > BODY_MAX {
        let message = format!("is {} bytes long; it must be 1 to {BODY_MAX}", wanted.len());
        errors.push(&place.spot, message, "write a part of the page by which to know that it is well");
        return None;
    }
    let wanted = wanted.to_owned();
    // Whether a pattern compiles is for the daemon's edge to say.
    Some(Some(if text.is_some() { BodyMatch::Contains(wanted) } else { BodyMatch::Regex(wanted) }))
}
