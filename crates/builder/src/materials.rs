//! What a recipe needs from elsewhere, and what the caller brought: the build itself reaches no network.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mlxctl_artifact::{Descriptor, Reference};
use mlxctl_modelspec::{From, HubReference, ModelSpec};

use crate::{Error, source};

/// What lies elsewhere of all that a recipe names, each once, in the recipe's order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Artifacts, to be in the store: `from.oci`, adapters, the draft.
    pub artifacts: Vec<Reference>,
    /// Repositories of the hub, to be in folders: `from.hf`, adapters.
    pub repositories: Vec<HubReference>,
}

impl Needs {
    /// What this recipe needs.
    pub fn of(spec: &ModelSpec) -> Self {
        let mut needs = Self::default();
        for from in std::iter::once(&spec.from).chain(spec.adapters.iter().map(|adapter| &adapter.from)) {
            match from {
                From::Hf(reference) if !needs.repositories.contains(reference) => {
                    needs.repositories.push(reference.clone());
                }
                From::Oci(reference) if !needs.artifacts.contains(reference) => needs.artifacts.push(reference.clone()),
                _ => {}
            }
        }
        let draft = spec.draft.as_ref().map(|draft| draft.oci.clone());
        needs.artifacts.extend(draft.filter(|draft| !needs.artifacts.contains(draft)));
        needs
    }
}

/// Whether the build takes this file of the hub repository: the others need not be fetched.
pub fn takes_hub_file(spec: &ModelSpec, repository: &HubReference, path: &str) -> bool {
    let of_model = spec.from == From::Hf(repository.clone());
    let of_adapter = spec.adapters.iter().any(|adapter| adapter.from == From::Hf(repository.clone()));
    (of_model && (source::taken(spec, path).is_some() || spec.docs.iter().any(|doc| doc == path)))
        || (of_adapter && crate::companions::is_adapter_file(path))
}

/// What the caller brought to this machine.
#[derive(Debug, Default)]
pub struct Materials {
    /// Manifests in the store, by the recipe's references.
    pub artifacts: BTreeMap<Reference, Descriptor>,
    /// Files of hub repositories, by the recipe's references as text.
    pub repositories: BTreeMap<String, HubFolder>,
}

/// A hub repository at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFolder {
    /// Where its files lie, under the paths they have in the repository.
    pub folder: PathBuf,
    /// Those that were fetched, sorted. Other files in the folder are passed over.
    pub files: Vec<String>,
    /// The commit.
    pub commit: String,
}

impl HubFolder {
    /// Path in the repository, place, size.
    pub(crate) fn found(&self, key: &'static str) -> Result<Vec<(String, PathBuf, u64)>, Error> {
        let mut found = Vec::new();
        for path in &self.files {
            let path = path.parse::<mlxctl_artifact::LayerPath>()?;
            let place = self.folder.join(path.as_str());
            let meta = std::fs::metadata(&place);
            let meta = meta.map_err(|source| Error::Path { key, path: place.clone(), source })?;
            found.push((path.to_string(), place, meta.len()));
        }
        Ok(found)
    }
}

impl Materials {
    pub(crate) fn artifact(&self, key: &str, reference: &Reference) -> Result<&Descriptor, Error> {
        let absent = || Error::Absent { key: key.to_owned(), what: reference.to_string() };
        self.artifacts.get(reference).ok_or_else(absent)
    }

    pub(crate) fn repository(&self, key: &str, reference: &HubReference) -> Result<&HubFolder, Error> {
        let absent = || Error::Absent { key: key.to_owned(), what: reference.to_string() };
        self.repositories.get(&reference.to_string()).ok_or_else(absent)
    }
}
