//! Media types and annotation keys: the OCI image specification's, and those of CNCF ModelPack (model-spec 0.0.7).

/// An OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// A Docker v2 manifest, same shape as an OCI manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// A Docker manifest list, same shape as an OCI index.
pub const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// The empty JSON object `{}`.
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// A blob of which nothing is known.
pub const OCTET_STREAM: &str = "application/octet-stream";

/// `artifactType` of a ModelPack manifest.
pub const MODEL_MANIFEST: &str = "application/vnd.cncf.model.manifest.v1+json";
/// Media type of a ModelPack configuration.
pub const MODEL_CONFIG: &str = "application/vnd.cncf.model.config.v1+json";

/// Annotation: the path of a layer's file within the model (ModelPack).
pub const FILEPATH: &str = "org.cncf.model.filepath";
/// Annotation: the file name that general OCI tools use, `oras pull` among them.
pub const TITLE: &str = "org.opencontainers.image.title";
/// Annotation: the tag of a manifest in an image layout's `index.json`.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation: the manifests that a model refers to without holding them, as a JSON list of descriptors.
pub const REFERENCES: &str = "dev.mlxctl.references";

/// Whether a document of this type lists other documents: a manifest or an index.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST) || is_index(media_type)
}

/// Whether a document of this type lists manifests.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_MANIFEST_LIST)
}
