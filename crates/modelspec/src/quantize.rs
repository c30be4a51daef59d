//! Quantisation as a recipe asks for it: which modes exist, which widths and groups each takes, and what holds for one
//! module. The builder asks [`Quantize::for_module`].

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::check::{object, place_of};
use crate::glob;
use crate::problem::{Objection, Place, Report};
use crate::shape::{Whole, join};
use crate::tree::{Kind, Node};

/// How weights are stored. The legal widths and groups are MLX's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuantizeMode {
    /// Integers with a scale and a bias a group.
    #[default]
    Affine,
    /// OCP microscaling, 4-bit floats in groups of 32.
    Mxfp4,
    /// OCP microscaling, 8-bit floats in groups of 32.
    Mxfp8,
    /// NVIDIA's 4-bit floats in groups of 16.
    Nvfp4,
}

pub(crate) const MODES: &[&str] = &["affine", "mxfp4", "mxfp8", "nvfp4"];

impl QuantizeMode {
    /// The name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Affine => "affine",
            Self::Mxfp4 => "mxfp4",
            Self::Mxfp8 => "mxfp8",
            Self::Nvfp4 => "nvfp4",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Affine, Self::Mxfp4, Self::Mxfp8, Self::Nvfp4].into_iter().find(|mode| mode.name() == name)
    }

    /// The widths it takes, in bits; the first is the default.
    pub fn widths(self) -> &'static [u8] {
        match self {
            Self::Affine => &[4, 2, 3, 5, 6, 8],
            Self::Mxfp4 | Self::Nvfp4 => &[4],
            Self::Mxfp8 => &[8],
        }
    }

    /// The group sizes it takes, in weights; the first is the default.
    pub fn group_sizes(self) -> &'static [u32] {
        match self {
            Self::Affine => &[64, 32, 128],
            Self::Mxfp4 | Self::Mxfp8 => &[32],
            Self::Nvfp4 => &[16],
        }
    }
}

/// A choice of widths by layer, as mlx-lm's recipes of the same names make it: the layers that matter most keep more
/// bits. Which layers these are depends on the model: the builder decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are the widths, the low before the high")]
pub enum MixedRecipe {
    #[serde(rename = "mixed_2_6")]
    Mixed2And6,
    #[serde(rename = "mixed_3_4")]
    Mixed3And4,
    #[serde(rename = "mixed_3_6")]
    Mixed3And6,
    #[serde(rename = "mixed_4_6")]
    Mixed4And6,
}

pub(crate) const RECIPES: &[&str] = &["mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6"];

impl MixedRecipe {
    /// The name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mixed2And6 => "mixed_2_6",
            Self::Mixed3And4 => "mixed_3_4",
            Self::Mixed3And6 => "mixed_3_6",
            Self::Mixed4And6 => "mixed_4_6",
        }
    }

    /// Bits a weight: of most modules, and of those that matter most.
    pub fn widths(self) -> (u8, u8) {
        match self {
            Self::Mixed2And6 => (2, 6),
            Self::Mixed3And4 => (3, 4),
            Self::Mixed3And6 => (3, 6),
            Self::Mixed4And6 => (4, 6),
        }
    }
}

/// The parameters that hold for one module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QuantizeScheme {
    /// How weights are stored.
    pub mode: QuantizeMode,
    /// Bits a weight.
    pub bits: u8,
    /// Weights a group.
    pub group_size: u32,
}

/// `quantize:` of a recipe, with the defaults of its mode filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct Quantize {
    /// How weights are stored.
    pub mode: QuantizeMode,
    /// Bits a weight.
    pub bits: u8,
    /// Weights a group.
    pub group_size: u32,
    /// Bits by layer instead of `bits`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipe: Option<MixedRecipe>,
    /// Exceptions; the last one that matches a module holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<QuantizeOverride>,
}

/// `quantize:` as written.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    mode: QuantizeMode,
    bits: Option<u8>,
    group_size: Option<u32>,
    recipe: Option<MixedRecipe>,
    #[serde(default)]
    overrides: Vec<QuantizeOverride>,
}

impl From<Written> for Quantize {
    fn from(written: Written) -> Self {
        let Written { mode, bits, group_size, recipe, overrides } = written;
        let bits = bits.unwrap_or(mode.widths()[0]);
        Self { mode, bits, group_size: group_size.unwrap_or(mode.group_sizes()[0]), recipe, overrides }
    }
}

