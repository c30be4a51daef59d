//! The environment, captured once, so that tests give their own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::str::FromStr;

use crate::Error;
use crate::variables::Variable;

/// Variables and their values. An empty value counts as absent, as in a shell's `${X:-default}`.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        std::env::vars_os().collect()
    }

    /// The value of a variable.
    pub fn text(&self, variable: &Variable) -> Result<Option<String>, Error> {
        match self.0.get(std::ffi::OsStr::new(variable.name)).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => match value.to_str() {
                Some(text) => Ok(Some(text.to_owned())),
                None => Err(Error::Value {
                    origin: variable.name.to_owned(),
                    found: value.to_string_lossy().into_owned(),
                    expected: "valid UTF-8",
                }),
            },
        }
    }

    /// The value of a variable that holds a number.
    pub fn number<T: FromStr>(&self, variable: &Variable, expected: &'static str) -> Result<Option<T>, Error> {
        let Some(found) = self.text(variable)? else { return Ok(None) };
        match found.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Error::Value { origin: variable.name.to_owned(), found, expected }),
        }
    }
}

impl FromIterator<(OsString, OsString)> for Environment {
    fn from_iter<I: IntoIterator<Item = (OsString, OsString)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}
