//! What a model is to the engine, and the table of families.

use mlxctl_backend::{Backend, Batch, KvLayout};
use mlxctl_weights::Checkpoint;

use crate::config::Fields;
use crate::{
    Error, cohere, gemma, glm4, granite, llama, mixtral, olmo, phi3, qwen2, qwen3, smollm3, starcoder2, wrapped,
};

/// A loaded model: weights mounted on a device.
pub trait Model<B: Backend> {
    /// The logits `[batch.logits.len(), vocabulary]` of the rows asked for. Keys and values of all rows are stored.
    fn forward(&self, backend: &B, batch: &Batch, kv: &mut B::Kv) -> Result<B::Tensor, Error>;

    /// What the model keeps of a token, for [`Backend::kv_pool`].
    fn kv_layout(&self) -> KvLayout;

    /// Number of logits: tokens from 0 up to here.
    fn vocabulary(&self) -> usize;

    /// Tokens of a sequence up to which the model was made to work.
    fn max_context(&self) -> usize;

    /// Facts for `/api/show`.
    fn details(&self) -> Details;
}

/// Facts about a model, to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// The family: the name of the code that runs it.
    pub family: &'static str,
    /// `model_type` of config.json.
    pub model_type: String,
    /// Weights, counted before quantisation; a tied head counts once.
    pub parameters: u64,
    /// Bytes of the tensors in use.
    pub weight_bytes: u64,
    /// Features of a token between layers.
    pub hidden: usize,
    /// Features between the projections of the MLP.
    pub intermediate: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads a layer.
    pub heads: usize,
    /// Key and value heads a layer.
    pub kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Number of tokens in the vocabulary.
    pub vocabulary: usize,
    /// Longest context in tokens.
    pub context: usize,
    /// Whether the embedding serves as head too.
    pub tied: bool,
    /// Type of the weights: `BF16`, or that of most quantised modules, as in `4-bit affine, groups of 64`.
    pub weight_type: String,
}

type Loader<B> = fn(&B, &Fields<'_>, &Checkpoint) -> Result<Box<dyn Model<B>>, Error>;

/// Every `model_type` with the family that runs it.
fn loader<B: Backend>(model_type: &str) -> Option<Loader<B>> {
    Some(match model_type {
        "cohere" | "cohere2" => cohere::load,
        "gemma" | "gemma2" | "gemma3_text" => gemma::load,
        "glm4" => glm4::load,
        "granite" => granite::load,
        "llama" | "mistral" => llama::load,
        "mixtral" => mixtral::load,
        "olmo2" | "olmo3" => olmo::load,
        "phi3" => phi3::load,
        "qwen2" | "qwen2_moe" => qwen2::load,
        "qwen3" | "qwen3_moe" => qwen3::load,
        "smollm3" => smollm3::load,
        "starcoder2" => starcoder2::load,
        _ => return None,
    })
}

/// The values of `model_type` that [`load`] knows.
pub fn families() -> &'static [&'static str] {
    &[
        "cohere",
        "cohere2",
        "gemma",
        "gemma2",
        "gemma3",
        "gemma3_text",
        "glm4",
        "granite",
        "llama",
        "mistral",
        "mistral3",
        "mixtral",
        "olmo2",
        "olmo3",
        "phi3",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "smollm3",
        "starcoder2",
    ]
}

/// Loads the model that `config`, the bytes of a `config.json`, describes.
///
/// The configuration is checked before anything is allocated, and every tensor against it before it is mounted; a
/// tensor that the model has no use for is an error, because it tells of a configuration that is not its own.
pub fn load<B: Backend>(backend: &B, config: &[u8], checkpoint: &Checkpoint) -> Result<Box<dyn Model<B>>, Error> {
    let config = wrapped::text_part(Fields::parse(config)?)?;
    let fields = config.fields();
    let model_type = fields.text("model_type")?;
    match loader::<B>(model_type) {
        Some(load) => load(backend, &fields, checkpoint),
        None => Err(Error::UnknownFamily { found: fields.excerpt("model_type"), known: families().join(", ") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_of_the_list_has_a_loader() {
        // These two are wrapped around others of the list.
        for name in families().iter().filter(|name| !["gemma3", "mistral3"].contains(*name)) {
            assert!(loader::<mlxctl_backend_cpu::CpuBackend>(name).is_some(), "{name}");
        }
        assert!(families().is_sorted(), "the list is for people to read");
    }
}
