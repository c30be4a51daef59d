//! Holds a tree against a shape, gathers every problem, and gives the values that passed as JSON.
//! Called by `parse`, which makes the types of `recipe` from that JSON.

use std::collections::HashMap;

use serde_json::{Map, Number, Value};

use crate::problem::{Objection, Place, Report, shown};
use crate::shape::{ListRule, NumberRule, Record, Shape, TextRule, Whole, join, snake_case};
use crate::tree::{Kind, Meaning, Node, Scalar};

/// Labels and list items beyond this have no use; lists name their own bounds.
const MAX_LABELS: usize = 256;
const MAX_LABEL_KEY: usize = 128;

/// The value of `node`, or `None` with the reasons in `report`.
pub(crate) fn check(shape: &Shape, node: &Node, path: &str, report: &mut Report<'_>) -> Option<Value> {
    let found = match shape {
        Shape::Record(record) => return check_record(record, node, path, report).map(Value::Object),
        Shape::List(rule) => return check_list(rule, node, path, report),
        Shape::Labels(rule) => return check_labels(rule, node, path, report),
        Shape::Either(what, shapes) => match shapes.iter().find(|shape| fits(shape, node)) {
            Some(shape) => return check(shape, node, path, report),
            None => Err(expected(what, node)),
        },
        Shape::Text(rule) => check_text(rule, node),
        Shape::Number(rule) => check_number(rule, node),
        Shape::Integer { min, max } => check_integer(*min, *max, node),
        Shape::Flag => check_flag(node),
        Shape::Word(words) => check_word(words, node),
    };
    match found {
        Ok(value) => Some(value),
        Err(objection) => {
            refuse(node.at, path, objection, report);
            None
        }
    }
}

/// A sentence from the path and what is said against the value.
fn refuse(at: Place, path: &str, objection: Objection, report: &mut Report<'_>) {
    let message = if path.is_empty() { objection.message } else { format!("`{path}` {}", objection.message) };
    report.add(at, path, Objection { message, hint: objection.hint });
}

fn expected(what: &str, node: &Node) -> Objection {
    Objection::new(format!("must be {what}, found {}", node.description()))
}

/// Whether a node is of the kind that a shape speaks of.
fn fits(shape: &Shape, node: &Node) -> bool {
    match &*node.kind {
        Kind::Map(_) => matches!(shape, Shape::Record(_) | Shape::Labels(_)),
        Kind::List(_) => matches!(shape, Shape::List(_)),
        Kind::Scalar(_) => !matches!(shape, Shape::Record(_) | Shape::Labels(_) | Shape::List(_)),
    }
}

fn scalar(node: &Node) -> Option<&Scalar> {
    match &*node.kind {
        Kind::Scalar(scalar) => Some(scalar),
        _ => None,
    }
}

fn check_text(rule: &TextRule, node: &Node) -> Result<Value, Objection> {
    let Some(scalar) = scalar(node) else { return Err(expected(rule.what, node)) };
    match scalar.meaning() {
        Meaning::Text => {}
        Meaning::Nothing => {
            return Err(expected(rule.what, node).hint("give it a value, or leave the key out"));
        }
        _ if rule.verbatim => {}
        _ => return Err(expected(rule.what, node).hint(format!("put it in quotes: \"{}\"", scalar.text))),
    }
    let text = scalar.text.as_str();
    if rule.filled && text.trim().is_empty() {
        return Err(Objection::new(format!("must be {}, found an empty text", rule.what)));
    }
    if text.len() > rule.max {
        return Err(Objection::new(format!("is {} bytes long, and at most {} are taken", text.len(), rule.max)));
    }
    if text.contains('\0') {
        return Err(Objection::new("holds a NUL character"));
    }
    (rule.check)(text)?;
    Ok(Value::String(text.to_owned()))
}