/// An exception for the modules whose name a pattern matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuantizeOverride {
    /// `*` and `?` over the dotted name of a module, as in `*.mlp.gate`.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Another mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<QuantizeMode>,
    /// Other bits a weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits: Option<u8>,
    /// Other weights a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_size: Option<u32>,
    /// These modules stay as they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip: bool,
}

impl Quantize {
    /// What holds where nothing else is said.
    pub fn scheme(&self) -> QuantizeScheme {
        QuantizeScheme { mode: self.mode, bits: self.bits, group_size: self.group_size }
    }

    /// What holds for a module by its dotted name, without `.weight`; `None` where it stays as it is. Where there is
    /// a [`recipe`](Self::recipe), this knows nothing of it: ask [`over`](Self::over).
    pub fn for_module(&self, module: &str) -> Option<QuantizeScheme> {
        self.over(self.scheme(), module)
    }

    /// What the overrides make of the scheme that was chosen for a module.
    pub fn over(&self, base: QuantizeScheme, module: &str) -> Option<QuantizeScheme> {
        match self.overrides.iter().rev().find(|exception| glob::name_matches(&exception.pattern, module)) {
            Some(exception) if exception.skip => None,
            Some(exception) => Some(exception.scheme(base)),
            None => Some(base),
        }
    }
}

impl Quantize {
    /// As the resolved recipe holds it.
    pub(crate) fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("names and whole numbers are JSON")
    }
}

impl QuantizeOverride {
    /// What it says, the rest from `base`; another mode brings its own defaults.
    fn scheme(&self, base: QuantizeScheme) -> QuantizeScheme {
        let mode = self.mode.unwrap_or(base.mode);
        let (bits, group_size) =
            if mode == base.mode { (base.bits, base.group_size) } else { (mode.widths()[0], mode.group_sizes()[0]) };
        QuantizeScheme { mode, bits: self.bits.unwrap_or(bits), group_size: self.group_size.unwrap_or(group_size) }
    }
}

impl QuantizeScheme {
    /// What its mode does not take.
    fn objections(self) -> Vec<(&'static str, Objection)> {
        let mut objections = Vec::new();
        let mut hold = |key, value: u32, mut taken: Vec<u32>| {
            if !taken.contains(&value) {
                taken.sort_unstable();
                let taken: Vec<_> = taken.iter().map(u32::to_string).collect();
                let message = format!("is {value}, and mode {} takes {}", self.mode.name(), taken.join(", "));
                objections.push((key, Objection::new(message)));
            }
        };
        hold("bits", self.bits.into(), self.mode.widths().iter().copied().map(u32::from).collect());
        hold("group_size", self.group_size, self.mode.group_sizes().to_vec());
        objections
    }
}

fn number(values: &Map<String, Value>, key: &str) -> Option<u32> {
    values.get(key).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok())
}

/// The rule of the `quantize` record: widths and groups fit their mode, here and in each override.
pub(crate) fn rule(whole: &Whole<'_>, report: &mut Report<'_>) {
    // A mode that was refused says nothing about the rest.
    let Some(base) = scheme(whole.node, whole.values, None) else { return };
    let mut sound = true;
    if let Some(recipe) = whole.values.get("recipe").and_then(Value::as_str) {
        let hint = "overrides hold over a recipe: give them the modules that should differ";
        if whole.values.contains_key("bits") {
            let message = format!("has both `recipe` and `bits`, and {recipe} chooses the bits");
            object(report, whole.place("bits"), whole.path, Objection::new(message).hint(hint));
        }
        if base.mode != QuantizeMode::Affine {
            let message = format!("is {}, and {recipe} is of mode affine", base.mode.name());
            object(report, whole.place("mode"), &join(whole.path, "mode"), Objection::new(message));
            sound = false;
        }
    }
    for (key, objection) in base.objections() {
        sound = false;
        object(report, whole.place(key), &join(whole.path, key), objection);
    }
    let overrides = whole.node.entries().iter().find(|entry| entry.key == "overrides").map(|entry| &entry.value);
    let Some(Kind::List(items)) = overrides.map(|node| &*node.kind) else { return };
    for (index, item) in items.iter().enumerate() {
        let path = format!("{}[{index}]", join(whole.path, "overrides"));
        let values = plain_values(item);
        let says = |key: &str| item.entries().iter().any(|entry| entry.key == key);
        let skips = values.get("skip") == Some(&Value::Bool(true));
        let skip_was_refused = says("skip") && !values.contains_key("skip");
        let changes: Vec<_> = ["mode", "bits", "group_size"].into_iter().filter(|key| says(key)).collect();
        if skips {
            if let Some(key) = changes.first() {
                let message = format!("has both `skip` and `{key}`");
                object(report, place_of(item, key), &path, Objection::new(message).hint("give one of them"));
            }
        } else if changes.is_empty() && !skip_was_refused && matches!(&*item.kind, Kind::Map(_)) {
            let objection =
                Objection::new("changes nothing").hint("give it `bits`, `group_size`, `mode` or `skip: true`");
            object(report, item.at, &path, objection);
        } else if sound && let Some(scheme) = scheme(item, &values, Some(base)) {
            for (key, objection) in scheme.objections() {
                let at: Place = if says(key) { place_of(item, key) } else { item.at };
                object(report, at, &join(&path, key), objection);
            }
        }
    }
}

