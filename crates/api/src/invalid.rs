//! Reading a request and saying which of its fields is wrong; called by the server for each body.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// A request that cannot be served as it is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The body is no JSON at all.
    #[error("the request body is not valid JSON: {reason}")]
    Json {
        /// What the parser expected, with line and column.
        reason: String,
    },
    /// A field has the wrong type, is out of range, or is missing.
    #[error("{field}: {reason}")]
    Field {
        /// The field, as a path: `messages[0].role`.
        field: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// A field asks for something that this server does not do.
    #[error("{field}: {reason}")]
    Unsupported {
        /// The field, as a path.
        field: String,
        /// What is missing, and what to send instead.
        reason: String,
    },
}

impl Invalid {
    /// A field whose value is wrong.
    pub fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Field { field: field.into(), reason: reason.into() }
    }

    /// A field that asks for a feature that is not there yet.
    pub fn not_yet(field: impl Into<String>, what: &str) -> Self {
        Self::Unsupported { field: field.into(), reason: format!("{what} is not supported yet") }
    }

    /// The field that is wrong, where one is.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Json { .. } => None,
            Self::Field { field, .. } | Self::Unsupported { field, .. } => Some(field),
        }
    }
}

/// A request that knows which values its fields may have.
pub trait Checked: DeserializeOwned {
    /// The first field that is out of range or asks for what is not there.
    fn check(&self) -> Result<(), Invalid>;
}

/// Reads a body, whatever its content type claims. The caller bounds its size; its depth is bounded here.
pub fn read_request<T: Checked>(body: &[u8]) -> Result<T, Invalid> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let request: T = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let source = error.into_inner();
        if source.is_data() { misfit(path, &source.to_string()) } else { Invalid::Json { reason: source.to_string() } }
    })?;
    json.end().map_err(|error| Invalid::Json { reason: error.to_string() })?;
    request.check()?;
    Ok(request)
}

/// What serde says of a field, in our words: the path names the place, so line and column go.
fn misfit(path: String, message: &str) -> Invalid {
    let message = message.split(" at line ").next().unwrap_or(message);
    if let Some(missing) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        let field = if path == "." { missing.to_owned() } else { format!("{path}.{missing}") };
        return Invalid::field(field, "is required");
    }
    let reason = match message.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected ")) {
        Some((found, expected)) => format!("expected {}, found {}", in_json(expected), shortened(found)),
        None => shortened(message),
    };
    if path == "." {
        return Invalid::Json { reason };
    }
    Invalid::Field { field: path, reason }
}

/// Rust's names of types, as a JSON author knows them.
fn in_json(expected: &str) -> &str {
    match expected {
        "f64" | "f32" => "a number",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number that is not negative",
        "i8" | "i16" | "i32" | "i64" => "a whole number",
        "a sequence" => "an array",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    }
}

/// At most 120 characters of a foreign text.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(120) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Refuses a number outside `low..=high`.
pub(crate) fn within(field: &str, value: Option<f64>, low: f64, high: f64) -> Result<(), Invalid> {
    match value {
        Some(value) if !(low..=high).contains(&value) => {
            let range = if high == f64::INFINITY { format!("at least {low}") } else { format!("{low} to {high}") };
            Err(Invalid::field(field, format!("expected a number from the range {range}, found {value}")))
        }
        _ => Ok(()),
    }
}

/// What a JSON value is, for a message.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Whether a field that a feature hangs on is there and says something: null, false, empty and zero say nothing.
pub(crate) fn asks(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(fields)) => !fields.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::Bool(true)) => true,
    }
}