/// The number a plain scalar stands for; a hint where it stands in quotes.
fn numeral(what: &str, node: &Node) -> Result<Meaning, Objection> {
    let objection = || expected(what, node);
    let scalar = scalar(node).ok_or_else(objection)?;
    let is_number = |meaning: &Meaning| matches!(meaning, Meaning::Integer(_) | Meaning::Float(_));
    let meaning = scalar.meaning();
    if is_number(&meaning) {
        return Ok(meaning);
    }
    let bare = Scalar { text: scalar.text.clone(), plain: true };
    Err(match bare.meaning() {
        number if is_number(&number) => objection().hint(format!("remove the quotes: {}", scalar.text)),
        _ => objection(),
    })
}

fn check_number(rule: &NumberRule, node: &Node) -> Result<Value, Objection> {
    let what = rule.what();
    let number = match numeral(&what, node)? {
        Meaning::Integer(number) => number as f64,
        Meaning::Float(number) => number,
        _ => return Err(expected(&what, node)),
    };
    if !rule.takes(number) {
        return Err(expected(&what, node));
    }
    // Negative zero would be a second way to write zero.
    Number::from_f64(number + 0.0).map(Value::Number).ok_or_else(|| expected(&what, node))
}

impl NumberRule {
    pub(crate) fn takes(&self, number: f64) -> bool {
        let above = if self.above_min { number > self.min } else { number >= self.min };
        above && number <= self.max
    }

    /// "a number from 0 to 2".
    pub(crate) fn what(&self) -> String {
        let from = if self.above_min { "above" } else { "from" };
        let to = if self.above_min { "up to" } else { "to" };
        format!("a number {from} {} {to} {}", self.min, self.max)
    }
}

/// "a whole number from 0 to 4294967295".
pub(crate) fn integer_what(min: u64, max: u64) -> String {
    format!("a whole number from {min} to {max}")
}

fn check_integer(min: u64, max: u64, node: &Node) -> Result<Value, Objection> {
    let what = integer_what(min, max);
    let number = match numeral(&what, node)? {
        Meaning::Integer(number) => u64::try_from(number).ok(),
        // `4096.0` is whole, as it is in JSON Schema.
        Meaning::Float(number) if number.fract() == 0.0 && (0.0..9.0e15).contains(&number) => Some(number as u64),
        _ => None,
    };
    match number {
        Some(number) if (min..=max).contains(&number) => Ok(number.into()),
        _ => Err(expected(&what, node)),
    }
}

fn check_flag(node: &Node) -> Result<Value, Objection> {
    let scalar = scalar(node).ok_or_else(|| expected("true or false", node))?;
    match (scalar.meaning(), scalar.text.to_ascii_lowercase().as_str()) {
        (Meaning::Truth(truth), _) => Ok(truth.into()),
        (_, "yes" | "on" | "y" | "true") => Err(expected("true or false", node).hint("write true, without quotes")),
        (_, "no" | "off" | "n" | "false") => Err(expected("true or false", node).hint("write false, without quotes")),
        _ => Err(expected("true or false", node)),
    }
}

fn check_word(words: &[&'static str], node: &Node) -> Result<Value, Objection> {
    let what = one_of(words);
    let found = scalar(node).ok_or_else(|| expected(&what, node))?;
    if words.contains(&found.text.as_str()) {
        return Ok(Value::String(found.text.clone()));
    }
    let objection = expected(&what, node);
    Err(match nearest(&found.text, words.iter().copied()) {
        Some(word) => objection.hint(format!("did you mean `{word}`?")),
        None => objection,
    })
}

/// "`a`", "`a` or `b`", "one of `a`, `b`, `c`".
pub(crate) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.as_slice() {
        [one] => one.clone(),
        [one, other] => format!("{one} or {other}"),
        _ => format!("one of {}", quoted.join(", ")),
    }
}

