//! Python's methods of strings, lists and dictionaries, as far as chat templates call them.
//!
//! minijinja-contrib has most; here stand those it lacks, and those where Python differs.

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Calls a method that minijinja itself does not know.
pub(super) fn call(state: &mut State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let own = match value.kind() {
        ValueKind::String => string_method(value.as_str().unwrap_or_default(), method, args)?,
        ValueKind::Seq | ValueKind::Iterable => list_method(value, method, args)?,
        ValueKind::Map if method == "copy" => Some(value.clone()),
        _ => None,
    };
    match own {
        Some(value) => Ok(value),
        None => unknown_method_callback(state, value, method, args),
    }
}

fn string_method(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            Value::from(strip(text, chars, method != "rstrip", method != "lstrip"))
        }
        "isspace" => Value::from(!text.is_empty() && text.chars().all(is_space)),
        "split" | "rsplit" => {
            let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
            let most = most.and_then(|most| usize::try_from(most).ok());
            split(text, separator, most, method == "rsplit")?
        }
        "splitlines" => {
            let (keep,): (Option<bool>,) = from_args(args)?;
            lines(text, keep.unwrap_or(false))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            partition(text, separator, method == "rpartition")?
        }
        "casefold" => Value::from(text.to_lowercase()),
        "swapcase" => Value::from(text.chars().map(swap_case).collect::<String>()),
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            Value::from(format!("{sign}{}{digits}", padding(text, width, '0')?))
        }
        "ljust" | "rjust" | "center" => {
            let (width, fill): (usize, Option<char>) = from_args(args)?;
            let pad = padding(text, width, fill.unwrap_or(' '))?;
            let count = pad.chars().count();
            let left = match method {
                "ljust" => 0,
                "rjust" => count,
                // Python puts the odd one left where the width is odd.
                _ => count / 2 + (count & width & 1),
            };
            let split = pad.char_indices().nth(left).map_or(pad.len(), |(at, _)| at);
            Value::from(format!("{}{text}{}", &pad[..split], &pad[split..]))
        }
        "index" | "rindex" => {
            let (what,): (&str,) = from_args(args)?;
            let found = if method == "index" { text.find(what) } else { text.rfind(what) };
            let at = found.ok_or_else(|| unfit(format!("substring {what:?} not found")))?;
            Value::from(text[..at].chars().count())
        }
        _ => return Ok(None),
    }))
}

fn list_method(list: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "index" => {
            let (what,): (&Value,) = from_args(args)?;
            let at = list.try_iter()?.position(|item| item == *what);
            Value::from(at.ok_or_else(|| unfit(format!("{what} is not in the list")))?)
        }
        "copy" => list.try_iter()?.collect(),
        _ => return Ok(None),
    }))
}

fn unfit(reason: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

/// What Python takes for white space: Unicode's own and four separators of ASCII.
fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\x1c'..='\x1f').contains(&character)
}

/// Python's `strip`, `lstrip` and `rstrip`.
pub(super) fn strip<'a>(text: &'a str, chars: Option<&str>, left: bool, right: bool) -> &'a str {
    let unwanted = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if left { text.trim_start_matches(unwanted) } else { text };
    if right { text.trim_end_matches(unwanted) } else { text }
}

fn split(text: &str, separator: Option<&str>, most: Option<usize>, from_right: bool) -> Result<Value, Error> {
    let limit = most.map_or(usize::MAX, |most| most.saturating_add(1));
    let mut parts: Vec<&str> = match (separator, from_right) {
        (Some(""), _) => return Err(unfit("split: the separator is empty".into())),
        (Some(separator), false) => text.splitn(limit, separator).collect(),
        (Some(separator), true) => text.rsplitn(limit, separator).collect(),
        (None, false) => words(text, limit),
        (None, true) => words_from_right(text, limit),
    };
    if from_right {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// At most `limit` words; the last one is all that remains, its trailing space included unless it is all there is.
fn words(text: &str, limit: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let end = if parts.len() + 1 == limit { None } else { rest.find(is_space) };
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        parts.push(word);
        rest = after.trim_start_matches(is_space);
    }
    parts
}

fn words_from_right(text: &str, limit: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_end_matches(is_space);
    while !rest.is_empty() {
        let space = if parts.len() + 1 == limit { None } else { rest.char_indices().rfind(|(_, c)| is_space(*c)) };
        let (before, word) = rest.split_at(space.map_or(0, |(at, c)| at + c.len_utf8()));
        parts.push(word);
        rest = before.trim_end_matches(is_space);
    }
    parts
}

fn partition(text: &str, separator: &str, last: bool) -> Result<Value, Error> {
    if separator.is_empty() {
        return Err(unfit("partition: the separator is empty".into()));
    }
    let found = if last { text.rsplit_once(separator) } else { text.split_once(separator) };
    let parts = match found {
        Some((before, after)) => [before, separator, after],
        None if last => ["", "", text],
        None => [text, "", ""],
    };
    Ok(Value::from(minijinja::value::Tuple::from(parts.map(Value::from))))
}

fn lines(text: &str, keep: bool) -> Value {
    let ends = |c: char| matches!(c, '\n'..='\r' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (line, end) = match rest.find(ends) {
            Some(at) if rest[at..].starts_with("\r\n") => (at, at + 2),
            Some(at) => (at, at + rest[at..].chars().next().map_or(1, char::len_utf8)),
            None => (rest.len(), rest.len()),
        };
        parts.push(Value::from(&rest[..if keep { end } else { line }]));
        rest = &rest[end..];
    }
    Value::from(parts)
}

fn swap_case(character: char) -> String {
    if character.is_uppercase() { character.to_lowercase().collect() } else { character.to_uppercase().collect() }
}

/// What brings `text` to `width` characters.
fn padding(text: &str, width: usize, fill: char) -> Result<String, Error> {
    const MOST: usize = 1 << 16;
    if width > MOST {
        return Err(unfit(format!("a width of {width} is above the {MOST} accepted")));
    }
    Ok(std::iter::repeat_n(fill, width.saturating_sub(text.chars().count())).collect())
}
