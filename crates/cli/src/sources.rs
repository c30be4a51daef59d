//! What a recipe names elsewhere, brought here before it is built: artifacts into the store, files of the hub into the
//! hub's cache; and `ModelSpec.lock`, which says what the floating names stood for.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use mlxctl_artifact::{Descriptor, Digest, Reference, media_type};
use mlxctl_builder::{HubFolder, Lock, LockedFile, LockedRepository, MAX_LOCK_BYTES, Materials, Needs, takes_hub_file};
use mlxctl_hub::{Fetched, Hub, HubFile, HubOptions};
use mlxctl_modelspec::{From, HubReference, ModelSpec};
use mlxctl_store::Store;

use crate::commands::pull::pull;
use crate::context::{Context, block_on};
use crate::failure::Failure;
use crate::progress::Transfers;
use crate::{packed, remote};

/// The revision of a hub reference that names none.
const DEFAULT_REVISION: &str = "main";

/// What the lock file is to a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pinning {
    /// It decides, and nothing else is built from.
    Locked,
    /// What it pins is kept, unless all is looked up anew; it is written.
    Kept {
        /// Look up anew.
        update: bool,
    },
}

/// Where things are brought from and to.
pub(crate) struct Sources<'a> {
    pub(crate) context: &'a Context,
    pub(crate) flags: &'a remote::Flags,
    pub(crate) store: &'a Store,
    /// The recipe's file, beside which the lock lies.
    pub(crate) recipe: &'a Path,
}

