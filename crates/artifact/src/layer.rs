//! What a layer is for (ModelPack's layer media types) and where its file belongs.

use std::fmt;
use std::str::FromStr;

use crate::descriptor::Descriptor;
use crate::error::{Error, shortened};
use crate::{foreign, media_type};

/// What the content of a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerKind {
    /// Tensors.
    Weight,
    /// What a runtime needs beside the tensors: configuration, tokenizer, template, resolved recipe.
    WeightConfig,
    /// For people: README, LICENSE, model card.
    Doc,
    /// Code that goes with the model.
    Code,
    /// Data that goes with the model.
    Dataset,
}

/// How a layer wraps its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packaging {
    /// The bytes of one file.
    Raw,
    /// A tar archive.
    Tar,
    /// A tar archive under gzip.
    TarGzip,
    /// A tar archive under zstd.
    TarZstd,
}

/// A ModelPack layer media type, taken apart: `application/vnd.cncf.model.<kind>.v1.<packaging>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LayerRole {
    /// What the content is.
    pub kind: LayerKind,
    /// How it is wrapped.
    pub packaging: Packaging,
}

impl LayerRole {
    /// One file of this kind, its bytes as they are.
    pub fn raw(kind: LayerKind) -> Self {
        Self { kind, packaging: Packaging::Raw }
    }

    /// The role that a media type stands for: ModelPack's, KitOps' or Docker Model Runner's; `None` where it is of
    /// none of them.
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        let Some(rest) = media_type.strip_prefix("application/vnd.cncf.model.") else {
            return foreign::role(media_type);
        };
        let (kind, packaging) = rest.split_once(".v1.")?;
        let kind = match kind {
            "weight" => LayerKind::Weight,
            "weight.config" => LayerKind::WeightConfig,
            "doc" => LayerKind::Doc,
            "code" => LayerKind::Code,
            "dataset" => LayerKind::Dataset,
            _ => return None,
        };
        let packaging = match packaging {
            "raw" => Packaging::Raw,
            "tar" => Packaging::Tar,
            "tar+gzip" => Packaging::TarGzip,
            "tar+zstd" => Packaging::TarZstd,
            _ => return None,
        };
        Some(Self { kind, packaging })
    }

    /// ModelPack's media type for this role.
    pub fn media_type(self) -> String {
        let kind = match self.kind {
            LayerKind::Weight => "weight",
            LayerKind::WeightConfig => "weight.config",
            LayerKind::Doc => "doc",
            LayerKind::Code => "code",
            LayerKind::Dataset => "dataset",
        };
        let packaging = match self.packaging {
            Packaging::Raw => "raw",
            Packaging::Tar => "tar",
            Packaging::TarGzip => "tar+gzip",
            Packaging::TarZstd => "tar+zstd",
        };
        format!("application/vnd.cncf.model.{kind}.v1.{packaging}")
    }
}

/// The path of a file within a model: relative, `/`-separated, and never leading out of its folder on any platform.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerPath(String);

impl LayerPath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for LayerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LayerPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |reason| Error::LayerPath { found: shortened(text), reason };
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        if text.len() > 1024 {
            return Err(wrong("it is longer than 1024 bytes"));
        }
        if text.starts_with('/') {
            return Err(wrong("it is absolute"));
        }
        if text.chars().any(|c| c == '\\' || c == ':' || c.is_control()) {
            return Err(wrong("it holds a backslash, a colon or a control character"));
        }
        for component in text.split('/') {
            match component {
                ".." => return Err(wrong("it leads out of the model's folder")),
                "" | "." => return Err(wrong("it has an empty component")),
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }
}

/// A layer of a model manifest: its descriptor, what it is, and the file it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelLayer {
    /// Media type, digest, size and annotations.
    pub descriptor: Descriptor,
    /// Taken from the media type.
    pub role: LayerRole,
    /// From `org.cncf.model.filepath`, else from `org.opencontainers.image.title`, else what the media type tells: of
    /// an archive a name made of its digest.
    pub path: LayerPath,
}

