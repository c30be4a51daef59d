//! What is wrong with a recipe, and where: gathered by the reader of the tree, printed by the command line.

use std::fmt;

/// More problems than this are not reported: a person mends the first ones and runs again.
const MAX_PROBLEMS: usize = 100;

/// A place in the text: line and column, both counted from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Place {
    pub(crate) const START: Self = Self { line: 1, column: 1 };
}

/// One mistake in a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file as the caller named it.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
    /// The key that is meant, as in `tests[0].expect`; empty for the recipe as a whole.
    pub path: String,
    /// What was expected and what was found.
    pub message: String,
    /// How to mend it, where there is something to say.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// A recipe that cannot be used, with every problem found, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.lines())]
pub struct Invalid {
    /// The problems, at least one.
    pub problems: Vec<Problem>,
}

impl Invalid {
    fn lines(&self) -> String {
        self.problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
    }
}

/// What one check has to say against a value: the middle of a sentence, and a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Objection {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Objection {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The problems found so far.
pub(crate) struct Report<'a> {
    file: &'a str,
    problems: Vec<Problem>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(file: &'a str) -> Self {
        Self { file, problems: Vec::new() }
    }

    pub(crate) fn add(&mut self, at: Place, path: &str, objection: Objection) {
        let Objection { message, hint } = objection;
        let path = path.to_owned();
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line: at.line,
            column: at.column,
            path,
            message,
            hint,
        });
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// So much is wrong that no more will be shown; costly advice can be spared.
    pub(crate) fn is_full(&self) -> bool {
        self.problems.len() > MAX_PROBLEMS
    }

    /// The error that holds them all, sorted by place.
    pub(crate) fn into_invalid(mut self) -> Invalid {
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        if let Some(last) = self.problems.get(MAX_PROBLEMS) {
            let more = self.problems.len() - MAX_PROBLEMS;
            let message = format!("{more} more problems from here on are not shown");
            let rest = Problem { message, hint: None, path: String::new(), ..last.clone() };
            self.problems.truncate(MAX_PROBLEMS);
            self.problems.push(rest);
        }
        Invalid { problems: self.problems }
    }
}

/// A foreign text for a message: in quotes, control characters escaped, at most 60 characters of it.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}
