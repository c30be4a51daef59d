//! Doors for the fuzzer to parsers that nobody else calls from outside.

use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use crate::challenge::Challenge;

/// Reads bytes as the challenge of a registry's answer.
pub fn challenge(bytes: &[u8]) {
    let values = bytes.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok());
    let headers: HeaderMap = values.map(|value| (WWW_AUTHENTICATE, value)).collect();
    let _ = Challenge::read(&headers);
}

/// Reads bytes as Docker's `config.json`, with every entry in it; no helper is run.
pub fn docker_config(bytes: &[u8]) {
    crate::docker_config::examine(bytes);
}
