//! The JSON Schema of a recipe, for editors: written from the same table the parser reads by. Called by whoever writes
//! `schemas/modelspec.schema.json`.

use serde_json::{Map, Value, json};

use crate::parse::roots;
use crate::shape::{Key, Record, Shape, TextRule, snake_case};

/// The schema, in the draft that editors know best (draft-07). It refuses nothing that [`parse`](crate::parse) takes.
pub fn json_schema() -> Value {
    let definitions: Map<_, _> = roots().into_iter().map(|(name, root)| (name.to_owned(), record(root))).collect();
    let todays = ["apiVersion", "kind", "from"].map(|key| json!({ "required": [key] }));
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "ModelSpec.yaml",
        "description": "A recipe from which mlxctl builds a model artifact.",
        "type": "object",
        "if": { "required": ["base"], "not": { "anyOf": todays } },
        "then": { "$ref": "#/definitions/draft" },
        "else": { "$ref": "#/definitions/recipe" },
        "definitions": definitions,
    })
}

fn record(record: &'static Record) -> Value {
    let mut schema = Map::new();
    schema.insert("type".into(), "object".into());
    schema.insert("additionalProperties".into(), false.into());
    let mut properties = Map::new();
    for key in record.keys {
        for name in spellings(record, key.name) {
            properties.insert(name, described(key));
        }
    }
    schema.insert("properties".into(), properties.into());
    let required: Vec<_> = record.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    if !required.is_empty() {
        schema.insert("required".into(), required.into());
    }
    if !record.one_of.is_empty() {
        let ways = record.one_of.iter().flat_map(|name| spellings(record, name));
        let ways: Vec<_> = ways.map(|name| json!({ "required": [name] })).collect();
        schema.insert("oneOf".into(), ways.into());
    }
    (record.schema_rule)(&mut schema);
    schema.into()
}

/// How a key may be written.
fn spellings(record: &Record, name: &str) -> Vec<String> {
    let snake = snake_case(name);
    if record.snake_case_too && snake != name { vec![name.to_owned(), snake] } else { vec![name.to_owned()] }
}

fn described(key: &'static Key) -> Value {
    let mut schema = value(&key.shape);
    let about = if key.default.is_empty() {
        format!("{}.", key.about)
    } else {
        format!("{}. Default: {}.", key.about, key.default)
    };
    schema["description"] = about.into();
    schema
}

fn value(shape: &'static Shape) -> Value {
    match shape {
        Shape::Text(rule) => text(rule),
        Shape::Number(rule) => {
            let least = if rule.above_min { "exclusiveMinimum" } else { "minimum" };
            json!({ "type": "number", least: plain(rule.min), "maximum": plain(rule.max) })
        }
        Shape::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Word([word]) => json!({ "const": word }),
        Shape::Word(words) => json!({ "enum": words }),
        Shape::List(rule) => {
            let mut schema = json!({ "type": "array", "items": value(&rule.item), "maxItems": rule.max });
            if rule.unique {
                schema["uniqueItems"] = true.into();
            }
            schema
        }
        Shape::Labels(rule) => json!({ "type": "object", "additionalProperties": text(rule) }),
        Shape::Record(rule) => record(rule),
        Shape::Either(_, shapes) => {
            let ways: Vec<_> = shapes.iter().map(|shape| value(shape)).collect();
            json!({ "anyOf": ways })
        }
    }
}

/// Bounds are whole numbers; `2` reads better than `2.0`.
fn plain(bound: f64) -> Value {
    if bound.fract() == 0.0 { (bound as i64).into() } else { bound.into() }
}

fn text(rule: &TextRule) -> Value {
    let mut schema = Map::new();
    let kinds = if rule.verbatim { json!(["string", "number", "boolean"]) } else { "string".into() };
    schema.insert("type".into(), kinds);
    if let Some(pattern) = rule.pattern {
        schema.insert("pattern".into(), pattern.into());
    } else if rule.filled {
        schema.insert("pattern".into(), "\\S".into());
    }
    // JSON Schema counts characters, the parser bytes: a bound that refuses nothing the parser takes.
    schema.insert("maxLength".into(), rule.max.into());
    schema.into()
}