impl Sources<'_> {
    /// Brings what the recipe needs.
    pub(crate) fn bring(&self, spec: &ModelSpec, pinning: Pinning) -> Result<Materials, Failure> {
        let needs = Needs::of(spec);
        let path = self.recipe.with_extension("lock");
        let old = read(&path)?;
        if needs == Needs::default() && (old.is_none() || pinning != Pinning::Locked) {
            return Ok(Materials::default());
        }
        let known = match pinning {
            Pinning::Kept { update: true } => Lock::default(),
            _ => old.clone().unwrap_or_default(),
        };
        let mut found = Lock::default();
        let mut materials = Materials::default();
        for reference in &needs.repositories {
            let pinned = known.repositories.get(&reference.to_string());
            if pinning == Pinning::Locked && pinned.is_none() {
                return Err(drifted(&path, &format!("{reference} is not pinned")));
            }
            let (folder, locked) = self.repository(spec, reference, pinned, pinning)?;
            materials.repositories.insert(reference.to_string(), folder);
            found.repositories.insert(reference.to_string(), locked);
        }
        for reference in &needs.artifacts {
            let pinned = reference.digest().or_else(|| known.artifacts.get(reference).copied());
            if pinning == Pinning::Locked && pinned.is_none() {
                return Err(drifted(&path, &format!("{reference} is not pinned")));
            }
            let root = self.artifact(reference, pinned, pinning)?;
            if reference.digest().is_none() {
                found.artifacts.insert(reference.clone(), root.digest);
            }
            let is_base = spec.from == From::Oci(reference.clone());
            let root = if is_base { packed::raw(self.context, self.store, &root)? } else { root };
            materials.artifacts.insert(reference.clone(), root);
        }
        match (pinning, &old) {
            (Pinning::Locked, _) => {
                if let Some(drift) = known.drift(&found) {
                    return Err(drifted(&path, &drift));
                }
            }
            (Pinning::Kept { .. }, Some(old)) if *old == found => {}
            (Pinning::Kept { .. }, None) if found.is_empty() => {}
            (Pinning::Kept { .. }, _) => write(&path, &found)?,
        }
        Ok(materials)
    }

    /// A manifest in the store: there already, or pulled.
    fn artifact(&self, reference: &Reference, pinned: Option<Digest>, pinning: Pinning) -> Result<Descriptor, Failure> {
        let wanted = pinned.map_or_else(|| reference.clone(), |digest| reference.clone().at(digest));
        let looks_anew = pinning == Pinning::Kept { update: true } && reference.registry().is_some();
        if pinned.is_some() || !looks_anew {
            match self.store.resolve(&wanted) {
                Ok(root) if self.is_whole(&root)? => return Ok(root),
                Ok(_) | Err(mlxctl_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if reference.registry().is_none() && self.context.settings.registry.is_none() {
            return Err(Failure::wrong(format!("{wanted} is not in the store, and names no registry"))
                .hint("pull or build it first, or name its registry in the recipe"));
        }
        pull(self.context, self.flags, self.store, &wanted, None)
    }

    fn is_whole(&self, root: &Descriptor) -> Result<bool, Failure> {
        if media_type::is_index(&root.media_type) {
            return Ok(true);
        }
        let (_, manifest) = self.store.manifest(root)?;
        for blob in manifest.blobs() {
            if !self.store.contains(&blob.digest)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn repository(
        &self,
        spec: &ModelSpec,
        reference: &HubReference,
        pinned: Option<&LockedRepository>,
        pinning: Pinning,
    ) -> Result<(HubFolder, LockedRepository), Failure> {
        let hub = self.hub()?;
        let observer = Transfers::new(&self.context.printer);
        let name = reference.repository.as_str();
        let revision = reference.revision.as_deref().unwrap_or(DEFAULT_REVISION);
        let takes = |path: &str| takes_hub_file(spec, reference, path);
        block_on(async {
            // What is pinned and lies here needs no network.
            let wanted = pinned.map(|pinned| as_fetched(pinned, &takes)).transpose()?;
            if let (Pinning::Locked, Some(pinned), Some(wanted)) = (pinning, pinned, &wanted)
                && let Some(folder) = hub.held(name, &pinned.commit, wanted).await?
            {
                return Ok(parts(folder, wanted.clone(), pinned.commit.clone()));
            }
            let commit = match (reference.commit(), pinned) {
                (Some(commit), _) => commit.to_ascii_lowercase(),
                (None, Some(pinned)) => pinned.commit.clone(),
                (None, None) => hub.commit(name, revision).await?,
            };
            let listed = match hub.files(name, &commit).await {
                Ok(listed) => listed,
                Err(error @ mlxctl_hub::Error::Connection { .. }) => {
                    let wanted = wanted.unwrap_or_default();
                    return match hub.held(name, &commit, &wanted).await? {
                        Some(folder) if !wanted.is_empty() => {
                            self.context.printer.note(format!("note: {error}; building from the cache"));
                            Ok(parts(folder, wanted, commit))
                        }
                        _ => Err(error.into()),
                    };
                }
                Err(error) => return Err(error.into()),
            };
            let files: Vec<HubFile> = listed.into_iter().filter(|file| takes(file.path.as_str())).collect();
            let jobs = self.flags.jobs.into();
            let (folder, fetched) = hub.fetch(name, Some(revision), &commit, &files, jobs, &observer).await?;
            Ok(parts(folder, fetched, commit))
        })
    }

    fn hub(&self) -> Result<Hub, Failure> {
        let settings = &self.context.settings.hub;
        let cache = settings
            .cache
            .clone()
            .ok_or_else(|| Failure::new("there is no folder for the hub's cache").hint("set HF_HOME or HOME"))?;
        let mut options = HubOptions::new(&settings.endpoint, cache);
        options.token = settings.token();
        options.system_proxy = true;
        Ok(Hub::new(options)?)
    }
}

fn drifted(path: &Path, drift: &str) -> Failure {
    Failure::wrong(format!("{}: {drift}", path.display()))
        .hint("--locked builds from what is pinned alone; `mlxctl create` without it writes the lock file")
}

/// The pinned files that the recipe takes.
fn as_fetched(pinned: &LockedRepository, takes: &dyn Fn(&str) -> bool) -> Result<Vec<Fetched>, Failure> {
    let files = pinned.files.iter().filter(|(path, _)| takes(path));
    files.map(|(path, file)| Ok(Fetched { path: path.parse()?, size: file.size, sha256: file.sha256 })).collect()
}

/// Files of the hub as the build and the lock file name them.
fn parts(folder: PathBuf, fetched: Vec<Fetched>, commit: String) -> (HubFolder, LockedRepository) {
    let files = fetched.iter().map(|file| file.path.to_string()).collect();
    let locked = fetched
        .into_iter()
        .map(|file| (file.path.to_string(), LockedFile { size: file.size, sha256: file.sha256 }))
        .collect();
    (HubFolder { folder, files, commit: commit.clone() }, LockedRepository { commit, files: locked })
}

fn read(path: &Path) -> Result<Option<Lock>, Failure> {
    let shown = path.display().to_string();
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::wrong(format!("{shown}: {error}"))),
        Ok(meta) if meta.len() > MAX_LOCK_BYTES => {
            return Err(Failure::wrong(format!("{shown}: it has {} bytes, too many for a lock file", meta.len())));
        }
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(|error| Failure::wrong(format!("{shown}: {error}")))?;
    Ok(Some(Lock::parse(&bytes, &shown)?))
}

fn write(path: &Path, lock: &Lock) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".lock-").tempfile_in(folder).map_err(failed)?;
    file.write_all(lock.to_text().as_bytes()).map_err(failed)?;
    // A lock file is committed with its recipe, and read by others.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(readable).map_err(failed)?;
    file.persist(path).map(drop).map_err(|error| failed(error.error))
}
