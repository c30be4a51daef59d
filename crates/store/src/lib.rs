//! The local store: an OCI image layout that survives a kill at any instant.
