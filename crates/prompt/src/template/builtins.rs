//! Filters, tests and functions of chat templates: those that transformers adds, and those of Jinja2 that minijinja
//! lacks or reads otherwise.

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, filters};

use super::{json, methods};

/// The reason a template gave to `raise_exception`, carried through the engine's errors.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refusal(pub(super) String);

/// Adds them all.
pub(super) fn add(environment: &mut Environment<'_>) {
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("trim", trim);
    environment.add_filter("replace", replace);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("string", string);
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter("escape", escape);
    environment.add_filter("e", escape);
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_iterable);
    environment.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("cycler", |items: Rest<Value>| minijinja_contrib::globals::cycler(items.0));
    environment.add_function("joiner", minijinja_contrib::globals::joiner);
}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    let message = message.to_string();
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Refusal(message)))
}

/// Python's `str`.
fn text_of(value: &Value) -> String {
    json::float(value).unwrap_or_else(|| value.to_string())
}

fn trim(value: &Value, chars: Option<&str>) -> String {
    methods::strip(&text_of(value), chars, true, true).to_owned()
}

fn replace(value: &Value, old: &Value, new: &Value, count: Option<i64>) -> String {
    let (text, old, new) = (text_of(value), text_of(old), text_of(new));
    match count.map(usize::try_from) {
        Some(Ok(count)) => text.replacen(&old, &new, count),
        _ => text.replace(&old, &new),
    }
}

/// What is no number becomes the default, zero where none is given.
fn int(
    state: &State<'_, '_>,
    value: &Value,
    default: Option<Value>,
    base: Option<u32>,
    named: Kwargs,
) -> Result<Value, Error> {
    let default = match default {
        Some(default) => default,
        None => named.get::<Option<Value>>("default")?.unwrap_or_else(|| Value::from(0)),
    };
    Ok(filters::int(state, value, Some(default.clone()), base, named).unwrap_or(default))
}

fn float(state: &State<'_, '_>, value: &Value, default: Option<Value>, named: Kwargs) -> Result<Value, Error> {
    let default = match default {
        Some(default) => default,
        None => named.get::<Option<Value>>("default")?.unwrap_or_else(|| Value::from(0.0)),
    };
    Ok(filters::float(state, value, Some(default.clone()), named).unwrap_or(default))
}

fn string(value: &Value) -> Value {
    if value.kind() == ValueKind::String { value.clone() } else { Value::from(text_of(value)) }
}

fn escape(value: &Value) -> String {
    let mut out = String::new();
    for character in text_of(value).chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// What is undefined has no length in minijinja, and none of zero in Jinja2.
fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() { Ok(0) } else { filters::length(value) }
}

fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Undefined)
        || (value.kind() == ValueKind::Iterable && value.len().is_some())
}

fn is_iterable(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Iterable | ValueKind::Undefined
    )
}
