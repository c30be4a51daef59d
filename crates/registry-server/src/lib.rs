//! The OCI distribution API over a content store: the embedded registry.
