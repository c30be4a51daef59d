//! `tojson` as transformers defines it: Python's `json.dumps` without escaping for HTML or ASCII.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::MAX_OUTPUT_BYTES;

/// Deepest nesting written.
const MAX_DEPTH: usize = 200;

struct Style {
    ascii: bool,
    indent: Option<String>,
    between: String,
    after_key: String,
    sorted: bool,
}

/// The filter: arguments in the order of transformers' own, by place or by name.
pub(super) fn tojson(value: &Value, placed: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    if placed.len() > 4 {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let pick = |index: usize, name: &str| -> Result<Option<Value>, Error> {
        let value = match placed.get(index) {
            Some(value) => Some(value.clone()),
            None => named.get::<Option<Value>>(name)?,
        };
        Ok(value.filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let indent = pick(1, "indent")?.map(|value| indentation(&value)).transpose()?;
    let (between, after_key) = match pick(2, "separators")? {
        Some(pair) => separator_pair(&pair)?,
        None if indent.is_some() => (",".into(), ": ".into()),
        None => (", ".into(), ": ".into()),
    };
    let style = Style {
        ascii: pick(0, "ensure_ascii")?.is_some_and(|value| value.is_true()),
        indent,
        between,
        after_key,
        sorted: pick(3, "sort_keys")?.is_some_and(|value| value.is_true()),
    };
    named.assert_all_used()?;
    let mut out = String::new();
    write(&mut out, value, &style, 0)?;
    Ok(Value::from(out))
}

fn indentation(value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    let width = if value.kind() == ValueKind::Bool { Some(i64::from(value.is_true())) } else { value.as_i64() };
    match width {
        Some(width @ ..=64) => Ok(" ".repeat(usize::try_from(width).unwrap_or(0))),
        _ => Err(unfit(format!("tojson: expected an indent of at most 64, found {value}"))),
    }
}

fn separator_pair(pair: &Value) -> Result<(String, String), Error> {
    let parts: Vec<Value> = pair.try_iter()?.take(3).collect();
    match &parts[..] {
        [between, after_key] => match (between.as_str(), after_key.as_str()) {
            (Some(between), Some(after_key)) => Ok((between.to_owned(), after_key.to_owned())),
            _ => Err(unfit("tojson: expected separators to be two strings".into())),
        },
        _ => Err(unfit(format!("tojson: expected two separators, found {pair}"))),
    }
}

fn unfit(reason: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

fn write(out: &mut String, value: &Value, style: &Style, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(unfit(format!("tojson: nested deeper than {MAX_DEPTH}")));
    }
    // A list that holds one list twice, and so on, is small in memory and endless in writing.
    if out.len() > MAX_OUTPUT_BYTES {
        return Err(unfit(format!("tojson: more than {MAX_OUTPUT_BYTES} bytes")));
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String => write_string(out, value.as_str().unwrap_or_default(), style.ascii),
        ValueKind::Seq | ValueKind::Iterable => {
            let mut count = 0;
            for item in value.try_iter()? {
                begin_item(out, '[', count, style, depth);
                write(out, &item, style, depth + 1)?;
                count += 1;
            }
            end_items(out, "[]", count, style, depth);
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if style.sorted {
                keys.sort();
            }
            let count = keys.len();
            for (index, key) in keys.into_iter().enumerate() {
                begin_item(out, '{', index, style, depth);
                match key.kind() {
                    ValueKind::String => write_string(out, key.as_str().unwrap_or_default(), style.ascii),
                    ValueKind::None => out.push_str("\"null\""),
                    ValueKind::Bool => out.push_str(if key.is_true() { "\"true\"" } else { "\"false\"" }),
                    ValueKind::Number => write_string(out, &number(&key), style.ascii),
                    kind => return Err(unfit(format!("tojson: a key must be a string, not {kind}"))),
                }
                out.push_str(&style.after_key);
                write(out, &value.get_item(&key)?, style, depth + 1)?;
            }
            end_items(out, "{}", count, style, depth);
        }
        kind => return Err(unfit(format!("tojson: {kind} cannot be written as JSON"))),
    }
    Ok(())
}

fn begin_item(out: &mut String, open: char, index: usize, style: &Style, depth: usize) {
    if index == 0 {
        out.push(open);
    } else {
        out.push_str(&style.between);
    }
    break_line(out, style, depth + 1);
}

fn end_items(out: &mut String, brackets: &str, count: usize, style: &Style, depth: usize) {
    if count == 0 {
        out.push_str(brackets);
    } else {
        break_line(out, style, depth);
        out.push_str(&brackets[1..]);
    }
}

fn break_line(out: &mut String, style: &Style, depth: usize) {
    if let Some(indent) = &style.indent {
        out.push('\n');
        (0..depth).for_each(|_| out.push_str(indent));
    }
}

fn write_string(out: &mut String, text: &str, ascii: bool) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || (ascii && !(' '..='~').contains(&c)) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}").expect("writing to a string cannot fail");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn number(value: &Value) -> String {
    float(value).map_or_else(
        || value.to_string(),
        |text| match text.as_str() {
            "nan" => "NaN".to_owned(),
            "inf" => "Infinity".to_owned(),
            "-inf" => "-Infinity".to_owned(),
            _ => text,
        },
    )
}

/// A floating-point number as Python prints it: the shortest digits that read back as the same number, with an
/// exponent below 1e-4 and from 1e16. None for any other value.
pub(super) fn float(value: &Value) -> Option<String> {
    if value.kind() != ValueKind::Number || value.is_integer() {
        return None;
    }
    let number = f64::try_from(value.clone()).ok()?;
    if number.is_nan() {
        return Some("nan".to_owned());
    }
    if number.is_infinite() {
        return Some(if number > 0.0 { "inf" } else { "-inf" }.to_owned());
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    if number != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return Some(format!("{digits}e{sign}{:02}", exponent.abs()));
    }
    let plain = number.to_string();
    Some(if plain.contains('.') { plain } else { plain + ".0" })
}
