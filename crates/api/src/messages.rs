//! The messages of a conversation: kept as they came, for the chat template decides what of them it reads; checked so
//! that a message in the wrong shape is named.

use serde_json::{Map, Value};

use crate::Invalid;
use crate::invalid::kind;

/// A message as it came: `role`, `content`, and whatever else its template may read.
pub type Message = Map<String, Value>;

/// The roles a message may have; `developer` is what OpenAI calls `system` now.
pub const ROLES: &[&str] = &["system", "developer", "user", "assistant", "tool", "function"];

/// The most messages of one conversation.
const MAX_MESSAGES: usize = 16_384;

/// Checks the messages under the name `messages`.
pub(crate) fn check(messages: &[Message]) -> Result<(), Invalid> {
    if messages.len() > MAX_MESSAGES {
        let reason = format!("expected at most {MAX_MESSAGES} messages, found {}", messages.len());
        return Err(Invalid::field("messages", reason));
    }
    messages.iter().enumerate().try_for_each(|(index, message)| one(index, message))
}

fn one(index: usize, message: &Message) -> Result<(), Invalid> {
    let at = |field: &str| format!("messages[{index}].{field}");
    match message.get("role") {
        None => return Err(Invalid::field(at("role"), "is required")),
        Some(Value::String(role)) if ROLES.contains(&role.as_str()) => {}
        Some(Value::String(role)) => {
            let role: String = role.chars().take(40).collect();
            return Err(Invalid::field(at("role"), format!("expected one of {}, found '{role}'", ROLES.join(", "))));
        }
        Some(other) => return Err(Invalid::field(at("role"), format!("expected a string, found {}", kind(other)))),
    }
    match message.get("content") {
        Some(Value::String(_)) => {}
        Some(Value::Array(parts)) => parts.iter().enumerate().try_for_each(|(i, p)| part(&at("content"), i, p))?,
        None | Some(Value::Null) => {
            // An assistant that calls tools, or only thinks, says nothing.
            let speechless = ["tool_calls", "function_call", "thinking", "reasoning_content"];
            if !speechless.iter().any(|key| message.get(*key).is_some_and(|value| !value.is_null())) {
                return Err(Invalid::field(at("content"), "is required"));
            }
        }
        Some(other) => {
            let reason = format!("expected a string or an array of parts, found {}", kind(other));
            return Err(Invalid::field(at("content"), reason));
        }
    }
    match message.get("tool_calls") {
        None | Some(Value::Null) => {}
        Some(Value::Array(calls)) => {
            calls.iter().enumerate().try_for_each(|(i, call)| function(&format!("{}[{i}]", at("tool_calls")), call))?;
        }
        Some(other) => {
            return Err(Invalid::field(at("tool_calls"), format!("expected an array, found {}", kind(other))));
        }
    }
    match message.get("images") {
        Some(Value::Array(images)) if !images.is_empty() => Err(Invalid::not_yet(at("images"), "reading images")),
        _ => Ok(()),
    }
}

/// Checks the tools under the name `tools`: each has a function with a name.
pub(crate) fn check_tools(tools: &[Value]) -> Result<(), Invalid> {
    tools.iter().enumerate().try_for_each(|(index, tool)| function(&format!("tools[{index}]"), tool))
}

/// A tool, or the call of one.
fn function(field: &str, tool: &Value) -> Result<(), Invalid> {
    let Value::Object(tool) = tool else {
        return Err(Invalid::field(field, format!("expected an object, found {}", kind(tool))));
    };
    match tool.get("function") {
        Some(Value::Object(function)) => match function.get("name") {
            Some(Value::String(_)) => Ok(()),
            None => Err(Invalid::field(format!("{field}.function.name"), "is required")),
            Some(other) => {
                let reason = format!("expected a string, found {}", kind(other));
                Err(Invalid::field(format!("{field}.function.name"), reason))
            }
        },
        None => Err(Invalid::field(format!("{field}.function"), "is required")),
        Some(other) => {
            Err(Invalid::field(format!("{field}.function"), format!("expected an object, found {}", kind(other))))
        }
    }
}

fn part(content: &str, index: usize, part: &Value) -> Result<(), Invalid> {
    let at = |field: &str| format!("{content}[{index}]{field}");
    let Value::Object(fields) = part else {
        return Err(Invalid::field(at(""), format!("expected an object, found {}", kind(part))));
    };
    match fields.get("type") {
        Some(Value::String(name)) if name == "text" => match fields.get("text") {
            Some(Value::String(_)) => Ok(()),
            None => Err(Invalid::field(at(".text"), "is required")),
            Some(other) => Err(Invalid::field(at(".text"), format!("expected a string, found {}", kind(other)))),
        },
        Some(Value::String(name)) => {
            let name: String = name.chars().take(40).collect();
            Err(Invalid::not_yet(at(".type"), &format!("a part of type '{name}'")))
        }
        None => Err(Invalid::field(at(".type"), "is required")),
        Some(other) => Err(Invalid::field(at(".type"), format!("expected a string, found {}", kind(other)))),
    }
}