impl ModelLayer {
    /// The layer that one file of a model makes.
    pub fn of_file(kind: LayerKind, path: LayerPath, content: &Descriptor) -> Self {
        let role = LayerRole::raw(kind);
        let descriptor = Descriptor::new(role.media_type(), content.digest, content.size)
            .with_annotation(media_type::FILEPATH, path.as_str())
            .with_annotation(media_type::TITLE, path.as_str());
        Self { descriptor, role, path }
    }

    /// Reads a layer of a manifest; `None` where the media type is none of a model's.
    ///
    /// # Errors
    /// [`Error::LayerPath`] where the path leads out of the model's folder, or where there is none.
    pub fn from_descriptor(descriptor: &Descriptor) -> Result<Option<Self>, Error> {
        let Some(role) = LayerRole::from_media_type(&descriptor.media_type) else { return Ok(None) };
        let annotations = &descriptor.annotations;
        let path = annotations.get(media_type::FILEPATH).or_else(|| annotations.get(media_type::TITLE)).cloned();
        let path = path.or_else(|| foreign::default_path(descriptor, role)).unwrap_or_default().parse()?;
        Ok(Some(Self { descriptor: descriptor.clone(), role, path }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_round_trip() {
        for kind in [LayerKind::Weight, LayerKind::WeightConfig, LayerKind::Doc, LayerKind::Code, LayerKind::Dataset] {
            for packaging in [Packaging::Raw, Packaging::Tar, Packaging::TarGzip, Packaging::TarZstd] {
                let role = LayerRole { kind, packaging };
                assert_eq!(LayerRole::from_media_type(&role.media_type()), Some(role));
            }
        }
        assert_eq!(LayerRole::from_media_type("application/vnd.oci.image.layer.v1.tar"), None);
    }

    #[test]
    fn layers_of_other_makers_are_known_and_get_a_path() {
        for (media_type, kind, packaging, path) in [
            ("vnd.kitops.modelkit.model.v1.tar+gzip", LayerKind::Weight, Packaging::TarGzip, "ba7816bf8f01.tar.gz"),
            ("vnd.kitops.modelkit.modelpart.v1.tar", LayerKind::Weight, Packaging::Tar, "ba7816bf8f01.tar"),
            ("vnd.kitops.modelkit.docs.v1.tar", LayerKind::Doc, Packaging::Tar, "ba7816bf8f01.tar"),
            ("vnd.docker.ai.safetensors", LayerKind::Weight, Packaging::Raw, "model.safetensors"),
            ("vnd.docker.ai.chat.template.jinja", LayerKind::WeightConfig, Packaging::Raw, "chat_template.jinja"),
            ("vnd.cncf.model.weight.v1.tar", LayerKind::Weight, Packaging::Tar, "ba7816bf8f01.tar"),
        ] {
            let descriptor = Descriptor::of(format!("application/{media_type}"), b"abc");
            let layer = ModelLayer::from_descriptor(&descriptor).unwrap().unwrap();
            assert_eq!((layer.role, layer.path.as_str()), (LayerRole { kind, packaging }, path));
        }
        for media_type in ["vnd.kitops.modelkit.config.v1+json", "vnd.docker.ai.model.config.v0.1+json"] {
            assert_eq!(LayerRole::from_media_type(&format!("application/{media_type}")), None);
        }
        let nameless = Descriptor::of("application/vnd.docker.ai.model.file", b"abc");
        assert!(ModelLayer::from_descriptor(&nameless).is_err());
    }

    #[test]
    fn paths_stay_in_their_folder() {
        for good in ["model.safetensors", "a/b/c.json", "..a", "chat template.jinja"] {
            assert_eq!(good.parse::<LayerPath>().unwrap().as_str(), good);
        }
        for bad in
            ["", "..", "../../x", "a/../b", "/etc/passwd", "a//b", "./a", "a/", "C:\\x", "a\\..\\b", "a\0", "c:x"]
        {
            assert!(bad.parse::<LayerPath>().is_err(), "{bad}");
        }
    }
}
