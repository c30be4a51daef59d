//! The ancestor's draft of a recipe, in camelCase or snake_case: read by its own table, then turned into the recipe of
//! today. Called by `parse`.

use serde_json::{Map, Value, json};

use crate::check::object;
use crate::grammar;
use crate::language::{
    BITS, GROUP_SIZE, HUB, LABEL, LICENSE, MAX_TOKENS, MODE, NAME, PATH, PROSE, STOPS, TEMPERATURE, TEMPLATE_SOURCE,
    TOP_P, VERSION,
};
use crate::problem::{Objection, Report, shown};
use crate::quantize;
use crate::recipe::{API_VERSION, KIND};
use crate::shape::{Key, Record, Shape, TextRule, Whole, join};
use crate::templates::template_catalogue;
use crate::tree::Node;

static REVISION: TextRule = TextRule::new("a revision", 255).verbatim().checked(None, grammar::revision);
static QUANTIZATION_NAME: TextRule =
    TextRule::new("a quantisation", 32).checked(None, |text| match quantization(text) {
        Some(_) => Ok(()),
        None => Err(Objection::new(format!("is {}, which names no quantisation", shown(text)))
            .hint("write `none`, `4bit`, `8bit`, `mxfp4`, or a mapping with bits and group size")),
    });
static TEMPLATE_TEXT: TextRule = TextRule::new("a template", 256 << 10).checked(None, |text| match template(text) {
    Some(_) => Ok(()),
    None => Err(Objection::new(format!("is {}, neither in the catalogue nor a Jinja text or file", shown(text)))
        .hint("`mlxctl templates` lists the catalogue; a file ends in .jinja, .j2 or .txt")),
});

pub(crate) static DRAFT: Record = Record::new(
    "a recipe",
    &[
        Key::new("name", Shape::Text(&NAME), "as `name`").required(),
        Key::new("version", Shape::Text(&VERSION), "as `version`"),
        Key::new("base", Shape::Record(&BASE), "becomes `from`").required(),
        Key::new("format", Shape::Word(&["mlx"]), "dropped: there is one format"),
        Key::new(
            "quantization",
            Shape::Either("a name or a mapping", &[&Shape::Text(&QUANTIZATION_NAME), &Shape::Record(&QUANTIZATION)]),
            "becomes `quantize`; also by name: `none`, `4bit`, `q8`, `int4`, `mxfp4`",
        )
        .also_called(&["quantize"]),
        Key::new(
            "tokenizer",
            Shape::Either("a path or a mapping", &[&Shape::Text(&PATH), &Shape::Record(&TOKENIZER)]),
            "becomes `tokenizer.path`",
        ),
        Key::new(
            "promptTemplate",
            Shape::Either("a template or a mapping", &[&Shape::Text(&TEMPLATE_TEXT), &Shape::Record(&TEMPLATE_SOURCE)]),
            "becomes `template`: a name of the catalogue, a Jinja text or a Jinja file",
        )
        .also_called(&["template", "chatTemplate"]),
        Key::new("defaults", Shape::Record(&DEFAULTS), "becomes `parameters`, and `system`")
            .also_called(&["parameters"]),
        Key::new("license", Shape::Text(&LICENSE), "becomes `licenses`").also_called(&["licenses", "licence"]),
        Key::new("metadata", Shape::Labels(&LABEL), "becomes `labels`").also_called(&["labels"]),
    ],
)
.snake_case_too();

static BASE: Record = Record::new(
    "a base",
    &[
        Key::new("hfRepo", Shape::Text(&HUB), "becomes `from.hf`").also_called(&["hf", "repo"]),
        Key::new("revision", Shape::Text(&REVISION), "becomes the part of `from.hf` after `@`"),
        Key::new("localPath", Shape::Text(&PATH), "becomes `from.path`").also_called(&["path"]),
    ],
)
.snake_case_too()
.exactly_one_of(&["hfRepo", "localPath"])
.rule(revision_has_a_repository, |schema| {
    schema.insert(
        "not".into(),
        json!({ "required": ["revision"], "anyOf": [
        { "required": ["localPath"] }, { "required": ["local_path"] },
        { "properties": { "hfRepo": { "pattern": "@" } }, "required": ["hfRepo"] },
        { "properties": { "hf_repo": { "pattern": "@" } }, "required": ["hf_repo"] },
    ] }),
    );
});

static QUANTIZATION: Record = Record::new(
    "a quantisation",
    &[
        Key::new("mode", MODE, "as `quantize.mode`").also_called(&["type", "method"]),
        Key::new("bits", BITS, "as `quantize.bits`"),
        Key::new("groupSize", GROUP_SIZE, "as `quantize.group_size`"),
    ],
)
.snake_case_too()
.rule(
    |whole, report| {
        let values = renamed(whole.values.clone(), &[("groupSize", "group_size")]);
        quantize::rule(&Whole { node: whole.node, path: whole.path, values: &values }, report);
    },
    quantize::schema_rule,
);

static TOKENIZER: Record =
    Record::new("a tokenizer", &[Key::new("path", Shape::Text(&PATH), "as `tokenizer.path`").required()]);

static DEFAULTS: Record = Record::new(
    "defaults",
    &[
        Key::new("temperature", TEMPERATURE, "as `parameters.temperature`"),
        Key::new("topP", TOP_P, "becomes `parameters.top_p`"),
        Key::new("maxTokens", MAX_TOKENS, "becomes `parameters.max_tokens`"),
        Key::new("stop", Shape::List(&STOPS), "as `parameters.stop`"),
        Key::new("systemPrompt", Shape::Text(&PROSE), "becomes `system`").also_called(&["system"]),
    ],
)
.snake_case_too();

