//! Keys that hold one plain value: their row also says which field of the model is theirs. What reads a file, compares two
//! configurations or spells one out goes through those rows, so a new key of this kind needs its row and its field.

use std::fmt;
use std::time::Duration;

use super::super::model::{Affinity, Backend, Check, Farm, Limits, Passive, Timeouts, Word};
use super::super::text::duration_text;
use super::{Key, Schema};

/// A value of such a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plain {
    Boolean(bool),
    Number(i64),
    Duration(Duration),
    Word(&'static str),
}

/// As people are told of it.
impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Duration(value) => f.write_str(&duration_text(*value)),
            Self::Word(value) => f.write_str(value),
        }
    }
}

/// The type of a field that holds a plain value.
pub trait Held: Copy {
    fn plain(self) -> Plain;

    /// Nothing, if a value is of another kind.
    fn held(value: Plain) -> Option<Self>;
}

impl Held for bool {
    fn plain(self) -> Plain {
        Plain::Boolean(self)
    }

    fn held(value: Plain) -> Option<Self> {
        if let Plain::Boolean(value) = value { Some(value) } else { None }
    }
}

impl Held for Duration {
    fn plain(self) -> Plain {
        Plain::Duration(self)
    }

    fn held(value: Plain) -> Option<Self> {
        if let Plain::Duration(value) = value { Some(value) } else { None }
    }
}

impl Held for u8 {
    fn plain(self) -> Plain {
        Plain::Number(self.into())
    }

    fn held(value: Plain) -> Option<Self> {
        if let Plain::Number(value) = value { value.try_into().ok() } else { None }
    }
}

impl Held for u16 {
    fn plain(self) -> Plain {
        Plain::Number(self.into())
    }

    fn held(value: Plain) -> Option<Self> {
        if let Plain::Number(value) = value { value.try_into().ok() } else { None }
    }
}

impl Held for u32 {
    fn plain(self) -> Plain {
        Plain::Number(self.into())
    }

    fn held(value: Plain) -> Option<Self> {
        if let Plain::Number(value) = value { value.try_into().ok() } else { None }
    }
}

impl<T: Word> Held for T {
    fn plain(self) -> Plain {
        Plain::Word(self.word())
    }

    fn held(value: Plain) -> Option<Self> {
        let Plain::Word(word) = value else { return None };
        T::WORDS.iter().find(|(known, _)| *known == word).map(|(_, value)| *value)
    }
}

/// A field of the model.
#[derive(Debug)]
pub struct Field<M> {
    pub get: fn(&M) -> Plain,
    /// Whether the value is of the field's kind.
    pub set: fn(&mut M, Plain) -> bool,
}

/// The field of that name.
macro_rules! field {
    ($name:ident) => {
        $crate::config::keys::plain::Field {
            get: |of| $crate::config::keys::plain::Held::plain(of.$name),
            set: |of, value| match $crate::config::keys::plain::Held::held(value) {
                Some(value) => {
                    of.$name = value;
                    true
                }
                None => false,
            },
        }
    };
}
pub(super) use field;

/// Whose field a key has, and which one.
#[derive(Debug)]
pub enum Place {
    Farm(Field<Farm>),
    Affinity(Field<Affinity>),
    Timeouts(Field<Timeouts>),
    Limits(Field<Limits>),
    Passive(Field<Passive>),
    Backend(Field<Backend>),
    Check(Field<Check>),
}

/// What has fields that keys have.
pub trait Model: Sized + 'static {
    fn field(place: &Place) -> Option<&Field<Self>>;
}

macro_rules! model {
    ($($model:ident),*) => {$(
        impl Model for $model {
            fn field(place: &Place) -> Option<&Field<Self>> {
                if let Place::$model(field) = place { Some(field) } else { None }
            }
        }
    )*};
}
model!(Farm, Affinity, Timeouts, Limits, Passive, Backend, Check);

impl Key {
    /// The key's field, if it is a plain one of such a model.
    pub fn field<M: Model>(&self) -> Option<&Field<M>> {
        M::field(self.place.as_ref()?)
    }

    pub(super) const fn plain(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
    }
}

impl Schema {
    /// The table's plain keys, and their fields.
    pub fn fields<M: Model>(&'static self) -> impl Iterator<Item = (&'static Key, &'static Field<M>)> {
        self.keys.iter().filter_map(|key| Some((key, key.field()?)))
    }
}

/// The values of a table's plain keys, each within its limits.
#[derive(Debug)]
pub struct Values<M: 'static>(pub Vec<(&'static Field<M>, Plain)>);

impl<M> Values<M> {
    /// Puts them into their fields; nothing, if one is not of its field's kind, which a test would have said.
    pub fn fill(&self, mut model: M) -> Option<M> {
        let all = self.0.iter().all(|(field, value)| (field.set)(&mut model, *value));
        all.then_some(model)
    }
}
