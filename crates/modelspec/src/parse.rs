//! From the text of a recipe to a [`ModelSpec`], or to everything that is wrong with it.

use crate::check::check;
use crate::problem::{Invalid, Objection, Place, Report};
use crate::recipe::ModelSpec;
use crate::shape::{Record, Shape};
use crate::{draft, language, tree};

/// The longest recipe that is read, in bytes. A caller may bound its file by this before reading.
pub const MAX_RECIPE_BYTES: usize = 1 << 20;

static RECIPE: Shape = Shape::Record(&language::RECIPE);
static DRAFT: Shape = Shape::Record(&draft::DRAFT);

/// Reads a recipe. `file_name` stands in the messages and is not opened.
pub fn parse(text: &str, file_name: &str) -> Result<ModelSpec, Invalid> {
    let mut report = Report::new(file_name);
    let spec = read(text, &mut report);
    match spec {
        Some(spec) if report.is_clean() => Ok(spec),
        _ => Err(report.into_invalid()),
    }
}

fn read(text: &str, report: &mut Report<'_>) -> Option<ModelSpec> {
    if text.len() > MAX_RECIPE_BYTES {
        let message = format!("the recipe is {} bytes long, and at most {MAX_RECIPE_BYTES} are read", text.len());
        report.add(Place::START, "", Objection::new(message));
        return None;
    }
    let root = tree::read(text, report)?;
    let is_draft = draft::is_draft(&root);
    let values = check(if is_draft { &DRAFT } else { &RECIPE }, &root, "", report)?;
    if !report.is_clean() {
        return None;
    }
    let values = if is_draft { draft::into_recipe(values) } else { values };
    match serde_json::from_value(values) {
        Ok(spec) => Some(spec),
        // The table and the types disagree: a fault of this crate, told rather than hidden.
        Err(error) => {
            let message = format!("the recipe was found sound and yet cannot be read: {error}");
            report.add(Place::START, "", Objection::new(message).hint("this is a fault of mlxctl: please report it"));
            None
        }
    }
}

/// The records a recipe may be: the language of today, and its ancestor's draft.
pub(crate) fn roots() -> [(&'static str, &'static Record); 2] {
    [("recipe", &language::RECIPE), ("draft", &draft::DRAFT)]
}