fn check_list(rule: &ListRule, node: &Node, path: &str, report: &mut Report<'_>) -> Option<Value> {
    let Kind::List(items) = &*node.kind else {
        let mut objection = expected("a list", node);
        if let Some(scalar) = scalar(node)
            && scalar.meaning() == Meaning::Text
            && scalar.text.len() <= 60
            && !scalar.text.contains(char::is_control)
        {
            objection = objection.hint(format!("put it in brackets: [{}]", Value::from(scalar.text.as_str())));
        }
        refuse(node.at, path, objection, report);
        return None;
    };
    if items.len() > rule.max {
        let message = format!("holds {} items, and at most {} are taken", items.len(), rule.max);
        refuse(node.at, path, Objection::new(message), report);
        return None;
    }
    let mut values = Vec::with_capacity(items.len());
    let mut seen = HashMap::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(value) = check(&rule.item, item, &path, report) else { continue };
        if rule.unique
            && let Some(first) = seen.insert(value.to_string(), index)
        {
            refuse(item.at, &path, Objection::new(format!("repeats item {first}")), report);
            continue;
        }
        values.push(value);
    }
    Some(Value::Array(values))
}

fn check_labels(rule: &TextRule, node: &Node, path: &str, report: &mut Report<'_>) -> Option<Value> {
    let Kind::Map(entries) = &*node.kind else {
        refuse(node.at, path, expected("a mapping of keys to texts", node), report);
        return None;
    };
    if entries.len() > MAX_LABELS {
        let message = format!("holds {} keys, and at most {MAX_LABELS} are taken", entries.len());
        refuse(node.at, path, Objection::new(message), report);
        return None;
    }
    let mut values = Map::new();
    for entry in entries {
        if entry.key.is_empty() || entry.key.len() > MAX_LABEL_KEY || entry.key.contains(char::is_control) {
            let message = format!("holds the key {}: a key has 1 to {MAX_LABEL_KEY} bytes", shown(&entry.key));
            refuse(entry.key_at, path, Objection::new(message), report);
        }
        match check_text(rule, &entry.value) {
            Ok(value) => drop(values.insert(entry.key.clone(), value)),
            Err(objection) => {
                let key: String = entry.key.chars().take(60).flat_map(char::escape_debug).collect();
                refuse(entry.value.at, &join(path, &key), objection, report);
            }
        }
    }
    Some(Value::Object(values))
}

fn check_record(
    record: &'static Record,
    node: &Node,
    path: &str,
    report: &mut Report<'_>,
) -> Option<Map<String, Value>> {
    let Kind::Map(entries) = &*node.kind else {
        let keys: Vec<_> = record.keys.iter().map(|key| key.name).collect();
        let objection = expected("a mapping", node).hint(format!("its keys are {}", list(&keys)));
        let message =
            if path.is_empty() { format!("{} {}", record.what, objection.message) } else { objection.message };
        refuse(node.at, path, Objection { message, hint: objection.hint }, report);
        return None;
    };
    let mut values = Map::new();
    let mut given: HashMap<&'static str, Place> = HashMap::new();
    for entry in entries {
        let Some(key) = record.find(&entry.key) else {
            let mut objection = Objection::new(unknown(&entry.key, path));
            if !report.is_full() {
                objection = objection.hint(known(record, &entry.key));
            }
            report.add(entry.key_at, &join(path, &clipped(&entry.key)), objection);
            continue;
        };
        if let Some(first) = given.insert(key.name, entry.key_at) {
            let message = format!("the key `{}` is given twice, first in line {}", key.name, first.line);
            report.add(entry.key_at, path, Objection::new(message).hint("keep one of them"));
            continue;
        }
        if let Some(value) = check(&key.shape, &entry.value, &join(path, key.name), report) {
            values.insert(key.name.to_owned(), value);
        }
    }
    for key in record.keys.iter().filter(|key| key.required && !given.contains_key(key.name)) {
        let message = format!("{} needs the key `{}`", place_name(record, path), key.name);
        let hint = match &key.shape {
            Shape::Word([only]) => format!("write `{}: {only}`", key.name),
            _ => format!("`{}` is {}", key.name, key.about),
        };
        report.add(node.at, &join(path, key.name), Objection::new(message).hint(hint));
    }
    check_one_of(record, node, path, &given, report);
    (record.rule)(&Whole { node, path, values: &values }, report);
    Some(values)
}

