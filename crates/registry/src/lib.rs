//! The content traits over a remote OCI registry.
