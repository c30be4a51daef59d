//! What travels in the artifact as `modelspec.json`: the recipe after resolution. The builder writes it with
//! `artifact::canonical_json`; the runtime reads it with [`ResolvedSpec::read`].

use std::collections::HashSet;

use mlxctl_artifact::{Digest, LayerPath, Reference};
use serde::{Deserialize, Deserializer, Serialize};

use crate::quantize::Quantize;
use crate::recipe::{API_VERSION, Capability, Dtype, ModelSpec, Parameters, SmokeTest};

/// The longest `modelspec.json` that is read, in bytes.
pub const MAX_RESOLVED_BYTES: usize = 4 << 20;

/// A `modelspec.json` that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableSpec {
    /// Longer than [`MAX_RESOLVED_BYTES`].
    #[error("modelspec.json is {found} bytes long, and at most {MAX_RESOLVED_BYTES} are read")]
    TooLong {
        /// Bytes.
        found: usize,
    },
    /// Not JSON, or not of this form.
    #[error("modelspec.json cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A value that no recipe has.
    #[error("modelspec.json: {0}")]
    Value(String),
}

/// A recipe after resolution: no path of the machine that built it, references pinned by digest. Fields that are not
/// set are not written, so that a field of a later version changes no digest of today.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResolvedSpec {
    /// The version of the language: [`API_VERSION`].
    #[serde(rename = "apiVersion", default)]
    pub api_version: String,
    /// A repository name, without registry and tag.
    pub name: String,
    /// The tag of the recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The layer with the chat template, where the recipe gives one; `None` leaves it to the source's files.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "layer_path")]
    pub template: Option<LayerPath>,
    /// The system prompt where a request has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Defaults of requests.
    #[serde(default, skip_serializing_if = "is_default")]
    pub parameters: Parameters,
    /// How the builder quantised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantize: Option<Quantize>,
    /// What dense weights were converted to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<Dtype>,
    /// What the model is good for. Those of a later version are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "known_capabilities")]
    pub capabilities: Vec<Capability>,
    /// LoRA adapters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<PinnedAdapter>,
    /// The model that drafts for this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<PinnedDraft>,
    /// Prompts with known answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<SmokeTest>,
}

/// An adapter, named by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedAdapter {
    /// How requests name it.
    pub name: String,
    /// Its manifest where it has a reference, else the blob of its weights within this artifact.
    pub digest: Digest,
    /// Where another artifact holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
}

/// A draft model, named by its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedDraft {
    /// The digest of its manifest.
    pub digest: Digest,
    /// Where the recipe found it.
    pub reference: Reference,
}

/// A layer path as text.
mod layer_path {
    use super::{Deserialize, Deserializer, LayerPath};

    #[allow(clippy::ref_option, reason = "the signature serde asks for")]
    pub(super) fn serialize<S: serde::Serializer>(path: &Option<LayerPath>, serializer: S) -> Result<S::Ok, S::Error> {
        match path {
            Some(path) => serializer.collect_str(path),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<LayerPath>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse()).transpose().map_err(serde::de::Error::custom)
    }
}

fn is_default(parameters: &Parameters) -> bool {
    *parameters == Parameters::default()
}

fn known_capabilities<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Capability>, D::Error> {
    let found = Vec::<serde_json::Value>::deserialize(deserializer)?;
    Ok(found.into_iter().filter_map(|capability| serde_json::from_value(capability).ok()).collect())
}

impl ResolvedSpec {
    /// What a recipe says by itself. `template` is the layer that holds the template it gives; the references are
    /// pinned by the builder.
    pub fn of(
        spec: &ModelSpec,
        template: Option<LayerPath>,
        adapters: Vec<PinnedAdapter>,
        draft: Option<PinnedDraft>,
    ) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            name: spec.name.clone(),
            version: spec.version.clone(),
            template,
            system: spec.system.clone(),
            parameters: spec.parameters.clone(),
            quantize: spec.quantize.clone(),
            dtype: spec.dtype,
            capabilities: spec.capabilities.clone(),
            adapters,
            draft,
            tests: spec.tests.clone(),
        }
    }

    /// Reads `modelspec.json`. Fields it does not know are ignored; values are held to the ranges of a recipe.
    pub fn read(bytes: &[u8]) -> Result<Self, UnreadableSpec> {
        if bytes.len() > MAX_RESOLVED_BYTES {
            return Err(UnreadableSpec::TooLong { found: bytes.len() });
        }
        let spec: Self = serde_json::from_slice(bytes)?;
        match spec.fault() {
            Some(fault) => Err(UnreadableSpec::Value(fault)),
            None => Ok(spec),
        }
    }

    fn fault(&self) -> Option<String> {
        if let Err(objection) = crate::grammar::name(&self.name) {
            return Some(format!("name {}", objection.message));
        }
        if let Some(Err(objection)) = self.version.as_deref().map(crate::grammar::version) {
            return Some(format!("version {}", objection.message));
        }
        let mut names = HashSet::new();
        if let Some(twice) = self.adapters.iter().find(|adapter| !names.insert(adapter.name.as_str())) {
            return Some(format!("two adapters are named {}", crate::problem::shown(&twice.name)));
        }
        self.parameters.fault().or_else(|| self.quantize.as_ref().and_then(Quantize::fault))
    }
}

impl Parameters {
    /// The first parameter outside its range.
    fn fault(&self) -> Option<String> {
        let values = serde_json::to_value(self).ok()?;
        crate::language::parameter_fault(values.as_object()?)
    }
}
