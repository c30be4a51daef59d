//! The tables of the reference page, written from the same table the parser reads by.

use std::fmt::Write as _;

use crate::language;
use crate::parse::roots;
use crate::shape::{Record, Shape, join};

/// Every key of a recipe in Markdown, one table for each mapping, the ancestor's draft last.
pub fn reference_tables() -> String {
    let mut page = String::new();
    for (name, root) in roots() {
        let heading = if name == "recipe" { "A recipe" } else { "The draft of the ancestor" };
        table(&mut page, heading, "", root);
    }
    page
}

fn table(page: &mut String, heading: &str, path: &str, record: &'static Record) {
    let _ = write!(page, "### {heading}\n\n");
    if !record.one_of.is_empty() {
        let keys: Vec<_> = record.one_of.iter().map(|key| format!("`{key}`")).collect();
        let _ = write!(page, "Exactly one of {}.\n\n", keys.join(", "));
    }
    page.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
    for key in record.keys {
        let default = match (key.required, key.default) {
            (true, _) => "**required**",
            (false, "") => "–",
            (false, default) => default,
        };
        let _ = writeln!(page, "| `{}` | {} | {default} | {} |", key.name, language::type_name(&key.shape), key.about);
    }
    page.push('\n');
    for key in record.keys {
        let path = join(path, key.name);
        for (path, record) in inner(&path, &key.shape) {
            table(page, &format!("`{path}`"), &path, record);
        }
    }
}

/// The mappings a value may hold, with their paths.
fn inner(path: &str, shape: &'static Shape) -> Vec<(String, &'static Record)> {
    match shape {
        Shape::Record(record) => vec![(path.to_owned(), record)],
        Shape::List(rule) => inner(&format!("{path}[]"), &rule.item),
        Shape::Either(_, shapes) => shapes.iter().flat_map(|shape| inner(path, shape)).collect(),
        _ => Vec::new(),
    }
}
