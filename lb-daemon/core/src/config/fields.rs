//! Reading single values of the tree: each reader gives the value, or reports one error and gives nothing.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::{ConfigError, Position};
use super::keys::plain::{Model, Plain, Values};
use super::keys::{Key, Schema, TITLED, Takes};
use super::model::Word;
use super::text;
use super::tree::{Node, Value, quoted};

/// All errors found so far.
#[derive(Debug, Default)]
pub struct Errors(pub Vec<ConfigError>);

impl Errors {
    pub fn push(&mut self, spot: &Spot, message: impl Into<String>, hint: impl Into<String>) {
        let (path, at) = (spot.path.clone(), spot.at);
        self.0.push(ConfigError { path, at, message: message.into(), hint: Some(hint.into()) });
    }
}

/// Where something stands: its path of keys, and its place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    pub path: String,
    pub at: Option<Position>,
}

/// A value of the tree and where it stands.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    pub spot: Spot,
    pub value: &'a Value,
}

impl<'a> Place<'a> {
    pub fn root(node: &'a Node) -> Self {
        Self { spot: Spot { path: String::new(), at: node.position }, value: &node.value }
    }

    fn wrong(&self, wanted: &str, hint: impl Into<String>, errors: &mut Errors) {
        errors.push(&self.spot, format!("must be {wanted}, not {}", self.value.describe()), hint);
    }

    /// The items of a list; a list of one may be written without its brackets.
    pub fn items(&self) -> Vec<Place<'a>> {
        match self.value {
            Value::Array(items) => {
                items.iter().enumerate().map(|(index, node)| self.item(index, node)).collect()
            }
            Value::Table(_)
            | Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Bool(_)
            | Value::Other(_) => vec![self.clone()],
        }
    }

    fn item(&self, index: usize, node: &'a Node) -> Place<'a> {
        let path = format!("{}[{index}]", self.spot.path);
        Place { spot: Spot { path, at: node.position }, value: &node.value }
    }

    /// The items of a list of tables; `header` is what each of them begins with.
    pub fn tables(&self, header: &str, errors: &mut Errors) -> Option<Vec<Place<'a>>> {
        if let Value::Array(items) = self.value {
            return Some(items.iter().enumerate().map(|(index, node)| self.item(index, node)).collect());
        }
        let hint = match self.value {
            Value::Table(_) => {
                format!("write {header} with two brackets on each side (in JSON: a list of objects)")
            }
            Value::Array(_)
            | Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Bool(_)
            | Value::Other(_) => format!("begin each of them with a line {header}"),
        };
        self.wrong("a list of tables", hint, errors);
        None
    }

    pub fn string(&self, wanted: &str, example: &str, errors: &mut Errors) -> Option<&'a str> {
        if let Value::String(text) = self.value {
            return Some(text);
        }
        let hint = match self.value {
            Value::Integer(_) | Value::Float(_) | Value::Bool(_) => {
                format!("put it in quotes, as in \"{example}\"")
            }
            Value::String(_) | Value::Table(_) | Value::Array(_) | Value::Other(_) => {
                format!("write \"{example}\", for example")
            }
        };
        self.wrong(wanted, hint, errors);
        None
    }

    /// A string of 1 to `max` bytes without control characters.
    pub fn text(&self, wanted: &str, example: &str, max: usize, errors: &mut Errors) -> Option<&'a str> {
        let text = self.string(wanted, example, errors)?;
        let hint = format!("write \"{example}\", for example");
        if text.is_empty() {
            self.wrong(wanted, hint, errors);
            return None;
        }
        if text.len() > max {
            let message = format!("is {} bytes long; {max} are the most", text.len());
            errors.push(&self.spot, message, hint);
            return None;
        }
        if text.contains(char::is_control) {
            errors.push(&self.spot, "has a line break or another control character in it", "remove it");
            return None;
        }
        Some(text)
    }

    /// The entries of a table whose keys are the user's own, each with its name's place and its value's.
    pub fn entries(&self, hint: &str, errors: &mut Errors) -> Option<Vec<(&'a str, Spot, Place<'a>)>> {
        let Value::Table(entries) = self.value else {
            self.wrong("a table", hint, errors);
            return None;
        };
        let entry = |(key, node): &'a (super::tree::Key, Node)| {
            let path = path_of(&self.spot, &key.name);
            let name = Spot { path: path.clone(), at: key.position.or(self.spot.at) };
            let value = Place { spot: Spot { path, at: node.position.or(name.at) }, value: &node.value };
            (key.name.as_str(), name, value)
        };
        Some(entries.iter().map(entry).collect())
    }

    pub fn boolean(&self, errors: &mut Errors) -> Option<bool> {
        if let Value::Bool(flag) = self.value {
            return Some(*flag);
        }
        let hint = match self.value.describe().trim_matches('"') {
            "yes" | "on" | "1" | "true" => "write true",
            "no" | "off" | "0" | "false" => "write false",
            _ => "write true or false, without quotes",
        };
        self.wrong("true or false", hint, errors);
        None
    }

    /// A whole number within `range`.
    pub fn integer(&self, range: RangeInclusive<i64>, errors: &mut Errors) -> Option<i64> {
        let (low, high) = (*range.start(), *range.end());
        let hint = match self.value {
            Value::Integer(number) if range.contains(number) => return Some(*number),
            Value::Integer(number) if *number < low => format!("the least is {low}"),
            Value::Integer(_) => format!("the most is {high}"),
            Value::String(text) => match text.trim().parse::<i64>() {
                Ok(number) if range.contains(&number) => format!("write {number}, without quotes"),
                Ok(_) | Err(_) => "write a whole number, without quotes".to_owned(),
            },
            Value::Table(_) | Value::Array(_) | Value::Float(_) | Value::Bool(_) | Value::Other(_) => {
                "write a whole number".to_owned()
            }
        };
        self.wrong(&format!("a number from {low} to {high}"), hint, errors);
        None
    }

    /// A duration of at least `least`.
    pub fn duration(&self, least: Duration, errors: &mut Errors) -> Option<Duration> {
        let hint = match self.value {
            Value::String(written) => match text::parse_duration(written) {
                Some(duration) if (least..=text::DURATION_MAX).contains(&duration) => return Some(duration),
                Some(duration) if duration < least => {
                    format!("the shortest is \"{}\"", text::duration_text(least))
                }
                Some(_) => format!("the longest is \"{}\"", text::duration_text(text::DURATION_MAX)),
                None => text::duration_hint(written),
            },
            Value::Integer(number) => text::duration_hint(&number.to_string()),
            Value::Float(number) => text::duration_hint(&number.to_string()),
            Value::Table(_) | Value::Array(_) | Value::Bool(_) | Value::Other(_) => text::duration_hint(""),
        };
        let wanted =
            if matches!(self.value, Value::String(_)) { "a duration" } else { "a duration in quotes" };
        self.wrong(wanted, hint, errors);
        None
    }

    /// One of `choices`; those `later` are known, and refused.
    pub fn choice<T: Clone>(&self, choices: &[(&str, T)], later: &[&str], errors: &mut Errors) -> Option<T> {
        let list = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
        let Value::String(text) = self.value else {
            self.wrong(&list, format!("write {list}"), errors);
            return None;
        };
        if let Some((_, value)) = choices.iter().find(|(word, _)| word == text) {
            return Some(value.clone());
        }
        if later.contains(&text.as_str()) {
            errors.push(
                &self.spot,
                format!("{} is not supported yet", quoted(text)),
                format!("remove it, or write {list}"),
            );
            return None;
        }
        let words = choices.iter().map(|&(word, _)| word).chain(later.iter().copied());
        let hint = match text::nearest(text, words) {
            Some(word) => format!("did you mean \"{word}\"?"),
            None => format!("write {list}"),
        };
        self.wrong(&list, hint, errors);
        None
    }
}