/// What a mapping asks for. `None` where one of its values was refused already.
fn scheme(node: &Node, values: &Map<String, Value>, base: Option<QuantizeScheme>) -> Option<QuantizeScheme> {
    let refused = |key: &str| {
        let snake = crate::shape::snake_case;
        node.entries().iter().any(|entry| snake(&entry.key) == key) && !values.contains_key(key)
    };
    if ["mode", "bits", "group_size"].into_iter().any(refused) {
        return None;
    }
    let mode = match values.get("mode").and_then(Value::as_str) {
        Some(name) => QuantizeMode::from_name(name)?,
        None => base.map_or(QuantizeMode::Affine, |base| base.mode),
    };
    let inherited = base.filter(|base| base.mode == mode);
    let bits = match number(values, "bits") {
        Some(bits) => u8::try_from(bits).ok()?,
        None => inherited.map_or(mode.widths()[0], |base| base.bits),
    };
    let group_size =
        number(values, "group_size").unwrap_or_else(|| inherited.map_or(mode.group_sizes()[0], |base| base.group_size));
    Some(QuantizeScheme { mode, bits, group_size })
}

/// The values of an override that are well-formed by themselves.
fn plain_values(node: &Node) -> Map<String, Value> {
    let keys = crate::language::OVERRIDE.keys;
    let mut silent = Report::new("");
    node.entries()
        .iter()
        .filter_map(|entry| {
            let key = keys.iter().find(|key| key.name == entry.key)?;
            Some((key.name.to_owned(), crate::check::check(&key.shape, &entry.value, "", &mut silent)?))
        })
        .collect()
}

/// The rule for editors: widths and groups by mode, and a recipe that chooses the bits.
pub(crate) fn schema_rule(schema: &mut Map<String, Value>) {
    let chosen = json!({
        "not": { "required": ["bits"] },
        "properties": { "mode": { "const": QuantizeMode::Affine.name() } },
    });
    let rules = std::iter::once(json!({ "if": { "required": ["recipe"] }, "then": chosen }));
    let rules: Vec<_> =
        rules.chain(MODES.iter().filter_map(|name| QuantizeMode::from_name(name)).map(mode_rule)).collect();
    schema.insert("allOf".into(), rules.into());
}

fn mode_rule(mode: QuantizeMode) -> Value {
    let mut when = json!({ "properties": { "mode": { "const": mode.name() } } });
    if mode != QuantizeMode::Affine {
        when["required"] = json!(["mode"]);
    }
    let sorted = |mut taken: Vec<u32>| {
        taken.sort_unstable();
        taken
    };
    let widths = sorted(mode.widths().iter().copied().map(u32::from).collect());
    let groups = sorted(mode.group_sizes().to_vec());
    let (bits, group_size) = (json!({ "enum": widths }), json!({ "enum": groups }));
    json!({ "if": when, "then": { "properties": { "bits": bits, "group_size": group_size } } })
}

/// The rule for editors: an override changes something, or skips.
pub(crate) fn override_schema_rule(schema: &mut Map<String, Value>) {
    let none = json!({ "not": { "anyOf": [
        { "required": ["mode"] }, { "required": ["bits"] }, { "required": ["group_size"] },
    ] } });
    let skips = json!({ "required": ["skip"], "properties": { "skip": { "const": true } } });
    let changes = json!({ "anyOf": none["not"]["anyOf"] });
    schema.insert("if".into(), skips);
    schema.insert("then".into(), none);
    schema.insert("else".into(), changes);
}
