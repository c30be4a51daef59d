//! `mlxctl import`: a layout, a model's folder or single files come into the store.

use std::fs;
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlxctl_artifact::{Descriptor, LATEST, Reference, media_type};
use mlxctl_builder::{BuildOptions, build, pack_files};
use mlxctl_content::{CopyOptions, copy};
use mlxctl_layout::{Entry, Layout};
use mlxctl_store::Store;

use crate::context::{Context, block_on};
use crate::failure::Failure;
use crate::output::Listed;
use crate::packed;
use crate::progress::{Build, Transfers};

/// Take in an OCI image layout (folder or tar), a model's folder, or single files; print NAME:TAG@DIGEST.
///
/// Example: mlxctl import pebble.tar
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A layout, a folder with config.json and *.safetensors, or files.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    /// The name in the store; default: the layout's own, or the folder's or file's.
    #[arg(long, value_name = "NAME:TAG")]
    name: Option<Reference>,

    /// Of a layout with several artifacts, this one: its tag, its name or its digest.
    #[arg(long, value_name = "TAG")]
    entry: Option<String>,

    /// Print an array of {name, digest, size} as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    if let Some(name) = args.name.as_ref().filter(|name| name.digest().is_some()) {
        return Err(Failure::wrong(format!("{name}: the digest comes from the content, it cannot be chosen")));
    }
    for path in &args.paths {
        fs::metadata(path).map_err(|error| Failure::wrong(format!("{}: {error}", path.display())))?;
    }
    let store = context.store()?;
    let imported = match &args.paths[..] {
        [path] if is_layout(path) => layout(context, &store, path, args)?,
        _ if args.entry.is_some() => {
            return Err(Failure::wrong("--entry chooses from a layout, and this is none"));
        }
        [path] if path.is_dir() => vec![folder(context, &store, path, args)?],
        paths => vec![files(context, &store, paths, args)?],
    };
    let mut listed = Vec::new();
    for (name, root) in imported {
        // Of an index it is that of the list itself.
        let total = if media_type::is_index(&root.media_type) { None } else { Some(store.manifest(&root)?.1) };
        let size = total.map_or(root.size, |manifest| super::list::total(&manifest));
        listed.push(Listed { name: name.to_string(), digest: root.digest.to_string(), size });
    }
    if args.json {
        return context.printer.json(&listed);
    }
    listed.iter().try_for_each(|one| context.printer.result(format!("{}@{}", one.name, one.digest)))
}

/// A folder with `oci-layout`, or a tar.
fn is_layout(path: &Path) -> bool {
    if path.is_dir() {
        return path.join("oci-layout").exists();
    }
    let mut start = [0; 262];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
    let ending = path.extension().and_then(|ending| ending.to_str());
    matches!(ending, Some("tar" | "tgz"))
        || path.to_string_lossy().ends_with(".tar.gz")
        || read.is_ok() && &start[257..] == b"ustar"
}

fn layout(context: &Context, store: &Store, path: &Path, args: &Args) -> Result<Vec<(Reference, Descriptor)>, Failure> {
    let layout = Layout::open(path)?;
    let mut chosen: Vec<&Entry> = layout.entries().iter().collect();
    if let Some(wanted) = &args.entry {
        chosen.retain(|entry| {
            entry.reference.as_ref() == Some(wanted)
                || entry.name.as_ref().is_some_and(|name| name.to_string() == *wanted)
                || entry.manifest.digest.to_string() == *wanted
        });
    }
    let known = || layout.entries().iter().map(shown).collect::<Vec<_>>().join(", ");
    if chosen.is_empty() {
        return Err(Failure::wrong(format!("{} has no such entry; it has: {}", path.display(), known())));
    }
    if args.name.is_some() && chosen.len() > 1 {
        return Err(Failure::wrong(format!("{} holds several artifacts: {}", path.display(), known()))
            .hint("choose one with --entry, or leave --name out to take in all"));
    }
    let observer = Arc::new(Transfers::new(&context.printer));
    let mut imported = Vec::new();
    for entry in chosen {
        let target = store.repository("import")?;
        block_on(async { Ok(copy(&layout, &target, &entry.manifest, CopyOptions::default(), &*observer).await?) })?;
        let name = match &args.name {
            Some(name) => Some(name.clone()),
            None if media_type::is_index(&entry.manifest.media_type) => entry.name.clone(),
            None => entry.suggested_name(&store.manifest(&entry.manifest)?.1),
        };
        let name = name.ok_or_else(|| {
            Failure::wrong(format!("{} names {} nothing", path.display(), shown(entry))).hint("name it with --name")
        })?;
        let name = name.with_tag(name.tag_or_latest())?;
        store.tag(&name, &entry.manifest)?;
        packed::raw(context, store, &entry.manifest)?;
        imported.push((name, entry.manifest.clone()));
    }
    Ok(imported)
}

fn shown(entry: &Entry) -> String {
    let name = entry.name.as_ref().map(ToString::to_string).or_else(|| entry.reference.clone());
    name.unwrap_or_else(|| entry.manifest.digest.to_string())
}