/// A table whose keys have been judged.
#[derive(Debug, Clone)]
pub struct Table<'a> {
    pub spot: Spot,
    schema: &'static Schema,
    entries: &'a [(super::tree::Key, Node)],
}

impl<'a> Table<'a> {
    /// Opens `place` as a table and reports every key that `schema` does not let stand there.
    pub fn open(place: &Place<'a>, schema: &'static Schema, errors: &mut Errors) -> Option<Self> {
        let Value::Table(entries) = place.value else {
            let keys =
                schema.names().iter().take(3).map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            place.wrong("a table", format!("its keys are {keys} and so on"), errors);
            return None;
        };
        let table = Self { spot: place.spot.clone(), schema, entries };
        for (key, _) in entries.iter().filter(|(key, _)| schema.key(&key.name).is_none()) {
            let spot = Spot { path: table.path_of(&key.name), at: key.position.or(place.spot.at) };
            match schema.later.iter().find(|(later, _)| *later == key.name) {
                Some((later, hint)) => errors.push(&spot, format!("`{later}` is not supported yet"), *hint),
                None => errors.push(&spot, "unknown key", unknown_hint(&key.name, schema)),
            }
        }
        Some(table)
    }

    fn path_of(&self, key: &str) -> String {
        path_of(&self.spot, key)
    }

