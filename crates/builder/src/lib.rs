//! Builds a recipe into an artifact: sources, lock file, conversion, quantisation.