/// A folder is built as a recipe that says nothing but where it lies.
fn folder(context: &Context, store: &Store, path: &Path, args: &Args) -> Result<(Reference, Descriptor), Failure> {
    let path = fs::canonicalize(path).map_err(|error| Failure::wrong(format!("{}: {error}", path.display())))?;
    let name = args.name.as_ref().map_or_else(|| name_of(&path), |name| Some(last(name).to_owned()));
    let name = name.ok_or_else(|| {
        Failure::wrong(format!("{} suggests no name", path.display())).hint("name the model with --name")
    })?;
    let docs = ["README.md", "LICENSE", "LICENSE.txt", "LICENSE.md"].map(str::to_owned);
    let docs: Vec<String> = docs.into_iter().filter(|name| path.join(name).is_file()).collect();
    let recipe = serde_json::json!({
        "apiVersion": mlxctl_modelspec::API_VERSION, "kind": mlxctl_modelspec::KIND, "name": name,
        "from": {"path": path.to_string_lossy()}, "docs": docs,
    });
    // JSON is YAML too.
    let spec = mlxctl_modelspec::parse(&recipe.to_string(), &path.display().to_string())?;
    let progress = Build::new(&context.printer);
    let options = BuildOptions { folder: &path, threads: NonZeroUsize::MIN, progress: &progress };
    let built = build(&spec, store, &options)?;
    progress.finish();
    kept(store, args, &name, built.manifest)
}

/// Files that are a whole model are built as a folder of them would be; others are packed as they are.
fn files(context: &Context, store: &Store, paths: &[PathBuf], args: &Args) -> Result<(Reference, Descriptor), Failure> {
    if let Some(folder) = paths.iter().find(|path| path.is_dir()) {
        return Err(Failure::wrong(format!("{} is a folder; name one folder, or files alone", folder.display())));
    }
    let first = &paths[0];
    let suggested = name_of(&first.with_extension(""));
    let name = args.name.as_ref().map_or(suggested, |name| Some(last(name).to_owned()));
    let name = name.ok_or_else(|| {
        Failure::wrong(format!("{} suggests no name", first.display())).hint("name the artifact with --name")
    })?;
    if paths.iter().any(|path| path.file_name().is_some_and(|name| name == "config.json")) {
        let io = |error: std::io::Error| Failure::new(format!("a folder of the files: {error}"));
        let gathered = tempfile::tempdir().map_err(io)?;
        for path in paths {
            let path = fs::canonicalize(path).map_err(io)?;
            let link = gathered.path().join(path.file_name().unwrap_or_default());
            std::os::unix::fs::symlink(&path, link).map_err(io)?;
        }
        let reference = Reference::local(&name, None)?;
        let args = Args {
            paths: Vec::new(),
            name: Some(args.name.clone().unwrap_or(reference)),
            entry: None,
            json: args.json,
        };
        return folder(context, store, gathered.path(), &args);
    }
    let progress = Build::new(&context.printer);
    let built = pack_files(&name, paths, store, &progress)?;
    progress.finish();
    kept(store, args, &name, built.manifest)
}

fn kept(store: &Store, args: &Args, name: &str, root: Descriptor) -> Result<(Reference, Descriptor), Failure> {
    let name = match &args.name {
        Some(name) => name.with_tag(name.tag_or_latest())?,
        None => Reference::local(name, Some(LATEST))?,
    };
    store.tag(&name, &root)?;
    Ok((name, root))
}

/// The last component of a repository.
fn last(name: &Reference) -> &str {
    name.repository().rsplit('/').next().unwrap_or(name.repository())
}

/// A name after a folder or file, in the letters that a repository may have. A snapshot in the hub's cache is named
/// after its repository.
fn name_of(path: &Path) -> Option<String> {
    let of = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let mut name = of(path)?;
    if let Some(hub) = path.parent().filter(|parent| parent.ends_with("snapshots")).and_then(Path::parent).and_then(of)
        && let Some(repository) = hub.strip_prefix("models--")
    {
        repository.rsplit("--").next().unwrap_or(repository).clone_into(&mut name);
    }
    let mut plain = String::new();
    let mut separator = None;
    for c in name.to_ascii_lowercase().chars() {
        if c.is_ascii_alphanumeric() {
            // A separator stands between letters alone, and the last of several counts.
            plain.extend(separator.take().filter(|_| !plain.is_empty()));
            plain.push(c);
        } else {
            separator = Some(if c == '.' { '.' } else { '-' });
        }
    }
    (!plain.is_empty()).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_suggest_names_that_a_repository_may_have() {
        for (path, name) in [
            ("/models/Qwen3-0.6B", Some("qwen3-0.6b")),
            ("/cache/models--org--My_Model/snapshots/0123abc", Some("my-model")),
            ("/a/..weird..name--", Some("weird.name")),
            ("/a/模型", None),
            ("/", None),
        ] {
            assert_eq!(name_of(Path::new(path)).as_deref(), name, "{path}");
            if let Some(name) = name {
                name.parse::<Reference>().unwrap();
            }
        }
    }
}