fn check_one_of(
    record: &Record,
    node: &Node,
    path: &str,
    given: &HashMap<&'static str, Place>,
    report: &mut Report<'_>,
) {
    if record.one_of.is_empty() {
        return;
    }
    let mut chosen: Vec<_> = record.one_of.iter().filter_map(|name| given.get(name).map(|at| (*at, *name))).collect();
    chosen.sort_unstable();
    match chosen.as_slice() {
        [] => {
            let message = format!("{} needs exactly one of {}", place_name(record, path), list(record.one_of));
            report.add(node.at, path, Objection::new(message));
        }
        [_] => {}
        [(_, first), more @ ..] => {
            for (at, name) in more {
                let message = format!("{} has both `{first}` and `{name}`", place_name(record, path));
                let hint = format!("give exactly one of {}", list(record.one_of));
                report.add(*at, &join(path, name), Objection::new(message).hint(hint));
            }
        }
    }
}

/// How a message calls a mapping.
fn place_name(record: &Record, path: &str) -> String {
    if path.is_empty() { record.what.to_owned() } else { format!("`{path}`") }
}

fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn clipped(key: &str) -> String {
    key.chars().take(60).flat_map(char::escape_debug).collect()
}

fn unknown(name: &str, path: &str) -> String {
    let place = if path.is_empty() { String::new() } else { format!(" in `{path}`") };
    format!("unknown key {}{place}", shown(name))
}

/// The key that was meant by an unknown one, or all there are.
fn known(record: &Record, name: &str) -> String {
    let wanted = snake_case(&clipped(name));
    let meant = record.keys.iter().find(|key| key.synonyms.contains(&name) || snake_case(key.name) == wanted);
    match meant.map(|key| key.name.to_owned()).or_else(|| nearest_key(record, name)) {
        Some(key) => format!("did you mean `{key}`?"),
        None if name == "<<" => "merge keys are not part of YAML 1.2: write the keys out".to_owned(),
        None => format!("the keys here are {}", list(&record.keys.iter().map(|key| key.name).collect::<Vec<_>>())),
    }
}

/// The key that is most like `found`: one of the record, or one of the mappings right in it, where a key often was
/// meant to stand.
fn nearest_key(record: &Record, found: &str) -> Option<String> {
    let own = record.keys.iter().filter_map(|key| Some((distance(found, key.name)?, 0, key.name.to_owned())));
    let inner = record.keys.iter().flat_map(|key| {
        let keys = if let Shape::Record(inner) = &key.shape { inner.keys } else { &[] };
        keys.iter().filter_map(move |inner| Some((distance(found, inner.name)?, 1, join(key.name, inner.name))))
    });
    own.chain(inner).min().map(|(.., name)| name)
}

/// The word that is most like `found`, if one is like it.
fn nearest<'w>(found: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    words.filter_map(|word| Some((distance(found, word)?, word))).min().map(|(_, word)| word)
}

/// How many slips of the pen lie between what was found and a word; `None` where it is another word altogether.
fn distance(found: &str, word: &str) -> Option<usize> {
    if found.len() > 64 {
        return None;
    }
    let distance = strsim::damerau_levenshtein(&snake_case(found), &snake_case(word));
    (distance <= 1 + word.len() / 4 && distance < word.len()).then_some(distance)
}

impl Whole<'_> {
    /// Where the value of a key stands; the mapping itself where it is absent.
    pub(crate) fn place(&self, key: &str) -> Place {
        place_of(self.node, key)
    }
}

/// Where the value of a key of a mapping stands, in either way to write the key.
pub(crate) fn place_of(node: &Node, key: &str) -> Place {
    node.entries()
        .iter()
        .find(|entry| entry.key == key || snake_case(&entry.key) == key)
        .map_or(node.at, |entry| entry.value.at)
}

/// Says something about a value of a mapping that passed by itself.
pub(crate) fn object(report: &mut Report<'_>, at: Place, path: &str, objection: Objection) {
    refuse(at, path, objection, report);
}
