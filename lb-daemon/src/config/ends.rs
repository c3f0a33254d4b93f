//! What editors of other systems leave in a text: a byte order mark, and lines that end in CR LF.

const MARK: char = '\u{feff}';

/// What `edit` makes of a text, with the ends of its lines and its byte order mark kept. `edit` sees neither: a text
/// without a mark, whose lines end in LF.
///
/// A line before the first that changed, or after the last, is the same to the byte. Those between end as most do.
pub fn keeping_ends<E>(text: &str, edit: impl FnOnce(&str) -> Result<String, E>) -> Result<String, E> {
    let bare = text.strip_prefix(MARK).unwrap_or(text);
    let edited = edit(&bare.replace("\r\n", "\n"))?;
    let mark = if bare.len() < text.len() { MARK.to_string() } else { String::new() };
    if !bare.contains("\r\n") {
        return Ok(mark + &edited);
    }
    let old: Vec<&str> = bare.split_inclusive('\n').collect();
    let new: Vec<&str> = edited.split_inclusive('\n').collect();
    let same = |old: &str, new: &str| plain(old) == plain(new) && old.ends_with('\n') == new.ends_with('\n');
    let head = old.iter().zip(&new).take_while(|(old, new)| same(old, new)).count();
    let (rest, changed) = (old.get(head..).unwrap_or_default(), new.get(head..).unwrap_or_default());
    let tail = rest.iter().rev().zip(changed.iter().rev()).take_while(|(old, new)| same(old, new)).count();
    let with_cr = old.iter().filter(|line| line.ends_with("\r\n")).count();
    let end = if with_cr * 2 >= old.len() { "\r\n" } else { "\n" };
    let between = changed.iter().take(changed.len() - tail);
    let between = between.map(|line| match line.ends_with('\n') {
        true => format!("{}{end}", plain(line)),
        false => (*line).to_owned(),
    });
    let kept = |lines: &[&str]| lines.concat();
    let (head, tail) =
        (old.get(..head).unwrap_or_default(), rest.get(rest.len() - tail..).unwrap_or_default());
    Ok(mark + &kept(head) + &between.collect::<String>() + &kept(tail))
}

/// A line without its end.
fn plain(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(text: &str, from: &str, to: &str) -> String {
        let edit = |text: &str| {
            assert!(!text.contains("\r\n") && !text.contains(MARK), "{text:?}");
            Ok::<_, ()>(text.replace(from, to))
        };
        keeping_ends(text, edit).unwrap()
    }

    #[test]
    fn ends_and_mark_are_kept() {
        for (text, from, to, expected) in [
            ("a\nb\nc\n", "b", "x\ny", "a\nx\ny\nc\n"),
            ("a\r\nb\r\nc\r\n", "b", "x\ny", "a\r\nx\r\ny\r\nc\r\n"),
            ("a\r\nb\r\nc", "c", "c\nd", "a\r\nb\r\nc\r\nd"),
            ("\u{feff}a\r\nb\r\n", "b\n", "", "\u{feff}a\r\n"),
            ("\u{feff}a\nb\n", "a", "x", "\u{feff}x\nb\n"),
            // Mixed: what does not change stays; new lines end as most do.
            ("a\r\nb\nc\r\nd\ne\r\n", "c\n", "x\ny\n", "a\r\nb\nx\r\ny\r\nd\ne\r\n"),
            ("a\r\na\r\na\r\n", "a\na\na\n", "a\na\n", "a\r\na\r\n"),
            ("a\r\n", "a\n", "", ""),
            ("", "x", "y", ""),
        ] {
            assert_eq!(edited(text, from, to), expected, "{text:?}");
        }
        assert_eq!(keeping_ends("a\r\n", |_| Err("no")), Err("no"));
    }
}
