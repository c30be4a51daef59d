//! The vocabulary in which the recipe language is written down: what a value may be. `language` and `draft` hold the
//! tables; `check` reads values by them, `schema` and `reference` write JSON Schema and the reference page from them.

use serde_json::{Map, Value};

use crate::problem::{Objection, Report};
use crate::tree::Node;

/// What a value may be.
pub(crate) enum Shape {
    Text(&'static TextRule),
    Number(NumberRule),
    Integer {
        min: u64,
        max: u64,
    },
    /// A truth value.
    Flag,
    /// One of a few words.
    Word(&'static [&'static str]),
    List(&'static ListRule),
    /// Keys of the writer's own, each with a text.
    Labels(&'static TextRule),
    Record(&'static Record),
    /// Several ways to write it, told apart by what kind of node it is; the names say them in a message.
    Either(&'static str, &'static [&'static Shape]),
}

/// What a text must be. Nothing but its own check knows whether it is right; the pattern tells editors most of it.
pub(crate) struct TextRule {
    /// How the reference page and messages call it: "a name", "a path".
    pub(crate) what: &'static str,
    /// A number or truth value without quotes is taken as written rather than refused.
    pub(crate) verbatim: bool,
    /// Bytes.
    pub(crate) max: usize,
    /// The empty text has no use.
    pub(crate) filled: bool,
    /// For the JSON Schema: an ECMA-262 expression that holds for every text the check accepts.
    pub(crate) pattern: Option<&'static str>,
    pub(crate) check: fn(&str) -> Result<(), Objection>,
}

pub(crate) struct NumberRule {
    pub(crate) min: f64,
    /// The least value itself is refused.
    pub(crate) above_min: bool,
    pub(crate) max: f64,
}

pub(crate) struct ListRule {
    pub(crate) item: Shape,
    pub(crate) max: usize,
    /// No item twice.
    pub(crate) unique: bool,
}

/// A mapping with known keys.
pub(crate) struct Record {
    /// How messages call it where it has no path: "a recipe".
    pub(crate) what: &'static str,
    pub(crate) keys: &'static [Key],
    /// Exactly one of these is given; empty for no such rule.
    pub(crate) one_of: &'static [&'static str],
    /// Keys are also taken in `snake_case`.
    pub(crate) snake_case_too: bool,
    /// What holds between keys. It sees the values that passed.
    pub(crate) rule: fn(&Whole<'_>, &mut Report<'_>),
    /// The same rule, as far as JSON Schema can say it.
    pub(crate) schema_rule: fn(&mut Map<String, Value>),
}

/// A mapping whose values were checked one by one, for the rules between them.
pub(crate) struct Whole<'a> {
    pub(crate) node: &'a Node,
    pub(crate) path: &'a str,
    /// The values that passed, by the name their key has in the table.
    pub(crate) values: &'a Map<String, Value>,
}

pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) required: bool,
    /// What holds where the key is absent, for the reference page.
    pub(crate) default: &'static str,
    pub(crate) about: &'static str,
    /// What others call it: an unknown key of that name gets this one as its hint.
    pub(crate) synonyms: &'static [&'static str],
}

impl Key {
    pub(crate) const fn new(name: &'static str, shape: Shape, about: &'static str) -> Self {
        Self { name, shape, required: false, default: "", about, synonyms: &[] }
    }

    pub(crate) const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    pub(crate) const fn default(mut self, default: &'static str) -> Self {
        self.default = default;
        self
    }

    pub(crate) const fn also_called(mut self, synonyms: &'static [&'static str]) -> Self {
        self.synonyms = synonyms;
        self
    }
}

impl Record {
    pub(crate) const fn new(what: &'static str, keys: &'static [Key]) -> Self {
        Self { what, keys, one_of: &[], snake_case_too: false, rule: |_, _| {}, schema_rule: |_| {} }
    }

    pub(crate) const fn exactly_one_of(mut self, keys: &'static [&'static str]) -> Self {
        self.one_of = keys;
        self
    }

    pub(crate) const fn snake_case_too(mut self) -> Self {
        self.snake_case_too = true;
        self
    }

    pub(crate) const fn rule(
        mut self,
        rule: fn(&Whole<'_>, &mut Report<'_>),
        schema_rule: fn(&mut Map<String, Value>),
    ) -> Self {
        self.rule = rule;
        self.schema_rule = schema_rule;
        self
    }

    /// The key that is meant by a name in a recipe.
    pub(crate) fn find(&self, name: &str) -> Option<&'static Key> {
        let keys: &'static [Key] = self.keys;
        keys.iter().find(|key| key.name == name || (self.snake_case_too && snake_case(key.name) == name))
    }
}

impl TextRule {
    pub(crate) const fn new(what: &'static str, max: usize) -> Self {
        Self { what, verbatim: false, max, filled: true, pattern: None, check: |_| Ok(()) }
    }

    pub(crate) const fn verbatim(mut self) -> Self {
        self.verbatim = true;
        self
    }

    pub(crate) const fn may_be_empty(mut self) -> Self {
        self.filled = false;
        self
    }

    pub(crate) const fn checked(
        mut self,
        pattern: Option<&'static str>,
        check: fn(&str) -> Result<(), Objection>,
    ) -> Self {
        self.pattern = pattern;
        self.check = check;
        self
    }
}

/// `topP` → `top_p`.
pub(crate) fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake.replace('-', "_")
}

/// `parameters` and `top_p` → `parameters.top_p`.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
