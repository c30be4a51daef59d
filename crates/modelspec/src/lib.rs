//! The recipe language: ModelSpec.yaml with positions, validation and JSON Schema.