/// Whether a document is the draft: it has `base` where a recipe of today has `from`, and none of today's heads.
pub(crate) fn is_draft(root: &Node) -> bool {
    let has = |key: &str| root.entries().iter().any(|entry| entry.key == key);
    has("base") && !["apiVersion", "kind", "from"].into_iter().any(has)
}

fn revision_has_a_repository(whole: &Whole<'_>, report: &mut Report<'_>) {
    let Some(revision) = whole.values.get("revision").and_then(Value::as_str) else { return };
    let repository = whole.values.get("hfRepo").and_then(Value::as_str);
    let message = match repository {
        None if whole.values.contains_key("localPath") => "belongs to `hfRepo`, and this base has a `localPath`",
        Some(repository) if repository.contains('@') => "is named a second time: `hfRepo` names one after its `@`",
        _ => return,
    };
    let at = whole.place("revision");
    object(
        report,
        at,
        &join(whole.path, "revision"),
        Objection::new(message).hint(format!("remove {}", shown(revision))),
    );
}

/// `none`, `4bit`, `4-bit`, `q4`, `int4`, or a mode. `null` for none.
fn quantization(name: &str) -> Option<Value> {
    let name = name.to_ascii_lowercase();
    if matches!(name.as_str(), "none" | "bf16" | "f16" | "fp16" | "f32" | "fp32") {
        return Some(Value::Null);
    }
    if quantize::MODES.contains(&name.as_str()) {
        return Some(json!({ "mode": name }));
    }
    let bits = ["q", "int"]
        .into_iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .or_else(|| ["-bit", "_bit", "bits", "bit"].into_iter().find_map(|suffix| name.strip_suffix(suffix)))?;
    let bits: u8 = bits.parse().ok().filter(|_| bits.len() == 1)?;
    quantize::QuantizeMode::Affine.widths().contains(&bits).then(|| json!({ "bits": bits }))
}

fn template(text: &str) -> Option<Value> {
    let is_file = |text: &str| {
        let name = text.rsplit('/').next().unwrap_or(text);
        !text.contains(char::is_control)
            && name.rsplit_once('.').is_some_and(|(_, end)| matches!(end, "jinja" | "jinja2" | "j2" | "txt"))
    };
    match text {
        name if template_catalogue().iter().any(|(known, _)| *known == name) => Some(json!({ "catalog": name })),
        inline if inline.contains("{{") || inline.contains("{%") => Some(json!({ "inline": inline })),
        file if is_file(file) => Some(json!({ "file": file })),
        _ => None,
    }
}

fn renamed(mut values: Map<String, Value>, names: &[(&str, &str)]) -> Map<String, Value> {
    for (old, new) in names {
        if let Some(value) = values.remove(*old) {
            values.insert((*new).to_owned(), value);
        }
    }
    values
}

/// The recipe of today that says the same.
pub(crate) fn into_recipe(values: Value) -> Value {
    let Value::Object(mut draft) = values else { return values };
    let mut recipe = Map::new();
    recipe.insert("apiVersion".into(), API_VERSION.into());
    recipe.insert("kind".into(), KIND.into());
    for key in ["name", "version"] {
        if let Some(value) = draft.remove(key) {
            recipe.insert(key.into(), value);
        }
    }
    if let Some(Value::Object(base)) = draft.remove("base") {
        let text = |key: &str| base.get(key).and_then(Value::as_str);
        recipe.insert(
            "from".into(),
            match (text("hfRepo"), text("revision")) {
                (Some(repository), Some(revision)) => json!({ "hf": format!("{repository}@{revision}") }),
                (Some(repository), None) => json!({ "hf": repository }),
                (None, _) => json!({ "path": text("localPath") }),
            },
        );
    }
    match draft.remove("quantization") {
        Some(Value::String(name)) => drop(recipe.insert("quantize".into(), quantization(&name).unwrap_or_default())),
        Some(Value::Object(values)) => {
            recipe.insert("quantize".into(), renamed(values, &[("groupSize", "group_size")]).into());
        }
        _ => {}
    }
    match draft.remove("tokenizer") {
        Some(Value::String(path)) => drop(recipe.insert("tokenizer".into(), json!({ "path": path }))),
        Some(mapping) => drop(recipe.insert("tokenizer".into(), mapping)),
        None => {}
    }
    match draft.remove("promptTemplate") {
        Some(Value::String(text)) => drop(recipe.insert("template".into(), template(&text).unwrap_or_default())),
        Some(mapping) => drop(recipe.insert("template".into(), mapping)),
        None => {}
    }
    if let Some(Value::Object(mut defaults)) = draft.remove("defaults") {
        if let Some(system) = defaults.remove("systemPrompt") {
            recipe.insert("system".into(), system);
        }
        let parameters = renamed(defaults, &[("topP", "top_p"), ("maxTokens", "max_tokens")]);
        recipe.insert("parameters".into(), parameters.into());
    }
    if let Some(license) = draft.remove("license") {
        recipe.insert("licenses".into(), json!([license]));
    }
    if let Some(metadata) = draft.remove("metadata") {
        recipe.insert("labels".into(), metadata);
    }
    recipe.into()
}
