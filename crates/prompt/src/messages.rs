//! Shapes messages for chat templates: what a request says, and what templates expect to find.

use serde_json::{Map, Value};

use crate::Error;

/// Rewrites OpenAI-shaped messages into what templates are written for: text parts are joined by newlines, and the
/// arguments of tool calls become objects where they are JSON in a string. Everything else is kept.
///
/// Parts that are not text (images, audio) are refused, as no model here reads them yet.
pub fn openai_messages(messages: &Value) -> Result<Value, Error> {
    let mut out = Vec::new();
    for (index, message) in list(messages)?.iter().enumerate() {
        let mut message = object(message, index)?.clone();
        if let Some(Value::Array(parts)) = message.get("content") {
            let texts = parts.iter().map(|part| text_part(part, index)).collect::<Result<Vec<_>, _>>()?;
            message.insert("content".into(), Value::String(texts.join("\n")));
        }
        if let Some(Value::Array(calls)) = message.get_mut("tool_calls") {
            for call in calls {
                if let Some(arguments) = call.pointer_mut("/function/arguments") {
                    parse_arguments(arguments);
                }
            }
        }
        out.push(Value::Object(message));
    }
    Ok(Value::Array(out))
}

fn text_part(part: &Value, index: usize) -> Result<&str, Error> {
    let kind = part.get("type").and_then(Value::as_str);
    let text = part.as_str().or_else(|| part.get("text").and_then(Value::as_str));
    if let (None | Some("text" | "input_text" | "output_text"), Some(text)) = (kind, text) {
        return Ok(text);
    }
    let found = kind.unwrap_or("a part without text");
    Err(Error::Messages { reason: format!("[{index}].content: expected parts of text, found {found}") })
}

fn parse_arguments(arguments: &mut Value) {
    let Some(text) = arguments.as_str() else { return };
    if text.trim().is_empty() {
        *arguments = Value::Object(Map::new());
    } else if let Ok(parsed @ Value::Object(_)) = serde_json::from_str(text) {
        *arguments = parsed;
    }
}

/// The messages as transformers hands them to a template: keys whose value is null are dropped, and what a model
/// thought is found under each name that templates use for it.
pub(crate) fn for_template(messages: &Value) -> Result<Vec<Value>, Error> {
    let messages = list(messages)?;
    if messages.is_empty() {
        return Err(Error::Messages { reason: "expected at least one message, found none".into() });
    }
    messages.iter().enumerate().map(|(index, message)| Ok(shaped(object(message, index)?))).collect()
}

fn shaped(message: &Map<String, Value>) -> Value {
    let mut out: Map<String, Value> =
        message.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), value.clone())).collect();
    let thought = ["reasoning_content", "thinking", "reasoning"].iter().find_map(|key| out.get(*key)).cloned();
    if let Some(thought) = thought {
        if !out.contains_key("thinking") {
            out.shift_insert(0, "thinking".into(), thought.clone());
        }
        out.insert("reasoning_content".into(), thought);
    }
    Value::Object(out)
}

fn list(messages: &Value) -> Result<&Vec<Value>, Error> {
    messages
        .as_array()
        .ok_or_else(|| Error::Messages { reason: format!("expected an array, found {}", kind(messages)) })
}

fn object(message: &Value, index: usize) -> Result<&Map<String, Value>, Error> {
    message
        .as_object()
        .ok_or_else(|| Error::Messages { reason: format!("[{index}]: expected an object, found {}", kind(message)) })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
