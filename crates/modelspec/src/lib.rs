//! The recipe language: `ModelSpec.yaml` as types, with the position of every mistake, its JSON Schema and the
//! catalogue of chat templates.
//!
//! A recipe is read in three steps: `tree` turns YAML into nodes with positions, `check` holds the tree against the
//! table of keys in `shape` and `language` and gathers every problem, and `recipe` is what remains. The JSON
//! Schema and the reference page are written from the same table, so that neither can say something else than the
//! parser does. The command line and the builder call [`parse`]; the runtime reads
//! what [`ModelSpec::resolved`] leaves of a recipe.
//!
//! Nothing here touches a file: the caller reads the text and looks for the paths a recipe names.

mod check;
mod draft;
mod glob;
mod grammar;
mod language;
mod parse;
mod problem;
mod quantize;
mod recipe;
mod reference;
mod schema;
mod shape;
mod templates;
mod tree;

pub use mlxctl_artifact::{Expectation, Parameters, SmokeTest};
pub use parse::{MAX_RECIPE_BYTES, parse};
pub use problem::{Invalid, Problem};
pub use quantize::{MixedRecipe, Quantize, QuantizeMode, QuantizeOverride, QuantizeScheme};
pub use recipe::{
    API_VERSION, Adapter, Capability, Draft, Dtype, FileSelection, From, HubReference, KIND, ModelSpec, TemplateSource,
    TokenizerSource,
};
pub use reference::reference_tables;
pub use schema::json_schema;
pub use templates::template_catalogue;
