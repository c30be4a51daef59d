//! References, digests, descriptors, manifests and the model configuration of an artifact: pure data.
