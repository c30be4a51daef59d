//! The catalogue of chat templates: Jinja texts for models that bring none of their own. `mlxctl templates` lists them,
//! the builder writes the one a recipe names into the artifact.

/// The names of the catalogue, as a recipe may write them.
pub(crate) const NAMES: &[&str] = &["chatml", "llama3", "mistral"];

/// Names and Jinja texts. A template takes `messages`, `add_generation_prompt`, `bos_token`, `eos_token` and, where its
/// format has them, `tools`.
pub fn template_catalogue() -> &'static [(&'static str, &'static str)] {
    &[
        ("chatml", include_str!("catalogue/chatml.jinja")),
        ("llama3", include_str!("catalogue/llama3.jinja")),
        ("mistral", include_str!("catalogue/mistral.jinja")),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_and_texts_belong_together() {
        let names: Vec<_> = super::template_catalogue().iter().map(|(name, _)| *name).collect();
        assert_eq!(names, super::NAMES);
    }
}
