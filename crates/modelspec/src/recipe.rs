//! The types of a recipe. `parse` makes them; the builder reads them.

use std::collections::BTreeMap;
use std::fmt;

use mlxctl_artifact::{Parameters, PinnedAdapter, PinnedDraft, Reference, ResolvedSpec, SmokeTest};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::glob;
use crate::grammar;
use crate::quantize::Quantize;

/// The `apiVersion` of a recipe.
pub const API_VERSION: &str = "mlxctl.dev/v1alpha1";
/// The `kind` of a recipe.
pub const KIND: &str = "ModelSpec";

/// A recipe that was read and checked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ModelSpec {
    /// [`API_VERSION`].
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    /// [`KIND`].
    pub kind: String,
    /// A repository name, without registry and tag.
    pub name: String,
    /// A tag, exactly as written.
    pub version: Option<String>,
    /// What the model is, for people.
    pub description: Option<String>,
    /// Who made it.
    #[serde(default)]
    pub authors: Vec<String>,
    /// Who publishes it.
    pub vendor: Option<String>,
    /// The family of models, as `qwen3`.
    pub family: Option<String>,
    /// SPDX expressions.
    #[serde(default)]
    pub licenses: Vec<String>,
    /// Where to read more.
    pub url: Option<String>,
    /// Labels of the writer's own.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Where the model comes from.
    pub from: From,
    /// Which files of the source are taken.
    #[serde(default)]
    pub files: FileSelection,
    /// How weights are quantised; `None` keeps them.
    pub quantize: Option<Quantize>,
    /// What dense weights are stored as; `None` keeps theirs.
    pub dtype: Option<Dtype>,
    /// The most bytes of data in one file of rewritten weights.
    #[serde(default, deserialize_with = "byte_size")]
    pub shard_size: Option<u64>,
    /// Another tokenizer than the source's.
    pub tokenizer: Option<TokenizerSource>,
    /// Another chat template than the source's.
    pub template: Option<TemplateSource>,
    /// The system prompt where a request has none.
    pub system: Option<String>,
    /// Defaults of requests.
    #[serde(default)]
    pub parameters: Parameters,
    /// What the model is good for.
    #[serde(default)]
    pub capabilities: Vec<Capability>,
    /// LoRA adapters that travel with the model.
    #[serde(default)]
    pub adapters: Vec<Adapter>,
    /// A smaller model that drafts for this one.
    pub draft: Option<Draft>,
    /// Files beside the recipe that travel with the model: relative, without a leading `./`.
    #[serde(default, deserialize_with = "relative_paths")]
    pub docs: Vec<String>,
    /// Prompts with known answers.
    #[serde(default)]
    pub tests: Vec<SmokeTest>,
}

fn relative_paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let paths = Vec::<String>::deserialize(deserializer)?;
    Ok(paths.into_iter().map(|path| path.strip_prefix("./").map(str::to_owned).unwrap_or(path)).collect())
}

/// From text that `grammar` let pass.
fn byte_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    let size = text.map(|text| grammar::byte_size(&text)).transpose();
    size.map_err(|objection| D::Error::custom(objection.message))
}

/// Where a model or an adapter comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// A directory, relative to the recipe or absolute, as written.
    Path(String),
    /// A repository of the hub.
    Hf(HubReference),
    /// Another artifact, in the store or in a registry.
    Oci(Reference),
}

/// `owner/name[@revision]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubReference {
    /// `owner/name`, or `name` for the hub's oldest repositories.
    pub repository: String,
    /// A commit, branch or tag.
    pub revision: Option<String>,
}

impl HubReference {
    /// The commit it is pinned to: 40 hex digits.
    pub fn commit(&self) -> Option<&str> {
        self.revision
            .as_deref()
            .filter(|revision| revision.len() == 40 && revision.bytes().all(|digit| digit.is_ascii_hexdigit()))
    }
}

impl fmt::Display for HubReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        self.revision.as_ref().map_or(Ok(()), |revision| write!(f, "@{revision}"))
    }
}

impl<'de> Deserialize<'de> for HubReference {
    /// From text that `grammar` let pass.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match text.split_once('@') {
            Some((repository, revision)) => {
                Self { repository: repository.to_owned(), revision: Some(revision.to_owned()) }
            }
            None => Self { repository: text, revision: None },
        })
    }
}

/// Which files of the source are taken: those that a pattern of `include` matches, all where it is empty, without
/// those that a pattern of `exclude` matches.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct FileSelection {
    /// Patterns of `*`, `**` and `?`.
    pub include: Vec<String>,
    /// Patterns that win over `include`.
    pub exclude: Vec<String>,
}

impl FileSelection {
    /// Whether a file is taken, by its `/`-separated path within the source.
    pub fn takes(&self, path: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| glob::path_matches(pattern, path));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

/// What dense weights are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
}

impl Dtype {
    /// The name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
        }
    }
}

pub(crate) const DTYPES: &[&str] = &["bf16", "f16", "f32"];

/// Another tokenizer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TokenizerSource {
    /// A directory, relative to the recipe or absolute, as written.
    pub path: String,
}

/// Another chat template.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TemplateSource {
    /// A name of [`template_catalogue`](crate::template_catalogue).
    Catalog(String),
    /// A file, relative to the recipe or absolute, as written.
    File(String),
    /// The Jinja text itself.
    Inline(String),
}

/// What a model is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// Conversations.
    Chat,
    /// Continuing a text.
    Completion,
    /// Embeddings.
    Embed,
    /// Ordering documents for a query.
    Rerank,
    /// Images.
    Vision,
    /// Calling tools.
    Tools,
    /// Thinking before it answers.
    Reasoning,
}

impl Capability {
    /// The name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completion => "completion",
            Self::Embed => "embed",
            Self::Rerank => "rerank",
            Self::Vision => "vision",
            Self::Tools => "tools",
            Self::Reasoning => "reasoning",
        }
    }
}

pub(crate) const CAPABILITIES: &[&str] = &["chat", "completion", "embed", "rerank", "vision", "tools", "reasoning"];

/// A LoRA adapter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Adapter {
    /// How requests name it; unique within the recipe.
    pub name: String,
    /// Where it comes from.
    #[serde(flatten)]
    pub from: From,
    /// Its change is added to the weights when the model is created; it does not travel by itself.
    #[serde(default)]
    pub merge: bool,
}

/// A smaller model that drafts for this one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Draft {
    /// The artifact it is in.
    pub oci: Reference,
}

impl ModelSpec {
    /// What travels in the artifact: the recipe without the paths of this machine. References were pinned by the
    /// builder.
    pub fn resolved(&self, adapters: Vec<PinnedAdapter>, draft: Option<PinnedDraft>) -> ResolvedSpec {
        ResolvedSpec {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            name: self.name.clone(),
            version: self.version.clone(),
            system: self.system.clone(),
            parameters: self.parameters.clone(),
            quantize: self.quantize.as_ref().map(Quantize::to_json),
            dtype: self.dtype.map(|dtype| dtype.name().to_owned()),
            capabilities: self.capabilities.iter().map(|capability| capability.name().to_owned()).collect(),
            adapters,
            draft,
            tests: self.tests.clone(),
        }
    }
}
