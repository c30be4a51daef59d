//! Canonical JSON (RFC 8785): the one form in which documents that we write are hashed.

use serde::Serialize;

/// The RFC 8785 form of `value`: keys sorted by UTF-16 code units, no white space, numbers as ECMAScript prints them.
///
/// # Errors
/// When `value` cannot be JSON (a map with keys that are no strings, a number that is not finite).
pub fn canonical_json<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    serde_json_canonicalizer::to_vec(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_and_numbers_are_ecmascript() {
        let value =
            serde_json::json!({"b": 1.0, "a": [1e21, 0.000_001, "\u{e9}\n"], "\u{10000}": null, "\u{ffff}": true});
        let text = String::from_utf8(canonical_json(&value).unwrap()).unwrap();
        assert_eq!(text, "{\"a\":[1e+21,0.000001,\"é\\n\"],\"b\":1,\"\u{10000}\":null,\"\u{ffff}\":true}");
    }
}
