//! Layers of other makers' artifacts: KitOps ModelKits and Docker Model Runner's packaging, told by their media types.

use crate::descriptor::Descriptor;
use crate::layer::{LayerKind, LayerRole, Packaging};

/// What a layer of KitOps or Docker Model Runner is; `None` where the media type is none of theirs.
pub(crate) fn role(media_type: &str) -> Option<LayerRole> {
    if let Some(rest) = media_type.strip_prefix("application/vnd.kitops.modelkit.") {
        let (kind, packaging) = rest.split_once(".v1.")?;
        let kind = match kind {
            "model" | "modelpart" => LayerKind::Weight,
            "dataset" => LayerKind::Dataset,
            "code" => LayerKind::Code,
            "docs" => LayerKind::Doc,
            _ => return None,
        };
        let packaging = match packaging {
            "tar" => Packaging::Tar,
            "tar+gzip" => Packaging::TarGzip,
            "tar+zstd" => Packaging::TarZstd,
            "raw" => Packaging::Raw,
            _ => return None,
        };
        return Some(LayerRole { kind, packaging });
    }
    let (kind, packaging) = match media_type.strip_prefix("application/vnd.docker.ai.")? {
        "safetensors" | "gguf.v3" | "mmproj" => (LayerKind::Weight, Packaging::Raw),
        "model.file" | "chat.template.jinja" => (LayerKind::WeightConfig, Packaging::Raw),
        "vllm.config.tar" => (LayerKind::WeightConfig, Packaging::Tar),
        "license" => (LayerKind::Doc, Packaging::Raw),
        _ => return None,
    };
    Some(LayerRole { kind, packaging })
}

/// The path of a layer that names none: the file that its media type stands for, or, of an archive, a name made of its
/// digest. `None` where nothing tells.
pub(crate) fn default_path(layer: &Descriptor, role: LayerRole) -> Option<String> {
    let ending = match role.packaging {
        Packaging::Raw => {
            let name = match layer.media_type.strip_prefix("application/vnd.docker.ai.")? {
                "safetensors" => "model.safetensors",
                "gguf.v3" => "model.gguf",
                "mmproj" => "mmproj.gguf",
                "chat.template.jinja" => "chat_template.jinja",
                "license" => "LICENSE",
                _ => return None,
            };
            return Some(name.to_owned());
        }
        Packaging::Tar => "tar",
        Packaging::TarGzip => "tar.gz",
        Packaging::TarZstd => "tar.zst",
    };
    Some(format!("{}.{ending}", layer.digest.short()))
}
