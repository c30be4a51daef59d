//! config.json, field by field: each is read once, as the type and within the range it must have, and an error names
//! it. Nothing is allocated for a number found here before it has passed.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::Error;

/// Most bytes of a config.json; the longest of real models have some ten thousand.
const MAX_CONFIG_BYTES: usize = 4 << 20;

/// A parsed config.json, or an object of it that is a configuration of its own.
pub(crate) struct Config {
    whole: Value,
    /// Path of the object, with its full stop; empty for a whole file.
    prefix: &'static str,
}

/// The fields of an object in config.json, and the path that leads to it.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    object: &'a Map<String, Value>,
    whole: &'a Value,
    prefix: &'a str,
}

impl Config {
    /// The fields of the whole object.
    pub(crate) fn fields(&self) -> Fields<'_> {
        // `Fields::parse` lets objects through alone; an empty one stands in for the case that cannot be.
        static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
        Fields { object: self.whole.as_object().unwrap_or(&EMPTY), whole: &self.whole, prefix: self.prefix }
    }

    /// The object under `text_config` as a configuration of its own: fields of `inherited` come from the whole file
    /// where the object lacks them, those of `defaults` where both do.
    pub(crate) fn text_part(&self, inherited: &[&str], defaults: &[(&str, Value)]) -> Result<Self, Error> {
        let fields = self.fields();
        let Some(text) = fields.optional_object("text_config", "text_config.")? else {
            return Err(fields.wrong("text_config", "an object"));
        };
        let mut object = text.object.clone();
        let from_whole = inherited.iter().filter_map(|key| Some((*key, fields.value(key)?.clone())));
        for (key, value) in from_whole.chain(defaults.iter().cloned()) {
            if object.get(key).is_none_or(Value::is_null) {
                object.insert(key.to_owned(), value);
            }
        }
        Ok(Self { whole: Value::Object(object), prefix: "text_config." })
    }
}

impl<'a> Fields<'a> {
    /// Parses the bytes of a config.json.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Config, Error> {
        if bytes.len() > MAX_CONFIG_BYTES {
            let reason = format!("expected at most {MAX_CONFIG_BYTES} bytes, found {}", bytes.len());
            return Err(Error::NotConfig { reason });
        }
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| Error::NotConfig { reason: error.to_string() })?;
        if !value.is_object() {
            return Err(Error::NotConfig { reason: format!("expected an object, found {}", excerpt(&value)) });
        }
        Ok(Config { whole: value, prefix: "" })
    }

    /// The whole of config.json.
    pub(crate) fn whole(&self) -> &'a Value {
        self.whole
    }

    /// Whether the field is there and not null.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// Whether the field is there and null: config.json says that there is none.
    pub(crate) fn is_null(&self, key: &str) -> bool {
        self.object.get(key).is_some_and(Value::is_null)
    }

    /// A field that is there and not null.
    fn value(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// What a field holds, for messages.
    pub(crate) fn excerpt(&self, key: &str) -> String {
        self.object.get(key).map_or_else(|| "nothing".to_owned(), excerpt)
    }

    /// The error that `key` is not what is expected.
    pub(crate) fn wrong(&self, key: &str, expected: impl Into<String>) -> Error {
        Error::Config { key: format!("{}{key}", self.prefix), expected: expected.into(), found: self.excerpt(key) }
    }

    /// A string.
    pub(crate) fn text(&self, key: &str) -> Result<&'a str, Error> {
        self.value(key).and_then(Value::as_str).ok_or_else(|| self.wrong(key, "a string"))
    }

    /// A string, if the field is there.
    pub(crate) fn optional_text(&self, key: &str) -> Result<Option<&'a str>, Error> {
        if self.has(key) { self.text(key).map(Some) } else { Ok(None) }
    }

    /// A count within `range`.
    pub(crate) fn count(&self, key: &str, range: RangeInclusive<usize>) -> Result<usize, Error> {
        let count = self.value(key).and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
        count
            .filter(|count| range.contains(count))
            .ok_or_else(|| self.wrong(key, format!("a whole number from {} to {}", range.start(), range.end())))
    }

    /// A count within `range`, if the field is there.
    pub(crate) fn optional_count(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, Error> {
        if self.has(key) { self.count(key, range).map(Some) } else { Ok(None) }
    }

    /// A number within `range`.
    pub(crate) fn number(&self, key: &str, range: RangeInclusive<f64>) -> Result<f64, Error> {
        let number = self.value(key).and_then(Value::as_f64);
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| self.wrong(key, format!("a number from {} to {}", range.start(), range.end())))
    }

    /// A number within `range`, if the field is there.
    pub(crate) fn optional_number(&self, key: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, Error> {
        if self.has(key) { self.number(key, range).map(Some) } else { Ok(None) }
    }

    /// A truth value; `false` where the field is absent.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, Error> {
        Ok(self.optional_flag(key)?.unwrap_or(false))
    }

    /// A truth value, if the field is there.
    pub(crate) fn optional_flag(&self, key: &str) -> Result<Option<bool>, Error> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    /// A list of exactly `length` strings, if the field is there.
    pub(crate) fn optional_texts(&self, key: &str, length: usize) -> Result<Option<Vec<&'a str>>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let texts = value
            .as_array()
            .filter(|list| list.len() == length)
            .and_then(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        texts.map(Some).ok_or_else(|| self.wrong(key, format!("a list of {length} strings")))
    }

    /// A list of exactly `length` numbers within `range`, or one number that stands for all of them.
    pub(crate) fn numbers(&self, key: &str, length: usize, range: RangeInclusive<f64>) -> Result<Vec<f64>, Error> {
        let number = |value: &Value| value.as_f64().filter(|number| range.contains(number));
        let numbers = match self.value(key) {
            Some(Value::Array(list)) if list.len() == length => list.iter().map(number).collect(),
            Some(value) => number(value).map(|number| vec![number; length]),
            None => None,
        };
        let expected = || format!("a list of {length} numbers from {} to {}", range.start(), range.end());
        numbers.ok_or_else(|| self.wrong(key, expected()))
    }

    /// A list of at most `longest` counts within `range`, if the field is there.
    pub(crate) fn optional_counts(
        &self,
        key: &str,
        longest: usize,
        range: RangeInclusive<usize>,
    ) -> Result<Option<Vec<usize>>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let count = |value: &Value| {
            let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
            count.filter(|count| range.contains(count))
        };
        let list = value.as_array().filter(|list| list.len() <= longest);
        let expected =
            || format!("a list of at most {longest} whole numbers from {} to {}", range.start(), range.end());
        list.and_then(|list| list.iter().map(count).collect()).map(Some).ok_or_else(|| self.wrong(key, expected()))
    }

    /// An object within this one, if the field is there. `prefix` is the path of its fields in messages.
    pub(crate) fn optional_object(&self, key: &str, prefix: &'a str) -> Result<Option<Fields<'a>>, Error> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Fields { object, whole: self.whole, prefix })),
            Some(_) => Err(self.wrong(key, "an object")),
        }
    }
}

/// Foreign JSON cut to a length that a line can hold.
fn excerpt(value: &Value) -> String {
    const SHOWN: usize = 80;
    let text = match value {
        Value::Array(list) if list.len() > 8 => return format!("a list of {} elements", list.len()),
        Value::Object(object) if object.len() > 8 => return format!("an object of {} fields", object.len()),
        _ => value.to_string(),
    };
    if text.chars().nth(SHOWN).is_none() {
        return text;
    }
    text.chars().take(SHOWN).chain(['…']).collect()
}
