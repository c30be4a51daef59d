//! Reads the answers by which a registry refuses: a bounded body, its error document, `Retry-After`.

use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use reqwest::Response;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;

use crate::error::{Error, printable};

/// The most that is read of an error's body.
const MAX_BODY: usize = 64 << 10;
/// The most errors of one answer that are shown.
const MAX_SHOWN: usize = 3;

/// Distribution specification, "Error codes"; `details` and `error` are what token services answer.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    errors: Vec<Entry>,
    details: Option<String>,
    error_description: Option<String>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Entry {
    code: Option<String>,
    message: Option<String>,
}

/// Turns an answer that is no success into an error. Its body is read for as long as `patience` allows.
pub(crate) async fn refusal(action: String, registry: &str, response: Response, patience: Duration) -> Error {
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers(), SystemTime::now());
    let body =
        tokio::time::timeout(patience.min(Duration::from_secs(5)), body_start(response)).await.unwrap_or_default();
    Error::Answered { action, status, details: details(&body), retry_after, registry: registry.to_owned() }
}

async fn body_start(response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(Ok(bytes)) = stream.next().await {
        let room = MAX_BODY - body.len();
        body.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if body.len() == MAX_BODY {
            break;
        }
    }
    body
}

/// What an error's body says, for people.
pub(crate) fn details(body: &[u8]) -> String {
    let Ok(document) = serde_json::from_slice::<Document>(body) else {
        let text = String::from_utf8_lossy(body);
        // A page of HTML from a proxy says less than the status does.
        return if text.trim_start().starts_with('<') { String::new() } else { printable(&text, 200) };
    };
    let one = |entry: &Entry| match (&entry.code, &entry.message) {
        (Some(code), Some(message)) if !message.is_empty() => {
            format!("{} ({})", printable(message, 200), printable(code, 60))
        }
        (Some(text), _) | (None, Some(text)) => printable(text, 200),
        (None, None) => String::new(),
    };
    let shown: Vec<_> = document.errors.iter().take(MAX_SHOWN).map(one).filter(|text| !text.is_empty()).collect();
    if !shown.is_empty() {
        return shown.join("; ");
    }
    let plain = document.error.as_ref().and_then(|error| error.as_str()).map(str::to_owned);
    printable(&document.error_description.or(document.details).or(plain).unwrap_or_default(), 200)
}

/// `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let at = http_date(text)?;
    Some(at.duration_since(now).unwrap_or_default())
}

/// The preferred form of an HTTP date: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = text.split_once(", ")?.1.split(' ');
    let day: u64 = parts.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let name = parts.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as u64;
    let year: u64 = parts.next()?.parse().ok().filter(|year| (1970..=9999).contains(year))?;
    let mut clock = parts.next()?.split(':').map(|part| part.parse::<u64>().ok().filter(|part| *part <= 60));
    let (hours, minutes, seconds) = (clock.next()??, clock.next()??, clock.next()??);
    // Days since 1970-01-01 of the proleptic Gregorian calendar, counted from the first of March so that leap days
    // come last.
    let (y, m) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400 + hours * 3600 + minutes * 60 + seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_documents_are_shown_in_one_line() {
        let check = |body: &str, shown: &str| assert_eq!(details(body.as_bytes()), shown, "{body}");
        check(
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#,
            "manifest unknown (MANIFEST_UNKNOWN)",
        );
        check(r#"{"errors":[{"code":"DENIED"}]}"#, "DENIED");
        check(r#"{"details":"incorrect username or password"}"#, "incorrect username or password");
        check(r#"{"error":"invalid_grant","error_description":"expired"}"#, "expired");
        check("Client sent an HTTP request to an HTTPS server.\n", "Client sent an HTTP request to an HTTPS server.");
        check("<html>502</html>", "");
        check(r#"{"errors":[{"message":"\u001b[2Jgone"}]}"#, " [2Jgone");
        check("", "");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 5);
        let check = |text: &str, seconds: Option<u64>| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), seconds.map(Duration::from_secs), "{text}");
        };
        check("0", Some(0));
        check("120", Some(120));
        // RFC 9110's example date is 784111777 seconds after the epoch.
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(5));
        check("Sun, 06 Nov 1993 08:49:37 GMT", Some(0));
        check("-1", None);
        check("99999999999999999999", None);
        check("Sun, 99 Nov 1994 08:49:37 GMT", None);
        check("soon", None);
    }
}