    pub fn get(&self, name: &str) -> Option<Place<'a>> {
        let (_, node) = self.entries.iter().find(|(key, _)| key.name == name)?;
        Some(Place {
            spot: Spot { path: self.path_of(name), at: node.position.or(self.spot.at) },
            value: &node.value,
        })
    }

    /// What a key takes. One that is not in the table has been forgotten there; a test would say so.
    fn takes(&self, name: &str) -> Option<Takes> {
        self.schema.key(name).map(|key| key.takes)
    }

    /// A key's default as the file would write it.
    pub fn default_text(&self, name: &str) -> String {
        self.schema.key(name).and_then(super::keys::Key::default).unwrap_or_default()
    }

    /// The value of a key that takes true or false, or its default.
    pub fn boolean(&self, name: &str, errors: &mut Errors) -> Option<bool> {
        let Takes::Boolean(default) = self.takes(name)? else { return None };
        self.get(name).map_or(Some(default), |place| place.boolean(errors))
    }

    /// The value of a key that takes a number, or its default.
    pub fn number<T: TryFrom<i64>>(&self, name: &str, errors: &mut Errors) -> Option<T> {
        let Takes::Number { default, .. } = self.takes(name)? else { return None };
        match self.number_if_any(name, errors)? {
            Some(number) => Some(number),
            None => T::try_from(default?).ok(),
        }
    }

    /// The value of a key that takes a number and has no default, if it is there.
    pub fn number_if_any<T: TryFrom<i64>>(&self, name: &str, errors: &mut Errors) -> Option<Option<T>> {
        let Takes::Number { least, most, .. } = self.takes(name)? else { return None };
        let Some(place) = self.get(name) else { return Some(None) };
        T::try_from(place.integer(least..=most, errors)?).ok().map(Some)
    }

    /// The value of a key that takes a duration, or its default.
    pub fn duration(&self, name: &str, errors: &mut Errors) -> Option<Duration> {
        let Takes::Duration { least, default } = self.takes(name)? else { return None };
        self.get(name).map_or(default, |place| place.duration(least, errors))
    }

    /// The value of a key that takes a word of `T`, or its default.
    pub fn word<T: Word>(&self, name: &str, errors: &mut Errors) -> Option<T> {
        let word = self.known_word(name, errors)?;
        T::WORDS.iter().find(|(known, _)| *known == word).map(|(_, value)| *value)
    }

    /// The same as it is written.
    pub fn known_word(&self, name: &str, errors: &mut Errors) -> Option<&'static str> {
        let Takes::Word { words, later } = self.takes(name)? else { return None };
        let words = words();
        let choices: Vec<(&str, &'static str)> = words.iter().map(|&word| (word, word)).collect();
        match self.get(name) {
            Some(place) => place.choice(&choices, later, errors),
            None => words.first().copied(),
        }
    }

    /// The values of all plain keys, or their defaults; each one that is wrong is told.
    pub fn plain<M: Model>(&self, errors: &mut Errors) -> Option<Values<M>> {
        let read = self.schema.fields::<M>().map(|(key, field)| (field, self.plain_value(key, errors)));
        let read: Vec<_> = read.collect();
        read.into_iter().map(|(field, value)| Some((field, value?))).collect::<Option<_>>().map(Values)
    }

    fn plain_value(&self, key: &Key, errors: &mut Errors) -> Option<Plain> {
        match key.takes {
            Takes::Boolean(_) => self.boolean(key.name, errors).map(Plain::Boolean),
            Takes::Number { .. } => self.number(key.name, errors).map(Plain::Number),
            Takes::Duration { .. } => self.duration(key.name, errors).map(Plain::Duration),
            Takes::Word { .. } => self.known_word(key.name, errors).map(Plain::Word),
            Takes::Text { .. } | Takes::Other { .. } => None,
        }
    }

    /// Where the name of a key stands.
    pub fn key_spot(&self, name: &str) -> Option<Spot> {
        let (key, _) = self.entries.iter().find(|(key, _)| key.name == name)?;
        Some(Spot { path: self.path_of(name), at: key.position.or(self.spot.at) })
    }

    /// The value of a key that must be there.
    pub fn need(&self, name: &str, hint: &str, errors: &mut Errors) -> Option<Place<'a>> {
        let place = self.get(name);
        if place.is_none() {
            let message = format!("the key `{name}` is missing");
            errors.push(&self.spot, message, hint);
        }
        place
    }
}

/// The path of a key of the table at `spot`.
fn path_of(spot: &Spot, key: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let key = match !key.is_empty() && key.len() <= 40 && key.bytes().all(bare) {
        true => key.to_owned(),
        false => quoted(key),
    };
    if spot.path.is_empty() { key } else { format!("{}.{key}", spot.path) }
}

/// What somebody meant who wrote `key` in the table of `schema`.
fn unknown_hint(key: &str, schema: &Schema) -> String {
    if let Some((_, meant)) = schema.elsewhere.iter().find(|(word, _)| *word == key) {
        return format!("write `{meant}`");
    }
    let names = schema.names();
    let own = names.iter().copied().chain(schema.later.iter().map(|(later, _)| *later));
    if let Some(near) = text::nearest(key, own) {
        return format!("did you mean `{near}`?");
    }
    if let Some(home) = TITLED.iter().find(|table| table.key(key).is_some()) {
        return format!(
            "`{key}` belongs in {}; in TOML, a key belongs to the last header above it",
            home.title
        );
    }
    let keys = names.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    format!("remove it; known here are {keys}")
}
