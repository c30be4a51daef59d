//! Fields that come in more than one shape: a string or a list of them, a prompt as text or as tokens, a duration.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// One string or several: `stop`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Strings(pub Vec<String>);

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Strings;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Strings, E> {
                Ok(Strings::default())
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Strings, E> {
                Ok(Strings(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Strings, A::Error> {
                let mut strings = Vec::new();
                while let Some(item) = items.next_element::<String>()? {
                    strings.push(item);
                }
                Ok(Strings(strings))
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

/// The prompts of a completion: each is text or tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompts {
    /// Texts, to be encoded.
    Texts(Vec<String>),
    /// Token ids, taken as they are.
    Tokens(Vec<Vec<u32>>),
}

impl Prompts {
    /// How many prompts there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Tokens(lists) => lists.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Serialize for Prompts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Texts(texts) => texts.serialize(serializer),
            Self::Tokens(lists) => lists.serialize(serializer),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Text(String),
    Token(u32),
    Tokens(Vec<u32>),
}

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "a string, an array of strings, an array of token ids, or an array of such arrays";
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Prompts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Prompts, E> {
                Ok(Prompts::Texts(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Prompts, A::Error> {
                let (mut texts, mut tokens, mut lists) = (Vec::new(), Vec::new(), Vec::new());
                let mut count = 0_usize;
                loop {
                    let item = items.next_element::<Item>();
                    match item.map_err(|_| de::Error::custom(format!("expected {EXPECTED}; item {count} is none")))? {
                        None => break,
                        Some(Item::Text(text)) => texts.push(text),
                        Some(Item::Token(token)) => tokens.push(token),
                        Some(Item::Tokens(list)) => lists.push(list),
                    }
                    count += 1;
                }
                if texts.len() == count {
                    Ok(Prompts::Texts(texts))
                } else if tokens.len() == count {
                    Ok(Prompts::Tokens(vec![tokens]))
                } else if lists.len() == count {
                    Ok(Prompts::Tokens(lists))
                } else {
                    Err(de::Error::custom("an array holds either strings, or token ids, or arrays of token ids"))
                }
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

/// How long a model stays loaded after its last answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAlive {
    /// Until it is unloaded by name, or the daemon ends.
    Forever,
    /// This long; zero unloads it at once.
    For(Duration),
}

impl KeepAlive {
    /// Reads a duration such as `5m`, `1h30m`, `90s`, `250ms`, `0`; a negative one is for ever.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest.is_empty() {
            return None;
        }
        if let Ok(seconds) = rest.parse::<f64>() {
            return Self::seconds(if negative { -seconds } else { seconds });
        }
        let mut total = 0.0_f64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let value: f64 = rest[..digits].parse().ok()?;
            rest = &rest[digits..];
            let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
            let unit = match &rest[..end] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
            total += value * unit;
            rest = &rest[end..];
        }
        Self::seconds(if negative { -total } else { total })
    }

    fn seconds(seconds: f64) -> Option<Self> {
        if seconds < 0.0 {
            return Some(Self::Forever);
        }
        // A duration beyond a century is as good as for ever, and no clock arithmetic overflows.
        if seconds > 100.0 * 365.0 * 86_400.0 {
            return Some(Self::Forever);
        }
        Duration::try_from_secs_f64(seconds).ok().map(Self::For)
    }
}

impl<'de> Deserialize<'de> for KeepAlive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl Visitor<'_> for Shape {
            type Value = KeepAlive;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds as a number or a duration such as \"5m\"")
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<KeepAlive, E> {
                self.visit_f64(value as f64)
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<KeepAlive, E> {
                self.visit_f64(value as f64)
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<KeepAlive, E> {
                KeepAlive::seconds(value).ok_or_else(|| E::invalid_value(de::Unexpected::Float(value), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<KeepAlive, E> {
                KeepAlive::parse(text).ok_or_else(|| E::invalid_type(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

impl Serialize for KeepAlive {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Forever => serializer.serialize_i64(-1),
            Self::For(duration) => serializer.serialize_f64(duration.as_secs_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let check = |text: &str, seconds: f64| {
            assert_eq!(KeepAlive::parse(text), Some(KeepAlive::For(Duration::from_secs_f64(seconds))), "{text}");
        };
        check("5m", 300.0);
        check("1h30m", 5400.0);
        check("1.5h", 5400.0);
        check("250ms", 0.25);
        check("0", 0.0);
        check("90", 90.0);
        assert_eq!(KeepAlive::parse("-1"), Some(KeepAlive::Forever));
        assert_eq!(KeepAlive::parse("-1m"), Some(KeepAlive::Forever));
        assert_eq!(KeepAlive::parse("99999999999h"), Some(KeepAlive::Forever));
        for bad in ["", "-", "x", "5x", "m", "5m3", "1..2s", "nan"] {
            assert_eq!(KeepAlive::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn prompts_come_in_four_shapes() {
        let check = |json: &str, expected: Prompts| {
            assert_eq!(serde_json::from_str::<Prompts>(json).unwrap(), expected, "{json}");
        };
        check("\"a\"", Prompts::Texts(vec!["a".to_owned()]));
        check("[\"a\",\"b\"]", Prompts::Texts(vec!["a".to_owned(), "b".to_owned()]));
        check("[1,2]", Prompts::Tokens(vec![vec![1, 2]]));
        check("[[1],[2,3]]", Prompts::Tokens(vec![vec![1], vec![2, 3]]));
        for bad in ["[1,\"a\"]", "[-1]", "{}", "[[[1]]]", "3"] {
            assert!(serde_json::from_str::<Prompts>(bad).is_err(), "{bad}");
        }
    }
}
